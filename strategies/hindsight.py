"""Hindsight: what later windows of the public set say of a slot corrects what was foretold of it.

The public set is recorded, so its future is known. A window that ends at slot t foretells the right classes of t + 1,
t + 2 and so on; the windows that end there see those slots, and know better. The target of a window for h slots ahead
is therefore pooled from all answers for that slot: those of the window itself and of the h windows after it. Students
learn from targets that say what came, as labels do, and not only what could be foreseen.

N samples, H horizons, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies.aggregation import confidence
from strategies.labels import SoftLabels, normalise_rows

NONE = -1
"""The sample after the last window of a pass."""


def later_samples(starts: NDArray[np.int64], pass_ids: NDArray[np.int64], num_horizons: int) -> NDArray[np.int64]:
    """(N, H) the public sample that ends h slots after sample n in the same pass; `NONE` where there is none.

    Args:
        starts: (N,) the first frame of each sample's window, strictly increasing.
        pass_ids: (T,) the pass of each frame of the recording.
        num_horizons: H, the current slot and the future ones.
    """
    wanted = starts[:, None] + np.arange(num_horizons)
    rows = np.minimum(np.searchsorted(starts, wanted), max(len(starts) - 1, 0))
    frames = np.minimum(wanted, len(pass_ids) - 1)
    found = (starts[rows] == wanted) & (pass_ids[frames] == pass_ids[starts][:, None])
    return np.where(found, rows, NONE)


def with_hindsight(labels: SoftLabels, later: NDArray[np.int64]) -> SoftLabels:
    """Soft labels for the same samples, each pooled from all answers for its slot by how certain they are.

    p(n, h) is proportional to the sum over k = 0..h of c p(n + k, h - k), where n + k is the sample that ends k slots
    later and c the certainty of its answer, as in the rule ``entropy_mean``. A sample that is not among the labels, or
    lies in another pass, says nothing; the answers for the current slot stay what they are.

    Source: smoothing over a fixed interval, which uses observations from after a moment as well (B. D. O. Anderson and
    J. B. Moore, Optimal Filtering, 1979, chapter 7), here as a linear opinion pool.

    Args:
        labels: soft labels of public samples.
        later: (P, H) what :func:`later_samples` gave for the public set.
    """
    ids, probs = labels.sample_ids, labels.probs.astype(np.float64)
    weighed = probs * confidence(probs, 1.0)[..., None]
    pooled = weighed.copy()
    for ahead in range(1, probs.shape[1]):
        wanted = later[ids, ahead]
        rows = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
        there = (wanted != NONE) & (ids[rows] == wanted)
        pooled[there, ahead:] += weighed[rows[there], : probs.shape[1] - ahead]
    # Where nobody is certain of anything, what was answered stays.
    silent = pooled.sum(axis=-1, keepdims=True) == 0
    return SoftLabels(ids, normalise_rows(np.where(silent, probs, pooled)), labels.temperature)
