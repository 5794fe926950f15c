"""Why a row of a release cannot be used, cause by cause, and what to do about each.

A row that is damaged by itself is left out and named. A cause that most rows share, such as power in dB, is no damage
of rows: the table as a whole is meant otherwise, and what is left would be a few rows that pass by chance. It is
refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clients.data.geodesy import to_metres

NUM_BEAMS = 64
FAR_M = 10_000.0
"""A vehicle farther away was not seen by the mast; those of the releases are within 80 m."""

# Cause -> what to do about it. The causes of `_OF_SINGLE_ROWS` are damage that may hit any number of rows.
ADVICE: dict[str, str] = {
    "file missing": "is the download complete, and does the folder hold unit1/ and unit2/?",
    "elsewhere": "move these files into the folder of the release, or link their folder there (ln -s)",
    "no numbers": "such a file holds one number a line; download it again",
    "pointer": "fetch the files themselves with git lfs pull",
    "decimal comma": "numbers need a decimal point; save the files again with points",
    "blank": "fill it in, or remove the column",
    "pass blank": "fill it in for every row, or remove the column: the recording is then cut into blocks",
    "no whole number": "write whole numbers, or remove the column",
    "too many cells": "is there a comma within its cells, such as a decimal comma? Quote such cells or use points",
    "too few cells": "is the file cut off? Download it again, or add the commas of the cells that are not there",
    "no power": "is the download complete?",
    "num beams": "Softbeam reads sweeps of 64 beams in one row, as DeepSense 6G has them for vehicles and a mast",
    "two readings": "two numbers are a position: are the columns of power and of position swapped?",
    "reading missing": "the strongest beam may be one without a reading: measure these rows again, or do without them",
    "decibel": "it is in dB or dBm; convert every reading to linear power first: 10 ** (dB / 10)",
    "flat": "a sweep tells beams apart; is it the file of another sensor, or is it rounded?",
    "label blank": "fill it in, or remove the column: the power of every beam tells the best one",
    "label range": "the labels count the 64 beams from 1; is it the index of another codebook?",
    "label from 0": "the labels count from 0, and those of DeepSense 6G count from 1: add 1 to every label",
    "label mirrored": "power and labels count the beams from opposite ends: turn the power round to the official order",
    "label other": "are the labels those of other rows or of another scenario?",
    "no fix": "the receiver had no fix there",
    "swapped": "latitude and longitude are swapped: write the latitude first",
    "sign": "west and south are negative: mend the sign of the position of the vehicle or of the base station",
    "minutes": "they are degrees and minutes as a receiver sends them (ddmm.mmmm); convert them to decimal degrees",
    "no degrees": "a position is the latitude and the longitude in decimal degrees",
    "far": "is unit1_loc the base station of another site?",
    "station": "mend the file of the position of the base station",
}
_OF_SINGLE_ROWS = frozenset({"blank", "file missing", "no power", "reading missing", "no fix", "flat"})


class RowFault(ValueError):
    """A row cannot be used.

    Args:
        cause: the cause, a key of `ADVICE`.
        message: what is wrong with this row.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.advice = ADVICE[cause]


def check_faults(source: object, faults: Sequence[tuple[str, RowFault]], num_rows: int) -> None:
    """Refuse a table of which no row is left, or of which more than half of the rows share a cause.

    Args:
        source: the file that the message names.
        faults: the place and the fault of each row that cannot be used.
        num_rows: the number of all rows.

    Raises:
        ValueError: the table is refused; the message names file, line, cause and remedy.
    """
    counts = Counter(fault.cause for _, fault in faults)
    shared = [cause for cause, count in counts.items() if 2 * count > num_rows and cause not in _OF_SINGLE_ROWS]
    if not shared and len(faults) < num_rows:
        return
    cause = shared[0] if shared else counts.most_common(1)[0][0]
    place, fault = next(found for found in faults if found[1].cause == cause)
    count = "not one" if len(faults) == num_rows else f"only {num_rows - len(faults)}"
    verb = "is" if count in ("not one", "only 1") else "are"
    raise ValueError(f"{source}: {count} of {num_rows} rows {verb} whole ({place}: {fault}); {fault.advice}")


