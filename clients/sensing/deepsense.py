"""Reads a DeepSense 6G scenario: who drove where, and the power that the base station received on every beam.

Two layouts are read. The *official* one is a CSV beside ``unit1/`` (the base station) and ``unit2/`` (the vehicle),
where a cell names a text file. The *compact* one is the same CSV beside ``scenarioN_arrays.npz``, whose arrays carry
the names of the CSV's columns and have one row per row of the CSV. Columns are found by their name, never by place.

Source: www.deepsense6g.net, scenarios 1-9, 23 and 31-34.

R rows of the CSV, F frames (the rows that are whole), B = 64 beams.
"""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_BEAMS = 64
# Names of one column in different releases, the preferred one first. In scenarios 3, 4, 8 and 9 the
# uncalibrated position is wrong by 9 to 28 m (median), which costs 23 points of Top-1 in scenario 9.
LABEL_COLUMNS = ("unit1_beam_index", "unit1_beam", "beam_index_1")
POWER_COLUMNS = ("unit1_pwr_60ghz", "unit1_pwr_1")
POSITION_COLUMNS = ("unit2_loc_cal", "unit2_loc", "unit2_loc_1")
STATION_COLUMNS = ("unit1_loc",)
PASS_COLUMNS = ("seq_index",)
BOX_COLUMN = "unit1_bbox_tx"

# WGS 84: semi-major axis in metres and squared eccentricity.
WGS84_AXIS_M = 6_378_137.0
WGS84_ECCENTRICITY2 = 6.694_379_990_14e-3

Row = Mapping[str, str]
CellReader = Callable[[int], NDArray[np.float64]]


@dataclass(frozen=True)
class Scenario:
    """One scenario, frame by frame; frames of one pass are contiguous and in time order.

    A row that was left out leaves a gap of one slot in its pass.

    Attributes:
        name: such as ``scenario9``.
        pass_ids: (F,) pass of each frame, the release's ``seq_index``.
        sensors: modality name -> (F, *frame_shape), see `clients.sensing.modalities`; ``gps``, and ``box`` where known.
        power: (F, B) linear receive power, finite and >= 0. A beam without a reading counts as its sweep's weakest.
        beams: (F,) strongest beam, 0-based; the release counts from 1.
        problems: one line for every row of the CSV that was left out, and why.
    """

    name: str
    pass_ids: NDArray[np.int32]
    sensors: Mapping[str, NDArray[np.generic]]
    power: NDArray[np.float32]
    beams: NDArray[np.int64]
    problems: tuple[str, ...]


class _Frame(NamedTuple):
    pass_id: int
    power: NDArray[np.float64]
    position_deg: NDArray[np.float64]
    box: NDArray[np.float64]


def read_scenario(folder: Path) -> Scenario:
    """Read a scenario in the official or in the compact layout.

    Rows that are broken (a missing or damaged file, no finite power, a label that is not the strongest beam) are left
    out and reported in ``problems``. Sweeps with single missing readings stay: there the released label points at the
    first missing beam, so the strongest measured one is taken.

    Args:
        folder: holds the scenario's CSV.

    Raises:
        ValueError: the scenario as a whole cannot be read; the message names the file and how to mend it.
    """
    table = _find_table(folder)
    rows = _read_table(table)
    label_column = _pick(LABEL_COLUMNS, rows[0], table)
    pass_column = _pick(PASS_COLUMNS, rows[0], table)
    archives = sorted(folder.glob("*_arrays.npz"))
    source, cells = (
        (archives[0], _array_cells(archives[0], len(rows))) if archives else (table, _file_cells(table, rows))
    )
    read_power = cells[_pick(POWER_COLUMNS, cells, source)]
    read_position = cells[_pick(POSITION_COLUMNS, cells, source)]
    read_station = cells[_pick(STATION_COLUMNS, cells, source)]
    read_box = cells.get(BOX_COLUMN)
    try:
        station_deg = _checked_position(read_station(0))
    except ValueError as error:
        raise ValueError(f"{source}: the position of the base station is needed: {error}") from None

    frames: list[_Frame] = []
    problems: list[str] = []
    for index, row in enumerate(rows):
        try:
            frame = _Frame(
                pass_id=_whole_number(row, pass_column),
                power=_checked_power(read_power(index), row[label_column]),
                position_deg=_checked_position(read_position(index)),
                box=np.full(4, np.nan) if read_box is None else read_box(index),
            )
        except ValueError as error:
            problems.append(f"{table.name}, line {index + 2}: {error}")
        else:
            frames.append(frame)
    if not frames:
        raise ValueError(
            f"{table}: not one of {len(rows)} rows is whole ({problems[0]}); "
            "is the download complete, and are the beams in the official order?"
        )
    # Stable: time order inside a pass is the CSV's own.
    frames.sort(key=lambda frame: frame.pass_id)
    power = np.stack([frame.power for frame in frames]).astype(np.float32)
    sensors: dict[str, NDArray[np.generic]] = {
        "gps": to_metres(np.stack([frame.position_deg for frame in frames]), station_deg)
    }
    if read_box is not None:
        sensors["box"] = np.stack([frame.box for frame in frames]).astype(np.float32)
    return Scenario(
        name=_scenario_name(table),
        pass_ids=np.array([frame.pass_id for frame in frames], np.int32),
        sensors=sensors,
        power=power,
        beams=np.argmax(power, axis=1).astype(np.int64),
        problems=tuple(problems),
    )


