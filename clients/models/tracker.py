"""The beam tracker: encoders, a GRU over the frames of a window, one head for all horizons.

Beside the features of a frame the GRU gets their change since the previous frame, with a learned gain. Without the
speed of a vehicle its next position cannot be predicted, and the features of two successive frames hardly differ.
(Without the changes, eight frames predict the last slot no better than one frame; `softbeam bench learning --frames
8,1` measures it.)

Source: changes as features are the delta coefficients of S. Furui, IEEE Trans. ASSP 34 (1986) 52.

A tracker with one modality is a student, one with several is a teacher. U frames, N windows, T frames of a window,
M modalities, D features, H horizons, B beams.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clients.data.recording import Recording
from clients.models.device import device_of, returned, sent
from clients.models.encoders import make_encoder
from configs.schema import Model, Task

# The number of windows that are predicted at once; consecutive windows share most of their frames.
PREDICTION_BATCH = 256
# The number of windows on which a scale is measured, evenly spread: more would not change it, but would take memory.
SCALE_WINDOWS = 256


@dataclass(frozen=True)
class Windows:
    """A batch of windows in which every frame is encoded once.

    Two windows of one pass that start one frame apart share all frames but one. So a batch of runs of consecutive
    windows costs a quarter or less of encoding each window separately, with equal outputs.

    Attributes:
        frames: modality -> (U, *frame_shape) the distinct frames, as stored on disk.
        rows: (N, T) the rows in ``frames`` that each window is made of.
        own_rows: modality -> (N, T) the same for a modality whose frames are not shared like those of the others.
    """

    frames: Mapping[str, Tensor]
    rows: Tensor
    own_rows: Mapping[str, Tensor] = field(default_factory=dict)

    def on(self, device: torch.device) -> Windows:
        """The same windows on a device."""
        frames, own_rows = (
            {name: sent(value, device) for name, value in one.items()} for one in (self.frames, self.own_rows)
        )
        return Windows(frames, sent(self.rows, device), own_rows)


def read_windows(
    recording: Recording, starts: NDArray[np.int64], *, modalities: Sequence[str], num_frames: int
) -> Windows:
    """Read the distinct frames of some windows.

    Args:
        recording: the recording that holds the frames.
        starts: (N,) the first frame of each window.
        modalities: the modalities to read; the recording must have all of them.
        num_frames: T, the number of frames of a window.
    """
    distinct, rows = np.unique(starts[:, None] + np.arange(num_frames), return_inverse=True)
    frames = {name: torch.from_numpy(np.array(recording.sensors[name][distinct])) for name in modalities}
    return Windows(frames, torch.from_numpy(rows.reshape(len(starts), num_frames)))


class Tracker(nn.Module, ABC):
    """What every tracker has, whoever wrote it: a learner trains any of them.

    Attributes:
        modalities: the modalities that it senses.
        task: the task, with frames, horizons and beams.
    """

    modalities: tuple[str, ...]
    task: Task

    @abstractmethod
    def fit_scale(self, recording: Recording, starts: NDArray[np.int64]) -> None:
        """Measure the scale of each sensor on the frames of some windows.

        Args:
            recording: the recording that holds the frames.
            starts: (N,) the first frame of each window, at least one.
        """

    @abstractmethod
    def features(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, D) features; relations and feature KD compare these."""

    @abstractmethod
    def decide(self, features: Tensor) -> Tensor:
        """(N, H, B) logits from features (N, D)."""

    def forward(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, H, B) logits of the beams.

        Args:
            windows: windows with frames of every modality that is present for some window.
            present: (N, M) whether a modality is used for a window; None uses every modality that has frames.
        """
        return self.decide(self.features(windows, present))


class BeamTracker(Tracker):
    """A tracker that computes beam logits for the current and the next slots from a window of frames.

    Args:
        modalities: the modalities that it senses. Several are fused by concatenation; a learned vector replaces a
            hidden one, so that a fused tracker can answer without some of them.
        size: the sizes of the layers.
        task: the task, with frames, horizons and beams.
    """

    def __init__(self, modalities: Sequence[str], size: Model, task: Task) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.task = task
        self.encoders = nn.ModuleDict(
            {name: make_encoder(name, width=size.width, num_features=size.features) for name in self.modalities}
        )
        self.absent = nn.Parameter(torch.zeros(len(self.modalities), size.features))
        self.absent.requires_grad_(len(self.modalities) > 1)
        num_features = size.features * len(self.modalities)
        self.change_gain = nn.Parameter(torch.ones(num_features))
        self.gru = nn.GRU(2 * num_features, size.hidden, batch_first=True)
        self.dropout = nn.Dropout(size.dropout)
        self.head = nn.Linear(size.hidden, task.num_horizons * task.num_classes)

    def fit_scale(self, recording: Recording, starts: NDArray[np.int64]) -> None:
        """Measure the scale of each sensor on the frames of some windows, of which at most `SCALE_WINDOWS` are read.

        Args:
            recording: the recording that holds the frames.
            starts: (N,) the first frame of each window, at least one.
        """
        some = starts[:: math.ceil(len(starts) / SCALE_WINDOWS)]
        windows = read_windows(recording, some, modalities=self.modalities, num_frames=self.task.num_frames)
        with torch.no_grad():
            for name in self.modalities:
                self.encoders[name].fit_scale(windows.frames[name])  # type: ignore[operator]

    def decide(self, features: Tensor) -> Tensor:
        """(N, H, B) logits from features (N, D)."""
        logits: Tensor = self.head(self.dropout(features))
        return logits.view(len(features), self.task.num_horizons, self.task.num_classes)

    def features(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, D) last state of the GRU, which is the input of the head; the arguments are those of :meth:`forward`."""
        encoded = {
            name: self.encoders[name](windows.frames[name])[windows.own_rows.get(name, windows.rows)]
            for name in self.modalities
            if name in windows.frames
        }
        return self.features_of(encoded, windows.rows.shape, present)

    def features_of(self, encoded: Mapping[str, Tensor], shape: Sequence[int], present: Tensor | None = None) -> Tensor:
        """(N, D) last state of the GRU.

        Args:
            encoded: modality -> (N, T, D) features of each frame, of at least one modality.
            shape: N and T.
            present: (N, M) whether a modality is used for a window; None uses those that there are features of.
        """
        features = []
        for index, name in enumerate(self.modalities):
            if name not in encoded:
                features.append(self.absent[index].expand(*shape, -1))
                continue
            seen = encoded[name]
            if present is not None:
                seen = torch.where(present[:, index, None, None], seen, self.absent[index])
            features.append(seen)
        seen = torch.cat(features, dim=-1)
        change = self.change_gain * torch.diff(seen, dim=1, prepend=seen[:, :1])
        states, _ = self.gru(torch.cat([seen, change], dim=-1))
        last: Tensor = states[:, -1]
        return last


