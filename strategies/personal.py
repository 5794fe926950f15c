"""Targets of its own for every client: a mixture that explains the client's answers by those of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from configs.seeding import seed_for
from strategies.aggregation import Votes, align, weighted_mean
from strategies.distillation import DistillationStrategy
from strategies.labels import Contribution, SoftLabels
from strategies.privacy import project_to_simplex

# Steps of the projected gradient; the problem has as many unknowns as there are clients.
NUM_STEPS = 500


class PersonalStrategy(DistillationStrategy):
    """Every client gets a mixture of its own instead of the ensemble.

    ``weights``: on the simplex, such that the mixture of the others' answers is nearest to the client's own, drawn
    towards equal weights. ``clusters``: the plain mean of the client's k-means cluster.

    Source: KT-pFL, arXiv 2111.02862, with squared error instead of a distillation loss and solved on the server;
    COMET, arXiv 2109.08119, for clusters.

    Args:
        mixture: ``weights`` or ``clusters``.
        pull: towards equal weights, >= 0; large gives everyone the plain mean.
        num_clusters: of ``clusters``, >= 1.
        arguments: of `DistillationStrategy`.
    """

    def __init__(
        self,
        *,
        mixture: Literal["weights", "clusters"] = "weights",
        pull: float = 0.1,
        num_clusters: int = 2,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.mixture = mixture
        self.pull = pull
        self.num_clusters = num_clusters

    @classmethod
    def check_options(
        cls, mixture: str = "weights", pull: float = 0.1, num_clusters: int = 2, **others: object
    ) -> None:
        """Refuse an unknown mixture, a negative pull and no clusters."""
        if mixture not in ("weights", "clusters"):
            raise ValueError(f"mixture: must be weights or clusters, got {mixture!r}")
        if not (isinstance(pull, (int, float)) and pull >= 0):
            raise ValueError(f"pull: must be >= 0, got {pull!r}")
        if not (isinstance(num_clusters, int) and num_clusters >= 1):
            raise ValueError(f"num_clusters: must be >= 1, got {num_clusters!r}")

    def targets_for(self, contributions: Sequence[Contribution], ensemble: SoftLabels) -> dict[str, SoftLabels]:
        """A mixture for each client that answered, on the samples that anyone answered."""
        votes = align(contributions)
        if self.mixture == "weights":
            matrix = mixture_weights(votes, self.pull)
        else:
            seed = seed_for(self.experiment.seed, "clusters", self.now)
            matrix = same_cluster(votes, self.num_clusters, seed)
        clients = sorted(contribution.client for contribution in contributions)
        return {
            client: self.calibrate(weighted_mean(votes, row[:, None, None]))
            for client, row in zip(clients, matrix, strict=True)
        }


def mixture_weights(votes: Votes, pull: float) -> NDArray[np.float64]:
    """(C, C) row c: the weights w on the simplex that minimise |p_c - sum_j w_j p_j|^2 / s + pull |w - 1/C|^2.

    Over the samples that all answered, or all samples where there is none, with s the mean squared norm of an answer:
    ``pull`` means the same for any number of samples. Solved by projected gradient.
    """
    num_clients = len(votes.probs)
    everyone = votes.answered.all(axis=0)
    flat = votes.probs[:, everyone if everyone.any() else slice(None)].reshape(num_clients, -1)
    gram = flat @ flat.T
    gram /= max(float(np.trace(gram)) / num_clients, np.finfo(float).tiny)
    equal = np.full(num_clients, 1.0 / num_clients)
    rate = 0.5 / (np.linalg.eigvalsh(gram)[-1] + pull)
    weights = np.tile(equal, (num_clients, 1))
    for _ in range(NUM_STEPS):
        gradient = 2.0 * (weights @ gram - gram + pull * (weights - equal))
        weights = project_to_simplex(weights - rate * gradient)
    return weights


def same_cluster(votes: Votes, num_clusters: int, seed: int) -> NDArray[np.float64]:
    """(C, C) 1 where two clients are in the same k-means cluster of their answers, else 0."""
    flat = votes.probs.reshape(len(votes.probs), -1)
    _, cluster = kmeans2(flat, min(num_clusters, len(flat)), minit="++", seed=seed % 2**32)
    together: NDArray[np.float64] = (cluster[:, None] == cluster[None]).astype(np.float64)
    return together