def check_power(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """A sweep with all its readings: a beam without one gets the weakest power.

    Raises:
        RowFault: it is not a sweep of `NUM_BEAMS` linear powers.
    """
    if power.shape != (NUM_BEAMS,):
        cause = "two readings" if power.size == 2 else "num beams" if power.size else "no power"
        raise RowFault(cause, f"there are {power.size} power readings, expected {NUM_BEAMS}")
    measured = np.isfinite(power)
    if not measured.any():
        raise RowFault("no power", "there is no finite power reading")
    weakest = power[measured].min()
    if weakest < 0:
        raise RowFault("decibel", f"the power {weakest:g} is negative; linear power is expected, not dB")
    if measured.sum() > 1 and weakest == power[measured].max():
        raise RowFault("flat", f"the power is {weakest:g} in every beam")
    return np.where(measured, power, weakest)


def check_label(column: str, cell: str, strongest: int | None) -> int:
    """The beam that a label names, from 1.

    Args:
        column: the name of the column.
        cell: the label.
        strongest: the strongest beam, from 1; None if the power does not tell.

    Raises:
        RowFault: the label is no beam, or another one than the strongest.
    """
    if not cell:
        raise RowFault("label blank", f"{column} is blank")
    beam = whole_number(column, cell)
    if strongest is not None and beam != strongest:
        cause = {strongest - 1: "label from 0", NUM_BEAMS + 1 - strongest: "label mirrored"}.get(beam, "label other")
        raise RowFault(cause, f"the label is {cell}, but the strongest beam is {strongest}")
    if not 1 <= beam <= NUM_BEAMS:
        cause = "label range" if beam else "label from 0"
        raise RowFault(cause, f"the label is {cell}, expected 1 to {NUM_BEAMS}")
    return beam


def check_readings(power: NDArray[np.float64], column: str | None, cell: str) -> None:
    """Refuse a sweep whose strongest beam may be one without a finite reading.

    Only its label tells that it is not. The label of some releases is the first beam without a reading, and tells
    nothing.

    Args:
        power: the sweep as it was measured.
        column: the name of the column of labels; None if there is none.
        cell: the label.

    Raises:
        RowFault: some reading is not finite, and no label confirms the strongest of the others.
    """
    measured = np.isfinite(power)
    if measured.all():
        return
    lacking = f"{NUM_BEAMS - int(measured.sum())} of {NUM_BEAMS} power readings are not finite"
    if column is None:
        raise RowFault("reading missing", f"{lacking}, and no label tells the strongest beam")
    strongest = int(np.argmax(np.where(measured, power, -np.inf))) + 1
    if (beam := check_label(column, cell, None)) != strongest:
        found = f"{lacking}, and the label is {beam}, but the strongest beam of the others is {strongest}"
        raise RowFault("reading missing", found)


def whole_number(column: str, cell: str) -> int:
    """The whole number in a cell, which may be written as 3.0.

    Raises:
        RowFault: the cell is blank or holds something else.
    """
    try:
        return int(cell)  # as a float, a number of 17 digits would become another one
    except ValueError:
        pass
    try:
        number = float(cell)
        if number.is_integer():
            return int(number)
    except (ValueError, OverflowError):
        pass
    cause = "no whole number" if cell else "pass blank"
    raise RowFault(cause, f"{column} is {cell or 'blank'}, expected a whole number")


def check_position(position_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """A latitude and a longitude in degrees.

    Raises:
        RowFault: it is something else; the cause says what it looks like.
    """
    text = f"{position_deg.tolist()} is not a latitude and a longitude in degrees"
    if position_deg.shape != (2,):
        raise RowFault("no degrees", text)
    if not np.all(np.isfinite(position_deg)):
        raise RowFault("no fix", text)
    if not np.any(position_deg):
        raise RowFault("no fix", "the position is 0, 0")
    latitude, longitude = np.abs(position_deg)
    if latitude <= 90.0 and longitude <= 180.0:
        return position_deg
    if longitude <= 90.0 and latitude <= 180.0:
        raise RowFault("swapped", text)
    raise RowFault("minutes" if latitude < 9000.1 and longitude < 18000.1 else "no degrees", text)


def check_distance(position_deg: NDArray[np.float64], station_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) metres east and north of the base station.

    Raises:
        RowFault: the vehicle is too far away for the mast to see it; the cause says which mistake would explain it.
    """
    offset_m: NDArray[np.float64] = to_metres(position_deg[None], station_deg)[0]
    if (distance_m := float(np.hypot(*offset_m))) <= FAR_M:
        return offset_m
    slips = {"swapped": position_deg[::-1], "sign": np.copysign(position_deg, station_deg)}
    cause = next(
        (name for name, other in slips.items() if np.hypot(*to_metres(other[None], station_deg)[0]) <= FAR_M), "far"
    )
    where = f"the vehicle at {position_deg.tolist()} is {distance_m / 1000:,.0f} km from the base station"
    raise RowFault(cause, f"{where} at {station_deg.tolist()}")
