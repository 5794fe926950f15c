"""Calibration: how certain a tracker may be of its answers. N windows, H horizons, B beams."""

from __future__ import annotations

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
