"""Beam sets whose thresholds are chosen from the risk curves of all clients, for the summary of a run.

A client tells in the last round how much its sets miss of its own test passes, for a grid of thresholds, and what they
do on the common test set (`clients.told_sets`). The curves of all clients are added up, so that a client with two
passes has sets that are guaranteed by those of all; *alone* is what it could guarantee by its own passes only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.learning.beam_sets import allowed_loss
from clients.learning.risk_curve import (
    ALPHAS,
    GRID,
    WITHIN_DB,
    RiskCurve,
    SetScores,
    curve_from,
    scores_from,
)

log = logging.getLogger(__name__)

# What a line of a round holds of the sets of a client -> the metric in its answer.
_TOLD = {"missed": "sets.missed", "common_missed": "sets.common_missed", "common_sizes": "sets.common_sizes"}


def told_by(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a client told of its sets, with the metric ``set_passes`` among others, for the line of a round."""
    found = {name: metrics[metric] for name, metric in _TOLD.items() if metric in metrics}
    return {"sets": {"passes": metrics["set_passes"], "table": metrics.get("set_table"), **found}}


def set_summary(lines: Mapping[str, Mapping[str, Any]], num_horizons: int, num_beams: int) -> dict[str, Any] | None:
    """The beam sets of a run: thresholds by the curves of all clients, and what comes of them; None without curves.

    Args:
        lines: client -> its line of the last round.
        num_horizons: H.
        num_beams: B.
    """
    curves: dict[str, RiskCurve] = {}
    scores: dict[str, SetScores] = {}
    for client, line in sorted(lines.items()):
        told = line.get("sets")
        if told is None:
            continue
        try:
            curve = curve_from(float(told["passes"]), told["missed"], num_horizons)
            scores[client] = scores_from(told["common_missed"], told["common_sizes"], num_horizons, num_beams)
            curves[client] = curve
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s: its beam sets are left out (%s)", client, error)
    if not curves:
        return None
    pooled = sum(curves.values(), RiskCurve(0, np.zeros((num_horizons, len(WITHIN_DB), len(GRID)))))
    return {
        "passes": pooled.num_passes,
        "clients": list(curves),
        # The checksums of the tables that the thresholds hold for (`clients.learning.stand_ins`).
        "tables": {client: lines[client]["sets"].get("table") for client in curves},
        "rows": [
            _row(pooled, curves, scores, loss=loss, alpha=alpha, num_beams=num_beams)
            for loss in range(len(WITHIN_DB))
            for alpha in ALPHAS
        ],
    }


def _row(
    pooled: RiskCurve,
    curves: Mapping[str, RiskCurve],
    scores: Mapping[str, SetScores],
    *,
    loss: int,
    alpha: float,
    num_beams: int,
) -> dict[str, Any]:
    """The sets for one tolerated loss and alpha."""
    places = pooled.thresholds(alpha)
    found = {client: one.at(places, loss) for client, one in scores.items()}
    alone = {client: one.at(curves[client].thresholds(alpha), loss) for client, one in scores.items()}
    coverage, beams = _means(found)
    return {
        "within_db": WITHIN_DB[loss],
        "alpha": alpha,
        "is_possible": allowed_loss(alpha, pooled.num_passes) >= 0.0,
        "thresholds": GRID[places[:, loss]].tolist(),
        "coverage": coverage,
        "beams": beams,
        "saved": 1.0 - beams / num_beams,
        "beams_alone": _means(alone)[1],
        "by_client": {
            client: {"coverage": one[0], "beams": one[1], "saved": 1.0 - one[1] / num_beams}
            for client, one in found.items()
        },
    }


def _means(found: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Coverage and beams, means over the clients."""
    values: NDArray[np.float64] = np.array(list(found.values())).mean(axis=0)
    return float(values[0]), float(values[1])
