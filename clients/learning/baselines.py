"""What needs no training: the last beam, the history of beams, and the nearest known position.

Each gives scores (N, H, B) that increase with the probability of a beam, for windows of L frames. The last frame of a
window is the slot of the first horizon, so the last beam that is known before a decision is that of the slot before.

N windows, H horizons, B beams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import Recording
from configs.schema import Task

BASELINES: Mapping[str, str] = {
    "last_beam": "keep the beam that was best in the slot before, then its neighbours",
    "beam_history": "the beams that followed the last one in own passes (Markov chain)",
    "nearest_position": "the power at the nearest own position",
}
SWEPT: Mapping[str, str] = {
    "last_beam": "a full sweep in the slot before",
    "beam_history": "a full sweep in the slot before",
    "nearest_position": "no sweep",
}
"""What each baseline has to measure for a decision; what a student does, its modality says (`Modality.measures`)."""
# The number of transitions that the prior of a Markov chain counts for, and the beams in which it falls by a factor e.
PRIOR_COUNT, PRIOR_BEAMS = 1.0, 2.0
# The number of pairs of positions whose distance is computed at once, which bounds the memory: 48 MB.
PAIRS_AT_ONCE = 2_000_000


def baseline_scores(
    own: Recording, train: NDArray[np.int64], recording: Recording, starts: NDArray[np.int64], task: Task
) -> dict[str, NDArray[np.floating]]:
    """The scores of every baseline that can be computed: some need own labels, and one needs positions.

    Args:
        own: the recording with the own labelled passes.
        train: (M,) the own labelled windows; may be empty.
        recording: the recording to predict, with power.
        starts: (N,) the windows to predict.
        task: the task.

    Returns:
        Name of `BASELINES` -> scores (N, H, B).
    """
    # A row that is a sample of its own has no slot before it.
    has_past = task.num_frames > 1 or not recording.every_window
    found: dict[str, NDArray[np.floating]] = {"last_beam": last_beam(recording, starts, task)} if has_past else {}
    if len(train):
        if has_past:
            found["beam_history"] = beam_history(own, train, recording, starts, task)
        if all("gps" in one.sensors for one in (own, recording)):
            found["nearest_position"] = nearest_position(own, train, recording, starts, task)
    return found


def last_beams(recording: Recording, starts: NDArray[np.int64], task: Task) -> NDArray[np.int64]:
    """(N,) the best beam in the slot before the last frame of each window; with one frame, in that of the frame."""
    slots = starts + max(task.num_frames - 2, 0)
    found: NDArray[np.int64] = recording.power_at(slots).argmax(axis=-1).astype(np.int64)
    return found


def last_beam(recording: Recording, starts: NDArray[np.int64], task: Task) -> NDArray[np.float64]:
    """Scores that fall with the distance from the last beam, at every horizon alike."""
    distance = np.abs(np.arange(task.num_beams) - last_beams(recording, starts, task)[:, None])
    return np.repeat(-distance[:, None].astype(np.float64), task.num_horizons, axis=1)


def beam_history(
    own: Recording, train: NDArray[np.int64], recording: Recording, starts: NDArray[np.int64], task: Task
) -> NDArray[np.float64]:
    """Logarithms of the probabilities of a Markov chain from the last beam to the beam of each horizon.

    The chain of a horizon has the transitions that were counted in own windows, and a prior of `PRIOR_COUNT`
    transitions that prefers near beams.

    Args:
        own: the recording with the own labelled passes.
        train: (M,) the own windows.
        recording: the recording to predict; its power in the slot before is used.
        starts: (N,) the windows to predict.
        task: the task.
    """
    beams = np.arange(task.num_beams)
    near = np.exp(-np.abs(beams - beams[:, None]) / PRIOR_BEAMS)
    counts = np.repeat(PRIOR_COUNT * (near / near.sum(axis=1, keepdims=True))[None], task.num_horizons, axis=0)
    before = last_beams(own, train, task)
    after = own.beams(train, task.num_frames, task.num_future)
    for horizon in range(task.num_horizons):
        np.add.at(counts[horizon], (before, after[:, horizon]), 1.0)
    probs = counts / counts.sum(axis=-1, keepdims=True)
    found: NDArray[np.float64] = np.log(probs[:, last_beams(recording, starts, task)]).transpose(1, 0, 2)
    return found


def nearest_position(
    own: Recording, train: NDArray[np.int64], recording: Recording, starts: NDArray[np.int64], task: Task
) -> NDArray[np.float32]:
    """The power that was measured in the own window whose last position is nearest to the last one of each window.

    The arguments are those of :func:`beam_history`; both recordings have positions (``gps``).
    """
    known, asked = (
        np.asarray(one.sensors["gps"][which + task.num_frames - 1], np.float64)
        for one, which in ((own, train), (recording, starts))
    )
    nearest = [
        ((some[:, None] - known[None]) ** 2).sum(axis=-1).argmin(axis=1)
        for some in np.array_split(asked, math.ceil(len(asked) * len(known) / PAIRS_AT_ONCE) or 1)
    ]
    return own.powers(train[np.concatenate(nearest)], task.num_frames, task.num_future)
