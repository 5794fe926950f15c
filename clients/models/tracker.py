"""The beam tracker: encoders, a GRU over the frames of a window, one head for all horizons.

Beside the features of a frame the GRU sees their change since the frame before, with a learned gain: where a vehicle
will be takes its speed, and the feature of one frame hardly differs from the next. (Without, eight frames predict the
last slot no better than one; `softbeam bench learning --frames 8,1`.)

Source: changes as features are the delta coefficients of S. Furui, IEEE Trans. ASSP 34 (1986) 52.

One modality makes a student, several make a teacher. U frames, N windows, T frames of a window,
M modalities, D features, H horizons, B beams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clients.data.recording import Recording
from clients.models.encoders import make_encoder
from configs.schema import Model, Task

# Windows predicted at once; consecutive windows share most of their frames.
PREDICTION_BATCH = 256


@dataclass(frozen=True)
class Windows:
    """A batch of windows in which every frame is encoded once.

    Two windows of one pass that start one frame apart share all frames but one, so a batch of runs of
    consecutive windows costs a quarter or less of encoding each window by itself, with equal outputs.

    Attributes:
        frames: modality -> (U, *frame_shape) the distinct frames, as on disk.
        rows: (N, T) which of them a window is made of.
    """

    frames: Mapping[str, Tensor]
    rows: Tensor


def read_windows(
    recording: Recording, starts: NDArray[np.int64], *, modalities: Sequence[str], num_frames: int
) -> Windows:
    """Read the distinct frames of some windows.

    Args:
        recording: where they lie.
        starts: (N,) first frames.
        modalities: which sensors to read; all must be in the recording.
        num_frames: T.
    """
    distinct, rows = np.unique(starts[:, None] + np.arange(num_frames), return_inverse=True)
    frames = {name: torch.from_numpy(np.array(recording.sensors[name][distinct])) for name in modalities}
    return Windows(frames, torch.from_numpy(rows.reshape(len(starts), num_frames)))


class BeamTracker(nn.Module):
    """From the frames of a window to beam logits now and in the next slots.

    Args:
        modalities: what it senses; several are fused by concatenation, and one that is hidden is replaced by a
            learned vector, so that a fused tracker answers from whatever is there.
        size: widths.
        task: frames, horizons and beams.
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
        self.head = nn.Linear(size.hidden, task.num_horizons * task.num_beams)

    def fit_scale(self, recording: Recording, starts: NDArray[np.int64]) -> None:
        """Measure the scale of each sensor on the frames of training windows."""
        windows = read_windows(recording, starts, modalities=self.modalities, num_frames=self.task.num_frames)
        with torch.no_grad():
            for name in self.modalities:
                self.encoders[name].fit_scale(windows.frames[name])  # type: ignore[operator]

    def forward(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """Beam logits.

        Args:
            windows: frames of every modality that is present for some window.
            present: (N, M) whether a modality is to be used for a window; None uses every one that has frames.

        Returns:
            (N, H, B) logits.
        """
        return self.decide(self.features(windows, present))

    def decide(self, features: Tensor) -> Tensor:
        """(N, H, B) logits from features (N, D)."""
        logits: Tensor = self.head(self.dropout(features))
        return logits.view(len(features), self.task.num_horizons, self.task.num_beams)

    def features(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, D) last state of the GRU, which the head decides on; the arguments are those of :meth:`forward`."""
        features = []
        for index, name in enumerate(self.modalities):
            if name not in windows.frames:
                features.append(self.absent[index].expand(*windows.rows.shape, -1))
                continue
            encoded = self.encoders[name](windows.frames[name])[windows.rows]
            if present is not None:
                encoded = torch.where(present[:, index, None, None], encoded, self.absent[index])
            features.append(encoded)
        seen = torch.cat(features, dim=-1)
        change = self.change_gain * torch.diff(seen, dim=1, prepend=seen[:, :1])
        states, _ = self.gru(torch.cat([seen, change], dim=-1))
        last: Tensor = states[:, -1]
        return last


def predict(tracker: BeamTracker, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
    """(N, H, B) logits in evaluation mode, from the modalities that the recording has.

    Raises:
        ValueError: the recording has none of the tracker's modalities.
    """
    task = tracker.task
    return _in_evaluation(tracker, tracker.forward, recording, starts, (task.num_horizons, task.num_beams))


def predict_features(tracker: BeamTracker, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
    """(N, D) features in evaluation mode, from the modalities that the recording has.

    Raises:
        ValueError: the recording has none of the tracker's modalities.
    """
    return _in_evaluation(tracker, tracker.features, recording, starts, (tracker.gru.hidden_size,))


def _in_evaluation(
    tracker: BeamTracker,
    compute: Callable[[Windows], Tensor],
    recording: Recording,
    starts: NDArray[np.int64],
    row_shape: tuple[int, ...],
) -> Tensor:
    present = [name for name in tracker.modalities if name in recording.sensors]
    if not present:
        raise ValueError(f"{recording.folder}: holds none of {', '.join(tracker.modalities)}")
    was_training = tracker.training
    tracker.eval()
    batches = [starts[first : first + PREDICTION_BATCH] for first in range(0, len(starts), PREDICTION_BATCH)]
    with torch.no_grad():
        parts = [
            compute(read_windows(recording, batch, modalities=present, num_frames=tracker.task.num_frames))
            for batch in batches
        ]
    tracker.train(was_training)
    return torch.cat(parts) if parts else torch.empty(0, *row_shape)


def count_parameters(tracker: nn.Module) -> int:
    """Learned parameters."""
    return sum(parameter.numel() for parameter in tracker.parameters() if parameter.requires_grad)
