"""Rules that a minority of wrong answers cannot move far. K clients, N samples, H horizons, C classes.

Robust rules for weights do not suit soft labels as they are: a client that never saw a class gives it no probability,
and where most clients have not seen the class, a coordinate-wise median gives it none either, with or without an
attacker. So every rule here has a *coverage-aware* form: only clients with a labelled window in which a class was the
right one vote on that class (``Votes.seen``); where none of the clients that answered has seen it, all of them vote.
Each client itself says what it has seen: coverage helps against skewed data, not against clients that lie.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.aggregation import Votes, align, confidence
from strategies.labels import Contribution, SoftLabels, normalise_rows

# The number of samples aggregated at once, so that temporary arrays of 100 clients stay below 100 MB.
CHUNK = 128
# The number of steps of Weiszfeld's iteration, and the distance below which two answers count as equal in it.
NUM_STEPS, SMALLEST_DISTANCE = 32, 1e-6

Probs = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _PerSample(ABC):
    """The base of the robust rules: it cuts samples into chunks, decides who votes, and scales rows to the simplex.

    Attributes:
        coverage: whether only clients that have seen a class vote on it.
    """

    coverage: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.coverage, bool):
            raise ValueError(f"coverage: must be true or false, got {self.coverage!r}")

    def aggregate(self, contributions: Sequence[Contribution]) -> SoftLabels:
        """The ensemble, sample by sample; a row to which the rule gives no probability becomes the plain mean."""
        votes = align(contributions)
        parts = []
        for probs, voters in _chunks(votes, coverage=self.coverage):
            rows = self.reduce(probs, voters)
            empty = rows.sum(axis=-1) <= 0
            rows[empty] = np.mean(probs, axis=0, where=voters.any(axis=-1, keepdims=True))[empty]
            parts.append(normalise_rows(rows))
        return SoftLabels(votes.sample_ids, np.concatenate(parts), votes.temperature)

    @abstractmethod
    def reduce(self, probs: Probs, voters: Mask) -> Probs:
        """(N, H, C) values >= 0, from the probabilities (K, N, H, C) and from who votes on which class (K, N, H, C)."""


def _chunks(votes: Votes, *, coverage: bool) -> Iterator[tuple[Probs, Mask]]:
    num_classes = votes.probs.shape[-1]
    for first in range(0, len(votes.sample_ids), CHUNK):
        probs = votes.probs[:, first : first + CHUNK]
        answered = votes.answered[:, first : first + CHUNK, None, None]
        voters = answered & votes.seen[:, None, None, :] if coverage else answered & np.ones(num_classes, np.bool_)
        voters = np.where(voters.any(axis=0), voters, answered)
        yield probs, np.broadcast_to(voters, probs.shape)


def _sorted_votes(probs: Probs, voters: Mask) -> tuple[Probs, NDArray[np.int64]]:
    """The votes in rising order along the clients, then zeros in place of missing votes; and the number of votes."""
    rising = np.sort(np.where(voters, probs, np.inf), axis=0)
    return np.where(np.isinf(rising), 0.0, rising), voters.sum(axis=0)


@dataclass(frozen=True)
class CoveredMean(_PerSample):
    """Mean of each class over the clients that have seen it.

    Source: the coverage principle of this module; without coverage it is the plain mean.
    """

    coverage: bool = True

    def reduce(self, probs: Probs, voters: Mask) -> Probs:
        """The mean over the clients that vote."""
        mean: Probs = np.mean(probs, axis=0, where=voters)
        return mean


@dataclass(frozen=True)
class Median(_PerSample):
    """Median of each class over the clients, scaled to the simplex.

    Source: coordinate-wise median, Yin et al., arXiv 1803.01498, on soft labels instead of gradients.
    """

    def reduce(self, probs: Probs, voters: Mask) -> Probs:
        """The middle vote, or the mean of the middle two."""
        rising, count = _sorted_votes(probs, voters)
        middle = np.stack([(count - 1) // 2, count // 2])
        values: Probs = np.take_along_axis(rising, middle, axis=0).mean(axis=0)
        return values


@dataclass(frozen=True)
class TrimmedMean(_PerSample):
    """Mean of each class without the largest and smallest votes.

    Source: coordinate-wise trimmed mean, Yin et al., arXiv 1803.01498, on soft labels instead of gradients.

    Attributes:
        trim: the share of the votes that is left out at each end, in [0, 0.5); rounded down.
        coverage: whether only clients that have seen a class vote on it.
    """

    trim: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.trim, (int, float)) and 0 <= self.trim < 0.5):
            raise ValueError(f"trim: must be in [0, 0.5), got {self.trim!r}")

    def reduce(self, probs: Probs, voters: Mask) -> Probs:
        """The mean of the votes that are left."""
        rising, count = _sorted_votes(probs, voters)
        cut = np.floor(self.trim * count).astype(np.int64)
        sums = np.concatenate([np.zeros_like(rising[:1]), np.cumsum(rising, axis=0)])
        kept = np.take_along_axis(sums, (count - cut)[None], axis=0) - np.take_along_axis(sums, cut[None], axis=0)
        values: Probs = np.maximum(kept[0], 0.0) / (count - 2 * cut)
        return values


@dataclass(frozen=True)
class GeometricMedian(_PerSample):
    """The distribution with the smallest sum of distances to the clients' answers.

    Source: robust aggregation by the geometric median, Pillutla et al., arXiv 1912.13445 (smoothed Weiszfeld), for each
    sample and horizon. With coverage, the weight of a client is that of its whole row, and counts for the classes that
    it has seen.
    """

    def reduce(self, probs: Probs, voters: Mask) -> Probs:
        """Weiszfeld's iteration from the mean."""
        answered = voters.any(axis=-1, keepdims=True)
        weights = answered / answered.sum(axis=0)
        for _ in range(NUM_STEPS):
            centre = (weights * probs).sum(axis=0)
            distance = np.linalg.norm(probs - centre, axis=-1, keepdims=True)
            weights = answered / np.maximum(distance, SMALLEST_DISTANCE)
            weights /= weights.sum(axis=0)
        return _weighted(probs, weights, voters)


