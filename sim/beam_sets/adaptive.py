"""What beam sets that shrink after a confirmed slot cost, beside sets of one threshold, over the same splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clients.learning.adaptive_sets import TAIL, policy_curves
from clients.learning.beam_sets import least_alpha
from clients.learning.risk_curve import ALPHAS, WITHIN_DB
from sim.beam_sets.arms import ALL_ARMS, SweptPasses
from sim.beam_sets.coverage import NUM_SPLITS, splits


@dataclass(frozen=True)
class AdaptiveRow:
    """The sets of one arm for the current slot, means over clients and splits.

    Attributes:
        arm: a name of `ALL_ARMS`.
        within_db: the loss that is tolerated, in dB.
        alpha: the share of missed windows that is tolerated.
        is_possible: whether so few passes can guarantee alpha by less than all beams.
        fixed_coverage: the coverage of sets of one threshold of the grid; ``fixed_beams`` is their size.
        coverage: the coverage of sets that shrink; ``beams`` is their size.
        confirmed: the share of windows whose set was allowed to shrink.
    """

    arm: str
    within_db: float
    alpha: float
    is_possible: bool
    fixed_coverage: float
    fixed_beams: float
    coverage: float
    beams: float
    confirmed: float

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return asdict(self)


def adaptive_rows(found: SweptPasses, *, share: float = 0.5, num_splits: int = NUM_SPLITS) -> list[AdaptiveRow]:
    """A row for every tolerated loss, alpha and arm.

    Args:
        found: the windows and arms.
        share: the share of the passes that calibrate.
        num_splits: the number of splits.
    """
    masks = list(splits(found.num_passes, share, num_splits=num_splits))
    is_possible = {alpha: least_alpha(int(masks[0].sum())) <= alpha for alpha in ALPHAS}
    scores: dict[tuple[float, float, str], list[list[float]]] = {}
    for arm in found.arms:
        for within_db in WITHIN_DB:
            fixed, shrinking = (
                policy_curves(
                    arm.sets(within_db)[0], found.power[:, 0], found.pass_of_window, within_db=within_db, tail=tail
                )
                for tail in (1.0, TAIL)
            )
            for alpha in ALPHAS:
                values = []
                for mask in masks:
                    row: list[float] = []
                    for curves in (fixed, shrinking):
                        place = curves.choose(mask, alpha)
                        row += [1.0 - curves.missed[~mask, place].mean(), curves.beams[~mask, place].mean()]
                    values.append([*row, curves.confirmed[~mask, place].mean()])
                scores.setdefault((within_db, alpha, arm.name), []).append(np.mean(values, axis=0).tolist())
    return [
        AdaptiveRow(
            name, within_db, alpha, is_possible[alpha], *np.mean(scores[within_db, alpha, name], axis=0).tolist()
        )
        for within_db in WITHIN_DB
        for alpha in ALPHAS
        for name in ALL_ARMS
        if (within_db, alpha, name) in scores
    ]
