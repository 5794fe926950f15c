"""Which beams may stand in for which: how often a beam was within x dB of the best, for each beam that was the best.

Beams of a codebook overlap, so a sweep need not hold the best beam: a neighbour that loses little will do. How often it
does is measured on labelled windows that nothing is calibrated by, and beam sets take up next the beam that adds most
(:meth:`clients.learning.beam_sets.RankedBeams.by_cover`). Whatever the table says, the guarantee of the sets holds, for
their threshold is calibrated with it; a good table makes them small.

M labelled slots, B beams, X tolerated losses.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clients.learning.metrics import POWER_FLOOR

# A beam that was seldom or never the best is like the others at the same distance: their share counts as so many slots.
# It was set before any sets were measured, and is not tuned.
PRIOR_SLOTS = 5.0
LEVELS = 255
"""The shares are whole parts of this number, so that every machine has the same."""


def measured_stand_ins(power: NDArray[np.floating], within_db: Sequence[float]) -> NDArray[np.uint8]:
    """(X, B, B) in 0..255: row b, column s has the share of slots with best beam b in which s is within x dB of it.

    Shares are smoothed towards those of all pairs of beams with the same distance s - b. Where nothing was measured,
    each beam stands in for itself alone.

    Args:
        power: (M, B) linear receive power; M may be 0.
        within_db: (X,) the losses that are tolerated, in dB.

    Example:
        >>> power = np.array([[1.0, 0.9, 0.1], [0.1, 1.0, 0.95]])
        >>> measured_stand_ins(power, [1.0])[0].tolist()
        [[255, 255, 0], [0, 255, 255], [0, 0, 255]]
    """
    num_beams = power.shape[1]
    floored = np.maximum(power.astype(np.float64), POWER_FLOOR)
    best = floored.argmax(axis=1)
    counts = np.bincount(best, minlength=num_beams).astype(np.float64)
    distance = np.arange(num_beams)[None, :] - np.arange(num_beams)[:, None] + num_beams - 1
    tables = []
    for one in within_db:
        good = floored >= floored.max(axis=1, keepdims=True) * 10.0 ** (-one / 10.0)
        hits = np.zeros((num_beams, num_beams))
        np.add.at(hits, best, good.astype(np.float64))
        seen = np.bincount(distance.ravel(), np.broadcast_to(counts[:, None], hits.shape).ravel())
        at_distance = np.bincount(distance.ravel(), hits.ravel()) / np.maximum(seen, 1.0)
        shares = (hits + PRIOR_SLOTS * at_distance[distance]) / (counts[:, None] + PRIOR_SLOTS)
        np.fill_diagonal(shares, 1.0)
        tables.append(np.rint(LEVELS * shares).astype(np.uint8))
    return np.stack(tables)


def alone(num_beams: int) -> NDArray[np.uint8]:
    """(B, B) the table in which each beam stands in for itself alone: sets then hold the most probable beams."""
    found: NDArray[np.uint8] = (LEVELS * np.eye(num_beams)).astype(np.uint8)
    return found


def checksum(tables: NDArray[np.uint8]) -> int:
    """The CRC-32 of tables (X, B, B): thresholds hold for the tables with which they were calibrated, and no others."""
    return zlib.crc32(np.ascontiguousarray(tables).tobytes())


def to_text(table: NDArray[np.uint8]) -> str:
    """A table (B, B) as a file of text takes it."""
    return base64.b64encode(table.tobytes()).decode()


def from_text(text: str, num_beams: int) -> NDArray[np.uint8]:
    """The table of :func:`to_text`.

    Raises:
        ValueError: it is not a table of so many beams.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"stand_ins: not a table ({error})") from None
    if len(content) != num_beams**2:
        raise ValueError(f"stand_ins: {len(content)} numbers are no table of {num_beams} beams")
    return np.frombuffer(content, np.uint8).reshape(num_beams, num_beams)
