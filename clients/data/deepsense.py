"""Reads a DeepSense 6G release: the positions of the vehicles, the data of the mast's sensors, the power of every beam.

Two layouts are read. The *official* one is a CSV beside ``unit1/`` (the base station) and ``unit2/`` (the vehicle),
where a cell names a file. The *compact* one is the same CSV beside ``scenarioN_arrays.npz``, whose arrays carry the
names of the CSV's columns and have one row per row of the CSV. See `clients.data.deepsense_table` for the releases.

Power, positions and boxes are read at once. For images, radar cubes and LiDAR scans only the file names are kept,
because a scenario of them takes tens of gigabytes; `sim.data.conversion` reads them.

R rows of the CSV, F frames (the rows that are whole), B = 64 beams.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clients.data.deepsense_cells import CellReader, array_cells, file_cells, path_in, read_numbers, sensor_files
from clients.data.deepsense_table import (
    BOX_COLUMN,
    LABEL_COLUMNS,
    PASS_COLUMNS,
    POSITION_COLUMNS,
    POWER_COLUMNS,
    STATION_COLUMNS,
    STATION_FILE,
    Table,
    read_table,
)
from clients.data.geodesy import to_metres
from clients.data.row_order import order_rows

NUM_BEAMS = 64


@dataclass(frozen=True)
class Scenario:
    """One release, frame by frame; frames of one pass are contiguous and in time order (`clients.data.row_order`).

    A row that was left out leaves a gap of one slot in its pass.

    Attributes:
        name: the name of the release, such as ``scenario9``.
        pass_ids: (F,) pass of each frame, the release's ``seq_index``.
        sensors: modality name -> (F, *frame_shape), for the modalities in memory; see `clients.data.modalities`.
        power: (F, B) linear receive power, finite and >= 0; None if a challenge does not publish its labels. A beam
            without a reading gets the weakest power of its sweep.
        problems: one line for every row of the CSV that was left out, with the reason, and one for each modality of
            which some files are missing.
        files: kind of sensor file (`clients.data.sensor_files.FILE_KINDS`) -> file of each frame, None if it is
            missing. Kinds without any file are absent.
        has_passes: False if the release does not say which frames belong together; each frame is then a pass of its
            own.
    """

    name: str
    pass_ids: NDArray[np.int32]
    sensors: Mapping[str, NDArray[np.generic]]
    power: NDArray[np.float32] | None
    problems: tuple[str, ...]
    files: Mapping[str, tuple[Path | None, ...]] = field(default_factory=dict)
    has_passes: bool = True

    @property
    def labelled_power(self) -> NDArray[np.float32]:
        """(F, B) linear receive power, for callers that need it.

        Raises:
            ValueError: the release has no power.
        """
        if self.power is None:
            raise ValueError(
                f"{self.name}: there is no power and no beam labels in this release; use one that has them"
            )
        return self.power

    @property
    def beams(self) -> NDArray[np.int64]:
        """(F,) strongest beam, which counts from 0; in the release beams count from 1.

        Raises:
            ValueError: the release has no power.
        """
        best: NDArray[np.int64] = np.argmax(self.labelled_power, axis=1)
        return best


class _Frame(NamedTuple):
    row: int
    pass_id: int
    power: NDArray[np.float64] | None
    position_m: NDArray[np.float64] | None
    box: NDArray[np.float64] | None


def read_scenario(folder: Path) -> Scenario:
    """Read a release in the official or in the compact layout.

    Rows that are broken (a missing or damaged file, no finite power, a label that is not the strongest beam) are left
    out and reported in ``problems``. Sweeps with single missing readings stay: their released label is the first
    missing beam, so the strongest measured beam is taken instead. If there are labels but no power (the archive of the
    radar task), the power is 1 in the labelled beam and 0 elsewhere.

    Args:
        folder: the folder that holds the CSV.

    Raises:
        ValueError: the release as a whole cannot be read; the message names the file and how to mend it.
    """
    table = read_table(folder)
    archives = sorted(table.folder.glob("*_arrays.npz"))
    source = archives[0] if archives else table.source
    label_column, pass_column = table.column(LABEL_COLUMNS), table.column(PASS_COLUMNS)
    if table.is_scenario:
        _check_columns([PASS_COLUMNS, LABEL_COLUMNS], table.rows[0], table.source)
    cells = array_cells(archives[0], len(table.rows)) if archives else file_cells(table)
    if table.is_scenario:
        has_positions = any(name in cells for name in POSITION_COLUMNS)
        _check_columns([POWER_COLUMNS, *([STATION_COLUMNS] if has_positions else [])], cells, source)
    read_power, read_position = _power_reader(table, cells, label_column), _position_reader(table, cells)
    read_box = cells.get(BOX_COLUMN) if archives else None
    files, problems = sensor_files(table)
    if read_power is None and read_position is None and not files:
        raise ValueError(
            f"{source}: there is no {' or '.join(POWER_COLUMNS)} and no sensor that can be read; "
            "is this a DeepSense 6G release?"
        )
    if not any(name in cells for name in POWER_COLUMNS):
        problems.append(
            f"{source.name}: there is no power, and there are no beam labels"
            if label_column is None
            else f"{source.name}: there is no power; it is set to 1 in the labelled beam and 0 elsewhere"
        )
    if read_position is not None and not archives and _has_no_positions(table):
        problems.append(f"gps: none of {len(table.rows)} files is there")
        read_position = None

    def read_frame(row: int) -> _Frame:
        return _Frame(
            row=row,
            pass_id=row + 1 if pass_column is None else _whole_number(table, row, pass_column),
            power=None if read_power is None else read_power(row),
            position_m=None if read_position is None else read_position(row),
            box=None if read_box is None else read_box(row),
        )

    frames: list[_Frame] = []
    for row in range(len(table.rows)):
        try:
            frames.append(read_frame(row))
        except ValueError as error:
            problems.append(f"{table.places[row]}: {error}")
    if not frames:
        raise ValueError(
            f"{table.source}: not one of {len(table.rows)} rows is whole ({problems[-1]}); "
            "is the download complete, and are the beams in the official order?"
        )
    frames, disorder = _in_order(table, frames, has_passes=pass_column is not None)
    problems += disorder
    positions = [frame.position_m for frame in frames if frame.position_m is not None]
    boxes = [frame.box for frame in frames if frame.box is not None]
    sensors: dict[str, NDArray[np.generic]] = {"gps": np.stack(positions)} if positions else {}
    if boxes:
        sensors["box"] = np.stack(boxes).astype(np.float32)
    power = [frame.power for frame in frames if frame.power is not None]
    return Scenario(
        name=table.name,
        pass_ids=np.array([frame.pass_id for frame in frames], np.int32),
        sensors=sensors,
        power=np.stack(power).astype(np.float32) if power else None,
        problems=tuple(problems),
        files={kind: tuple(paths[frame.row] for frame in frames) for kind, paths in files.items()},
        has_passes=pass_column is not None,
    )


def _in_order(table: Table, frames: list[_Frame], *, has_passes: bool) -> tuple[list[_Frame], tuple[str, ...]]:
    """The frames in time order, with passes that are one run of rows each; and what was out of order."""
    if not has_passes:
        return frames, ()
    order = order_rows(table, [frame.row for frame in frames], [frame.pass_id for frame in frames])
    by_row = {frame.row: frame for frame in frames}
    pairs = zip(order.rows.tolist(), order.passes.tolist(), strict=True)
    return [by_row[row]._replace(pass_id=pass_id) for row, pass_id in pairs], order.problems


def _check_columns(needed: Sequence[Sequence[str]], available: Collection[str], source: Path) -> None:
    """Refuse a table that lacks a needed column: every scenario has them, unlike archives and challenges."""
    for names in needed:
        if not any(name in available for name in names):
            raise ValueError(
                f"{source}: there is no {' or '.join(names)}; is this the file of a DeepSense 6G scenario?"
            )


def _power_reader(table: Table, cells: Mapping[str, CellReader], label_column: str | None) -> CellReader | None:
    """A reader of the power of a row, checked against its label; None if the release has neither."""
    column = next((name for name in POWER_COLUMNS if name in cells), None)
    if column is not None:
        read = cells[column]
        return lambda row: _checked_power(read(row), None if label_column is None else table.cell(row, label_column))
    if label_column is None:
        return None

    def one_hot(row: int) -> NDArray[np.float64]:
        beam = _whole_number(table, row, label_column)
        if not 1 <= beam <= NUM_BEAMS:
            raise ValueError(f"the label is {beam}, expected 1 to {NUM_BEAMS}")
        return np.asarray(np.arange(1, NUM_BEAMS + 1) == beam, np.float64)

    return one_hot


def _position_reader(table: Table, cells: Mapping[str, CellReader]) -> CellReader | None:
    """A reader of positions in metres from the base station; None if the release has no positions.

    A challenge has several base stations, one for each row.
    """
    column = next((name for name in POSITION_COLUMNS if name in cells), None)
    if column is None:
        return None
    station_column = next((name for name in STATION_COLUMNS if name in cells), None)

    def station_deg(row: int) -> NDArray[np.float64]:
        try:
            if station_column is None:
                return _checked_position(read_numbers(table.folder, STATION_COLUMNS[0], str(STATION_FILE)))
            return _checked_position(cells[station_column](row))
        except ValueError as error:
            raise ValueError(f"the position of the base station is needed: {error}") from None

    return lambda row: to_metres(_checked_position(cells[column](row))[None], station_deg(row))[0]


def _has_no_positions(table: Table) -> bool:
    column = table.column(POSITION_COLUMNS)
    return column is not None and not any(
        table.cell(row, column) and path_in(table.folder, table.cell(row, column)).is_file()
        for row in range(len(table.rows))
    )


def _checked_power(power: NDArray[np.float64], label: str | None) -> NDArray[np.float64]:
    if power.shape != (NUM_BEAMS,):
        raise ValueError(f"there are {power.size} power readings, expected {NUM_BEAMS}")
    measured = np.isfinite(power)
    if not measured.any():
        raise ValueError("there is no finite power reading")
    weakest = power[measured].min()
    if weakest < 0:
        raise ValueError(f"the power {weakest:g} is negative; linear power is expected, not dB")
    whole = np.where(measured, power, weakest)
    strongest = int(np.argmax(whole)) + 1
    if label is not None and measured.all() and label not in (str(strongest), f"{strongest}.0"):
        raise ValueError(f"the label is {label or 'blank'}, but the strongest beam is {strongest}")
    return whole


def _checked_position(position_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    if position_deg.shape != (2,) or not np.all(np.abs(position_deg) <= (90.0, 180.0)):
        raise ValueError(f"{position_deg.tolist()} is not a latitude and a longitude in degrees")
    return position_deg


def _whole_number(table: Table, row: int, column: str) -> int:
    cell = table.cell(row, column)
    try:
        return int(float(cell))
    except (ValueError, OverflowError):
        raise ValueError(f"{column} is {cell or 'blank'}, expected a whole number") from None
