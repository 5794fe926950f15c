"""Relational knowledge: how samples lie to each other in a feature space, not where. N samples, k partners, D features.

A student learns to put what its teacher finds alike near to each other and what differs apart. Nothing but relations is
compared, so the two need neither one size of features nor one set of beams.

Source: arXiv 2603.16116, whose "angle" is the cosine of a pair; that of arXiv 1904.05068 is between three samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# At most this long is a feature without direction, and a mean distance at which all features are equal.
LENGTH_FLOOR = 1e-12


@dataclass(frozen=True)
class Relations:
    """How samples lie to their partners.

    Attributes:
        distances: (N, k) >= 0 ||f_i - f_j||, divided by the mean over all pairs; all zero where all features are equal.
        angles: (N, k) 1 - cos(f_i, f_j), in [0, 2]; 1 where a feature is zero.
    """

    distances: Tensor
    angles: Tensor


def draw_partners(num_samples: int, num_partners: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """For every anchor i so many partners j != i, at random and without replacement.

    The draw is the order of uniform numbers, the stream of a generator that NumPy keeps from version to version; so two
    machines can draw the same partners instead of sending them.

    Args:
        num_samples: N >= 1.
        num_partners: k >= 1; a batch of fewer than k + 1 samples gives each anchor all the others.
        rng: the only source of randomness.

    Returns:
        (N, min(k, N - 1)) rows; (1, 0) for a sample alone, which has no relation.

    Raises:
        ValueError: a count is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples: must be >= 1, got {num_samples}")
    if num_partners < 1:
        raise ValueError(f"num_partners: must be >= 1, got {num_partners}")
    order = np.argsort(rng.random((num_samples, num_samples - 1)), axis=1, kind="stable")
    others = order[:, :num_partners].astype(np.int64)
    partners: NDArray[np.int64] = others + (others >= np.arange(num_samples)[:, None])  # steps over the anchor
    return partners


def relations(features: Tensor, partners: Tensor) -> Relations:
    """The relations of some samples, with gradients that are finite also where features are equal or zero.

    Neither a rotation nor a scaling of all features changes them.

    Args:
        features: (N, D), or (N, ...), which is flattened.
        partners: (N, k) int64 rows of ``features``.
    """
    anchors = features.flatten(1)
    distances = torch.linalg.vector_norm(anchors[:, None] - anchors[partners], dim=-1)
    lengths = torch.linalg.vector_norm(anchors, dim=-1, keepdim=True)
    directions = anchors / _divisor(lengths)
    cosines = (directions[:, None] * directions[partners]).sum(dim=-1)
    return Relations(distances / _divisor(_mean(distances)), 1.0 - cosines)


def relational_kd(
    student_features: Tensor, teacher: Relations, partners: Tensor, *, distance_weight: float, angle_weight: float
) -> Tensor:
    """w_d mean (d^S - d^T)^2 + w_a mean (c^S - c^T)^2; zero at equal relations, and for a sample alone.

    Source: arXiv 2603.16116, with w_d = w_a = 100 (one sensor) or 10 (two).

    Args:
        student_features: (N, D), or (N, ...), which is flattened; D need not be the teacher's.
        teacher: its relations for the same samples and partners.
        partners: (N, k) int64 rows of ``student_features``.
        distance_weight: w_d >= 0, of the normalised distances d.
        angle_weight: w_a >= 0, of c = 1 - cos.
    """
    student = relations(student_features, partners)
    distance = _mean((student.distances - teacher.distances) ** 2)
    angle = _mean((student.angles - teacher.angles) ** 2)
    return distance_weight * distance + angle_weight * angle


def _mean(values: Tensor) -> Tensor:
    """The mean; zero of nothing, with a gradient."""
    return values.sum() / max(values.numel(), 1)


def _divisor(lengths: Tensor) -> Tensor:
    """The lengths, or 1 for those of nothing: what they divide stays finite, and so does its gradient."""
    return torch.where(lengths > LENGTH_FLOOR, lengths, torch.ones_like(lengths))
