"""Windows at another speed are made of the frames and labels of the same window, and of nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.data.modalities import MODALITIES
from clients.data.recording import Recording, open_recording, write_recording
from clients.learning.speed import can_be_perturbed, draw_speeds, play, read_played
from clients.models.tracker import read_windows
from configs.schema import Task
from tests.clients.learning.test_learner import STEPS, learner

TASK = Task(num_frames=4, num_future=2, num_beams=4)
STARTS = np.array([0, 10], np.int64)


@pytest.mark.parametrize(
    ("speed", "rows", "slots"),
    [
        (1.0, [0, 1, 2, 3], [3, 4, 5]),
        (0.5, [1.5, 2, 2.5, 3], [3, 4, 4]),
        (0.0, [3, 3, 3, 3], [3, 3, 3]),
        # There are only two slots after the window, so a vehicle that came from there has waited at the second.
        (-1.0, [5, 5, 4, 3], [3, 2, 1]),
        (-0.5, [4.5, 4, 3.5, 3], [3, 2, 2]),
    ],
)
def test_a_window_is_played_around_its_last_frame(speed: float, rows: list[float], slots: list[int]) -> None:
    played, labels = play(STARTS, np.full(2, speed), TASK)
    np.testing.assert_allclose(played, np.add.outer(STARTS, rows))
    np.testing.assert_array_equal(labels, np.add.outer(STARTS, slots))


def test_no_speed_leaves_the_window() -> None:
    played, labels = play(np.zeros(1000, np.int64), np.linspace(-1, 1, 1000), TASK)
    for found in (played, labels):
        assert found.min() >= 0 and found.max() <= TASK.num_frames + TASK.num_future - 1


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_is_that_of_the_perturbed_windows(share: float) -> None:
    speeds = draw_speeds(4000, share, np.random.default_rng(0))
    assert np.mean(speeds != 1.0) == pytest.approx(share, abs=0.03)
    assert speeds.min() >= -1.0 and speeds.max() <= 1.0


@pytest.fixture
def drive(tmp_path: Path) -> Recording:
    """One pass of twenty frames; camera frames count up, and the position is ten metres further in each."""
    camera = np.zeros((20, 64, 64, 3), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None]
    position = np.arange(20)[:, None] * np.array([10.0, 0.0])
    write_recording(
        tmp_path / "drive",
        pass_ids=np.zeros(20, np.int32),
        sensors={"camera": camera, "gps": position},
        power=np.eye(4, dtype=np.float32)[np.arange(20) % 4],
        splits={"train": [0]},
    )
    return open_recording(tmp_path / "drive")


def test_frames_are_the_nearest_and_positions_lie_between_with_one_offset(drive: Recording) -> None:
    rows, _ = play(STARTS, np.array([0.5, -1.0]), TASK)
    windows = read_played(drive, rows, modalities=["camera", "gps"], rng=np.random.default_rng(0))
    seen = windows.frames["camera"][windows.rows][:, :, 0, 0, 0]
    np.testing.assert_array_equal(seen, np.rint(rows))
    found = windows.frames["gps"][windows.own_rows["gps"]].numpy()
    offset = found - rows[..., None] * np.array([10.0, 0.0])
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :1], offset.shape), atol=1e-9)
    assert 0 < np.abs(offset).max() < 5 * MODALITIES["gps"].jitter
    assert not np.allclose(offset[0], offset[1])


def test_at_its_own_speed_and_without_offset_a_window_is_what_was_recorded(
    drive: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODALITIES, "gps", replace(MODALITIES["gps"], jitter=1e-300))
    rows, slots = play(STARTS, np.ones(2), TASK)
    played = read_played(drive, rows, modalities=["camera", "gps"], rng=np.random.default_rng(0))
    plain = read_windows(drive, STARTS, modalities=["camera", "gps"], num_frames=TASK.num_frames)
    for name in ("camera", "gps"):
        found = played.frames[name][played.own_rows.get(name, played.rows)]
        torch.testing.assert_close(found, plain.frames[name][plain.rows], rtol=0, atol=1e-200)
    np.testing.assert_array_equal(drive.power_at(slots), drive.powers(STARTS, TASK.num_frames, TASK.num_future))


@pytest.mark.parametrize("name", MODALITIES)
def test_frames_that_show_motion_are_not_played_at_another_speed(name: str) -> None:
    assert can_be_perturbed(["gps", name]) == (name not in {"doppler", "motion", "maps", "past_power"})


def test_a_learner_that_perturbs_learns_the_same_each_time_and_otherwise_than_one_that_does_not(
    street: Recording, public: Recording
) -> None:
    losses = []
    for share in (0.5, 0.5, 0.0):
        one = learner(street, public, perturbed_share=share)
        losses.append([one.learn(None, num_steps=STEPS, total_steps=2 * STEPS) for _ in range(2)])
    assert losses[0] == losses[1] != losses[2]


def test_a_student_of_one_pass_knows_a_vehicle_that_comes_the_other_way(tmp_path: Path, public: Recording) -> None:
    """The beam follows from the position alone; after one pass eastwards it is asked on one that goes westwards."""
    there = np.linspace(-20, 20, 60)
    position = np.concatenate([there, there[::-1]])[:, None] * np.array([1.0, 0.0]) + np.array([0.0, 12.0])
    beams = np.clip((position[:, 0] + 20) // 10, 0, 3).astype(int)
    write_recording(
        tmp_path / "own",
        pass_ids=np.repeat([0, 1], 60).astype(np.int32),
        sensors={"gps": position},
        power=np.eye(4, dtype=np.float32)[beams] + 0.01,
        splits={"train": [0], "test": [1]},
    )
    own = open_recording(tmp_path / "own")
    back = own.window_starts(4, 2, "test")
    scores = {}
    for share in (0.0, 0.5):
        one = learner(own, public, perturbed_share=share)
        for _ in range(10):
            one.learn(None, num_steps=20, total_steps=200)
        scores[share] = one.evaluate(own, back).mean("top1")
    assert scores[0.5] > scores[0.0]
