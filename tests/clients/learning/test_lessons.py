"""Which targets a client of several sites learns from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.data.material import Material, material_of
from clients.data.recording import Recording
from clients.learning.lessons import JointLesson, PublicLesson, client_lesson
from configs.schema import Task
from strategies.labels import SoftLabels

TASK = Task(num_frames=4, num_future=2)
# Passes 0 and 1 are of the street here, pass 2 is of the one there; a pass of 10 frames has 4 windows.
PUBLIC = Recording(
    folder=Path(),
    pass_ids=np.repeat(np.arange(3, dtype=np.int32), 10),
    sensors={"gps": np.zeros((30, 2), np.float32)},
    power=None,
    splits={},
    sites={"here": (0, 1), "there": (2,)},
)


def targets(ids: list[int]) -> SoftLabels:
    return SoftLabels(np.array(ids), np.full((len(ids), 3, 64), 1 / 64, np.float32), 2.0)


def material(*, site: str) -> Material:
    own = Recording(
        folder=Path(),
        pass_ids=np.zeros(10, np.int32),
        sensors={"gps": np.zeros((10, 2), np.float32)},
        power=np.ones((10, 64), np.float32),
        splits={"train": (0,)},
        sites={site: (0,)} if site else {},
    )
    return material_of(own, PUBLIC, TASK)


def test_a_share_of_the_batches_is_drawn_from_the_targets_of_the_own_site() -> None:
    lesson = client_lesson(targets([1, 3, 5, 8, 10]), material(site="here"), 0.5)
    assert isinstance(lesson, JointLesson)
    everything, own = lesson.first, lesson.second
    assert isinstance(everything, PublicLesson)
    assert isinstance(own, PublicLesson)
    assert lesson.share == 0.5
    assert everything.rows.tolist() == [0, 1, 2, 3, 4]
    assert own.rows.tolist() == [0, 1, 2]  # samples 0 to 7 are windows of the passes here


def test_what_a_client_does_not_hold_is_no_target_of_its_own_site_either() -> None:
    holder = replace(material(site="here"), held=np.array([4, 5, 6, 7, 8, 9, 10, 11]))
    lesson = client_lesson(targets([1, 3, 5, 8, 10]), holder, 0.5)
    assert isinstance(lesson, JointLesson)
    assert isinstance(lesson.second, PublicLesson)
    assert lesson.second.rows.tolist() == [2]


@pytest.mark.parametrize(
    ("site", "ids", "share"),
    [("here", [1, 5, 8], 0.0), ("", [1, 5, 8], 0.5), ("there", [1, 5], 0.5)],
    ids=["no share", "no site", "no target there"],
)
def test_otherwise_a_client_learns_from_all_targets_alike(site: str, ids: list[int], share: float) -> None:
    lesson = client_lesson(targets(ids), material(site=site), share)
    assert isinstance(lesson, PublicLesson)
    assert lesson.rows.tolist() == list(range(len(ids)))


def test_without_targets_there_is_no_lesson() -> None:
    assert client_lesson(None, material(site="here"), 0.5) is None
