"""Which beams to sweep, so that the loss is bounded: by the thresholds that the federation of a model chose.

An exported student brings the thresholds with it that its run chose by the risk curves of all clients
(`clients.learning.risk_curve`), for each tolerated loss and share of missed windows that could be guaranteed, and the
table of beams that stand in for others by which they were calibrated (`clients.learning.stand_ins`). What is bounded is
the expected share of missed windows of the next pass of a client drawn as those that calibrated.

H horizons, B beams.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.learning.beam_sets import ALL_BEAMS, RankedBeams
from clients.learning.stand_ins import alone, checksum, from_text, to_text
from clients.serving.manifest import Manifest

log = logging.getLogger(__name__)


def guarantees_of(
    beam_sets: Mapping[str, Any] | None, client: str, stand_ins: Mapping[float, NDArray[np.uint8]]
) -> tuple[Mapping[str, Any], ...]:
    """What ``beam_sets`` of a summary guarantees for the student of a client: the rows that `Guarantee` is read from.

    Args:
        beam_sets: the entry of the summary; None where the run has none.
        client: the id of the client; one that told no curve of its own has no thresholds.
        stand_ins: tolerated loss -> the table (B, B) of the client; empty where its recording is not there. Thresholds
            hold for the tables that calibrated them: with others there is no guarantee.
    """
    if beam_sets is None or client not in beam_sets["clients"]:
        return ()
    rows = [
        {name: row[name] for name in ("within_db", "alpha", "thresholds")}
        for row in beam_sets["rows"]
        if row["is_possible"]
    ]
    if "tables" not in beam_sets:
        return tuple(rows)  # runs from before there were tables calibrated sets of the most probable beams
    if not stand_ins or checksum(np.stack(list(stand_ins.values()))) != beam_sets["tables"][client]:
        log.warning("%s: its labels are not those of the run any more, so its beam sets are left out", client)
        return ()
    return tuple({**row, "stand_ins": to_text(stand_ins[row["within_db"]])} for row in rows)


@dataclass(frozen=True)
class Guarantee:
    """By what the beams to sweep are chosen.

    Attributes:
        thresholds: (H,) thresholds of the sets.
        stand_ins: (B, B) which beams stand in for which.
    """

    thresholds: tuple[float, ...]
    stand_ins: NDArray[np.uint8]


def guarantee_of(manifest: Manifest, *, within_db: float, wanted: float) -> Guarantee:
    """What a model guarantees for a loss and a coverage.

    Args:
        manifest: what its folder says.
        within_db: the loss that is tolerated, in dB.
        wanted: the coverage that is wanted, in (0, 1).

    Raises:
        ValueError: the model brings no such thresholds.
    """
    for row in manifest.sets:
        if abs(row["within_db"] - within_db) < 1e-6 and abs(1.0 - row["alpha"] - wanted) < 1e-6:
            beams = manifest.num_beams
            # Without a table, sets of the most probable beams were calibrated.
            table = from_text(row["stand_ins"], beams) if "stand_ins" in row else alone(beams)
            return Guarantee(tuple(row["thresholds"]), table)
    there = ", ".join(f"{row['within_db']:g} dB at {100 * (1 - row['alpha']):g} %" for row in manifest.sets)
    raise ValueError(
        f"--within {within_db:g} --wanted {100 * wanted:g}: {manifest.name} has no thresholds for this; there are "
        f"{there or 'none: its run has no beam sets, or too few passes calibrated them'}"
    )


def beams_to_sweep(probs: NDArray[np.floating], guarantee: Guarantee | None) -> list[list[int]]:
    """The beams of the set of each horizon, in the order in which it takes them up.

    Args:
        probs: (H, B) calibrated probabilities.
        guarantee: what the sets are to hold; None sweeps every beam, which is the only set that is guaranteed without.

    Example:
        >>> some = Guarantee((0.7,), alone(3))
        >>> beams_to_sweep(np.array([[0.1, 0.6, 0.3]]), some), beams_to_sweep(np.array([[0.1, 0.6, 0.3]]), None)
        ([[1, 2]], [[1, 2, 0]])
    """
    if guarantee is None:
        guarantee = Guarantee((ALL_BEAMS,) * len(probs), alone(probs.shape[1]))
    ranked = RankedBeams.by_cover(probs, guarantee.stand_ins)
    found = []
    for row, threshold in enumerate(guarantee.thresholds):
        size = int(ranked.sizes(float(threshold))[row])
        found.append([int(beam) for beam in ranked.order[row, :size]])
    return found
