"""What a learner learns from: its own labelled windows and the public set. N windows or public samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import Recording, open_recording
from configs.schema import Task


@dataclass(frozen=True)
class Material:
    """What a learner learns from.

    Attributes:
        recording: the owner's labelled frames; there are no frames if the owner has no labels.
        train: (N,) starts of the owner's training windows.
        validation: (N,) starts of the owner's validation windows, which decide when to stop; may be empty.
        public: the public recording.
        public_starts: (N,) starts of the public samples; a sample's id is its position here.
        held: (M,) ids of the public samples that the owner holds, ascending; None means all.
    """

    recording: Recording
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    public: Recording
    public_starts: NDArray[np.int64]
    held: NDArray[np.int64] | None = None

    @property
    def held_starts(self) -> NDArray[np.int64]:
        """(M,) starts of the public samples that the owner holds."""
        return self.public_starts if self.held is None else self.public_starts[self.held]

    @property
    def is_labelled(self) -> bool:
        """Whether the owner has a labelled window to train on."""
        return len(self.train) > 0


def pool(recordings: Sequence[Recording], public: Recording, task: Task) -> Material:
    """The material of one owner that has the labelled recordings of several.

    Args:
        recordings: the recordings, all with the same sensors and with labels; the first one names the folder.
        public: the public recording.
        task: the task, which gives the length of a window.
    """
    first = recordings[0]
    pass_ids, offset = [], 0
    splits: dict[str, list[int]] = {}
    for recording in recordings:
        pass_ids.append(recording.pass_ids + offset)
        for name, ids in recording.splits.items():
            splits.setdefault(name, []).extend(i + offset for i in ids)
        offset += int(recording.pass_ids.max(initial=-1)) + 1
    pooled = Recording(
        folder=first.folder,
        pass_ids=np.concatenate(pass_ids).astype(np.int32),
        sensors={name: np.concatenate([one.sensors[name] for one in recordings]) for name in first.sensors},
        power=None
        if first.power is None
        else np.concatenate([one.power for one in recordings if one.power is not None]),
        splits={name: tuple(ids) for name, ids in splits.items()},
        every_window=first.every_window,
        labels=None
        if first.labels is None
        else np.concatenate([one.labels for one in recordings if one.labels is not None]),
        num_classes=first.num_classes,
    )
    return material_of(pooled, public, task)


def material_of(recording: Recording | None, public: Recording, task: Task) -> Material:
    """The material of an owner; without labels it is the public set alone.

    Args:
        recording: the owner's recording, with a ``train`` and perhaps a ``validation`` split; None if it has none.
        public: the public recording.
        task: the task, which gives the length of a window.
    """
    if recording is None or not recording.is_labelled:
        recording = _nothing_like(public, task)
    lengths = (task.num_frames, task.num_future)
    return Material(
        recording=recording,
        train=recording.window_starts(*lengths, "train"),
        validation=recording.window_starts(*lengths, "validation"),
        public=public,
        public_starts=public.window_starts(*lengths),
    )


def holding(material: Material, share: float, rng: np.random.Generator) -> Material:
    """The material of an owner that holds some passes of the public set only.

    Args:
        material: the material with the whole public set.
        share: the share of its passes, in (0, 1]; at least one is held.
        rng: the only source of randomness.
    """
    passes = material.public.pass_ids[material.public_starts]
    there = np.unique(passes)
    held = rng.choice(there, min(len(there), max(1, round(share * len(there)))), replace=False)
    return replace(material, held=np.flatnonzero(np.isin(passes, held)))


def open_material(own: Path, public: Path, task: Task) -> Material:
    """Open an owner's recording and the public recording.

    Args:
        own: the folder of the owner's labelled recording, with a ``train`` and perhaps a ``validation`` split.
        public: the folder of the public recording.
        task: the task, which gives the length of a window.

    Raises:
        ValueError: a recording is missing or broken, or the owner has no labelled window to train on.
    """
    material = material_of(open_recording(own), open_recording(public), task)
    if not material.is_labelled:
        raise ValueError(f"{own}: there is no labelled window to train on; record longer passes, or add labels")
    return material


def _nothing_like(public: Recording, task: Task) -> Recording:
    """A labelled recording without frames, so that owners without labels need no special rules."""
    return Recording(
        folder=public.folder,
        pass_ids=np.empty(0, np.int32),
        sensors={name: frames[:0] for name, frames in public.sensors.items()},
        power=np.empty((0, task.num_classes), np.float32) if task.is_beam_tracking else None,
        splits={},
        labels=None if task.is_beam_tracking else np.empty(0, np.int32),
        num_classes=None if task.is_beam_tracking else task.num_classes,
    )
