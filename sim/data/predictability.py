"""Scores of predictors that use only the past of the beam; every tracker must be better than these.

F frames of a recording in time order, P passes, B beams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.data.scenario9 import HORIZONS

HISTORY = 8
"""Number of frames before the current one that persistence and the line need to be scored: those of a tracker."""
SLOPE_FRAMES = 5
"""Number of newest frames, the current one included, that give the extrapolated line its slope."""
TRAINING_SHARE = 0.7
"""Share of the passes, from the first, that fill the Markov table; the others test it. Source: arXiv:2603.16116."""


class PassLayout:
    """The places and lengths of the passes of a recording.

    Attributes:
        lengths: (P,) the number of frames of each pass.
        number: (F,) the number of the pass of each frame, from 0.
        position: (F,) the number of frames of the same pass before each frame.
        left: (F,) the number of frames of the same pass after each frame.
    """

    def __init__(self, pass_ids: NDArray[np.integer]) -> None:
        begins = np.flatnonzero(np.concatenate([[True], np.diff(pass_ids) != 0]))
        self.lengths = np.diff([*begins, len(pass_ids)])
        self.number = np.repeat(np.arange(len(begins)), self.lengths)
        self.position = np.arange(len(pass_ids)) - begins[self.number]
        self.left = self.lengths[self.number] - 1 - self.position


def share_of(hits: NDArray[np.bool_]) -> float:
    """The share of hits; NaN if there is nothing to count."""
    return float(hits.mean()) if hits.size else float("nan")


def predictor_floors(best: NDArray[np.int64], passes: PassLayout, *, num_beams: int) -> dict[str, float]:
    """Scores in [0, 1] of three predictors: the same beam, a line, and a Markov table that knows the true beam now.

    A score is NaN if there is too little data for it.

    Args:
        best: (F,) the best beam of each frame.
        passes: the passes of the frames.
        num_beams: B, the number of beams of the codebook.
    """
    return _held_and_extrapolated(best, passes, num_beams=num_beams) | _markov(best, passes, num_beams=num_beams)


def _held_and_extrapolated(best: NDArray[np.int64], passes: PassLayout, *, num_beams: int) -> dict[str, float]:
    """Keep the beam, or extrapolate it with the least-squares slope of the last `SLOPE_FRAMES`, inside the codebook."""
    now = np.flatnonzero((passes.position >= HISTORY) & (passes.left >= max(HORIZONS)))
    ages = np.arange(1 - SLOPE_FRAMES, 1)
    centred = ages - ages.mean()
    slope = best[now[:, None] + ages] @ centred / (centred @ centred)
    line = {h: np.clip(np.rint(best[now] + h * slope), 0, num_beams - 1) for h in HORIZONS}
    miss = {h: np.abs(line[h] - best[now + h]) for h in HORIZONS}
    return {
        **{f"persistence_{h}": share_of(best[now] == best[now + h]) for h in HORIZONS},
        **{f"linear_top1_{h}": share_of(miss[h] == 0) for h in HORIZONS},
        **{f"linear_within2_{h}": share_of(miss[h] <= 2) for h in HORIZONS},
    }


def _markov(best: NDArray[np.int64], passes: PassLayout, *, num_beams: int) -> dict[str, float]:
    """Score the Markov table; it ranks equal counts, and beams never seen, by their distance from the current beam."""
    is_training = passes.number < int(TRAINING_SHARE * len(passes.lengths))
    beams = np.arange(num_beams)
    nearness = -np.abs(beams[:, None] - beams) / (2.0 * num_beams)
    hits: dict[tuple[int, int], float] = {}
    for h in HORIZONS:
        has_future = passes.left >= h
        known, asked = np.flatnonzero(has_future & is_training), np.flatnonzero(has_future & ~is_training)
        table = nearness.copy()
        np.add.at(table, (best[known], best[known + h]), 1.0)
        ranked = np.argsort(-table, axis=1, kind="stable")[best[asked], :5]
        is_hit = ranked == best[asked + h][:, None]
        hits |= {(k, h): share_of(is_hit[:, :k].any(axis=1)) for k in (1, 3, 5)}
    return {f"markov_top{k}_{h}": hits[k, h] for k in (1, 3, 5) for h in HORIZONS}
