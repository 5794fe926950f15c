"""The parts of an aggregation rule, which turns the contributions of clients into the ensemble.

An aggregator is any object with one method, ``aggregate``: it takes and returns numpy arrays. Every aggregator
keeps these laws, and the tests check them for every one, also for yours: rows stay on the simplex; the order of
clients does not matter, to the bit; inputs are not modified; a sample is aggregated over the clients that answered
it; the ensemble of one client is its own answer; an aggregation of no contribution is an error.

This module needs numpy only. K clients, N samples, H horizons, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from strategies.labels import PROBABILITY_FLOOR, Contribution, SoftLabels, normalise_rows


class Aggregator(Protocol):
    """A rule that turns contributions into the ensemble."""

    def aggregate(self, contributions: Sequence[Contribution]) -> SoftLabels:
        """The ensemble over every sample that at least one client answered.

        Raises:
            ValueError: there is no contribution.
        """


@dataclass(frozen=True)
class Votes:
    """Contributions on one grid of samples, sorted by client.

    Attributes:
        sample_ids: (N,) the samples that at least one client answered.
        probs: (K, N, H, C) float64 probabilities; zeros where a client did not answer.
        answered: (K, N) whether the client answered the sample.
        num_examples: (K,) the number of labelled windows of each client.
        temperature: the temperature that all contributions share.
        modalities: the modality of each client.
        ages: (K,) the number of rounds by which each answer is late.
        seen: (K, C) whether a client has a labelled window in which the class was the right one.
    """

    sample_ids: NDArray[np.int64]
    probs: NDArray[np.float64]
    answered: NDArray[np.bool_]
    num_examples: NDArray[np.float64]
    temperature: float
    modalities: tuple[str, ...]
    ages: NDArray[np.float64]
    seen: NDArray[np.bool_]


def align(contributions: Sequence[Contribution]) -> Votes:
    """Put contributions of different samples on one grid, sorted by client.

    The order of clients is fixed, so that later sums do not depend on the order of replies.

    Example:
        A rule is a class with one method; this one counts every client that answered alike.

        >>> class Plain:
        ...     def aggregate(self, contributions):
        ...         return weighted_mean(align(contributions), np.ones((1, 1, 1)))
        >>> first = SoftLabels(np.array([0, 1]), np.array([[[1.0, 0.0]], [[1.0, 0.0]]], np.float32), 1.0)
        >>> second = SoftLabels(np.array([1]), np.array([[[0.0, 1.0]]], np.float32), 1.0)
        >>> answers = [Contribution("000-gps", "gps", first, 5), Contribution("001-gps", "gps", second, 5)]
        >>> Plain().aggregate(answers).probs[:, 0].tolist()
        [[1.0, 0.0], [0.5, 0.5]]

    Raises:
        ValueError: there is no contribution, or temperatures or row shapes differ.
    """
    grid = _Grid.of(contributions)
    return grid.votes(0, len(grid.sample_ids))


@dataclass(frozen=True, eq=False)
class _Grid:
    """Contributions sorted by client, and the samples that at least one of them answered."""

    contributions: Sequence[Contribution]
    sample_ids: NDArray[np.int64]

    @classmethod
    def of(cls, contributions: Sequence[Contribution]) -> _Grid:
        """The grid of some contributions; raises as :func:`align` does."""
        if not contributions:
            raise ValueError("there is nothing to aggregate: no client contributed")
        ordered = sorted(contributions, key=lambda contribution: contribution.client)
        temperatures = {contribution.labels.temperature for contribution in ordered}
        shapes = {contribution.labels.probs.shape[1:] for contribution in ordered}
        if len(temperatures) > 1 or len(shapes) > 1:
            raise ValueError(f"contributions differ in temperature {temperatures} or in row shape {shapes}")
        first = ordered[0].labels.sample_ids
        is_one = all(np.array_equal(one.labels.sample_ids, first) for one in ordered)
        return cls(ordered, first if is_one else np.unique(np.concatenate([one.labels.sample_ids for one in ordered])))

    @property
    def row_shape(self) -> tuple[int, int]:
        """(H, C)."""
        num_horizons, num_classes = self.contributions[0].labels.probs.shape[1:]
        return num_horizons, num_classes

    def votes(self, first: int, last: int, *, buffer: NDArray[np.float64] | None = None) -> Votes:
        """The votes on the samples in places ``first`` to ``last`` of the grid; a buffer spares new memory."""
        ids, size = self.sample_ids[first:last], last - first
        shape = (len(self.contributions), size, *self.row_shape)
        probs = np.empty(shape) if buffer is None else buffer[: np.prod(shape, dtype=int)].reshape(shape)
        answered = np.zeros(shape[:2], dtype=np.bool_)
        for place, contribution in enumerate(self.contributions):
            labels = contribution.labels
            begin, end = (0, 0) if not size else np.searchsorted(labels.sample_ids, (ids[0], ids[-1] + 1))
            if end - begin == size:
                probs[place] = labels.probs[begin:end]
                answered[place] = True
                continue
            probs[place] = 0.0
            rows = np.searchsorted(ids, labels.sample_ids[begin:end])
            probs[place, rows] = labels.probs[begin:end]
            answered[place, rows] = True
        all_classes = np.ones(shape[-1], dtype=np.bool_)
        everyone = self.contributions
        return Votes(
            sample_ids=ids,
            probs=probs,
            answered=answered,
            num_examples=np.array([contribution.num_examples for contribution in everyone], dtype=np.float64),
            temperature=everyone[0].labels.temperature,
            modalities=tuple(contribution.modality for contribution in everyone),
            ages=np.array([contribution.age for contribution in everyone], dtype=np.float64),
            seen=np.array([all_classes if one.seen is None else one.seen > 0 for one in everyone]),
        )


BLOCK_BYTES = 1 << 25
"""The most memory that the probabilities of a block of samples take, unless one sample needs more."""


def in_blocks(contributions: Sequence[Contribution], rule: Callable[[Votes], SoftLabels]) -> SoftLabels:
    """The ensemble by a rule that decides on each sample apart, block by block of samples.

    A thousand clients then need no gigabyte of float64, and the result is that of all samples at once, to the bit.

    Args:
        contributions: the contributions, in any order.
        rule: a function of the votes on some samples, which makes the ensemble of these samples.

    Raises:
        ValueError: as :func:`align` does.
    """
    grid = _Grid.of(contributions)
    num_samples, per_sample = len(grid.sample_ids), len(contributions) * int(np.prod(grid.row_shape))
    size = max(1, BLOCK_BYTES // (8 * max(per_sample, 1)))
    if size >= num_samples:
        return rule(grid.votes(0, num_samples))
    buffer = np.empty(size * per_sample)
    found = [
        rule(grid.votes(first, min(first + size, num_samples), buffer=buffer)).probs
        for first in range(0, num_samples, size)
    ]
    return SoftLabels(grid.sample_ids, np.concatenate(found), contributions[0].labels.temperature)


def weighted_mean(votes: Votes, weights: NDArray[np.float64]) -> SoftLabels:
    """The weighted mean sum_c w_c p_c / sum_c w_c over the clients that answered.

    Args:
        votes: the contributions, as :func:`align` gives them.
        weights: >= 0, of a shape that broadcasts to (K, N, H); where all weights of a row are zero, the clients that
            answered count equally.
    """
    shares = _shares(votes, weights)
    return SoftLabels(
        votes.sample_ids, normalise_rows(np.einsum("cnh,cnhb->nhb", shares, votes.probs)), votes.temperature
    )


def weighted_product(votes: Votes, weights: NDArray[np.float64]) -> SoftLabels:
    """The product of experts prod_c p_c^(w_c / sum w), scaled to the simplex; arguments as in :func:`weighted_mean`."""
    shares = _shares(votes, weights)
    log_pool = np.einsum("cnh,cnhb->nhb", shares, np.log(np.maximum(votes.probs, PROBABILITY_FLOOR)))
    pool = np.exp(log_pool - log_pool.max(axis=-1, keepdims=True))
    return SoftLabels(votes.sample_ids, normalise_rows(pool), votes.temperature)


def confidence(probs: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """((ln C - entropy) / ln C)^exponent of each distribution: 1 for a one-hot row, 0 for a uniform one.

    Args:
        probs: (..., C) rows on the simplex.
        exponent: > 0; a larger one gives certain distributions more weight.
    """
    entropy = -np.sum(probs * np.log(np.maximum(probs, PROBABILITY_FLOOR)), axis=-1)
    certainty: NDArray[np.float64] = np.clip(1.0 - entropy / np.log(probs.shape[-1]), 0.0, 1.0)
    return certainty**exponent


def _shares(votes: Votes, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    shape = votes.probs.shape[:-1]
    masked = np.broadcast_to(weights, shape) * votes.answered[..., None]
    total = masked.sum(axis=0)
    equal = np.broadcast_to(votes.answered[..., None] / votes.answered.sum(axis=0)[:, None], shape).copy()
    shares: NDArray[np.float64] = np.divide(masked, total, out=equal, where=np.broadcast_to(total > 0, shape))
    return shares
