"""Distillation losses. N samples, H horizons, B beams; every loss is the mean over N and H."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, beams: Tensor) -> Tensor:
    """Mean of -ln p_y; zero when every best beam has probability one.

    Args:
        logits: (N, H, B).
        beams: (N, H) int64 best beams.
    """
    return functional.cross_entropy(logits.flatten(0, 1), beams.flatten())


def focal_loss(logits: Tensor, beams: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of (1 - p_y)^gamma (-ln p_y); gamma = 0 is cross-entropy.

    Source: arXiv 1708.02002; alpha = 1 and gamma = 2 as in arXiv 2603.16116.

    Args:
        logits: (N, H, B).
        beams: (N, H) int64 best beams.
        gamma: >= 0; larger forgets the easy samples.
    """
    log_p = functional.log_softmax(logits, dim=-1).gather(-1, beams.unsqueeze(-1)).squeeze(-1)
    return -((1.0 - log_p.exp()) ** gamma * log_p).mean()


def response_kd(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(targets || softmax(logits / tau)), summed over beams; zero at equality.

    tau^2 keeps the gradient's size when the temperature changes.

    Source: arXiv 1503.02531; summed over beams as in arXiv 2603.16116.

    Args:
        logits: (N, H, B) of the student.
        targets: (N, H, B) probabilities, already softened by ``temperature``.
        temperature: tau > 0.
    """
    log_student = functional.log_softmax(logits / temperature, dim=-1)
    divergence = functional.kl_div(log_student, targets, reduction="none").sum(dim=-1)
    return temperature**2 * divergence.mean()


TASK_LOSSES = {"cross_entropy": cross_entropy, "focal": focal_loss}


def soften(logits: Tensor, temperature: float) -> Tensor:
    """Softmax of logits (..., B) at a temperature > 0."""
    return torch.softmax(logits / temperature, dim=-1)
