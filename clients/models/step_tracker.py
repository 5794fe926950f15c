"""Beam trackers that answer step by step: seen frames, then empty ones for the slots ahead.

A window of L frames has T = L - 1 + J steps: the L - 1 motion masks between its frames, then J empty ones, and the last
J + 1 steps answer for the current slot and the J slots ahead. Radar maps are frames, not differences. With
``alignment: paper`` step t holds the map of frame t, so the newest map comes one step after the answer for the current
slot; with ``newest`` it comes together with the mask that ends at the same frame.

Source: arXiv 2603.16116 and arXiv 2509.11419.

Masks and maps are encoded once for all windows that share them, and so is the empty frame. In training the batch norms
therefore see each distinct frame once, where encoding window by window would show it up to L - 1 times; prediction is
the same to rounding.

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
from clients.models.tracker import Windows
from configs.schema import Task

Alignment = Literal["paper", "newest"]
# Sides that masks may be averaged down to.
PIXEL_SIDES = (224, 112, 56)


class StepTracker(nn.Module):
    """From the frames of a window to beam logits now and in the next slots, step by step.

    Args:
        encoders: modality (``motion``, ``maps``) -> network from inputs (U, C, R, K) to (U, F).
        fuse: from the concatenated features of all modalities to the features of a step.
        memory: over the steps.
        classifier: from a state to the beams.
        task: frames, horizons and beams; at least two frames.
        pixels: masks are averaged down to so many rows and columns, one of `PIXEL_SIDES`; 224 leaves them.
        alignment: of the radar maps.

    Raises:
        ValueError: fewer than two frames, or other pixels.
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
            raise ValueError(f"task.num_frames: a motion mask takes two frames, got {task.num_frames}")
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
        """T."""
        return self.task.num_frames - 1 + self.task.num_future

    @property
    def num_features(self) -> int:
        """D of :meth:`features`."""
        return self.task.num_horizons * self.memory.gru.hidden_size

    def fit_scale(self, recording: Recording, starts: NDArray[Any]) -> None:
        """Nothing: batch norms measure the scale in training."""

    def forward(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, H, B) logits.

        Args:
            windows: frames of every modality.
            present: not used: these trackers need all their modalities.
        """
        return self.decide(self.features(windows, present))

    def features(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, D) states of the last H steps, one after the other; what relations and feature KD compare."""
        del present
        return self.states_of(self.steps(windows)).flatten(1)

    def decide(self, features: Tensor) -> Tensor:
        """(N, H, B) logits from features (N, D)."""
        logits: Tensor = self.classifier(features.view(len(features), self.task.num_horizons, -1))
        return logits

    def states_of(self, steps: Tensor) -> Tensor:
        """(N, H, D / H) the last states, from steps (N, T, F)."""
        states: Tensor = self.memory(steps)
        return states[:, -self.task.num_horizons :]

    def steps(self, windows: Windows) -> Tensor:
        """(N, T, F) fused features of every step, the empty ones included."""
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
        """(U, *frame_shape) as on disk to (U, F) features of one modality."""
        is_mask = name == "motion"
        inputs = mask_shares(frames, PIXELS // self.pixels).unsqueeze(1) if is_mask else frames.float()
        features: Tensor = self.encoders[name](inputs.contiguous(memory_format=torch.channels_last))
        return features

    def first_frame(self, name: str) -> int:
        """Which frame of the window the first step of a modality holds."""
        return 0 if name == "maps" and self.alignment == "paper" else 1

    def _step_rows(self, name: str, rows: Tensor, *, empty: int) -> Tensor:
        """(N, T) which distinct frame each step holds."""
        seen = rows[:, self.first_frame(name) :][:, : self.num_steps]
        return functional.pad(seen, (0, self.num_steps - seen.shape[1]), value=empty)
