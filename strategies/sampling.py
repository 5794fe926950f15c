"""Which public samples are asked for in a round. N samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Samples are drawn in runs of neighbours: these share most of their frames, so a client encodes each frame about once.
RUN_LENGTH = 16


def choose_samples(num_public: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Public samples for a round, in random runs of consecutive ones.

    Args:
        num_public: size of the public set.
        wanted: how many; 0 or more than there are takes all.
        rng: the only source of randomness.

    Returns:
        (N,) strictly increasing.
    """
    if wanted == 0 or wanted >= num_public:
        return np.arange(num_public)
    offset = int(rng.integers(RUN_LENGTH))
    runs = np.split(np.arange(num_public), np.arange(offset, num_public, RUN_LENGTH))
    order = rng.permutation(len(runs))
    return np.sort(np.concatenate([runs[index] for index in order])[:wanted])
