"""Statistics of a client's windows for each class: how often the class was the best, and means over these windows.

N windows, H horizons, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_classes(classes: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """(C,) number of windows in which each class was the best, now or in a future slot.

    Args:
        classes: (N, H) right classes.
        num_classes: C, the number of classes.
    """
    was_best = np.zeros((len(classes), num_classes), np.bool_)
    np.put_along_axis(was_best, classes, True, axis=1)
    counts: NDArray[np.int64] = was_best.sum(axis=0, dtype=np.int64)
    return counts


def mean_by_class(
    values: NDArray[np.float32], classes: NDArray[np.int64], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The mean of a value over the windows in which a class was the best, horizon by horizon.

    Args:
        values: (N, H, ...) the values of every window and horizon.
        classes: (N, H) right classes.
        num_classes: C, the number of classes.

    Returns:
        (S,) the classes that were the best at every horizon in some window, in increasing order, and (S, H, ...) the
        means.
    """
    num_horizons = classes.shape[1]
    sums = np.zeros((num_classes, *values.shape[1:]), np.float64)
    counts = np.zeros((num_classes, num_horizons), np.int64)
    for horizon in range(num_horizons):
        np.add.at(sums[:, horizon], classes[:, horizon], values[:, horizon])
        np.add.at(counts[:, horizon], classes[:, horizon], 1)
    seen = np.flatnonzero(counts.min(axis=1) > 0)
    divisor = counts[seen].reshape(len(seen), num_horizons, *[1] * (values.ndim - 2))
    return seen.astype(np.int64), (sums[seen] / divisor).astype(np.float32)
