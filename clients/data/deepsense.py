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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clients.data.bearing import check_bearing
from clients.data.blocks import BLOCK_FRAMES, cut_blocks, is_in_time_order
from clients.data.deepsense_cells import (
    CellReader,
    array_cells,
    file_cells,
    files_of,
    find_archive,
    none_is_there,
    read_numbers,
    sensor_files,
)
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
from clients.data.row_faults import (
    ADVICE,
    NUM_BEAMS,
    RowFault,
    check_distance,
    check_faults,
    check_label,
    check_position,
    check_power,
    check_readings,
    whole_number,
)
from clients.data.row_order import order_rows

LONG_FRAMES = 10 * BLOCK_FRAMES
"""A single pass of more rows is a recording that nobody has cut; the longest measured pass has 238."""
USUAL_POWER = 5.0


@dataclass(frozen=True)
class Scenario:
    """One release, frame by frame; frames of one pass are contiguous and in time order (`clients.data.row_order`).

    Where rows of a pass were left out, it is cut: the rows behind the gap are a pass of their own, so that no window
    runs over it.

    Attributes:
        name: the name of the release, such as ``scenario9``.
        pass_ids: (F,) pass of each frame, the release's ``seq_index``.
        sensors: modality name -> (F, *frame_shape), for the modalities in memory; see `clients.data.modalities`.
        power: (F, B) linear receive power, finite and >= 0; None if a challenge does not publish its labels. A beam
            without a finite reading gets the weakest power of its sweep, and ``problems`` counts these sweeps.
        problems: how many rows of the CSV are left out and at how many gaps passes are cut, if any are; a line for
            each of them, with the reason; and one for each modality of which some files are missing.
        files: kind of sensor file (`clients.data.sensor_files.FILE_KINDS`) -> file of each frame, None if it is
            missing. Kinds without any file are absent.
        has_passes: False if nobody can say which frames belong together; each frame is then a pass of its own.
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


class _Readers(NamedTuple):
    pass_column: str | None
    power: CellReader | None
    position_m: CellReader | None
    box: CellReader | None


class _Frame(NamedTuple):
    row: int
    pass_id: int
    power: NDArray[np.float64] | None
    position_m: NDArray[np.float64] | None
    box: NDArray[np.float64] | None


def read_scenario(folder: Path) -> Scenario:
    """Read a release in the official or in the compact layout.

    Rows that are broken (a missing or damaged file, no finite power, a label that is not the strongest beam) are left
    out and reported in ``problems``; a cause that most rows share is refused (`clients.data.row_faults`). A sweep with
    missing readings stays where its label is the strongest measured beam; any other one is left out, because the
    strongest beam may be one that is missing. If there are labels but no power (the archive of the radar task), the
    power is 1 in the labelled beam and 0 elsewhere. A recording without ``seq_index`` is cut into blocks
    (`clients.data.blocks`).

    Args:
        folder: the folder that holds the CSV.

    Raises:
        ValueError: the release as a whole cannot be read, or its beams run against the bearings of the vehicles
            (`clients.data.bearing`); the message names the file and how to mend it.
    """
    table = read_table(folder)
    archive = find_archive(table.folder)
    source = archive or table.source
    cells = array_cells(archive, len(table.rows)) if archive else file_cells(table)
    if table.is_scenario:
        _check_columns([LABEL_COLUMNS], table.rows[0], table.source)
        has_positions = any(name in cells for name in POSITION_COLUMNS)
        _check_columns([POWER_COLUMNS, *([STATION_COLUMNS] if has_positions else [])], cells, source)
    files, problems = sensor_files(table)
    problems = [*table.notes, *problems]
    filled = list[int]()
    readers = _Readers(
        pass_column=_pass_column(table, problems),
        power=_power_reader(table, cells, problems, filled),
        position_m=_position_reader(table, cells, is_in_files=archive is None, problems=problems),
        box=cells.get(BOX_COLUMN) if archive else None,
    )
    if readers.power is None and readers.position_m is None and not files:
        raise ValueError(
            f"{source}: there is no {' or '.join(POWER_COLUMNS)} and no sensor that can be read; its columns are "
            f"{_listed(table.rows[0])}; is this a DeepSense 6G release?"
        )
    frames, broken = _read_rows(table, readers)
    whole = {frame.row for frame in frames}
    problems += _filled(table, [row for row in filled if row in whole])
    frames = _numbered(table, frames, problems)
    frames, has_passes, disorder = _in_order(table, frames, readers.pass_column, broken)
    positions = [frame.position_m for frame in frames if frame.position_m is not None]
    boxes = [frame.box for frame in frames if frame.box is not None]
    sensors: dict[str, NDArray[np.generic]] = {"gps": np.stack(positions)} if positions else {}
    if boxes:
        sensors["box"] = np.stack(boxes).astype(np.float32)
    power = [frame.power for frame in frames if frame.power is not None]
    scenario = Scenario(
        name=table.name,
        pass_ids=np.array([frame.pass_id for frame in frames], np.int32),
        sensors=sensors,
        power=np.stack(power).astype(np.float32) if power else None,
        problems=(*disorder, *problems, *(f"{table.places[row]}: {fault}" for row, fault in broken.items())),
        files={kind: tuple(paths[frame.row] for frame in frames) for kind, paths in files.items()},
        has_passes=has_passes,
    )
    return replace(scenario, problems=(*_misfits(scenario, source), *scenario.problems))


def _pass_column(table: Table, problems: list[str]) -> str | None:
    """The column that says which rows belong together; None if there is none, or it says nothing."""
    column = table.column(PASS_COLUMNS)
    if column is None:
        return None
    cells = {table.cell(row, column) for row in range(len(table.rows))}
    if cells == {""}:
        problems.append(f"{table.source.name}: {column} is blank in every row")
        return None
    if len(cells) == 1 and len(table.rows) > LONG_FRAMES:
        problems.append(f"{table.source.name}: {column} is {cells.pop()} in all of {len(table.rows)} rows")
        return None
    return column


def _filled(table: Table, rows: Sequence[int]) -> list[str]:
    """A line where sweeps were read of which some beams had no finite reading."""
    if not rows:
        return []
    return [
        f"{table.places[rows[0]]}: {len(rows)} sweeps have power readings that are not finite; these beams get the "
        "weakest power of the sweep"
    ]


def _numbered(table: Table, frames: list[_Frame], problems: list[str]) -> list[_Frame]:
    """The frames with pass numbers that a recording can hold: in the place of longer ones, such as dates, 1, 2, ..."""
    limits = np.iinfo(np.int32)
    numbers = sorted({frame.pass_id for frame in frames})
    if all(limits.min <= number < limits.max - len(frames) for number in numbers):
        return frames
    column = table.column(PASS_COLUMNS)
    problems.append(f"{table.source.name}: {column} reaches {numbers[-1]}; the passes are numbered from 1 in its order")
    number_of = {number: at for at, number in enumerate(numbers, start=1)}
    return [frame._replace(pass_id=number_of[frame.pass_id]) for frame in frames]


def _read_rows(table: Table, readers: _Readers) -> tuple[list[_Frame], dict[int, RowFault]]:
    """The rows that are whole, and the fault of each that is not."""
    frames: list[_Frame] = []
    faults: dict[int, RowFault] = {}
    for row in range(len(table.rows)):
        try:
            frames.append(_read_row(table, readers, row))
        except RowFault as fault:
            faults[row] = fault
    check_faults(table.source, [(table.places[row], fault) for row, fault in faults.items()], len(table.rows))
    return frames, faults


def _read_row(table: Table, readers: _Readers, row: int) -> _Frame:
    if row in table.too_long:
        raise RowFault("too many cells", f"there are more cells than the {len(table.rows[0])} columns have names")
    if row in table.too_short:
        raise RowFault("too few cells", f"there are fewer cells than the {len(table.rows[0])} columns")
    pass_column = readers.pass_column
    return _Frame(
        row=row,
        pass_id=row + 1 if pass_column is None else whole_number(pass_column, table.cell(row, pass_column)),
        power=None if readers.power is None else readers.power(row),
        position_m=None if readers.position_m is None else readers.position_m(row),
        box=None if readers.box is None else readers.box(row),
    )


def _in_order(
    table: Table, frames: list[_Frame], pass_column: str | None, broken: Collection[int]
) -> tuple[list[_Frame], bool, list[str]]:
    """The frames in time order, with passes that are one run of rows each; whether these are passes; what was said."""
    counted = [f"{table.source.name}: {len(broken)} of {len(table.rows)} rows are left out"] if broken else []
    if pass_column is None and not table.is_recorded:
        return frames, False, counted
    passes = [1 if pass_column is None else frame.pass_id for frame in frames]
    # Passes may have been numbered anew, so a row that is left out is told by the frames of its pass.
    pass_of = {_pass_of(table, pass_column, frame.row): pass_id for frame, pass_id in zip(frames, passes, strict=True)}
    left_out = {row: pass_of.get(_pass_of(table, pass_column, row)) for row in broken}
    order = order_rows(table, [frame.row for frame in frames], passes, left_out)
    by_row = {frame.row: frame for frame in frames}
    pairs = zip(order.rows.tolist(), order.passes.tolist(), strict=True)
    ordered = [by_row[row]._replace(pass_id=pass_id) for row, pass_id in pairs]
    cut = f", and passes are cut there ({len(order.gaps)})" if order.gaps else ", none of them within a pass"
    said = [*(line + cut for line in counted), *order.problems]
    if pass_column is not None:
        return ordered, True, said
    ordered, has_passes, told = _cut(table, frames, ordered, order.gaps)
    return ordered, has_passes, [*told, *(said if has_passes else counted)]


def _pass_of(table: Table, pass_column: str | None, row: int) -> int | None:
    """The pass of a row that is left out; None if its cells do not tell."""
    if row in table.too_long or row in table.too_short:
        return None
    try:
        return 1 if pass_column is None else whole_number(pass_column, table.cell(row, pass_column))
    except RowFault:
        return None


def _cut(
    table: Table, frames: list[_Frame], ordered: list[_Frame], gaps: Sequence[int]
) -> tuple[list[_Frame], bool, list[str]]:
    """The frames of a recording without passes, cut into blocks if they follow one another in time."""
    positions = [frame.position_m for frame in ordered if frame.position_m is not None]
    powers = [frame.power for frame in ordered if frame.power is not None]
    position_m = np.stack(positions) if positions else None
    if not is_in_time_order(position_m, np.argmax(powers, axis=1) if powers else None):
        told = f"{table.source.name}: there is no seq_index, and neighbouring rows are no neighbours in time"
        return frames, False, [f"{told}: each row is taken by itself"]
    blocks = cut_blocks(position_m, len(ordered), gaps=gaps)
    kept = [ordered[at]._replace(pass_id=number) for at, number in zip(blocks.keep, blocks.pass_ids, strict=True)]
    told = (
        f"{table.source.name}: there is no seq_index, so the rows are cut at {blocks.num_jumps} jumps of the position "
        f"and into blocks of about {BLOCK_FRAMES} rows: {kept[-1].pass_id} passes; {blocks.num_gap_frames} rows "
        "between blocks are left out, so that no two passes hold neighbouring rows"
    )
    return kept, True, [told]


def _misfits(scenario: Scenario, source: Path) -> list[str]:
    """A line for each way in which power and positions do not look like those of a release."""
    found = []
    if scenario.power is not None and (level := float(np.median(scenario.power.max(axis=1)))) > USUAL_POWER:
        found.append(
            f"{source.name}: the strongest beam of a typical sweep has power {level:g}; linear powers of the releases "
            "lie between 0.007 and 1.05, so is it in dB?"
        )
    if scenario.power is not None and "gps" in scenario.sensors:
        try:
            found += check_bearing(scenario.beams, scenario.sensors["gps"].astype(np.float64))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    return found


def _check_columns(needed: Sequence[Sequence[str]], available: Collection[str], source: Path) -> None:
    """Refuse a table that lacks a needed column: every scenario has them, unlike archives and challenges."""
    for names in needed:
        if not any(name in available for name in names):
            raise ValueError(
                f"{source}: there is no {' or '.join(names)}; its columns are {_listed(available)}; is this the file "
                "of a DeepSense 6G scenario?"
            )


def _listed(names: Collection[str]) -> str:
    return ", ".join(name for name in names if name) or "without names"


def _power_reader(
    table: Table, cells: Mapping[str, CellReader], problems: list[str], filled: list[int]
) -> CellReader | None:
    """A reader of the power of a row, checked against its label; None if the release has neither.

    It notes in ``filled`` the rows in which some beam had no finite reading.
    """
    column, label_column = next((name for name in POWER_COLUMNS if name in cells), None), table.column(LABEL_COLUMNS)
    if column is not None:
        return _checked_power_reader(table, cells[column], label_column, filled)
    if label_column is None:
        problems.append(f"{table.source.name}: there is no power, and there are no beam labels")
        return None
    problems.append(f"{table.source.name}: there is no power; it is set to 1 in the labelled beam and 0 elsewhere")
    # Without power, a single label tells how all others are meant.
    labels = [table.cell(row, label_column) for row in range(len(table.rows))]
    if zeros := [row for row, label in enumerate(labels) if label in ("0", "0.0")]:
        raise ValueError(f"{table.source}: {table.places[zeros[0]]}: {label_column} is 0; {ADVICE['label from 0']}")

    def one_hot(row: int) -> NDArray[np.float64]:
        beam = check_label(label_column, labels[row], None)
        return np.asarray(np.arange(1, NUM_BEAMS + 1) == beam, np.float64)

    return one_hot


def _checked_power_reader(table: Table, read: CellReader, label_column: str | None, filled: list[int]) -> CellReader:
    def read_power(row: int) -> NDArray[np.float64]:
        measured = read(row)
        power = check_power(measured)
        label = "" if label_column is None else table.cell(row, label_column)
        check_readings(measured, label_column, label)
        if label_column is not None:
            check_label(label_column, label, int(np.argmax(power)) + 1)
        if not np.isfinite(measured).all():
            filled.append(row)
        return power

    return read_power


def _position_reader(
    table: Table, cells: Mapping[str, CellReader], *, is_in_files: bool, problems: list[str]
) -> CellReader | None:
    """A reader of positions in metres from the base station; None if the release has no positions.

    A challenge has several base stations, one for each row.
    """
    columns = [name for name in POSITION_COLUMNS if name in cells]
    if not columns:
        return None
    column = next((name for name in columns if not is_in_files or any(files_of(table, name))), None)
    if column is None:
        problems.append(none_is_there("gps", table, columns))
        return None
    if column != columns[0]:
        problems.append(f"{none_is_there('gps', table, columns)}; {column} is taken")
    station_column = next((name for name in STATION_COLUMNS if name in cells), None)

    def station_deg(row: int) -> NDArray[np.float64]:
        try:
            if station_column is None:
                return check_position(read_numbers(table.folder, STATION_COLUMNS[0], str(STATION_FILE)))
            return check_position(cells[station_column](row))
        except RowFault as fault:
            raise RowFault(fault.cause, f"the position of the base station is needed: {fault}") from None

    return lambda row: check_distance(check_position(cells[column](row)), station_deg(row))
