"""What a client knows about each beam: how often it was the best, and the mean of something where it was.

N windows, H horizons, B beams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_beams(beams: NDArray[np.int64], num_beams: int) -> NDArray[np.int64]:
    """(B,) windows in which each beam was the best, now or in a future slot.

    Args:
        beams: (N, H) best beams.
        num_beams: B.
    """
    was_best = np.zeros((len(beams), num_beams), np.bool_)
    np.put_along_axis(was_best, beams, True, axis=1)
    counts: NDArray[np.int64] = was_best.sum(axis=0, dtype=np.int64)
    return counts


def mean_by_beam(
    values: NDArray[np.float32], beams: NDArray[np.int64], num_beams: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The mean of a value over the windows in which a beam was the best, horizon by horizon.

    Args:
        values: (N, H, ...) of every window and horizon.
        beams: (N, H) best beams.
        num_beams: B.

    Returns:
        (S,) the beams that were the best at every horizon in some window, increasing, and (S, H, ...) the means.
    """
    num_horizons = beams.shape[1]
    sums = np.zeros((num_beams, *values.shape[1:]), np.float64)
    counts = np.zeros((num_beams, num_horizons), np.int64)
    for horizon in range(num_horizons):
        np.add.at(sums[:, horizon], beams[:, horizon], values[:, horizon])
        np.add.at(counts[:, horizon], beams[:, horizon], 1)
    seen = np.flatnonzero(counts.min(axis=1) > 0)
    divisor = counts[seen].reshape(len(seen), num_horizons, *[1] * (values.ndim - 2))
    return seen.astype(np.int64), (sums[seen] / divisor).astype(np.float32)
