"""The targets that were published, and who holds which of them.

One rule on both sides: a target carries the round in which it was published, and a client that
holds the targets up to round r lacks exactly those that were published later. N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.labels import SoftLabels


@dataclass(frozen=True)
class TargetCache:
    """Every public sample's newest target.

    Attributes:
        labels: the newest targets; None before the first were published.
        published: (N,) round in which each of ``labels`` was published.
    """

    labels: SoftLabels | None = None
    published: NDArray[np.int64] | None = None

    def publish(self, targets: SoftLabels, round_number: int) -> TargetCache:
        """The cache with newer targets in it."""
        if self.labels is None or self.published is None:
            return TargetCache(targets, np.full(len(targets), round_number))
        labels = self.labels.update(targets)
        published = np.full(len(labels), round_number)
        old = ~np.isin(labels.sample_ids, targets.sample_ids)
        published[old] = self.published[np.searchsorted(self.labels.sample_ids, labels.sample_ids[old])]
        return TargetCache(labels, published)

    def newer_than(self, round_number: int) -> SoftLabels | None:
        """What a client lacks that holds the targets up to ``round_number``; None if nothing."""
        if self.labels is None or self.published is None:
            return None
        lacking = self.published > round_number
        return self.labels.take(self.labels.sample_ids[lacking]) if lacking.any() else None
