"""When the monitor of the coverage speaks, if passes change after the calibration. P passes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.learning.beam_sets import choose_threshold
from clients.learning.coverage_monitor import CoverageMonitor
from clients.learning.risk_curve import ALPHAS, WITHIN_DB
from configs.seeding import rng_for
from sim.beam_sets.arms import SweptPasses
from sim.beam_sets.coverage import NUM_SPLITS, splits


@dataclass(frozen=True)
class DriftRow:
    """When the monitor of an arm speaks, on passes like those of the calibration and then on others.

    Attributes:
        arm: a name of `ARMS`.
        owner: the client, or ``teacher``.
        alpha: the share of missed windows that the sets tolerate.
        high: the upper end of the band of the monitor.
        loss_before: the mean realised loss on passes like those of the calibration.
        loss_after: the same on the others.
        num_before: the passes of each split before the change.
        num_after: the passes after it.
        false_alarms: the share of splits with an alarm before the change.
        alarms: the share of the other splits with an alarm after it.
        passes: the median number of passes from the change to the alarm; None where no more than half have one.
    """

    arm: str
    owner: str
    alpha: float
    high: float
    loss_before: float
    loss_after: float
    num_before: int
    num_after: int
    false_alarms: float
    alarms: float
    passes: float | None

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return asdict(self)


def drift_rows(
    before: SweptPasses,
    after: SweptPasses,
    *,
    alpha: float = ALPHAS[0],
    within_db: float = WITHIN_DB[1],
    tolerance: float = 0.05,
    share: float = 0.5,
    num_splits: int = NUM_SPLITS,
) -> list[DriftRow]:
    """Calibrate on passes before a change, watch the other ones, and then those after it; a row for every arm.

    Args:
        before: windows and arms before the change.
        after: the same arms after it.
        alpha: the share of missed windows that the sets tolerate.
        within_db: the loss that is tolerated, in dB.
        tolerance: how far above alpha the band of the monitor ends.
        share: the share of the passes before the change that calibrate.
        num_splits: the number of splits.
    """
    masks = list(splits(before.num_passes, share, num_splits=num_splits))
    rows = []
    for arm, changed in zip(before.arms, after.arms, strict=True):
        usual, other = (np.zeros((len(masks), one.num_passes)) for one in (before, after))
        for horizon, (ranked, later) in enumerate(zip(arm.sets(within_db), changed.sets(within_db), strict=True)):
            needed = ranked.needed(before.power[:, horizon], within_db)
            needed_later = later.needed(after.power[:, horizon], within_db)
            for number, mask in enumerate(masks):
                calibrates = mask[before.pass_of_window]
                threshold = choose_threshold(needed[calibrates], before.pass_of_window[calibrates], alpha)
                usual[number] += before.mean_by_pass(needed > threshold) / len(arm.ranked)
                other[number] += after.mean_by_pass(needed_later > threshold) / len(arm.ranked)
        watched = [
            _watched(usual[number][~mask], other[number], high=alpha + tolerance, number=number)
            for number, mask in enumerate(masks)
        ]
        delays = [delay for was_false, delay in watched if not was_false]
        late = [np.inf if delay is None else float(delay) for delay in delays]
        median = float(np.median(late)) if late else np.inf
        rows.append(
            DriftRow(
                arm=arm.name,
                owner=arm.owner,
                alpha=alpha,
                high=alpha + tolerance,
                loss_before=fmean(float(usual[number][~mask].mean()) for number, mask in enumerate(masks)),
                loss_after=float(other.mean()),
                num_before=int((~masks[0]).sum()),
                num_after=after.num_passes,
                false_alarms=fmean(was_false for was_false, _ in watched),
                alarms=fmean(delay is not None for delay in delays) if delays else 0.0,
                passes=median if np.isfinite(median) else None,
            )
        )
    return rows


def _watched(
    usual: NDArray[np.float64], other: NDArray[np.float64], *, high: float, number: int
) -> tuple[bool, int | None]:
    """Whether there was an alarm before the change, and how many passes after it there was one."""
    rng = rng_for(0, "drift", number)
    monitor = CoverageMonitor(high=high)
    if monitor.first_alarm(rng.permutation(usual).tolist()) is not None:
        return True, None
    at = monitor.first_alarm(rng.permutation(other).tolist())
    return False, None if at is None else at - len(usual)
