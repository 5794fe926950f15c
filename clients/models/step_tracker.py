"""Beam trackers that answer step by step: their steps are the frames seen, then empty frames for the slots ahead.

A window of L frames has T = L - 1 + J steps: the L - 1 motion masks between its frames, then J empty ones. The last
J + 1 steps answer for the current slot and the J slots ahead. Radar maps are frames, not differences. With
``alignment: paper`` step t holds the map of frame t, so the newest map comes one step after the answer for the current
slot; with ``newest`` it comes together with the mask that ends at the same frame.

Source: arXiv 2603.16116 and arXiv 2509.11419.

Masks and maps are encoded once for all windows that share them, and so is the empty frame. In training the batch norms
therefore see each distinct frame once; if every window were encoded separately, they would see it up to L - 1 times.
Predictions are equal up to rounding.

U distinct frames, N windows, L frames of a window, T steps, H = J + 1 horizons, B beams, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from clients.data.motion import PIXELS
from clients.data.recording import Recording
from clients.models.blocks import Memory
from clients.models.encoders import mask_shares
from clients.models.tracker import Tracker, Windows
from configs.schema import Task

Alignment = Literal["paper", "newest"]
# The sides in pixels to which masks may be averaged down.
PIXEL_SIDES = (224, 112, 56)


class StepTracker(Tracker):
    """A tracker that computes, step by step, beam logits for the current and the next slots from a window of frames.

    Args:
        encoders: modality (``motion``, ``maps``) -> network from inputs (U, C, R, K) to (U, F).
        fuse: a network from the concatenated features of all modalities to the features of a step.
        memory: the memory over the steps.
        classifier: a network from a state to the logits of the beams.
        task: the task, with frames, horizons and beams; it has at least two frames.
        pixels: the number of rows and columns to which masks are averaged down, one of `PIXEL_SIDES`; 224 leaves masks
            unchanged.
        alignment: the alignment of the radar maps.

    Raises:
        ValueError: the task has fewer than two frames, or ``pixels`` is not one of `PIXEL_SIDES`.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        *,
        fuse: nn.Module,
        memory: Memory,
        classifier: nn.Module,
        task: Task,
        pixels: int = PIXELS,
        alignment: Alignment = "paper",
    ) -> None:
        super().__init__()
        if task.num_frames < 2:
            raise ValueError(f"task.num_frames: must be at least 2, because a mask takes two, got {task.num_frames}")
        if pixels not in PIXEL_SIDES:
            raise ValueError(f"pixels: must be one of {', '.join(map(str, PIXEL_SIDES))}, got {pixels}")
        self.modalities = tuple(encoders)
        self.task = task
        self.pixels = pixels
        self.alignment = alignment
        self.encoders = nn.ModuleDict(encoders).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fuse = fuse
        self.memory = memory
        self.classifier = classifier

    @property
    def num_steps(self) -> int:
        """T, the number of steps of a window."""
        return self.task.num_frames - 1 + self.task.num_future

    @property
    def num_features(self) -> int:
        """D, the number of features that :meth:`features` returns."""
        return self.task.num_horizons * self.memory.gru.hidden_size

    def fit_scale(self, recording: Recording, starts: NDArray[Any]) -> None:
        """Do nothing: the batch norms measure the scale in training."""

    def forward(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, H, B) logits of the beams.

        Args:
            windows: windows with frames of every modality.
            present: it is not used, because these trackers need all their modalities.
        """
        return self.decide(self.features(windows, present))

    def features(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, D) states of the last H steps, concatenated; relations and feature KD compare these."""
        del present
        return self.states_of(self.steps(windows)).flatten(1)

    def decide(self, features: Tensor) -> Tensor:
        """(N, H, B) logits from features (N, D)."""
        logits: Tensor = self.classifier(features.view(len(features), self.task.num_horizons, -1))
        return logits

    def states_of(self, steps: Tensor) -> Tensor:
        """(N, H, D / H) states of the last H steps, from steps (N, T, F)."""
        states: Tensor = self.memory(steps)
        return states[:, -self.task.num_horizons :]

    def steps(self, windows: Windows) -> Tensor:
        """(N, T, F) fused features of every step, including the empty ones."""
        parts = []
        for name in self.modalities:
            frames = windows.frames[name]
            rows = self._step_rows(name, windows.rows, empty=len(frames))
            used, places = torch.unique(rows, return_inverse=True)
            encoded = self.encode(name, torch.cat([frames, torch.zeros_like(frames[:1])])[used])
            parts.append(encoded[places])
        fused: Tensor = self.fuse(torch.cat(parts, dim=-1))
        return fused

    def encode(self, name: str, frames: Tensor) -> Tensor:
        """Frames (U, *frame_shape) of one modality, as stored on disk, to features (U, F)."""
        is_mask = name == "motion"
        inputs = mask_shares(frames, PIXELS // self.pixels).unsqueeze(1) if is_mask else frames.float()
        features: Tensor = self.encoders[name](inputs.contiguous(memory_format=torch.channels_last))
        return features

    def first_frame(self, name: str) -> int:
        """The number of the frame that the first step of a modality holds, from 0."""
        return 0 if name == "maps" and self.alignment == "paper" else 1

    def _step_rows(self, name: str, rows: Tensor, *, empty: int) -> Tensor:
        """(N, T) row of the distinct frame that each step holds; ``empty`` is the row of the empty frame."""
        seen = rows[:, self.first_frame(name) :][:, : self.num_steps]
        return functional.pad(seen, (0, self.num_steps - seen.shape[1]), value=empty)
