"""Own windows as a vehicle of another speed would have made them, so that few passes teach more.

A pass is one vehicle at one speed on one line. A tracker that knows one or two passes takes their speed and their line
for laws of the place; played slower, standing still or backwards, and a little to the side, the same pass shows it that
the beam follows from where the vehicle is.

Source: speed perturbation, T. Ko et al., "Audio augmentation for speech recognition", Interspeech 2015. The range of
the speeds, with standing still and backwards, is ours.

N windows, T frames of a window, H horizons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from clients.data.recording import Recording
from clients.models.tracker import Windows
from configs.schema import Task


def can_be_perturbed(modalities: Sequence[str]) -> bool:
    """Whether frames of all these modalities look the same at any speed; those that show motion do not."""
    return not any(MODALITIES[name].shows_motion for name in modalities)


def draw_speeds(num_windows: int, share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N,) speeds relative to the recorded one: a ``share`` of them is uniform in [-1, 1), the others are 1."""
    perturbed = rng.random(num_windows) < share
    return np.where(perturbed, rng.uniform(-1.0, 1.0, num_windows), 1.0)


def play(
    starts: NDArray[np.int64], speeds: NDArray[np.float64], task: Task
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The rows of a recording that windows are made of at other speeds.

    The last frame of a window stays where it is. The frames before it and the slots after it lie as far apart as the
    speed says, and never outside the frames and slots of the window at its own speed: at the ends the vehicle waits.

    Args:
        starts: (N,) the first frame of each window.
        speeds: (N,) relative speeds in [-1, 1]; negative ones are backwards.
        task: the task, which gives T and H.

    Returns:
        (N, T) rows of the frames, between two rows where the number is not whole, and (N, H) rows of the labels.
    """
    first, last = starts[:, None], starts[:, None] + task.num_frames + task.num_future - 1
    steps = np.arange(1 - task.num_frames, task.num_future + 1)
    rows = np.clip(first + task.num_frames - 1 + speeds[:, None] * steps, first, last)
    return rows[:, : task.num_frames], np.rint(rows[:, task.num_frames - 1 :]).astype(np.int64)


def read_played(
    recording: Recording, rows: NDArray[np.float64], *, modalities: Sequence[str], rng: np.random.Generator
) -> Windows:
    """Read the frames of windows between the rows of a recording.

    Of a modality with a ``jitter`` the frames are interpolated, and those of a window are moved together by a normal
    offset of that deviation. Of other modalities the nearest frame is taken.

    Args:
        recording: the recording that holds the frames.
        rows: (N, T) the rows, whole or between two.
        modalities: the modalities to read; the recording must have all of them.
        rng: the only source of randomness.
    """
    distinct, nearest = np.unique(np.rint(rows).astype(np.int64), return_inverse=True)
    frames, own_rows = {}, {}
    for name in modalities:
        jitter = MODALITIES[name].jitter
        if jitter == 0:
            frames[name] = torch.from_numpy(np.array(recording.sensors[name][distinct]))
            continue
        frames[name] = torch.from_numpy(_moved(recording.sensors[name], rows, jitter, rng))
        own_rows[name] = torch.arange(rows.size).reshape(rows.shape)
    return Windows(frames, torch.from_numpy(nearest.reshape(rows.shape)), own_rows)


def _moved(
    stored: NDArray[np.generic], rows: NDArray[np.float64], jitter: float, rng: np.random.Generator
) -> NDArray[np.generic]:
    """(N * T, *frame_shape) frames between the stored ones, with one offset for each window."""
    before = np.floor(rows).astype(np.int64)
    shape = (*rows.shape, *stored.shape[1:])
    after_share = (rows - before).reshape(*rows.shape, *[1] * (stored.ndim - 1))
    low, high = (
        np.asarray(stored[at.ravel()], np.float64).reshape(shape) for at in (before, np.ceil(rows).astype(int))
    )
    offsets = jitter * rng.standard_normal((len(rows), 1, *stored.shape[1:]))
    moved = low * (1.0 - after_share) + high * after_share + offsets
    return moved.reshape(-1, *stored.shape[1:]).astype(stored.dtype)
