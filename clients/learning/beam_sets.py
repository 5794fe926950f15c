"""Sets of beams to sweep, with a bound on how often they miss: conformal risk control over passes.

The set of a window takes up beams one after the other, each time the one that adds most to the probability that some
beam of the set is within x dB of the best, and holds the smallest number with which this is above a threshold. Sets of
a higher threshold hold those of a lower one, and that of threshold 1 holds every beam.

A window is *missed* if no beam of its set is within x dB of the best. The loss of a pass is the share of its windows
that are missed. :func:`choose_threshold` takes the smallest threshold at which

    (n R(threshold) + 1) / (n + 1) <= alpha,

where R is the mean loss of n calibration passes. **Guarantee**: if the calibration passes and the next one are
exchangeable, and the tracker learned from none of them, the expected loss of the next pass is at most alpha. The
expectation is over the calibration passes too: it bounds neither the loss for one calibration nor that of each pass,
and nothing holds for windows, which are alike within a pass. With n passes no alpha below 1 / (n + 1) can be
guaranteed by less than every beam.

Source: Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal Risk Control", ICLR 2024, arXiv 2208.02814, theorem 1 with
B = 1.

N windows, B beams, n passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.learning.metrics import POWER_FLOOR

ALL_BEAMS = 1.0
"""The threshold at which every set holds all beams."""
# Chosen by the time that they take: tenths of a millisecond a window for 64 beams, about a millisecond for 1,024.
LEAST_GREEDY, MOST_GREEDY, GREEDY_OPERATIONS = 8, 64, 2**22
# How far the sum of the probabilities of a window may be from 1.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RankedBeams:
    """The beams of some windows in the order in which sets take them up.

    Attributes:
        order: (N, B) beams; every row is a permutation.
        levels: (N, B) what a set of the first 1, 2, ... B beams has gathered, in [0, 1]; it never falls along a row.
    """

    order: NDArray[np.int64]
    levels: NDArray[np.float64]

    @classmethod
    def by_probability(cls, probs: NDArray[np.floating]) -> RankedBeams:
        """By descending probability; of equal beams the smaller index comes first. Levels are cumulative probabilities.

        Args:
            probs: (N, B) calibrated probabilities.

        Raises:
            ValueError: a row is not a distribution.

        Example:
            >>> ranked = RankedBeams.by_probability(np.array([[0.1, 0.6, 0.3]]))
            >>> ranked.order.tolist(), ranked.sizes(0.5).tolist(), ranked.sizes(0.8).tolist()
            ([[1, 2, 0]], [1], [2])
        """
        values = np.asarray(probs, np.float64)
        if values.ndim != 2 or values.shape[1] == 0:
            raise ValueError(f"probs: must have the shape (windows, beams), got {values.shape}")
        if not (np.all(values >= 0.0) and np.all(np.abs(values.sum(axis=1) - 1.0) <= SUM_TOLERANCE)):
            raise ValueError("probs must be beam distributions; did you pass logits?")
        order = np.argsort(-values, axis=1, kind="stable")
        gathered = np.cumsum(np.take_along_axis(values, order, axis=1), axis=1)
        return cls(order, np.minimum(gathered / gathered[:, -1:], ALL_BEAMS))

    @classmethod
    def by_cover(cls, probs: NDArray[np.floating], stand_ins: NDArray[np.uint8]) -> RankedBeams:
        """Each time the beam that adds most to the probability of a good beam; levels are that probability.

        Let p_b be the probability that beam b is the best, and g_bs the share of such slots in which beam s does as
        well. A set S holds a good beam with probability sum_b p_b (1 - prod_{s in S} (1 - g_bs)), if the beams of S do
        so independently. The greedy order has for each size at least 1 - 1/e of the largest such probability
        (Nemhauser, Wolsey, Fisher, Mathematical Programming 14 (1978) 265). Where each beam stands in for itself alone,
        it is that of :meth:`by_probability`.

        Each step takes B^2 operations a window, so of large codebooks the first beams alone are chosen like this, all
        of up to 64 and at least 8 of 1,024 (`num_greedy`). The others follow by the probability that is left of each.

        Args:
            probs: (N, B) calibrated probabilities.
            stand_ins: (B, B) in 0..255 (`clients.learning.stand_ins`); its diagonal is 255.

        Raises:
            ValueError: a row is not a distribution, or the table has another shape.

        Example:
            >>> table = np.array([[255, 255, 0], [0, 255, 255], [0, 0, 255]], np.uint8)
            >>> ranked = RankedBeams.by_cover(np.array([[0.4, 0.25, 0.35]]), table)
            >>> ranked.order.tolist(), ranked.levels.round(2).tolist()
            ([[1, 2, 0]], [[0.65, 1.0, 1.0]])
        """
        by_probability = cls.by_probability(probs)
        num_windows, num_beams = probs.shape
        if stand_ins.shape != (num_beams, num_beams):
            raise ValueError(f"stand_ins: must have the shape {(num_beams, num_beams)}, got {stand_ins.shape}")
        shares = stand_ins.astype(np.float64) / np.iinfo(np.uint8).max
        rows = np.arange(num_windows)
        left = np.asarray(probs, np.float64).copy()
        is_free = np.ones((num_windows, num_beams), np.bool_)
        order, gains = np.empty((num_windows, num_beams), np.int64), np.empty((num_windows, num_beams))
        num_chosen = num_greedy(num_beams)
        for size in range(num_chosen):
            added = np.where(is_free, left @ shares, -1.0)
            # Of beams that add the same, the more probable one comes first.
            place = np.take_along_axis(added, by_probability.order, axis=1).argmax(axis=1)
            beam = by_probability.order[rows, place]
            order[:, size], gains[:, size] = beam, added[rows, beam]
            is_free[rows, beam] = False
            left *= 1.0 - shares.T[beam]
        if num_chosen < num_beams:
            rest = np.argsort(-np.where(is_free, left, -1.0), axis=1, kind="stable")[:, : num_beams - num_chosen]
            order[:, num_chosen:], gains[:, num_chosen:] = rest, np.take_along_axis(left, rest, axis=1)
        gathered = np.cumsum(gains, axis=1)
        return cls(order, np.minimum(gathered / gathered[:, -1:], ALL_BEAMS))

    @classmethod
    def by_rank(cls, scores: NDArray[np.floating]) -> RankedBeams:
        """By descending score, for scores that are no probabilities; every set of a threshold has the same size.

        Args:
            scores: (N, B) values that increase with the probability of a beam.

        Raises:
            ValueError: a score is not a number.
        """
        values = np.asarray(scores, np.float64)
        if values.ndim != 2 or values.shape[1] == 0:
            raise ValueError(f"scores: must have the shape (windows, beams), got {values.shape}")
        if np.isnan(values).any():
            raise ValueError("scores must be numbers, and some are NaN")
        order = np.argsort(-values, axis=1, kind="stable")
        levels = np.arange(1, values.shape[1] + 1) / values.shape[1]
        return cls(order, np.broadcast_to(levels, values.shape))

    def sizes(self, threshold: float) -> NDArray[np.int64]:
        """(N,) the number of beams in each set, from 1 to B.

        Raises:
            ValueError: the threshold is not in [0, 1].
        """
        if not 0.0 <= threshold <= ALL_BEAMS:
            raise ValueError(f"threshold: must be in [0, 1], got {threshold}")
        found: NDArray[np.int64] = np.sum(self.levels[:, :-1] <= threshold, axis=1) + 1
        return found

    def members(self, threshold: float) -> list[NDArray[np.int64]]:
        """The beams of each set, in the order in which it takes them up."""
        return [row[:size] for row, size in zip(self.order, self.sizes(threshold), strict=True)]

    def ranks_of_good(self, power: NDArray[np.floating], within_db: float) -> NDArray[np.int64]:
        """(N,) how many beams a set takes until it holds one that loses at most ``within_db``, from 1 to B.

        Args:
            power: (N, B) linear receive power.
            within_db: the loss that is tolerated, in dB, at least 0.

        Raises:
            ValueError: the power has another shape, or the loss is negative.
        """
        if power.shape != self.order.shape:
            raise ValueError(f"power: must have the shape {self.order.shape}, got {power.shape}")
        if not within_db >= 0.0:
            raise ValueError(f"within_db: must be at least 0, got {within_db}")
        floored = np.maximum(power.astype(np.float64), POWER_FLOOR)
        good = floored >= floored.max(axis=1, keepdims=True) * 10.0 ** (-within_db / 10.0)
        found: NDArray[np.int64] = np.take_along_axis(good, self.order, axis=1).argmax(axis=1) + 1
        return found

    def needed(self, power: NDArray[np.floating], within_db: float) -> NDArray[np.float64]:
        """(N,) the smallest threshold at which each set holds a beam within ``within_db``, in [0, 1].

        A window is missed exactly at the thresholds below it. The arguments are those of :meth:`ranks_of_good`.
        """
        before = self.ranks_of_good(power, within_db) - 2
        gathered = np.take_along_axis(self.levels, np.maximum(before, 0)[:, None], axis=1)[:, 0]
        return np.where(before < 0, 0.0, gathered)


def num_greedy(num_beams: int) -> int:
    """How many beams of a codebook :meth:`RankedBeams.by_cover` chooses one after the other.

    Example:
        >>> [num_greedy(num_beams) for num_beams in (16, 64, 256, 512, 1024)]
        [16, 64, 64, 16, 8]
    """
    return min(num_beams, max(LEAST_GREEDY, min(MOST_GREEDY, GREEDY_OPERATIONS // num_beams**2)))


def losses_of_passes(
    needed: NDArray[np.float64], pass_of_window: NDArray[np.integer], threshold: float
) -> NDArray[np.float64]:
    """(n,) the share of missed windows of each pass, in [0, 1]; passes come in the order of their ids.

    Args:
        needed: (N,) what :meth:`RankedBeams.needed` gave.
        pass_of_window: (N,) the pass that each window is from.
        threshold: the threshold of the sets.
    """
    _, place, counts = np.unique(pass_of_window, return_inverse=True, return_counts=True)
    shares: NDArray[np.float64] = np.bincount(place, weights=needed > threshold, minlength=len(counts)) / counts
    return shares


def choose_threshold(needed: NDArray[np.float64], pass_of_window: NDArray[np.integer], alpha: float) -> float:
    """The smallest threshold whose expected loss of a new pass is at most ``alpha``; see the top of this module.

    Args:
        needed: (N,) what :meth:`RankedBeams.needed` gave on the calibration windows; may be empty.
        pass_of_window: (N,) the pass that each window is from.
        alpha: the expected loss that is tolerated, in (0, 1).

    Returns:
        The threshold; `ALL_BEAMS` if no smaller one has the guarantee, which is always so below 1 / (n + 1).

    Raises:
        ValueError: alpha is out of range, or the windows and passes are not alike in number.

    Example:
        Of nine passes, one needs more than the most probable beam.

        >>> needed = np.array([0.0] * 8 + [0.7])
        >>> choose_threshold(needed, np.arange(9), alpha=0.2), choose_threshold(needed, np.arange(9), alpha=0.1)
        (0.0, 0.7)
        >>> choose_threshold(needed, np.arange(9), alpha=0.05)
        1.0
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: must be between 0 and 1, got {alpha}")
    if needed.shape != pass_of_window.shape:
        raise ValueError(f"pass_of_window: must have the shape {needed.shape}, got {pass_of_window.shape}")
    _, place, counts = np.unique(pass_of_window, return_inverse=True, return_counts=True)
    allowed = allowed_loss(alpha, len(counts))
    if allowed < 0.0:
        return ALL_BEAMS
    by_need = np.argsort(-needed, kind="stable")
    # At a threshold, the windows that need more are missed: walk down from the neediest one.
    missed = np.cumsum((1.0 / counts)[place[by_need]])
    too_many = np.flatnonzero(missed > allowed)
    return float(needed[by_need[too_many[0]]]) if len(too_many) else 0.0


def allowed_loss(alpha: float, num_passes: int) -> float:
    """The largest sum of the losses of so many calibration passes with which alpha is guaranteed.

    It is negative where no sum is. A share of 1e-9 absorbs the rounding of sums of shares.
    """
    return alpha * (num_passes + 1) - 1.0 + 1e-9


def least_alpha(num_passes: int) -> float:
    """The smallest alpha that so many calibration passes can guarantee by less than every beam: 1 / (n + 1)."""
    return 1.0 / (num_passes + 1)
