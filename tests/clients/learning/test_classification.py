"""Tasks: beam tracking as the one that ships, and classes of a user's own in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.data.material import Material
from clients.data.recording import Recording
from clients.learning.classification import Classification, task_of
from clients.learning.learner import Learner, Losses
from clients.learning.task import BEAM_TRACKING, BEAM_WORDING, Metric, Wording
from clients.models.tracker import BeamTracker
from configs.loading import build_experiment, to_values
from configs.schema import Model, Task, Training
from strategies.losses import response_kd
from tests.conftest import tiny_values


class Halves(Classification):
    """Which half of four stored classes a row is in."""

    num_classes = 2
    metrics: ClassVar[Mapping[str, Metric]] = {
        "hits": Metric("Hits"),
        "sure": Metric("Sureness", unit="", scale=1.0, decimals=2),
    }

    def read(self, stored: NDArray[Any]) -> NDArray[np.integer]:
        return super().read(stored) // 2

    def scores(self, probs: NDArray[np.float32], labels: NDArray[np.int64]) -> Mapping[str, float]:
        return {"sure": float(probs.max(axis=1).mean()), "hits": float((probs.argmax(axis=1) == labels).mean())}


def recording(**labels: Any) -> Recording:
    """Six rows, each a pass of its own, whose classes are 0, 1, 2, 3, 0, 3."""
    rows = np.arange(6, dtype=np.int32)
    places = np.stack([np.array([-9.0, -3.0, 3.0, 9.0, -8.0, 8.0]), np.ones(6)], axis=1)
    splits = {"train": tuple(range(6)), "validation": ()}
    return Recording(Path("here"), rows, {"gps": places}, None, splits, every_window=True, **labels)


CLASSES = recording(labels=np.array([0, 1, 2, 3, 0, 3], np.int32), num_classes=4)
POWER = replace(recording(), power=np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 3]])
SECTION = Task(num_frames=1, num_future=0, num_classes=2)


@pytest.mark.parametrize("labelled", [CLASSES, POWER])
def test_labels_are_read_from_classes_or_from_the_strongest_beam(labelled: Recording) -> None:
    assert Halves().classes_of(labelled, np.array([1, 2, 5]), SECTION).tolist() == [[0], [1], [1]]
    assert Classification().classes_of(labelled, np.array([1, 2, 5]), SECTION).tolist() == [[1], [2], [3]]


def test_a_window_has_the_class_of_its_last_row() -> None:
    section = Task(num_frames=3, num_future=0, num_classes=4)
    assert Classification().classes_of(CLASSES, np.array([0, 3]), section).tolist() == [[2], [3]]


def test_scores_are_of_calibrated_probabilities_and_stand_in_the_order_of_the_metrics() -> None:
    task, logits = Halves(), torch.log(torch.tensor([[[0.64, 0.36]], [[0.1, 0.9]]]))
    decisions = task.decisions(logits, 2.0)  # the square roots, scaled to one: 0.8 / 1.4 and 0.949 / 1.265
    found = task.evaluate(decisions, np.array([[0], [0]]))
    assert found.to_dict() == {"hits": [0.5], "sure": [pytest.approx((0.8 / 1.4 + 0.75) / 2)]}
    assert list(found.to_dict()) == ["hits", "sure"] and task.wording.main == "hits"
    assert found.mean("hits") == 0.5


def test_a_learner_of_a_task_learns_its_classes_by_its_loss() -> None:
    torch.manual_seed(0)
    material = Material(CLASSES, np.arange(6), np.arange(6), CLASSES, np.arange(6))
    seen = []

    class Told(Halves):
        def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            seen.append((tuple(logits.shape[1:]), labels.dtype))
            return super().loss(logits, labels)

    task = Told()
    learner = Learner(
        BeamTracker(("gps",), Model(features=8, hidden=8), SECTION),
        training=Training(learning_rate=0.02),
        losses=Losses(task.own_loss, response_kd),
        material=material,
        seed=0,
        name="one",
        task=task,
    )
    learner.learn(None, num_steps=60, total_steps=60)
    assert set(seen) == {((2,), torch.int64)}
    assert learner.evaluate(CLASSES, np.arange(6)).to_dict()["hits"] == [1.0]
    assert learner.validation is not None and learner.validation > 0.8


def test_wording_is_kept_as_plain_values() -> None:
    for wording in (BEAM_WORDING, Halves().wording):
        assert Wording.from_dict(wording.to_dict()) == wording
    assert BEAM_TRACKING.wording.is_of_beams and not Halves().wording.is_of_beams
    assert list(BEAM_WORDING.metrics) == ["top1", "top3", "top5", "dba", "dba_k3", "power_loss_db"]


def test_the_section_of_beam_tracking_reads_and_writes_as_it_always_did() -> None:
    experiment = build_experiment(tiny_values(), origin="test")
    assert to_values(experiment)["task"] == {"num_frames": 8, "num_future": 3, "num_beams": 64}
    assert task_of(experiment.task, ()) is BEAM_TRACKING


def test_the_section_of_another_task_has_one_row_and_now_alone() -> None:
    task = Task(name="my_task:Digits", num_classes=10)
    assert (task.num_frames, task.num_future, task.num_horizons) == (1, 0, 1)
    assert task.model_dump(mode="json") == {
        **{"name": "my_task:Digits", "options": {}},
        **{"num_frames": 1, "num_future": 0, "num_classes": 10},
    }
    assert Task.model_validate_json(task.model_dump_json()) == task
    told = Task(name="my_task:Digits", num_classes=10, options={"weights": [1.0, 2.0]})
    assert len({task, told, Task(), Task(num_frames=8)}) == 3  # learners of one task may be grouped by it


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ({"name": "digits"}, 'task.name: must be beams, or "module:Class"'),
        ({"name": "my_task:Digits", "num_future": 1}, "task.num_future: my_task:Digits decides for now"),
        ({"options": {"smoothing": 1}}, "task.options: these are of a task of your own"),
        ({"name": "my_task:Digits"}, "task.name: my_task:Digits reads labels from a folder, and this is a street"),
    ],
)
def test_a_section_that_makes_no_sense_is_one_line(task: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^test: {problem}"):
        build_experiment({**tiny_values(), "task": task}, origin="test")
