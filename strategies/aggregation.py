"""The parts of an aggregation rule, which turns the contributions of clients into the ensemble.

An aggregator is any object with one method, ``aggregate``: it takes and returns numpy arrays. Every aggregator
keeps these laws, and the tests check them for every one, also for yours: rows stay on the simplex; the order of
clients does not matter, to the bit; inputs are not modified; a sample is aggregated over the clients that answered
it; the ensemble of one client is its own answer; an aggregation of no contribution is an error.

This module needs numpy only. K clients, N samples, H horizons, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    if not contributions:
        raise ValueError("there is nothing to aggregate: no client contributed")
    ordered = sorted(contributions, key=lambda contribution: contribution.client)
    temperatures = {contribution.labels.temperature for contribution in ordered}
    shapes = {contribution.labels.probs.shape[1:] for contribution in ordered}
    if len(temperatures) > 1 or len(shapes) > 1:
        raise ValueError(f"contributions differ in temperature {temperatures} or in row shape {shapes}")
    sample_ids = np.unique(np.concatenate([contribution.labels.sample_ids for contribution in ordered]))
    probs = np.zeros((len(ordered), len(sample_ids), *shapes.pop()))
    answered = np.zeros((len(ordered), len(sample_ids)), dtype=np.bool_)
    for client, contribution in enumerate(ordered):
        rows = np.searchsorted(sample_ids, contribution.labels.sample_ids)
        probs[client, rows] = contribution.labels.probs
        answered[client, rows] = True
    all_classes = np.ones(probs.shape[-1], dtype=np.bool_)
    return Votes(
        sample_ids=sample_ids,
        probs=probs,
        answered=answered,
        num_examples=np.array([contribution.num_examples for contribution in ordered], dtype=np.float64),
        temperature=temperatures.pop(),
        modalities=tuple(contribution.modality for contribution in ordered),
        ages=np.array([contribution.age for contribution in ordered], dtype=np.float64),
        seen=np.array([all_classes if one.seen is None else one.seen > 0 for one in ordered]),
    )


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
