"""Baselines that need no training say what they should on passes of which everything is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients.data.recording import Recording, open_recording, write_recording
from clients.learning.baselines import BASELINES, SWEPT, beam_history, last_beam, last_beams, nearest_position
from clients.learning.metrics import BeamMetrics
from configs.schema import Task

TASK = Task(num_frames=4, num_future=2, num_beams=8)


def drive(folder: Path, beams: list[list[int]], offset_m: float = 0.0) -> Recording:
    """Passes whose best beams are given; the vehicle is ten metres times the beam to the east."""
    flat = np.concatenate(beams)
    write_recording(
        folder,
        pass_ids=np.repeat(np.arange(len(beams)), [len(one) for one in beams]).astype(np.int32),
        sensors={"gps": np.stack([10.0 * flat + offset_m, np.full(len(flat), 5.0)], axis=1)},
        power=np.eye(8, dtype=np.float32)[flat] + 0.01,
        splits={"train": range(len(beams))},
    )
    return open_recording(folder)


@pytest.fixture
def rising(tmp_path: Path) -> Recording:
    """Two passes in which the beam is the next one in each slot."""
    return drive(tmp_path / "rising", [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]])


def starts_of(recording: Recording) -> np.ndarray:
    return recording.window_starts(TASK.num_frames, TASK.num_future)


def test_the_last_known_beam_is_that_of_the_slot_before_the_decision(rising: Recording) -> None:
    starts = starts_of(rising)
    now = rising.beams(starts, TASK.num_frames, TASK.num_future)[:, 0]
    np.testing.assert_array_equal(last_beams(rising, starts, TASK), now - 1)


def test_the_last_beam_is_the_first_guess_and_its_neighbours_are_the_next(rising: Recording) -> None:
    starts = starts_of(rising)
    scores = last_beam(rising, starts, TASK)
    assert scores.shape == (len(starts), TASK.num_horizons, TASK.num_beams)
    assert (scores.argmax(axis=-1) == last_beams(rising, starts, TASK)[:, None]).all()
    metrics = BeamMetrics.of(scores, rising.powers(starts, TASK.num_frames, TASK.num_future))
    assert metrics.top1 == (0.0, 0.0, 0.0)
    assert metrics.top3[0] == 1.0  # the beam is one on, and further on two and three


def test_the_history_of_beams_knows_where_the_beam_goes(rising: Recording) -> None:
    starts = starts_of(rising)
    scores = beam_history(rising, starts, rising, starts, TASK)
    np.testing.assert_allclose(np.exp(scores).sum(axis=-1), 1.0)
    metrics = BeamMetrics.of(scores, rising.powers(starts, TASK.num_frames, TASK.num_future))
    assert metrics.top1 == (1.0, 1.0, 1.0)


def test_a_beam_that_was_never_seen_is_followed_by_itself_and_its_neighbours(tmp_path: Path, rising: Recording) -> None:
    still = drive(tmp_path / "still", [[7] * 8])
    starts = starts_of(still)
    scores = beam_history(rising, starts_of(rising)[:1], still, starts, TASK)
    assert (scores.argmax(axis=-1) == 7).all()
    assert (np.diff(scores, axis=-1) > 0).all()


def test_the_nearest_position_gives_the_power_that_was_measured_there(tmp_path: Path, rising: Recording) -> None:
    beside = drive(tmp_path / "beside", [[0, 1, 2, 3, 4, 5, 6, 7]], offset_m=3.0)
    starts = starts_of(beside)
    scores = nearest_position(rising, starts_of(rising), beside, starts, TASK)
    np.testing.assert_array_equal(scores, beside.powers(starts, TASK.num_frames, TASK.num_future))


def test_every_baseline_says_what_it_is_and_what_it_sweeps() -> None:
    assert BASELINES.keys() == SWEPT.keys()
