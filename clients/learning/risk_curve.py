"""Thresholds of beam sets from what several clients missed, of which each tells a few numbers: its risk curve.

The risk curve of a client is, for each threshold of a fixed grid, the sum over its calibration passes of the share of
windows that the sets of its own tracker miss. Curves of clients are added up, so that the sum needs no pass of anybody,
and the threshold is the smallest one of the grid at which

    (sum of the curve + 1) / (n + 1) <= alpha

with n passes of all clients together. **Guarantee**: if the calibration passes and the next one, each with the client
that it is of, are exchangeable, the expected loss of the next pass is at most alpha. That is so for a next pass whose
client is drawn in proportion to the calibration passes; for one client alone nothing is bounded. The bound is exact on
the grid, which costs only that a set may be larger than with the best threshold between two of its values.

Source: Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal Risk Control", ICLR 2024, arXiv 2208.02814, theorem 1,
whose losses may be of a tracker that is different for each pass; for clients whose data differ, Lu, Yu, Karimireddy,
Jordan, Raskar, "Federated Conformal Predictors for Distributed Uncertainty Quantification", ICML 2023, arXiv
2305.17564, which has the same mixture over clients for quantiles.

N windows, H horizons, B beams, X tolerated losses, G thresholds of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.learning.beam_sets import ALL_BEAMS, RankedBeams, allowed_loss

WITHIN_DB = (1.0, 3.0)
"""The losses that are tolerated, in dB."""
ALPHAS = (0.1, 0.05)
"""The shares of missed windows that are tolerated."""
# Levels are probabilities, which crowd near 1: half the way to 1 is two steps.
GRID: NDArray[np.float64] = np.array([0.0, *(1.0 - 2.0 ** (-k / 2.0) for k in range(1, 31)), ALL_BEAMS])
DECIMALS = 6


@dataclass(frozen=True)
class RiskCurve:
    """What sets of some thresholds miss in the passes of one client or of several.

    Attributes:
        num_passes: the number of passes.
        missed: (H, X, G) the sum over these passes of the share of windows that are missed.
    """

    num_passes: int
    missed: NDArray[np.float64]

    def __add__(self, other: RiskCurve) -> RiskCurve:
        return RiskCurve(self.num_passes + other.num_passes, self.missed + other.missed)

    def thresholds(self, alpha: float) -> NDArray[np.int64]:
        """(H, X) the places in `GRID` of the smallest thresholds with the guarantee; the last one holds every beam.

        Args:
            alpha: the expected loss that is tolerated, in (0, 1).

        Example:
            >>> missed = np.where(GRID < 0.7, 2.0, 0.0)  # in two of nineteen passes, sets of less miss every window
            >>> curve = RiskCurve(19, missed[None, None])
            >>> float(GRID[curve.thresholds(0.2)][0, 0]), float(round(GRID[curve.thresholds(0.1)][0, 0], 3))
            (0.0, 0.75)
            >>> float(GRID[curve.thresholds(0.04)][0, 0])
            1.0
        """
        holds = self.missed <= allowed_loss(alpha, self.num_passes)
        # With so few passes not even a curve of zeros is enough; otherwise sets of all beams miss nothing.
        found: NDArray[np.int64] = np.where(holds.any(axis=-1), holds.argmax(axis=-1), len(GRID) - 1)
        return found


@dataclass(frozen=True)
class SetScores:
    """What the sets of one tracker do on passes that judge, for each threshold of the grid.

    Attributes:
        missed: (H, X, G) the mean over passes of the share of windows that are missed, in [0, 1].
        sizes: (H, X, G) the mean over passes of the number of beams in a set, from 1 to B.
    """

    missed: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def at(self, thresholds: NDArray[np.int64], loss: int) -> tuple[float, float]:
        """Coverage and beams, means over horizons, at thresholds (H, X) of the grid for one tolerated loss."""
        horizons = np.arange(len(self.sizes))
        places = thresholds[:, loss]
        coverage = 1.0 - self.missed[horizons, loss, places].mean()
        return float(coverage), float(self.sizes[horizons, loss, places].mean())


def curves_of(
    probs: NDArray[np.floating],
    power: NDArray[np.floating],
    pass_of_window: NDArray[np.integer],
    stand_ins: NDArray[np.uint8],
) -> tuple[RiskCurve, SetScores]:
    """What the sets of a tracker miss in some passes, and how large they are.

    Args:
        probs: (N, H, B) calibrated probabilities.
        power: (N, H, B) linear receive power.
        pass_of_window: (N,) the pass that each window is from; at least one.
        stand_ins: (X, B, B) which beams stand in for which at each tolerated loss (`clients.learning.stand_ins`).
    """
    _, place, counts = np.unique(pass_of_window, return_inverse=True, return_counts=True)
    weight = (1.0 / counts)[place]
    num_horizons = probs.shape[1]
    missed = np.zeros((num_horizons, len(WITHIN_DB), len(GRID)))
    sizes = np.zeros_like(missed)
    for horizon in range(num_horizons):
        for number, within_db in enumerate(WITHIN_DB):
            ranked = RankedBeams.by_cover(probs[:, horizon], stand_ins[number])
            missed[horizon, number] = _summed(ranked.needed(power[:, horizon], within_db), weight)
            sizes[horizon, number] = [weight @ ranked.sizes(float(threshold)) for threshold in GRID]
    return RiskCurve(len(counts), missed), SetScores(missed / len(counts), sizes / len(counts))


def _summed(needed: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """(G,) the summed weights of the windows that need more than each threshold."""
    found: NDArray[np.float64] = np.array([weight[needed > threshold].sum() for threshold in GRID])
    return found


def to_numbers(values: NDArray[np.float64]) -> list[float]:
    """A curve as a message takes it."""
    return [float(one) for one in values.round(DECIMALS).ravel()]


def curve_from(num_passes: float, missed: Sequence[float], num_horizons: int) -> RiskCurve:
    """The curve of a client, checked: it may be anybody's.

    Raises:
        ValueError: it is not a curve of so many passes.
    """
    if not (num_passes >= 1 and num_passes == int(num_passes)):
        raise ValueError(f"a risk curve has whole passes, got {num_passes}")
    values = _shaped(missed, (num_horizons, len(WITHIN_DB), len(GRID)))
    if not (np.all(values >= 0) and np.all(values <= num_passes + 1e-3) and np.all(np.diff(values, axis=-1) <= 1e-3)):
        raise ValueError("a risk curve falls from at most its passes to 0")
    if np.any(values[..., -1] > 1e-3):
        raise ValueError("sets of all beams miss nothing")
    return RiskCurve(int(num_passes), values)


def scores_from(missed: Sequence[float], sizes: Sequence[float], num_horizons: int, num_beams: int) -> SetScores:
    """The scores of the sets of a client, checked.

    Raises:
        ValueError: they are not scores.
    """
    shares = curve_from(1, missed, num_horizons).missed
    values = _shaped(sizes, (num_horizons, len(WITHIN_DB), len(GRID)))
    if not (np.all(values >= 1 - 1e-3) and np.all(values <= num_beams + 1e-3)):
        raise ValueError(f"a set has from 1 to {num_beams} beams")
    return SetScores(shares, values)


def _shaped(values: Sequence[float], shape: tuple[int, ...]) -> NDArray[np.float64]:
    found = np.asarray(values, np.float64)
    if found.shape != (int(np.prod(shape)),) or not np.isfinite(found).all():
        raise ValueError(f"expected {int(np.prod(shape))} numbers, got {found.size}")
    return found.reshape(shape)
