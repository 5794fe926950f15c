"""What a cell of a DeepSense 6G table stands for: numbers in a text file or in an array, or a file of a sensor."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.deepsense_table import (
    ARCHIVE_FOLDER,
    BOX_COLUMN,
    FILE_COLUMNS,
    POSITION_COLUMNS,
    POWER_COLUMNS,
    STATION_COLUMNS,
    Table,
)
from clients.data.row_faults import RowFault
from clients.data.table_text import DECIMAL_COMMA, decode_text
from configs.files import is_foreign, read_plain

# Row of the table -> the numbers of one column.
CellReader = Callable[[int], NDArray[np.float64]]


def path_in(folder: Path, cell: str) -> Path:
    """The file that a cell names, also where it was written with the separators of Windows, or from the root.

    Data that is made from a release is known again by what lies in its folder (`configs.contents`); so a file that lies
    elsewhere is not taken.

    Raises:
        RowFault: the cell leads out of the folder of the release.
    """
    name = cell.replace("\\", "/")
    if not name.startswith("/") and ".." not in name.split("/"):
        return folder / name
    root = folder.parent if folder.name == ARCHIVE_FOLDER else folder
    path = Path(os.path.normpath(Path(os.path.abspath(folder)) / name))
    for start in (Path(os.path.abspath(root)), root.resolve()):
        if path.is_relative_to(start):
            return root / path.relative_to(start)
    raise RowFault("elsewhere", f"{cell} is not in {root}")


def spelled_otherwise(folder: Path, cell: str) -> str:
    """A remark on the file that a cell means if upper and lower case do not count; empty if there is none."""
    there = Path()
    for part in Path(cell.replace("\\", "/")).parts:
        name = _names_in(folder / there).get(part.casefold())
        if name is None:
            return ""
        there /= name
    if there == Path(cell.replace("\\", "/")):
        return ""
    return f"; {there} is there, which differs in upper and lower case"


def _names_in(folder: Path) -> dict[str, str]:
    try:
        return _folded_names(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=16)
def _folded_names(folder: Path, _changed_ns: int) -> dict[str, str]:
    return {name.casefold(): name for name in os.listdir(folder)}


def read_numbers(folder: Path, column: str, cell: str) -> NDArray[np.float64]:
    """The numbers in a text file.

    Args:
        folder: the folder that ``cell`` is relative to.
        column: the column that error messages name.
        cell: the path of the file.

    Raises:
        RowFault: the cell is blank, or does not name a file of numbers.
    """
    if not cell:
        raise RowFault("blank", f"{column} is blank")
    path = path_in(folder, cell)
    try:
        text = decode_text(read_plain(path))
        return np.array(text.split(), np.float64)
    except OSError as error:
        why = spelled_otherwise(folder, cell) if isinstance(error, FileNotFoundError) else f" ({error.strerror})"
        raise RowFault("file missing", f"{column}: {cell} cannot be opened{why}") from None
    except UnicodeDecodeError:
        raise RowFault("no numbers", f"{column}: {cell} is not a file of numbers") from None
    except ValueError:
        if text.startswith("version https://git-lfs"):
            raise RowFault("pointer", f"{column}: {cell} is a pointer of Git LFS") from None
        if all(DECIMAL_COMMA.fullmatch(word) for word in text.split()):
            raise RowFault("decimal comma", f"{column}: {cell} holds numbers with a decimal comma") from None
        raise RowFault("no numbers", f"{column}: {cell} is not a file of numbers") from None


def file_cells(table: Table) -> dict[str, CellReader]:
    """Readers for the official layout, in which a cell is the path of a text file, relative to the CSV."""

    def read(column: str, row: int) -> NDArray[np.float64]:
        return read_numbers(table.folder, column, table.cell(row, column))

    return {column: partial(read, column) for column in table.rows[0]}


def array_cells(archive: Path, num_rows: int) -> dict[str, CellReader]:
    """Readers for the compact layout, in which a column is an array of the archive, with one row per row of the CSV.

    Raises:
        ValueError: the archive is damaged, or does not fit the table.
    """
    names = (*POWER_COLUMNS, *POSITION_COLUMNS, *STATION_COLUMNS, BOX_COLUMN)
    try:
        # The file is opened here, because np.load does not close a damaged archive.
        with archive.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in names if name in file}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{archive}: not a readable .npz archive ({type(error).__name__}); fetch it again") from None
    for name, array in arrays.items():
        expected = 1 if name in STATION_COLUMNS else num_rows
        if array.ndim != 2 or len(array) != expected:
            raise ValueError(f"{archive}: {name} has shape {array.shape}, expected {expected} rows; fetch it again")
    # There is one base station, so its array has a single row.
    return {name: partial(_row, array) for name, array in arrays.items()}


def _row(array: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = array[row if len(array) > 1 else 0]
    return found


def find_archive(folder: Path) -> Path | None:
    """The archive of the compact layout; None if a release has the official one."""
    return next((path for path in sorted(folder.glob("*_arrays.npz")) if not is_foreign(path.name)), None)


def sensor_files(table: Table) -> tuple[dict[str, tuple[Path | None, ...]], list[str]]:
    """The files of each kind of sensor, and one line for each kind of which some files are missing.

    Of the columns of a kind, the first one of which any file exists is taken.
    """
    files, problems = {}, []
    for kind, columns in FILE_COLUMNS.items():
        there = [column for column in columns if column in table.rows[0]]
        found = {column: files_of(table, column) for column in there}
        column = next((name for name in there if any(found[name])), None)
        if column is None:
            # A column that is blank in every row says itself that nothing was recorded.
            is_named = any(table.cell(row, name) for name in there for row in range(len(table.rows)))
            problems += [none_is_there(kind, table, there)] if is_named else []
            continue
        files[kind] = found[column]
        missing = [row for row, path in enumerate(files[kind]) if path is None]
        if missing:
            where = f"{table.places[missing[0]]}: {table.cell(missing[0], column) or 'blank'}"
            problems.append(
                f"{kind}: {len(missing)} of {len(files[kind])} files are missing, their frames are zeros ({where})"
            )
    return files, problems


def files_of(table: Table, column: str) -> tuple[Path | None, ...]:
    """The file that each cell of a column names; None where it is not there."""
    return tuple(_file_of(table, table.cell(row, column)) for row in range(len(table.rows)))


def _file_of(table: Table, cell: str) -> Path | None:
    try:
        path = path_in(table.folder, cell) if cell else None
    except RowFault:
        return None
    return path if path is not None and path.is_file() else None


def none_is_there(kind: str, table: Table, columns: Sequence[str]) -> str:
    """The line for a sensor of which not a single file is there, with the first path that was tried."""
    for column in columns:
        cells = [table.cell(row, column) for row in range(len(table.rows))]
        first = next((row for row, cell in enumerate(cells) if cell), None)
        if first is None:
            continue
        num_named = sum(bool(cell) for cell in cells)
        place = f"{table.places[first]}: {cells[first]}"
        try:
            path_in(table.folder, cells[first])
        except RowFault as fault:
            return f"{kind}: none of {num_named} files is there ({table.places[first]}: {fault}); {fault.advice}"
        return f"{kind}: none of {num_named} files is there ({place}){spelled_otherwise(table.folder, cells[first])}"
    return f"{kind}: none of its files is named ({columns[0]} is blank in every row)"
