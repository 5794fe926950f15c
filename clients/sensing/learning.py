"""Optimizer steps over windows: what student and teacher share. N windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Consecutive windows drawn together; they share their frames (see `clients.sensing.tracker.Windows`).
RUN_LENGTH = 8


def window_batches(
    positions: NDArray[np.int64], *, batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Endless batches of windows, shuffled anew in every epoch.

    A batch is made of runs of consecutive windows, because these share their frames; the runs are
    cut at a random offset in every epoch and shuffled.

    Args:
        positions: (N,) what to draw from, in the order of time.
        batch_size: entries of a batch; smaller where fewer are left at the end of an epoch.
        rng: the only source of randomness.

    Raises:
        ValueError: there is nothing to draw from.
    """
    if len(positions) == 0:
        raise ValueError("there is no window to learn from: every pass is shorter than frames + future slots + 1")
    while True:
        cuts = np.arange(int(rng.integers(RUN_LENGTH)), len(positions), RUN_LENGTH)
        runs = [run for run in np.split(positions, cuts) if len(run)]
        shuffled = np.concatenate([runs[index] for index in rng.permutation(len(runs))])
        for first in range(0, len(shuffled), batch_size):
            yield shuffled[first : first + batch_size]


def cosine(step: float, num_steps: float) -> float:
    """Factor on the learning rate: 1 at the first step, near 0 at the last."""
    return 0.5 * (1.0 + math.cos(math.pi * min(step / num_steps, 1.0)))


def take_steps(
    optimizer: torch.optim.Optimizer,
    losses: Iterable[Callable[[], Tensor]],
    learning_rates: Iterable[float],
    *,
    max_grad_norm: float,
) -> float:
    """One optimizer step for every loss.

    Args:
        optimizer: over the parameters to train.
        losses: each computes the loss of one batch.
        learning_rates: one for each step.
        max_grad_norm: gradients are clipped to this norm.

    Returns:
        The mean loss; 0 if there was no step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total, count = 0.0, 0
    for loss_of_batch, learning_rate in zip(losses, learning_rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of_batch()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        optimizer.step()
        total += float(loss.detach())
        count += 1
    return total / max(count, 1)
