"""Passes of a recording that does not say where they begin: cut at jumps, and then into blocks with gaps.

Neighbouring frames are nearly the same frame. A part of a federation must not hold the neighbours of another part's
frames, so passes are dealt as a whole; one long recording has to be cut into pieces that are far enough apart.

Source: blocks of 50 frames are those of the runs of AMBER that control for this leak (scenarios 32 to 34). In scenarios
1, 3, 5, 8 and 9, jumps of the position of more than five times the median step find all but one of 324 ends of passes.
F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BLOCK_FRAMES = 50
GAP_FRAMES = 11
"""A window of the default task: eight frames that are seen and three slots ahead."""
JUMP_FACTOR, LEAST_JUMP_M = 5.0, 5.0
MAX_STEP_SHARE = 0.5
"""Rows whose steps are longer than this share of the distance of any two rows are in no order of time."""


@dataclass(frozen=True)
class Blocks:
    """A recording in pieces.

    Attributes:
        keep: (K,) the frames that count, ascending.
        pass_ids: (K,) the pass of each, from 1.
        num_jumps: the number of places at which the vehicle jumped.
        num_gap_frames: the number of frames that are left out between blocks, and where rows were missing already.
    """

    keep: NDArray[np.int64]
    pass_ids: NDArray[np.int64]
    num_jumps: int
    num_gap_frames: int


def is_in_time_order(position_m: NDArray[np.float64] | None, beams: NDArray[np.int64] | None) -> bool:
    """Whether rows follow one another in time: neighbours are much closer than any two rows.

    Args:
        position_m: (F, 2) metres; None if they are not known, and then the beams tell.
        beams: (F,) best beams; None if they are not known.
    """
    values = position_m if position_m is not None else None if beams is None else beams[:, None].astype(np.float64)
    if values is None or len(values) < 3:
        return False
    others = values[np.random.default_rng(0).permutation(len(values))]
    step = np.median(np.linalg.norm(np.diff(values, axis=0), axis=1))
    anywhere = np.median(np.linalg.norm(values - others, axis=1))
    return bool(step < MAX_STEP_SHARE * anywhere)


def cut_blocks(position_m: NDArray[np.float64] | None, num_frames: int, *, gaps: Sequence[int] = ()) -> Blocks:
    """Cut a recording at jumps of the vehicle and where rows are missing, and long pieces into blocks with gaps.

    Args:
        position_m: (F, 2) metres in the order of time; None if positions are not known, and then nothing jumps.
        num_frames: F.
        gaps: the frames before which rows are missing; a block begins as far behind such a place as behind a block.
    """
    jumps = np.empty(0, np.int64)
    if position_m is not None and num_frames > 1:
        step_m = np.linalg.norm(np.diff(position_m, axis=0), axis=1)
        jumps = np.flatnonzero(step_m > max(JUMP_FACTOR * float(np.median(step_m)), LEAST_JUMP_M)) + 1
    keep, pass_ids, num_gap_frames = list[int](), list[int](), 0
    missing = set(gaps) - set(jumps.tolist())
    for start, end in pairwise([0, *sorted({*jumps.tolist(), *gaps}), num_frames]):
        if start in missing:
            num_gap_frames += min(GAP_FRAMES, end - start)
            start += GAP_FRAMES
        while start < end:
            # A rest that is shorter than a block and its gap stays with the block before it.
            stop = end if end - start < 2 * BLOCK_FRAMES + GAP_FRAMES else start + BLOCK_FRAMES
            number = pass_ids[-1] + 1 if pass_ids else 1
            keep += range(start, stop)
            pass_ids += [number] * (stop - start)
            start = stop + GAP_FRAMES if stop < end else end
            num_gap_frames += GAP_FRAMES if stop < end else 0
    return Blocks(np.array(keep, np.int64), np.array(pass_ids, np.int64), len(jumps), num_gap_frames)
