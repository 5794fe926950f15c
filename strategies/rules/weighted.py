"""The weighted rule, which says how much each client counts, and simpler rules as presets of it.

K clients, N samples, H horizons, C classes. A weight is a function of the votes; several are multiplied. Weights say
how much a client counts, not which answers are outliers: for that see `strategies.rules.robust`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strategies.aggregation import Votes, confidence, in_blocks, weighted_mean, weighted_product
from strategies.labels import Contribution, SoftLabels

Weight = Callable[[Votes, "Weighted"], NDArray[np.float64]]


def uniform(votes: Votes, rule: Weighted) -> NDArray[np.float64]:
    """(1, 1, 1) the same weight for every client."""
    return np.ones((1, 1, 1))


def examples(votes: Votes, rule: Weighted) -> NDArray[np.float64]:
    """(K, 1, 1) the number of labelled windows; each client itself says it, so an impostor may exaggerate."""
    return votes.num_examples[:, None, None]


def entropy(votes: Votes, rule: Weighted) -> NDArray[np.float64]:
    """(K, N, H) certainty to the power of ``rule.exponent``; it presumes that certainty is calibrated.

    Source: FedGEMS, arXiv 2110.11027.
    """
    return confidence(votes.probs, rule.exponent)


def agreement(votes: Votes, rule: Weighted) -> NDArray[np.float64]:
    """(K, N, H) sum_b min(p_c, mean)_b, to the power of ``rule.exponent``: 1 where a client says what the mean does.

    The mean is over all clients that answered, the client itself included: with the mean of the others alone, two
    clients that contradict each other would both count nothing.
    """
    mean = weighted_mean(votes, np.ones((1, 1, 1))).probs
    overlap: NDArray[np.float64] = np.minimum(votes.probs, mean[None]).sum(axis=-1)
    return overlap**rule.exponent


def modality(votes: Votes, rule: Weighted) -> NDArray[np.float64]:
    """(K, N, 1) one over the number of clients of the same modality that answered: many cameras count as one sense."""
    names = np.array(votes.modalities)
    same = (names[:, None] == names[None]).astype(np.float64)
    shares: NDArray[np.float64] = 1.0 / np.maximum(same @ votes.answered, 1.0)
    return shares[..., None]


def age(votes: Votes, rule: Weighted) -> NDArray[np.float64]:
    """(K, 1, 1) (1 + age)^-``rule.age_exponent`` of each answer; the age is the number of rounds by which it is late.

    Source: the polynomial staleness of FedAsync, arXiv 1903.03934.
    """
    return ((1.0 + votes.ages) ** -rule.age_exponent)[:, None, None]


WEIGHTS: dict[str, Weight] = {
    "uniform": uniform,
    "examples": examples,
    "entropy": entropy,
    "agreement": agreement,
    "modality": modality,
    "age": age,
}


@dataclass(frozen=True)
class Weighted:
    """Weighted mean or product, in which a client's weight is the product of the weights that are named.

    Source: `WEIGHTS` names one for each weight; the product is the logarithmic opinion pool, Genest and Zidek 1986.

    Attributes:
        weights: the names of the weights, which are keys of `WEIGHTS`.
        pool: ``mean`` or ``product``.
        exponent: the exponent of certainty and agreement, > 0; a larger one gives certain and agreeing clients more
            weight.
        age_exponent: says how fast a late answer loses weight, >= 0; with 0 it counts in full.

    Example:
        >>> sure = SoftLabels(np.array([0]), np.array([[[0.9, 0.1]]], np.float32), 1.0)
        >>> torn = SoftLabels(np.array([0]), np.array([[[0.5, 0.5]]], np.float32), 1.0)
        >>> answers = [Contribution("000-gps", "gps", sure, 10), Contribution("001-gps", "gps", torn, 10)]
        >>> [f"{p:.2f}" for p in Weighted(weights=["entropy"]).aggregate(answers).probs[0, 0]]
        ['0.90', '0.10']
        >>> [f"{p:.2f}" for p in Weighted(weights=["uniform"]).aggregate(answers).probs[0, 0]]
        ['0.70', '0.30']
    """

    weights: Sequence[str] = ("entropy", "age")
    pool: Literal["mean", "product"] = "mean"
    exponent: float = 1.0
    age_exponent: float = 0.5

    def __post_init__(self) -> None:
        names = self.weights
        if not isinstance(names, (list, tuple)) or not names or not all(name in WEIGHTS for name in names):
            raise ValueError(f"weights: must be a list of {', '.join(WEIGHTS)}, got {names!r}")
        if self.pool not in ("mean", "product"):
            raise ValueError(f"pool: must be mean or product, got {self.pool!r}")
        if not (isinstance(self.exponent, (int, float)) and 0 < self.exponent < np.inf):
            raise ValueError(f"exponent: must be > 0, got {self.exponent!r}")
        if not (isinstance(self.age_exponent, (int, float)) and 0 <= self.age_exponent < np.inf):
            raise ValueError(f"age_exponent: must be >= 0, got {self.age_exponent!r}")

    def aggregate(self, contributions: Sequence[Contribution]) -> SoftLabels:
        """The weighted mean or product of each sample."""
        return in_blocks(contributions, self._combine)

    def _combine(self, votes: Votes) -> SoftLabels:
        """The ensemble of some samples, on each of which votes count apart from all others."""
        product = np.ones((1, 1, 1))
        for name in self.weights:
            product = product * WEIGHTS[name](votes, self)
        return weighted_mean(votes, product) if self.pool == "mean" else weighted_product(votes, product)


@dataclass(frozen=True)
class Mean(Weighted):
    """Every client that answered counts alike.

    Source: FedMD, arXiv 1910.03581, on probabilities instead of logits.
    """

    weights: Sequence[str] = field(default=("uniform",), init=False)
    pool: Literal["mean", "product"] = field(default="mean", init=False)
    exponent: float = field(default=1.0, init=False)
    age_exponent: float = field(default=0.0, init=False)


@dataclass(frozen=True)
class ExampleWeighted(Mean):
    """A client counts by the labelled windows that it learned from.

    Source: the weights of FedAvg, arXiv 1602.05629, on soft labels.
    """

    weights: Sequence[str] = field(default=("examples",), init=False)


@dataclass(frozen=True)
class EntropyMean(Mean):
    """Mean in which a client counts, sample by sample, by how certain it is.

    Source: entropy weights as in FedGEMS, arXiv 2110.11027; it presumes answers that are calibrated.

    Attributes:
        exponent: the exponent of the certainty, > 0; a larger one gives certain clients more weight.
    """

    weights: Sequence[str] = field(default=("entropy",), init=False)
    exponent: float = 1.0


@dataclass(frozen=True)
class EntropyProduct(EntropyMean):
    """Product of experts in which a client counts, sample by sample, by how certain it is.

    Source: logarithmic opinion pool (Genest and Zidek 1986) with entropy weights, the rule that
    pooled heterogeneous sensors best by night and by day among those tried.

    Attributes:
        exponent: the exponent of the certainty, > 0; a larger one gives certain clients more weight.
    """

    pool: Literal["mean", "product"] = field(default="product", init=False)
