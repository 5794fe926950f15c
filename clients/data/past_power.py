"""The power of past slots as a sensor: what the beam sweep of the slot before has measured.

The frame of a slot holds the sweep of the slot *before* it. A window ends with the slot of its decision, so it holds
sweeps up to the one before that slot, and never the one that the label comes from. The first slot of a pass has no
sweep before it. F frames, B beams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NAME = "past_power"
NUM_BEAMS = 64
# Readings this far below the strongest one of a sweep are noise; the sweeps of scenario 9 span about 20 dB.
RANGE_DB = 30.0


def past_power(power: NDArray[np.floating], pass_ids: NDArray[np.integer]) -> NDArray[np.float16]:
    """(F, B) what a node knows in each slot of the power: the sweep of the slot before, in dB.

    A sweep is normalised by its strongest beam: the frame is in dB above the level that lies `RANGE_DB` below that
    beam, between 0 and `RANGE_DB`. So each sweep has a beam at `RANGE_DB`, and a frame of zeros says that there was
    none.

    Args:
        power: (F, B) linear power of every beam in each slot, finite and >= 0.
        pass_ids: (F,) pass of each slot; slots of one pass are contiguous and in time order.

    Raises:
        ValueError: B is not `NUM_BEAMS`.

    Example:
        >>> power = np.full((3, 64), 0.01)
        >>> power[:, 7] = 1.0
        >>> past_power(power, np.array([0, 0, 1]))[:, 6:9].tolist()
        [[0.0, 0.0, 0.0], [10.0, 30.0, 10.0], [0.0, 0.0, 0.0]]
    """
    if power.shape[-1] != NUM_BEAMS:
        raise ValueError(f"{NAME}: its frames have {NUM_BEAMS} beams, and this power has {power.shape[-1]}")
    values = np.asarray(power, np.float64)
    strongest = values.max(axis=-1, keepdims=True)
    # A sweep in which no beam has any power is none.
    share = np.divide(values, strongest, out=np.zeros_like(values), where=strongest > 0)
    level_db = RANGE_DB + 10.0 * np.log10(np.maximum(share, 10.0 ** (-RANGE_DB / 10.0)))
    found = np.zeros(values.shape, np.float16)
    if len(found) > 1:
        is_known = (pass_ids[1:] == pass_ids[:-1]) & (strongest[:-1, 0] > 0)
        found[1:] = np.where(is_known[:, None], level_db[:-1], 0.0)
    return found