@dataclass(frozen=True)
class Consensus(_PerSample):
    """Mean of the clients that the typical other client agrees with, sample by sample.

    A client's standing is the median over the others of the overlap sum_b min(p_i, p_j)_b. Clients whose standing
    is below ``floor`` times the best are left out; the others count by standing and certainty. A group smaller than
    half cannot lift the median of its members, however well they agree among themselves.

    Source: Softbeam; the median makes standing resist collusion where the sum of agreement does not, as the nearest
    neighbours do in Krum, Blanchard et al., NeurIPS 2017. Certainty as in FedGEMS, arXiv 2110.11027.

    Attributes:
        floor: the share of the best standing below which a client is left out, in [0, 1).
        exponent: the exponent of the certainty, >= 0; with 0 clients count by standing alone.
        coverage: whether only clients that have seen a class vote on it.
    """

    coverage: bool = True
    floor: float = 0.3
    exponent: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.floor, (int, float)) and 0 <= self.floor < 1):
            raise ValueError(f"floor: must be in [0, 1), got {self.floor!r}")
        if not (isinstance(self.exponent, (int, float)) and self.exponent >= 0):
            raise ValueError(f"exponent: must be >= 0, got {self.exponent!r}")

    def reduce(self, probs: Probs, voters: Mask) -> Probs:
        """The mean of the clients whose standing is high enough."""
        answered: Mask = np.any(voters, axis=-1)
        standing = _standing(probs, answered)
        trusted = answered & (standing >= self.floor * standing.max(axis=0))
        weights = trusted * standing * confidence(probs, self.exponent)
        for fallback in (trusted, answered):
            weights = np.where(weights.sum(axis=0) > 0, weights, fallback)
        return _weighted(probs, weights[..., None], voters)


def _standing(probs: Probs, answered: Mask) -> Probs:
    """(K, N, H) median overlap with the others that answered; 1 if there are none, 0 for a client without answer."""
    num_clients = len(probs)
    overlaps = np.stack([np.minimum(probs, probs[client]).sum(axis=-1) for client in range(num_clients)])
    others = answered[:, None] & answered[None] & ~np.eye(num_clients, dtype=np.bool_)[..., None, None]
    rising, count = _sorted_votes(np.moveaxis(overlaps, 1, 0), np.moveaxis(others, 1, 0))
    # Of an even number the upper middle one counts: a client and half of the others are a majority, and fewer are not.
    median = np.take_along_axis(rising, count[None] // 2, axis=0)[0]
    return np.where(count == 0, 1.0, median) * answered


def _weighted(probs: Probs, weights: Probs, voters: Mask) -> Probs:
    """The weighted mean of each class over the clients that vote on it; zero where none of them has weight."""
    counted = weights * voters
    total = counted.sum(axis=0)
    values: Probs = np.divide((counted * probs).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    return values