def to_metres(position_deg: NDArray[np.float64], station_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres east and north of the base station, in the plane that touches the WGS 84 ellipsoid there.

    Within 2 mm of the exact projection in the 100 m around a mast.

    Source: NIMA TR8350.2 (WGS 84), radii of curvature in the prime vertical and in the meridian.

    Args:
        position_deg: (F, 2) latitude and longitude in degrees.
        station_deg: (2,) of the base station.

    Returns:
        (F, 2) east, north.
    """
    latitude = np.radians(station_deg[0])
    flattening = 1.0 - WGS84_ECCENTRICITY2 * np.sin(latitude) ** 2
    prime_vertical_m = WGS84_AXIS_M / np.sqrt(flattening)
    meridian_m = prime_vertical_m * (1.0 - WGS84_ECCENTRICITY2) / flattening
    north, east = np.radians(position_deg - station_deg).T
    return np.stack([prime_vertical_m * np.cos(latitude) * east, meridian_m * north], axis=1)


def _checked_power(power: NDArray[np.float64], label: str) -> NDArray[np.float64]:
    if power.shape != (NUM_BEAMS,):
        raise ValueError(f"{power.size} power readings, expected {NUM_BEAMS}")
    measured = np.isfinite(power)
    if not measured.any():
        raise ValueError("no finite power reading")
    weakest = power[measured].min()
    if weakest < 0:
        raise ValueError(f"power {weakest:g} is negative; linear power is expected, not dB")
    whole = np.where(measured, power, weakest)
    strongest = int(np.argmax(whole)) + 1
    if measured.all() and label.strip() not in (str(strongest), f"{strongest}.0"):
        raise ValueError(f"the label is {label.strip() or 'blank'}, but the strongest beam is {strongest}")
    return whole


def _checked_position(position_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    if position_deg.shape != (2,) or not np.all(np.abs(position_deg) <= (90.0, 180.0)):
        raise ValueError(f"{position_deg.tolist()} is not a latitude and a longitude in degrees")
    return position_deg


def _whole_number(row: Row, column: str) -> int:
    try:
        return int(float(row[column]))
    except (ValueError, OverflowError):
        raise ValueError(f"{column} is {row[column].strip() or 'blank'}, expected a whole number") from None


def _find_table(folder: Path) -> Path:
    tables = sorted(folder.glob("*.csv"))
    named = [path for path in tables if re.fullmatch(r"scenario\d+(_dev)?", path.stem, re.IGNORECASE)]
    if len(named or tables) != 1:
        found = ", ".join(path.name for path in tables) or ("no CSV" if folder.is_dir() else "no such folder")
        raise ValueError(f"{folder}: expected one scenarioN.csv, found {found}; name the folder that holds the CSV")
    return (named or tables)[0]


def _scenario_name(table: Path) -> str:
    match = re.match(r"scenario\d+", table.stem, re.IGNORECASE)
    return match.group().lower() if match else table.stem


def _read_table(table: Path) -> Sequence[Row]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            header = [name.strip() for name in next(lines, [])]
            # A short line is filled with blanks: its row is then reported as broken.
            rows = [dict(zip(header, [*line, *[""] * len(header)], strict=False)) for line in lines if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table}: not a readable CSV ({error}); download it again") from None
    if not rows:
        raise ValueError(f"{table}: no rows; download it again")
    return rows


def _pick(names: Sequence[str], available: Mapping[str, object], source: Path) -> str:
    for name in names:
        if name in available:
            return name
    raise ValueError(f"{source}: no {' or '.join(names)}; is this the file of a DeepSense 6G scenario?")


def _file_cells(table: Path, rows: Sequence[Row]) -> dict[str, CellReader]:
    """The official layout: a cell is the path of a text file of numbers, relative to the CSV."""

    def read(column: str, index: int) -> NDArray[np.float64]:
        cell = rows[index][column].strip()
        if not cell:
            raise ValueError(f"{column} is blank")
        try:
            return np.array((table.parent / cell).read_text().split(), np.float64)
        except OSError:
            raise ValueError(f"{column}: {cell} cannot be opened") from None
        except ValueError:
            raise ValueError(f"{column}: {cell} is not a file of numbers") from None

    return {column: partial(read, column) for column in rows[0]}


def _array_cells(archive: Path, num_rows: int) -> dict[str, CellReader]:
    """The compact layout: a column is an array of the archive, with one row per row of the CSV."""
    names = (*POWER_COLUMNS, *POSITION_COLUMNS, *STATION_COLUMNS, BOX_COLUMN)
    try:
        # Opened here, because np.load leaves a damaged archive open.
        with archive.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in names if name in file}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{archive}: not a readable .npz archive ({type(error).__name__}); fetch it again") from None
    for name, array in arrays.items():
        expected = 1 if name in STATION_COLUMNS else num_rows
        if array.ndim != 2 or len(array) != expected:
            raise ValueError(f"{archive}: {name} has shape {array.shape}, expected {expected} rows; fetch it again")
    return {name: array.__getitem__ for name, array in arrays.items()}
