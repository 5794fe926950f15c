"""Relational knowledge: how far apart samples are in a feature space and in which direction, not where they are.

A student learns to put what its teacher finds alike near to each other and what differs apart. Nothing but relations is
compared, so the two need neither one size of features nor one set of beams.

Source: arXiv 2603.16116, whose "angle" is the cosine of a pair; that of arXiv 1904.05068 is between three samples.

Over the wire, the teacher tells its relations anew in every round, of groups of samples that fill a batch. Who is in a
group with whom, and whose partner, both sides draw from the experiment's seed and the round by one function, so of a
pair only its distance and its angle travel, four bytes in all. Nothing is kept: relations of yesterday's teacher are
not mixed with those of today's, a client that was away lacks nothing, and a resumed run makes them again to the bit.

Not chosen: relations in the cache of targets, sample by sample. Distances are in units of their group's mean, and mean
nothing beside those of another teacher or another group.

N samples, n samples of a group, k partners, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.schema import Experiment
from configs.seeding import rng_for
from strategies.codecs.packing import pack_ids, unpack_ids

# At most this long is a feature without direction, and a mean distance at which all features are equal.
LENGTH_FLOOR = 1e-12


@dataclass(frozen=True)
class Relations:
    """How far samples are from their partners, and in which direction.

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


# Consecutive samples kept together: their windows share frames, which a student encodes once.
RUN_LENGTH = 8
# Names of the arrays that travel.
IDS, VALUES = "related", "relations"


@dataclass(frozen=True)
class Group:
    """Public samples that are compared with each other.

    Attributes:
        sample_ids: (n,) in the order in which rows are numbered.
        partners: (n, k) rows of the partners of each.
    """

    sample_ids: NDArray[np.int64]
    partners: NDArray[np.int64]


def draw_groups(sample_ids: NDArray[np.int64], experiment: Experiment, round_number: int) -> list[Group]:
    """The groups of a round, alike wherever the experiment, the round and the samples are.

    A group has a batch of the students (and more than ``strategy.relations.pairs``) or up to twice that, made of runs
    of consecutive samples; whoever is fewer than that is one group. All draws are orders of uniform numbers, as in
    `strategies.relations.draw_partners`.

    Args:
        sample_ids: (N,) strictly increasing, at least two.
        experiment: an experiment with ``strategy.relations``.
        round_number: counted from 1.

    Raises:
        ValueError: there are no two samples, or no relations in the experiment.
    """
    wanted = experiment.strategy.relations
    if wanted is None or len(sample_ids) < 2:
        raise ValueError(f"relations need two samples and strategy.relations, got {len(sample_ids)} and {wanted}")
    rng = rng_for(experiment.seed, "relations", round_number)
    cuts = np.arange(int(rng.random() * RUN_LENGTH), len(sample_ids), RUN_LENGTH)
    runs = [run for run in np.split(sample_ids, cuts) if len(run)]
    shuffled = np.concatenate([runs[index] for index in np.argsort(rng.random(len(runs)), kind="stable")])
    group_size = max(experiment.training.batch_size, wanted.pairs + 1)
    members = np.array_split(shuffled, max(1, len(shuffled) // group_size))
    return [Group(ids, draw_partners(len(ids), wanted.pairs, rng)) for ids in members]


def pack_relations(groups: Sequence[Group], features: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
    """What travels: packed ids and (N, k, 2) float16 distances and angles, in the order of the groups.

    Half precision is off by 2^-11 of a value at most, less than a thousandth for angles and for distances below twice
    the mean; single precision would cost twice the bytes.

    Args:
        groups: the groups of a round.
        features: (N, D) of the teacher, in the same order.
    """
    told, first = [], 0
    for group in groups:
        rows = torch.from_numpy(features[first : first + len(group.sample_ids)])
        found = relations(rows, torch.from_numpy(group.partners))
        # The cosine of a feature with itself may be a hair above one.
        told.append(torch.stack([found.distances, found.angles.clamp(0.0, 2.0)], dim=-1))
        first += len(rows)
    ids = np.sort(np.concatenate([group.sample_ids for group in groups]))
    return {IDS: pack_ids(ids), VALUES: torch.cat(told).numpy().astype(np.float16)}


def unpack_relations(
    arrays: Mapping[str, NDArray[np.generic]], experiment: Experiment, round_number: int, *, num_public: int
) -> list[tuple[Group, Relations]]:
    """The groups and what was told of each, checked; none where nothing was. The inverse of :func:`pack_relations`.

    Args:
        arrays: the arrays as they came, perhaps with others among them.
        experiment: an experiment with ``strategy.relations``.
        round_number: the round in which they came.
        num_public: size of the public set.

    Raises:
        ValueError: one of two is missing, of another shape or type, not finite or out of range.
    """
    missing = {IDS, VALUES} - set(arrays)
    if len(missing) == 2:
        return []
    if missing:
        raise ValueError(f"relations come as {IDS} and {VALUES}; there are no {missing.pop()}")
    sample_ids, values = unpack_ids(arrays[IDS]), arrays[VALUES]
    if len(sample_ids) and sample_ids[-1] >= num_public:
        raise ValueError(f"the public set has {num_public} samples, not {sample_ids[-1]}")
    groups = draw_groups(sample_ids, experiment, round_number)
    expected = (len(sample_ids), groups[0].partners.shape[1], 2)
    if values.dtype != np.float16 or values.shape != expected:
        raise ValueError(f"expected relations as float16 {expected}, got {values.dtype} {values.shape}")
    told = torch.from_numpy(values.astype(np.float32))
    distances, angles = told.unbind(dim=-1)
    if not torch.isfinite(told).all() or distances.min() < 0 or angles.min() < 0 or angles.max() > 2:
        raise ValueError("relations must be finite distances >= 0 and angles in [0, 2]")
    sizes = [len(group.sample_ids) for group in groups]
    of_groups = map(Relations, torch.split(distances, sizes), torch.split(angles, sizes))
    return list(zip(groups, of_groups, strict=True))
