"""Personal targets: each client gets a mixture of the answers of those clients whose answers are like its own.

K voters, N samples, H horizons, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from configs.recipes import RECIPES, Traits
from strategies.aggregation import Votes, align, weighted_mean
from strategies.labels import Contribution, SoftLabels
from strategies.methods.distillation import DistillationStrategy
from strategies.privacy import project_to_simplex


class PersonalStrategy(DistillationStrategy):
    """Every client gets its own mixture of the others' answers instead of the ensemble.

    With ``weights``, each of the others counts the more, the nearer its answers are to the client's own
    (`mixture_weights`). With ``clusters``, the mixture is the plain mean of the client's cluster (`same_cluster`).
    Where none of these others answered a sample, the client gets the ensemble. The teacher is one of the others if it
    votes. A mixture is sharpened and fused (``sharpen``, ``publish``) in the same way as the ensemble.

    Source: KT-pFL, arXiv 2111.02862, for coefficients learned on the server; COMET, arXiv 2109.08119, for clusters.

    Args:
        mixture: ``weights`` or ``clusters``.
        pull: the pull towards equal weights, > 0; a large one gives everyone the plain mean of the others.
        num_clusters: the most clusters that ``clusters`` makes, >= 1.
        arguments: the arguments of `DistillationStrategy`.
    """

    traits: ClassVar[Traits] = RECIPES["personal"].traits

    def __init__(
        self,
        *,
        mixture: Literal["weights", "clusters"] = "weights",
        pull: float = 1.0,
        num_clusters: int = 2,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.mixture = mixture
        self.pull = pull
        self.num_clusters = num_clusters

    @classmethod
    def check_options(
        cls, mixture: str = "weights", pull: float = 1.0, num_clusters: int = 2, **others: object
    ) -> None:
        """Refuse an unknown mixture, a pull that is not positive and a number of clusters below 1."""
        if mixture not in ("weights", "clusters"):
            raise ValueError(f"mixture: must be weights or clusters, got {mixture!r}")
        if not (isinstance(pull, (int, float)) and 0 < pull < np.inf):
            raise ValueError(f"pull: must be > 0, got {pull!r}")
        if not (isinstance(num_clusters, int) and num_clusters >= 1):
            raise ValueError(f"num_clusters: must be >= 1, got {num_clusters!r}")

    def targets_for(self, contributions: Sequence[Contribution], ensemble: SoftLabels) -> dict[str, SoftLabels]:
        """A mixture for each client that answered, on the samples of the ensemble."""
        voters = sorted(self.voters(contributions, ensemble.sample_ids), key=lambda voter: voter.client)
        votes = align(voters)
        by_weight = self.mixture == "weights"
        matrix = mixture_weights(votes, self.pull) if by_weight else same_cluster(votes, self.num_clusters)
        clients = {contribution.client for contribution in contributions}
        return {
            voter.client: ensemble.update(self.calibrate(_mixture(votes, row, weights)))
            for row, (voter, weights) in enumerate(zip(voters, matrix, strict=True))
            if voter.client in clients
        }


def distances(votes: Votes) -> NDArray[np.float64]:
    """(K, K) d_cj = mean |p_c - p_j|^2 over the rows (samples and horizons) of the samples that both answered.

    Distances are divided by the mean |p|^2 of all rows that were answered, so that a scale means the same however
    certain the answers are. For two voters without a common sample nothing is known: they get the mean of the known
    distances, or 0 where no distance is known.
    """
    num_horizons = votes.probs.shape[2]
    common = num_horizons * (votes.answered.astype(np.float64) @ votes.answered.T)
    flat = votes.probs.reshape(len(votes.probs), -1)
    norms = (votes.probs**2).sum(axis=(2, 3))  # (K, N), zeros where a voter did not answer
    on_common = norms @ votes.answered.T  # |p_c|^2 summed over what c and j both answered
    squares = np.maximum(on_common + on_common.T - 2.0 * flat @ flat.T, 0.0)
    scale = norms.sum() / (num_horizons * votes.answered.sum())
    others = ~np.eye(len(flat), dtype=np.bool_)
    known = (common > 0) & others
    found = np.divide(squares, common * scale, out=np.zeros_like(squares), where=known)
    return np.where(known | ~others, found, found[known].mean() if known.any() else 0.0)


def mixture_weights(votes: Votes, pull: float) -> NDArray[np.float64]:
    """(K, K) row c: weights w of the others, zero for c itself, that minimise a sum over them on the simplex.

    sum_j w_j d_cj + pull sum_j (w_j - 1 / (K - 1))^2, with d of :func:`distances`; the minimum is the point of the
    simplex that is nearest to 1 / (K - 1) - d_cj / (2 pull). As squares are convex, the first sum is at least the
    distance of the mixture itself, which is nearer to what KT-pFL minimises; but it needs pairs only, so voters that
    answered different samples can be compared.

    Source: the collaboration graph of pFedGraph, ICML 2023 (PMLR v202, ye23b); that paper compares weights by
    their cosine and draws towards shares of the data.

    Args:
        votes: the votes of K voters; a single voter has a row of zeros.
        pull: the pull towards equal weights, > 0.
    """
    distance = distances(votes)
    num_others = len(distance) - 1
    weights = np.zeros_like(distance)
    for row in range(len(distance) if num_others else 0):
        others = np.arange(len(distance)) != row
        weights[row, others] = project_to_simplex(1.0 / num_others - distance[row, others] / (2.0 * pull))
    return weights


def same_cluster(votes: Votes, num_clusters: int) -> NDArray[np.float64]:
    """(K, K) 1 where two voters are in the same one of at most ``num_clusters`` clusters, else 0.

    Clusters come from average linkage of :func:`distances`, which needs pairs only; COMET has k-means of whole answers.
    """
    if len(votes.probs) == 1:
        return np.ones((1, 1))
    tree = linkage(squareform(distances(votes), checks=False), method="average")
    cluster = fcluster(tree, num_clusters, criterion="maxclust")
    together: NDArray[np.float64] = (cluster[:, None] == cluster[None]).astype(np.float64)
    return together


def _mixture(votes: Votes, row: int, weights: NDArray[np.float64]) -> SoftLabels:
    """The mean with weights (K,), on the samples that another voter with a positive weight answered."""
    counts = (weights > 0) & (np.arange(len(weights)) != row)
    mean = weighted_mean(votes, weights[:, None, None])
    return mean.take(votes.sample_ids[votes.answered[counts].any(axis=0)])
