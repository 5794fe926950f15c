"""The cost of a tracker in multiply-accumulates and bytes.

Source: `torch.utils.flop_counter` counts the operations while the tracker runs, so loops, attentions and GRUs count
as often as they really run; one multiply-accumulate is two of its operations. Published figures differ if they leave
attention out or take another number of steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clients.data.modalities import MODALITIES
from clients.models.step_tracker import StepTracker
from clients.models.tracker import Windows

BYTES_PER_WEIGHT = 4


def count_macs(tracker: StepTracker, *, num_steps: int | None = None) -> int:
    """The multiply-accumulates of one window if every step is encoded separately, as published figures count.

    Args:
        tracker: the tracker, which is not changed.
        num_steps: T, the number of steps; None takes the tracker's own number.
    """
    steps = tracker.num_steps if num_steps is None else num_steps
    frames = empty_frames(tracker, steps)

    def run() -> None:
        parts = [tracker.encode(name, frames[name]) for name in tracker.modalities]
        tracker.classifier(tracker.memory(tracker.fuse(torch.cat(parts, dim=-1)).unsqueeze(0)))

    return macs_of(tracker, run)


def count_window_macs(tracker: StepTracker) -> int:
    """The multiply-accumulates of one window as it is computed here: the empty frame is encoded only once."""
    num_frames = tracker.task.num_frames
    windows = Windows(empty_frames(tracker, num_frames), torch.arange(num_frames)[None])
    return macs_of(tracker, lambda: tracker(windows))


def macs_of(model: nn.Module, run: Callable[[], object]) -> int:
    """The multiply-accumulates of matrix products and convolutions in ``run``, with ``model`` in evaluation mode."""
    was_training = model.training
    model.eval()
    # The fast paths of attention are single operations that the counter does not know.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        model.train(was_training)
    return int(counter.get_total_flops()) // 2


def empty_frames(tracker: StepTracker, count: int) -> dict[str, torch.Tensor]:
    """Frames of zeros (count, *frame_shape), for every modality of a tracker."""
    return {
        name: torch.from_numpy(np.zeros((count, *MODALITIES[name].frame_shape), MODALITIES[name].dtype))
        for name in tracker.modalities
    }
