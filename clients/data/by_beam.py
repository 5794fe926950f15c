"""Statistics of a client's windows for each beam: how often the beam was the best, and means over these windows.

N windows, H horizons, B beams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_beams(beams: NDArray[np.int64], num_beams: int) -> NDArray[np.int64]:
    """(B,) number of windows in which each beam was the best, now or in a future slot.

    Args:
        beams: (N, H) best beams.
        num_beams: B, the number of beams.
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
        values: (N, H, ...) the values of every window and horizon.
        beams: (N, H) best beams.
        num_beams: B, the number of beams.

    Returns:
        (S,) the beams that were the best at every horizon in some window, in increasing order, and (S, H, ...) the
        means.
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
