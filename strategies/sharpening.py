"""How certain the ensemble is made to be before it is published. Rows (..., B) on the simplex."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strategies.labels import normalise_rows


def sharpen(probs: NDArray[np.float32], kind: Literal["none", "softmax", "power"], by: float) -> NDArray[np.float32]:
    """Entropy reduction of distributions.

    Sources: ``softmax``: softmax(p / by), DS-FL, arXiv 2008.06180; ``power``: p^by / sum p^by, the enhanced entropy
    reduction of SCARLET, arXiv 2504.19602. A power of 1 changes nothing, and none moves the ranking of beams.

    Args:
        probs: (..., B).
        kind: ``none`` leaves them as they are.
        by: > 0.
    """
    if kind == "none":
        return probs
    rows = probs.astype(np.float64)
    top = rows.max(axis=-1, keepdims=True)
    return normalise_rows(np.exp((rows - top) / by) if kind == "softmax" else (rows / top) ** by)
