"""Relational knowledge: how far apart samples are in a feature space and in which direction, not where they are.

A student learns to place samples that its teacher finds alike near to each other, and other samples apart. Only
relations are compared, so student and teacher need neither the same size of features nor the same set of classes.

Source: arXiv 2603.16116, whose "angle" is the cosine of a pair; that of arXiv 1904.05068 is between three samples.

In every round the teacher sends its relations anew, for groups of samples that fill a batch. Both sides draw the groups
and the partners by the same function from the experiment's seed and the round, so only the distance and the angle of
each pair travel, four bytes in all. Nothing is kept: relations of an earlier teacher are not mixed with those of the
present one, a client that was away lacks nothing, and a resumed run makes the same relations again, to the bit.

Not chosen: relations in the cache of targets, sample by sample. Distances are in units of their group's mean, and
cannot be compared with those of another teacher or another group.

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

# A feature at most this long has no direction; where the mean distance is at most this, all features count as equal.
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
    """Draw ``num_partners`` partners j != i for every anchor i, at random and without replacement.

    The draw is the order of uniform numbers, the stream of a generator that NumPy keeps from version to version; so two
    machines can draw the same partners instead of sending them.

    Args:
        num_samples: N >= 1.
        num_partners: k >= 1; a batch of fewer than k + 1 samples gives each anchor all the others.
        rng: the only source of randomness.

    Returns:
        (N, min(k, N - 1)) row numbers; (1, 0) for a single sample, which has no relation.

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
    """w_d mean (d^S - d^T)^2 + w_a mean (c^S - c^T)^2; zero at equal relations, and for a single sample.

    Source: arXiv 2603.16116, with w_d = w_a = 100 (one sensor) or 10 (two).

    Args:
        student_features: (N, D), or (N, ...), which is flattened; D need not be the teacher's.
        teacher: the teacher's relations for the same samples and partners.
        partners: (N, k) int64 rows of ``student_features``.
        distance_weight: the weight w_d >= 0 of the normalised distances d.
        angle_weight: the weight w_a >= 0 of the angles c = 1 - cos.
    """
    student = relations(student_features, partners)
    distance = _mean((student.distances - teacher.distances) ** 2)
    angle = _mean((student.angles - teacher.angles) ** 2)
    return distance_weight * distance + angle_weight * angle


def _mean(values: Tensor) -> Tensor:
    """The mean of the values; where there is none, a zero that has a gradient."""
    return values.sum() / max(values.numel(), 1)


def _divisor(lengths: Tensor) -> Tensor:
    """The lengths, with 1 in place of lengths near zero: a quotient and its gradient stay finite."""
    return torch.where(lengths > LENGTH_FLOOR, lengths, torch.ones_like(lengths))


# The number of consecutive samples that stay together: their windows share frames, which a student encodes once.
RUN_LENGTH = 8
# The names of the arrays that travel.
IDS, VALUES = "related", "relations"


@dataclass(frozen=True)
class Group:
    """Public samples that are compared with each other.

    Attributes:
        sample_ids: (n,) ids of the samples; their order numbers the rows.
        partners: (n, k) row numbers of the partners of each sample.
    """

    sample_ids: NDArray[np.int64]
    partners: NDArray[np.int64]


def draw_groups(sample_ids: NDArray[np.int64], experiment: Experiment, round_number: int) -> list[Group]:
    """The groups of a round; the same experiment, round and samples give the same groups on every machine.

    A group has at least as many samples as a batch of the students (and more than ``strategy.relations.pairs``), and at
    most twice as many; it consists of runs of consecutive samples. Fewer samples than that form one group. All draws
    are orders of uniform numbers, as in `draw_partners`.

    Args:
        sample_ids: (N,) strictly increasing, at least two.
        experiment: the experiment, which must have ``strategy.relations``.
        round_number: the number of the round, from 1.

    Raises:
        ValueError: there are fewer than two samples, or the experiment has no ``strategy.relations``.
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
    """The arrays that travel: packed ids and (N, k, 2) float16 distances and angles, in the order of the groups.

    Half precision is off by 2^-11 of a value at most, less than a thousandth for angles and for distances below twice
    the mean; single precision would cost twice the bytes.

    Args:
        groups: the groups of a round.
        features: (N, D) features of the teacher, in the order of the groups.
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
    """The groups and the relations of each, checked; an empty list where none were sent.

    This is the inverse of :func:`pack_relations`.

    Args:
        arrays: the arrays as received, perhaps with others among them.
        experiment: the experiment, which must have ``strategy.relations``.
        round_number: the round in which they came.
        num_public: the size of the public set.

    Raises:
        ValueError: one of the two arrays is missing, has another shape or type, is not finite or is out of range.
    """
    missing = {IDS, VALUES} - set(arrays)
    if len(missing) == 2:
        return []
    if missing:
        raise ValueError(f"relations travel as the arrays {IDS} and {VALUES}; the array {missing.pop()} is missing")
    sample_ids, values = unpack_ids(arrays[IDS]), arrays[VALUES]
    if len(sample_ids) and sample_ids[-1] >= num_public:
        raise ValueError(f"relations name sample {sample_ids[-1]}, but the public set has {num_public} samples")
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
