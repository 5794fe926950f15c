"""How far the beam's own past foretells it: what any tracker must beat.

F frames of a recording in time order, P passes, B beams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.data.scenario9 import HORIZONS

HISTORY = 8
"""Frames that lie before the current one, at least, where persistence and the line are scored: what a tracker sees."""
SLOPE_FRAMES = 5
"""Newest frames, the current one included, that give the extrapolated line its slope."""
TRAINING_SHARE = 0.7
"""First passes that fill the Markov table, as a share; the others test it. Source: split of arXiv:2603.16116."""


class PassLayout:
    """Where passes begin and how long they are.

    Attributes:
        lengths: (P,) frames.
        number: (F,) 0-based number of a frame's pass.
        position: (F,) frames of its pass before it.
        left: (F,) frames of its pass after it.
    """

    def __init__(self, pass_ids: NDArray[np.integer]) -> None:
        begins = np.flatnonzero(np.concatenate([[True], np.diff(pass_ids) != 0]))
        self.lengths = np.diff([*begins, len(pass_ids)])
        self.number = np.repeat(np.arange(len(begins)), self.lengths)
        self.position = np.arange(len(pass_ids)) - begins[self.number]
        self.left = self.lengths[self.number] - 1 - self.position


def share_of(hits: NDArray[np.bool_]) -> float:
    """Share of hits; NaN of nothing."""
    return float(hits.mean()) if hits.size else float("nan")


def predictor_floors(best: NDArray[np.int64], passes: PassLayout, *, num_beams: int) -> dict[str, float]:
    """Scores in [0, 1] of holding the beam, going on in a line, and a Markov table that knows the true beam now.

    A score that too little data leaves undefined is NaN.

    Args:
        best: (F,) best beam of each frame.
        passes: which frames belong together.
        num_beams: B, of the codebook.
    """
    return _held_and_extrapolated(best, passes, num_beams=num_beams) | _markov(best, passes, num_beams=num_beams)


def _held_and_extrapolated(best: NDArray[np.int64], passes: PassLayout, *, num_beams: int) -> dict[str, float]:
    """Hold the beam, or go on from it with the least-squares slope of the last `SLOPE_FRAMES`, inside the codebook."""
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
    """Equal counts, and beams never seen, are ranked by their distance from the current beam."""
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
