"""What a learner learns from: its own labelled windows and the public set. N windows or public samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import Recording, open_recording
from configs.schema import Task


@dataclass(frozen=True)
class Material:
    """What is learned from.

    Attributes:
        recording: labelled frames of its own; none for an owner without labels.
        train: (N,) starts of its training windows.
        validation: (N,) starts of its validation windows, for stopping; may be empty.
        public: the public recording.
        public_starts: (N,) starts of the public samples; a sample's id is its position here.
    """

    recording: Recording
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    public: Recording
    public_starts: NDArray[np.int64]

    @property
    def is_labelled(self) -> bool:
        """Whether there is a window of its own to train on."""
        return len(self.train) > 0


def pool(recordings: Sequence[Recording], public: Recording, task: Task) -> Material:
    """What one would learn from that had the labelled recordings of several owners.

    Args:
        recordings: with the same sensors, power and splits; the first names the folder.
        public: the public recording.
        task: length of a window.
    """
    first = recordings[0]
    pass_ids, offset = [], 0
    splits: dict[str, list[int]] = {}
    for recording in recordings:
        pass_ids.append(recording.pass_ids + offset)
        for name, ids in recording.splits.items():
            splits.setdefault(name, []).extend(i + offset for i in ids)
        offset += int(recording.pass_ids.max(initial=-1)) + 1
    powers = [recording.power for recording in recordings if recording.power is not None]
    pooled = Recording(
        folder=first.folder,
        pass_ids=np.concatenate(pass_ids).astype(np.int32),
        sensors={name: np.concatenate([one.sensors[name] for one in recordings]) for name in first.sensors},
        power=np.concatenate(powers),
        splits={name: tuple(ids) for name, ids in splits.items()},
    )
    return material_of(pooled, public, task)


def material_of(recording: Recording | None, public: Recording, task: Task) -> Material:
    """What there is to learn from; without labels that is the public set alone.

    Args:
        recording: of the owner, with a ``train`` and perhaps a ``validation`` split; None where it has none.
        public: the public recording.
        task: length of a window.
    """
    if recording is None or recording.power is None:
        recording = _nothing_like(public, task.num_beams)
    lengths = (task.num_frames, task.num_future)
    return Material(
        recording=recording,
        train=recording.window_starts(*lengths, "train"),
        validation=recording.window_starts(*lengths, "validation"),
        public=public,
        public_starts=public.window_starts(*lengths),
    )


def open_material(own: Path, public: Path, task: Task) -> Material:
    """Open an owner's recording and the public one.

    Args:
        own: folder of the owner's labelled recording, with a ``train`` and perhaps a ``validation`` split.
        public: folder of the public recording.
        task: length of a window.

    Raises:
        ValueError: a recording is missing or broken, or the owner has no labelled window to train on.
    """
    material = material_of(open_recording(own), open_recording(public), task)
    if not material.is_labelled:
        raise ValueError(f"{own}: no labelled window to train on")
    return material


def _nothing_like(public: Recording, num_beams: int) -> Recording:
    """A labelled recording of no frame, so that whoever has no labels needs no rules of its own."""
    return Recording(
        folder=public.folder,
        pass_ids=np.empty(0, np.int32),
        sensors={name: frames[:0] for name, frames in public.sensors.items()},
        power=np.empty((0, num_beams), np.float32),
        splits={},
    )