def predict(tracker: Tracker, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
    """(N, H, B) logits in evaluation mode, from the modalities that the recording has.

    Raises:
        ValueError: the recording has none of the tracker's modalities.
    """
    task = tracker.task
    return _in_evaluation(tracker, tracker.forward, recording, starts, (task.num_horizons, task.num_classes))


def predict_features(tracker: Tracker, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
    """(N, D) features in evaluation mode, from the modalities that the recording has.

    Raises:
        ValueError: the recording has none of the tracker's modalities.
    """
    return _in_evaluation(tracker, tracker.features, recording, starts, None)


def _in_evaluation(
    tracker: Tracker,
    compute: Callable[[Windows], Tensor],
    recording: Recording,
    starts: NDArray[np.int64],
    row_shape: tuple[int, ...] | None,
) -> Tensor:
    present = [name for name in tracker.modalities if name in recording.sensors]
    if not present:
        raise ValueError(f"{recording.folder}: holds none of {', '.join(tracker.modalities)}, which the tracker senses")
    was_training, device = tracker.training, device_of(tracker)
    length = tracker.task.num_frames
    tracker.eval()
    with torch.no_grad():
        parts = [
            returned(compute(read_windows(recording, batch, modalities=present, num_frames=length).on(device)))
            for batch in (starts[first : first + PREDICTION_BATCH] for first in range(0, len(starts), PREDICTION_BATCH))
        ]
        if not parts and row_shape is None:
            # Only a window can tell how many features there are, and a recording without frames has none.
            parts = [returned(compute(_empty_window(recording, present, length).on(device)))[:0]]
    tracker.train(was_training)
    return torch.cat(parts) if parts else torch.empty(0, *(row_shape or ()))


def _empty_window(recording: Recording, modalities: Sequence[str], num_frames: int) -> Windows:
    """One window of zeros, in the form of a recording's frames."""
    frames = {
        name: torch.from_numpy(
            np.zeros((num_frames, *recording.sensors[name].shape[1:]), recording.sensors[name].dtype)
        )
        for name in modalities
    }
    return Windows(frames, torch.arange(num_frames)[None])


def count_parameters(tracker: nn.Module) -> int:
    """The number of learned parameters of a model."""
    return sum(parameter.numel() for parameter in tracker.parameters() if parameter.requires_grad)
