"""What sets of beams hold and cost, over many random splits into passes that calibrate and passes that judge.

The passes of a test recording, which nobody learned from, are exchangeable when they are split at random. So the mean
over splits of the realised loss is at most alpha, whatever the passes are like. Every horizon has a threshold of its
own; scores are means over horizons, judged passes and clients.

P passes, B beams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.learning.beam_sets import choose_threshold, least_alpha
from clients.learning.risk_curve import ALPHAS, WITHIN_DB
from configs.seeding import rng_for
from sim.beam_sets.arms import ALL_ARMS, Arm, SweptPasses

NUM_SPLITS = 100


@dataclass(frozen=True)
class SweepRow:
    """What the sets of one arm do.

    Attributes:
        arm: a name of `ALL_ARMS`.
        within_db: the loss that is tolerated, in dB.
        alpha: the share of missed windows that is tolerated.
        num_calibration: the number of passes that calibrate.
        is_possible: whether so few passes can guarantee alpha by less than all beams.
        coverage: the mean over splits of the share of windows that are not missed, in [0, 1].
        error: the standard error of that mean over the splits.
        worst_coverage: the coverage of the client that has the smallest.
        beams: the mean number of beams in a set.
        top_k: the number of beams of Top-K with the same mean coverage of the same passes; where it is between two
            integers, a share of the windows has the smaller one.
        saved: the share of a sweep of all beams that is saved, in [0, 1).
    """

    arm: str
    within_db: float
    alpha: float
    num_calibration: int
    is_possible: bool
    coverage: float
    error: float
    worst_coverage: float
    beams: float
    top_k: float
    saved: float

    @property
    def is_in_band(self) -> bool:
        """Whether the coverage is at least 1 - alpha, up to three standard errors of the splits."""
        return self.coverage >= 1.0 - self.alpha - 3.0 * self.error

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return {**asdict(self), "is_in_band": self.is_in_band}


def splits(num_passes: int, share: float, *, num_splits: int = NUM_SPLITS) -> Iterator[NDArray[np.bool_]]:
    """Masks (P,) of the passes that calibrate, drawn at random; at least one pass is left to judge.

    Raises:
        ValueError: there are fewer than two passes.
    """
    if num_passes < 2:
        raise ValueError(f"{num_passes} passes cannot be split; at least two are needed")
    num_calibration = num_calibrating(num_passes, share)
    for number in range(num_splits):
        rng = rng_for(0, "beam sets", num_passes, number)
        yield rng.permutation(num_passes) < num_calibration


def num_calibrating(num_passes: int, share: float) -> int:
    """How many of the passes calibrate, from 1 to all but one."""
    return min(max(round(share * num_passes), 1), num_passes - 1)


def sweep_rows(
    found: SweptPasses, *, share: float = 0.5, num_splits: int = NUM_SPLITS, progress: Callable[[int, int], None]
) -> list[SweepRow]:
    """A row for every tolerated loss, alpha and arm.

    Args:
        found: the windows and arms.
        share: the share of the passes that calibrate.
        num_splits: the number of splits.
        progress: is called with the number of arms that are done and of all arms.
    """
    masks = list(splits(found.num_passes, share, num_splits=num_splits))
    scores: dict[tuple[str, float, float], list[NDArray[np.float64]]] = {}
    for done, arm in enumerate(found.arms):
        for within_db in WITHIN_DB:
            for alpha, values in _scores(found, arm, within_db, masks).items():
                scores.setdefault((arm.name, within_db, alpha), []).append(values)
        progress(done + 1, len(found.arms))
    num_calibration = int(masks[0].sum())
    num_beams = found.power.shape[-1]
    rows = []
    for within_db in WITHIN_DB:
        for alpha in ALPHAS:
            for name in ALL_ARMS:
                if (name, within_db, alpha) not in scores:
                    continue
                members = np.stack(scores[name, within_db, alpha])
                by_split = members.mean(axis=0)
                coverage, beams, top_k = by_split.mean(axis=0).tolist()
                rows.append(
                    SweepRow(
                        arm=name,
                        within_db=within_db,
                        alpha=alpha,
                        num_calibration=num_calibration,
                        is_possible=least_alpha(num_calibration) <= alpha,
                        coverage=coverage,
                        error=float(by_split[:, 0].std() / np.sqrt(len(masks))),
                        worst_coverage=float(members[:, :, 0].mean(axis=1).min()),
                        beams=beams,
                        top_k=top_k,
                        saved=1.0 - beams / num_beams,
                    )
                )
    return rows


def _scores(
    found: SweptPasses, arm: Arm, within_db: float, masks: Sequence[NDArray[np.bool_]]
) -> dict[float, NDArray[np.float64]]:
    """For each alpha (splits, 3): coverage, beams in a set, and beams of Top-K at the mean of this coverage."""
    scores = {alpha: np.zeros((len(masks), 3)) for alpha in ALPHAS}
    num_beams, share = found.power.shape[-1], 1.0 / len(arm.ranked)
    for horizon, (by_probability, ranked) in enumerate(zip(arm.ranked, arm.sets(within_db), strict=True)):
        needed = ranked.needed(found.power[:, horizon], within_db)
        ranks = by_probability.ranks_of_good(found.power[:, horizon], within_db)
        top_k = found.mean_by_pass(ranks[:, None] <= np.arange(1, num_beams + 1))
        curve = np.mean([top_k[~mask].mean(axis=0) for mask in masks], axis=0)
        for alpha, values in scores.items():
            realised = np.empty((len(masks), 2))
            for number, mask in enumerate(masks):
                calibrates = mask[found.pass_of_window]
                threshold = choose_threshold(needed[calibrates], found.pass_of_window[calibrates], alpha)
                both = np.stack([needed <= threshold, ranked.sizes(threshold)], axis=1)
                realised[number] = found.mean_by_pass(both)[~mask].mean(axis=0)
            values[:, :2] += share * realised
            values[:, 2] += share * beams_of_top_k(curve, float(realised[:, 0].mean()))
    return scores


def beams_of_top_k(curve: NDArray[np.float64], coverage: float) -> float:
    """The number of beams at which Top-K has a coverage, between two integers where it is between theirs.

    Args:
        curve: (B,) the coverage of the first 1, 2, ... B beams; it never falls, and the last is 1.
        coverage: the coverage that is wanted, in [0, 1].

    Example:
        >>> beams_of_top_k(np.array([0.5, 0.9, 1.0]), 0.7)
        1.5
        >>> beams_of_top_k(np.array([0.5, 0.9, 1.0]), 0.2)
        1.0
    """
    place = int(np.searchsorted(curve, coverage - 1e-12))
    if place == 0:
        return 1.0
    before, after = curve[place - 1], curve[min(place, len(curve) - 1)]
    share = (coverage - before) / (after - before) if after > before else 0.0
    return float(place + min(share, 1.0))
