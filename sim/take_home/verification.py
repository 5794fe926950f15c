"""Whether an exported graph says what the torch model says, on windows of the common test set.

N windows, L frames of a window, H horizons, B beams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients.data.recording import Recording
from clients.models.decider import Decider
from clients.models.tracker import read_windows

# The largest difference of a logit, or of a probability, from torch's that an exported graph may have.
TOLERANCE = 1e-4
BATCH = 128

Arrays = dict[str, NDArray[Any]]


def torch_logits(decider: Decider, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, H, B) what torch says."""
    names, length = decider.modalities, decider.task.num_frames
    with torch.no_grad():
        found = [
            decider(read_windows(recording, some, modalities=names, num_frames=length)).numpy()
            for some in batches(starts)
        ]
    return np.concatenate(found)


def window_feeds(
    decider: Decider, recording: Recording, starts: NDArray[np.int64], *, wants: set[str]
) -> Iterator[Arrays]:
    """The inputs of a window graph, a batch at a time.

    Args:
        decider: the model.
        recording: the recording that holds the frames.
        starts: (N,) the first frame of each window.
        wants: the names of the inputs of the graph.
    """
    for some in batches(starts):
        rows = some[:, None] + np.arange(decider.task.num_frames)
        frames: Arrays = {name: np.asarray(recording.sensors[name][rows]) for name in decider.modalities}
        yield {**frames, **_present(decider, len(some), wants)}


def logits_of(session: Any, feeds: Iterator[Arrays]) -> NDArray[np.float32]:
    """(N, H, B) what a graph says."""
    found: NDArray[np.float32] = np.concatenate([session.run(["logits"], feed)[0] for feed in feeds])
    return found


def stream_feeds(session: Any, decider: Decider, recording: Recording, starts: NDArray[np.int64]) -> Iterator[Arrays]:
    """The inputs of a stream graph at the last slot of each window, a batch at a time; its states come back to it."""
    shapes = {one.name: one.shape for one in session.get_inputs()}
    outputs = [f"next_{name}" for name in decider.modalities]
    for some in batches(starts):
        state: Arrays = {
            f"state_{name}": np.zeros((len(some), *shapes[f"state_{name}"][1:]), np.float32)
            for name in decider.modalities
        }
        present = _present(decider, len(some), set(shapes))
        for slot in range(decider.task.num_frames):
            frames: Arrays = {name: np.asarray(recording.sensors[name][some + slot]) for name in decider.modalities}
            feed = {**frames, **state, **present}
            if slot < decider.task.num_frames - 1:
                state = dict(zip(state, session.run(outputs, feed), strict=True))
        yield feed


def largest_difference(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The largest difference between two sets of logits, which are NaN nowhere.

    Raises:
        ValueError: one of them is not finite.
    """
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("logits are not finite (NaN or infinite); the model cannot be exported")
    return float(np.abs(one - other).max(initial=0.0))


def check(differences: Mapping[str, float], name: str) -> None:
    """Refuse a graph that says something else than torch.

    Raises:
        ValueError: a difference is above `TOLERANCE`.
    """
    for what, difference in differences.items():
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{name}: its {what} graph differs from torch by {difference:.1e}, more than {TOLERANCE:g}; "
                "choose --format torch or safetensors, and report this"
            )


def batches(starts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Windows in batches that fit into memory."""
    for first in range(0, len(starts), BATCH):
        yield starts[first : first + BATCH]


def _present(decider: Decider, count: int, wants: set[str]) -> Arrays:
    return {"present": np.ones((count, len(decider.modalities)), np.bool_)} if "present" in wants else {}
