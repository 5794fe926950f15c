"""An interval for a mean of paired differences that come in groups, such as the clients of each run.

Source: percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

G groups, R replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike

from configs.seeding import rng_for

NUM_REPLICATES = 2000
TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class PairedMean:
    """A mean with the limits of its 95 % interval.

    Attributes:
        mean: the mean over groups of the mean of each group.
        low: the lower limit; equal to the mean where there is one difference only.
        high: the upper limit.
    """

    mean: float
    low: float
    high: float


def paired_interval(groups: Sequence[ArrayLike], name: str) -> PairedMean:
    """The mean of paired differences, with its interval over groups and over the members of each.

    A replicate draws the members of every group with replacement, and then the groups.

    Args:
        groups: for each of G groups its differences, at least one.
        name: what is compared; it names the random draws, which are the same for groups of the same sizes.
    """
    values = [np.asarray(one, np.float64) for one in groups]
    count = len(values)
    rng = rng_for(0, name, count, *(len(one) for one in values))
    means = np.empty((count, NUM_REPLICATES))
    for number, one in enumerate(values):
        times = rng.multinomial(len(one), np.full(len(one), 1 / len(one)), NUM_REPLICATES)
        means[number] = times @ one / len(one)
    drawn = rng.multinomial(count, np.full(count, 1 / count), NUM_REPLICATES)
    low, high = np.quantile((drawn.T * means).sum(axis=0) / count, TAILS)
    return PairedMean(fmean(float(one.mean()) for one in values), float(low), float(high))
