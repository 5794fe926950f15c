"""The scores of a tracker in every window, and their summary in a row. N windows, H horizons, B beams, P passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.learning.metrics import hits, losses_db, misses, rank_beams

TOPS = (1, 2, 3, 5, 10)
# The metrics of a row; all but the last are fractions in [0, 1].
METRICS = (*(f"top{k}" for k in TOPS), "dba", "dba_k3", "power_loss_db")


def window_scores(logits: NDArray[np.floating], power: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """(N, H) every metric of `METRICS` in each window; their means are those of `BeamMetrics`.

    Args:
        logits: (N, H, B) values that rise with the probability of a beam; among ties the smaller beam index is first.
        power: (N, H, B) linear receive power; its arg-max is the label.

    Source: as in `clients.learning.metrics`, for each window; Top-2 and Top-10 are defined in the same way.
    """
    columns = [_slot_scores(logits[:, horizon], power[:, horizon]) for horizon in range(logits.shape[1])]
    return {name: np.stack([column[name] for column in columns], axis=1) for name in METRICS}


def summarise(scores: Mapping[str, NDArray[np.float64]], pass_of_window: NDArray[np.integer]) -> dict[str, Any]:
    """The part of a row that holds the scores of a tracker.

    Args:
        scores: the scores from :func:`window_scores`.
        pass_of_window: (N,) the number of the pass that each window is from.

    Returns:
        ``metrics``: one number per horizon; ``average``: their mean; ``by_pass``: ``windows`` and the sums over the
        windows of each pass of the mean over horizons, P numbers each, passes by rising number.

    Raises:
        ValueError: there is no window.
    """
    if len(pass_of_window) == 0:
        raise ValueError("there is no window to score")
    _, place, counts = np.unique(pass_of_window, return_inverse=True, return_counts=True)
    sums = {name: np.bincount(place, weights=scores[name].mean(axis=1)).tolist() for name in METRICS}
    return {
        "metrics": {name: scores[name].mean(axis=0).tolist() for name in METRICS},
        "average": {name: float(scores[name].mean()) for name in METRICS},
        "by_pass": {"windows": counts.tolist(), **sums},
    }


def _slot_scores(scores: NDArray[np.floating], power: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """(N,) every metric at one horizon; both arguments are (N, B)."""
    ranked = rank_beams(scores, max(TOPS))
    best = np.argmax(power, axis=1).astype(np.int64)
    missed = misses(ranked, best)
    return {
        **{f"top{k}": hits(ranked, best, k).astype(np.float64) for k in TOPS},
        "dba": 1.0 - np.minimum.accumulate(missed, axis=1).mean(axis=1),
        "dba_k3": 1.0 - missed.min(axis=1),
        "power_loss_db": losses_db(power, ranked),
    }
