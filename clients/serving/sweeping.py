"""Which beams to sweep, so that the loss is bounded: by the thresholds that the federation of a model chose.

An exported student brings the thresholds with it that its run chose by the risk curves of all clients
(`clients.learning.risk_curve`), for each tolerated loss and share of missed windows that could be guaranteed. What is
bounded is the expected share of missed windows of the next pass of a client drawn as those that calibrated.

H horizons, B beams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.learning.beam_sets import ALL_BEAMS, RankedBeams
from clients.serving.manifest import Manifest


def guarantees_of(beam_sets: Mapping[str, Any] | None, client: str) -> tuple[Mapping[str, Any], ...]:
    """What ``beam_sets`` of a summary guarantees for the student of a client: loss, alpha and thresholds of each row.

    Args:
        beam_sets: the entry of the summary; None where the run has none.
        client: the id of the client; one that told no curve of its own has no thresholds.
    """
    if beam_sets is None or client not in beam_sets["clients"]:
        return ()
    rows = (row for row in beam_sets["rows"] if row["is_possible"])
    return tuple({name: row[name] for name in ("within_db", "alpha", "thresholds")} for row in rows)


def thresholds_of(manifest: Manifest, *, within_db: float, wanted: float) -> tuple[float, ...]:
    """(H,) the thresholds of a model.

    Args:
        manifest: what its folder says.
        within_db: the loss that is tolerated, in dB.
        wanted: the coverage that is wanted, in (0, 1).

    Raises:
        ValueError: the model brings no such thresholds.
    """
    for row in manifest.sets:
        if abs(row["within_db"] - within_db) < 1e-6 and abs(1.0 - row["alpha"] - wanted) < 1e-6:
            return tuple(row["thresholds"])
    there = ", ".join(f"{row['within_db']:g} dB at {100 * (1 - row['alpha']):g} %" for row in manifest.sets)
    raise ValueError(
        f"--within {within_db:g} --wanted {100 * wanted:g}: {manifest.name} has no thresholds for this; there are "
        f"{there or 'none: its run has no beam sets, or too few passes calibrated them'}"
    )


def beams_to_sweep(probs: NDArray[np.floating], thresholds: Sequence[float] | None) -> list[list[int]]:
    """The beams of the set of each horizon, the most probable first.

    Args:
        probs: (H, B) calibrated probabilities.
        thresholds: (H,) thresholds; None sweeps every beam, which is the only set that is guaranteed without any.

    Example:
        >>> beams_to_sweep(np.array([[0.1, 0.6, 0.3]]), (0.7,)), beams_to_sweep(np.array([[0.1, 0.6, 0.3]]), None)
        ([[1, 2]], [[1, 2, 0]])
    """
    ranked = RankedBeams.by_probability(probs)
    found = []
    for row, threshold in enumerate(thresholds if thresholds is not None else (ALL_BEAMS,) * len(probs)):
        size = int(ranked.sizes(float(threshold))[row])
        found.append([int(beam) for beam in ranked.order[row, :size]])
    return found
