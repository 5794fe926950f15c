"""Students and teachers by name: a user's own class, or a tracker of the study.

A class of a user's own is a `torch.nn.Module` with two methods, and a third one if it likes:

    def __init__(self, spec, **options)  spec says what it gets and what it owes (`ModelSpec`)
    def features(self, frames)           modality -> (N, T, *shape) to features (N, D), D at least 1
    def classify(self, features)         features (N, D) to logits (N, H, B), or (N, H * B)
    def fit_scale(self, frames)          optional: modality -> (U, *shape) frames of the public set, before training

Frames are float32 in the unit of `clients.data.modalities`, unscaled; masks of ``motion`` are unpacked to pixels of 0
and 1. The state is what ``state_dict`` holds: a scale that is measured belongs into a buffer. Weights are drawn by
torch, whose seed is set, so that equal experiments have equal weights. Parameters without ``requires_grad`` stay
frozen, such as those of a foundation model that the constructor reads from a file. Of a teacher, the frames of a
modality that is hidden from a window in training are zeros.

U frames, N windows, T frames of a window, H horizons, B beams, D features.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clients.data.modalities import MODALITIES
from clients.data.motion import PIXELS
from clients.data.recording import Recording
from clients.models.encoders import unpack_masks
from clients.models.registry import MODELS
from clients.models.tracker import SCALE_WINDOWS, BeamTracker, Tracker, Windows, read_windows
from configs.models import Model
from configs.plugins import build_plugin, check_options, find_class
from configs.schema import Task


@dataclass(frozen=True)
class ModelSpec:
    """What a model of a user's own gets and owes.

    Attributes:
        shapes: modality -> the shape of one frame; a student has one modality.
        num_frames: T, the frames of a window.
        num_horizons: H, the slots that it predicts: the current one and the next ones.
        num_classes: B; the same as ``num_beams``, in tasks without beams.
    """

    shapes: Mapping[str, tuple[int, ...]]
    num_frames: int
    num_horizons: int
    num_classes: int

    @property
    def num_beams(self) -> int:
        """The number of classes, which are beams in beam tracking."""
        return self.num_classes

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a frame of the first modality, which is the only one of a student."""
        return next(iter(self.shapes.values()))


class OwnTracker(Tracker):
    """A tracker around a model of a user's own.

    Args:
        model: the model.
        modalities: the modalities that it senses.
        task: the task, with frames, horizons and beams.
    """

    def __init__(self, model: nn.Module, modalities: Sequence[str], task: Task) -> None:
        super().__init__()
        self.model = model
        self.modalities = tuple(modalities)
        self.task = task

    def fit_scale(self, recording: Recording, starts: NDArray[np.int64]) -> None:
        """Give the model some frames to measure a scale on, if it has a method for that."""
        fit: Callable[[Mapping[str, Tensor]], object] | None = getattr(self.model, "fit_scale", None)
        if fit is None:
            return
        some = starts[:: math.ceil(len(starts) / SCALE_WINDOWS)]
        windows = read_windows(recording, some, modalities=self.modalities, num_frames=self.task.num_frames)
        with torch.no_grad():
            fit({name: plain_frames(name, frames) for name, frames in windows.frames.items()})

    def features(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, D) features; the arguments are those of `BeamTracker.forward`."""
        frames = {}
        for index, name in enumerate(self.modalities):
            rows = windows.own_rows.get(name, windows.rows)
            seen = plain_frames(name, windows.frames[name])[rows]
            if present is not None:
                seen = seen * present[:, index].view(-1, *[1] * (seen.ndim - 1))
            frames[name] = seen
        found: Tensor = self.model.features(frames)  # type: ignore[operator]
        return found

    def decide(self, features: Tensor) -> Tensor:
        """(N, H, B) logits from features (N, D)."""
        logits: Tensor = self.model.classify(features)  # type: ignore[operator]
        return logits.reshape(len(features), self.task.num_horizons, self.task.num_classes)


def plain_frames(name: str, frames: Tensor) -> Tensor:
    """Frames as a model of a user's own gets them: float32, masks as pixels."""
    return unpack_masks(frames) if name == "motion" else frames.float()


def frame_shape(name: str) -> tuple[int, ...]:
    """The shape of a frame as a model of a user's own gets it."""
    shape = MODALITIES[name].frame_shape
    return (shape[0], 8 * shape[1]) if name == "motion" else shape


def spec_of(modalities: Sequence[str], task: Task) -> ModelSpec:
    """What a model for these modalities gets and owes."""
    shapes = {name: frame_shape(name) for name in modalities}
    return ModelSpec(shapes, task.num_frames, task.num_horizons, task.num_classes)


def build_tracker(
    size: Model, modalities: Sequence[str], task: Task, *, key: str = "model", folders: Sequence[Path] = ()
) -> Tracker:
    """A tracker with fresh weights, drawn from torch's stream.

    Args:
        size: our tracker with its sizes, or another one by its name with its options.
        modalities: the modalities that it senses.
        task: the task, with frames, horizons and beams.
        key: the dotted path of ``size`` in the YAML, for the error.
        folders: the folders in which a user's own module may be a file.

    Raises:
        ValueError: there is no such tracker or option, or it cannot do this task; the message begins with the path.
    """
    if size.model is None:
        return BeamTracker(modalities, size, task)
    if size.model in MODELS:
        return _named(size, modalities, task, key)
    found = find_class(size.model, {name: name for name in MODELS}, key=f"{key}.model", folders=folders)
    if not issubclass(found, nn.Module):
        raise ValueError(f"{key}.model: {found.__name__} is no subclass of torch.nn.Module; make it one")
    missing = [name for name in ("features", "classify") if not callable(getattr(found, name, None))]
    if missing:
        raise ValueError(f"{key}.model: {found.__name__} has no method {missing[0]}; write one (clients/models/own.py)")
    if "spec" not in inspect.signature(found).parameters:
        raise ValueError(f"{key}.model: the constructor of {found.__name__} takes no spec; write __init__(self, spec)")
    check_options(found, {name: value for name, value in size.options.items() if name != "spec"}, key=f"{key}.options")
    spec = spec_of(modalities, task)
    return OwnTracker(build_plugin(found, {**size.options, "spec": spec}, key=f"{key}.options"), modalities, task)


def _named(size: Model, modalities: Sequence[str], task: Task, key: str) -> Tracker:
    """A tracker of the study by its name."""
    card = MODELS[str(size.model)]
    if card.modalities != tuple(modalities):
        wanted, have = " and ".join(card.modalities), " and ".join(modalities)
        raise ValueError(f"{key}.model: {size.model} senses {wanted}, and here it would get {have}; choose another one")
    options: dict[str, Any] = {"pixels": PIXELS, "alignment": card.alignment, **size.options}
    if unknown := options.keys() - {"pixels", "alignment"}:
        raise ValueError(
            f"{key}.options.{sorted(unknown)[0]}: unknown option of {size.model}; known: pixels, alignment"
        )
    try:
        return card.build(task, options["pixels"], options["alignment"])
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
