"""Calibration: how certain a tracker may be of its answers, and how certain held-out passes are of a tracker.

N windows, H horizons, B beams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# The temperatures that are tried: 2^-1 to 2^3 in steps of 2^(1/8). The loss is smooth and flat around its minimum.
CANDIDATES = [2.0 ** (eighth / 8.0) for eighth in range(-8, 25)]


def fit_temperature(logits: Tensor, beams: Tensor) -> tuple[float, float]:
    """The temperature at which the softmax of ``logits`` has the smallest cross-entropy, and that cross-entropy.

    Above 1, the tracker was overconfident. One temperature serves all horizons and beams, so the ranking stays.

    Source: temperature scaling, arXiv 1706.04599.

    Args:
        logits: (N, H, B) logits on windows that were not trained on.
        beams: (N, H) best beams.

    Returns:
        The best of `CANDIDATES`, and the mean cross-entropy at this temperature in nats.
    """
    flat, labels = logits.flatten(0, 1), beams.flatten()
    losses = torch.stack([functional.cross_entropy(flat / temperature, labels) for temperature in CANDIDATES])
    best = int(losses.argmin())
    return CANDIDATES[best], float(losses[best])


# The loss at which a single held-out pass refutes a tracker, in nats: the right beam has half the probability it had.
SINGLE_PASS_MARGIN = math.log(2.0)


def is_refuted(now: Sequence[float], peak: Sequence[float]) -> bool:
    """Whether held-out passes say that a tracker is worse than one before, and not by chance.

    It is refuted if its mean over the passes is lower by more than the standard error of the difference, as passes
    differ. A single pass has no standard error, so it refutes only what is worse by `SINGLE_PASS_MARGIN`.

    Source: the one-standard-error rule of Breiman, Friedman, Olshen and Stone, Classification and Regression Trees
    (1984), on paired differences.

    Args:
        now: for each held-out pass the mean logarithm of the probability that the tracker gives the right beam.
        peak: the same for the tracker that it is compared with.
    """
    gains = np.asarray(now) - np.asarray(peak)
    margin = SINGLE_PASS_MARGIN if len(gains) < 2 else gains.std(ddof=1) / math.sqrt(len(gains))
    return bool(gains.mean() < -margin)
