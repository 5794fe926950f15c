"""Beam sets that shrink while the last measured powers confirm them.

In each slot of a pass the beams of a set are swept, so their powers are known before the next slot. The slot is
*confirmed* if at least two beams were swept and the first of them is within x dB of the strongest of them. The set
of the next slot then tolerates a tail of the distribution that is `TAIL` times as large: its threshold is
1 - TAIL (1 - threshold). A pass begins unconfirmed.

What is calibrated is the whole policy with its base threshold, over passes. A larger threshold may miss a window that a
smaller one holds, because other beams were measured before, so the loss of a pass need not fall with the threshold. Its
envelope, the largest loss at this threshold or any larger one, does, is at least the loss, and is 0 where every beam is
swept. **Guarantee**: conformal risk control (`clients.learning.beam_sets`, theorem 1 of its source) on the envelopes
bounds their expectation for the next pass by alpha, and so that of the loss.

N windows of the current slot, in the order of time within a pass; B beams, P passes, G thresholds of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.learning.beam_sets import RankedBeams, allowed_loss
from clients.learning.metrics import POWER_FLOOR
from clients.learning.risk_curve import GRID

TAIL = 4.0
"""How much larger the tolerated tail is after a slot that was confirmed; 1 never shrinks a set."""


@dataclass(frozen=True)
class PolicyCurves:
    """What a policy does in each pass, for each base threshold of the grid.

    Attributes:
        missed: (P, G) the share of windows that are missed, in [0, 1].
        beams: (P, G) the mean number of beams that are swept.
        confirmed: (P, G) the share of windows whose set was allowed to shrink.
    """

    missed: NDArray[np.float64]
    beams: NDArray[np.float64]
    confirmed: NDArray[np.float64]

    def choose(self, calibrates: NDArray[np.bool_], alpha: float) -> int:
        """The place in the grid of the smallest base threshold with the guarantee; the last one sweeps every beam.

        Args:
            calibrates: (P,) the passes that calibrate.
            alpha: the expected loss that is tolerated, in (0, 1).
        """
        envelopes = np.maximum.accumulate(self.missed[calibrates, ::-1], axis=1)[:, ::-1]
        holds = envelopes.sum(axis=0) <= allowed_loss(alpha, int(calibrates.sum()))
        return int(holds.argmax()) if holds.any() else len(GRID) - 1


def policy_curves(
    ranked: RankedBeams,
    power: NDArray[np.floating],
    pass_of_window: NDArray[np.integer],
    *,
    within_db: float,
    tail: float = TAIL,
) -> PolicyCurves:
    """Sweep every window of some passes, slot by slot, for each base threshold of the grid.

    Args:
        ranked: the ranked beams of the windows.
        power: (N, B) linear receive power.
        pass_of_window: (N,) the pass of each window; the windows of a pass follow one another.
        within_db: the loss that is tolerated, in dB, at least 0.
        tail: how much larger the tolerated tail is after a confirmed slot, at least 1.

    Raises:
        ValueError: ``tail`` is below 1.
    """
    if not tail >= 1.0:
        raise ValueError(f"tail: must be at least 1, got {tail}")
    good = ranked.ranks_of_good(power, within_db)
    by_rank = np.take_along_axis(np.maximum(power.astype(np.float64), POWER_FLOOR), ranked.order, axis=1)
    is_confirming = by_rank[:, :1] >= np.maximum.accumulate(by_rank, axis=1) * 10.0 ** (-within_db / 10.0)
    is_confirming[:, 0] = False  # one beam alone confirms nothing
    shrunken = np.maximum(1.0 - tail * (1.0 - GRID), 0.0)
    whole = np.stack([ranked.sizes(float(one)) for one in GRID], axis=1)
    small = np.stack([ranked.sizes(float(one)) for one in shrunken], axis=1)
    missed = np.empty((len(good), len(GRID)))
    beams, allowed = np.empty_like(missed), np.empty_like(missed)
    confirmed, current = np.zeros(len(GRID), np.bool_), None
    for window, number in enumerate(pass_of_window.tolist()):
        if number != current:
            confirmed, current = np.zeros(len(GRID), np.bool_), number
        sizes = np.where(confirmed, small[window], whole[window])
        missed[window], beams[window], allowed[window] = sizes < good[window], sizes, confirmed
        confirmed = is_confirming[window, sizes - 1]
    _, place, counts = np.unique(pass_of_window, return_inverse=True, return_counts=True)
    means = [np.zeros((len(counts), len(GRID))) for _ in range(3)]
    for mean, values in zip(means, (missed, beams, allowed), strict=True):
        np.add.at(mean, place, values)
        mean /= counts[:, None]
    return PolicyCurves(*means)
