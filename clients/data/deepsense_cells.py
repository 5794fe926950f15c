"""What a cell of a DeepSense 6G table stands for: numbers in a text file or in an array, or a file of a sensor."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.deepsense_table import (
    BOX_COLUMN,
    FILE_COLUMNS,
    POSITION_COLUMNS,
    POWER_COLUMNS,
    STATION_COLUMNS,
    Table,
)
from clients.data.row_faults import RowFault
from clients.data.table_text import DECIMAL_COMMA, decode_text
from configs.files import is_foreign

# Row of the table -> the numbers of one column.
CellReader = Callable[[int], NDArray[np.float64]]


def path_in(folder: Path, cell: str) -> Path:
    """The file that a cell names, also where it was written with the separators of Windows."""
    return folder / cell.replace("\\", "/")


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
        text = decode_text(path.read_bytes())
        return np.array(text.split(), np.float64)
    except OSError:
        raise RowFault("file missing", f"{column}: {cell} cannot be opened") from None
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
        tried = ""
        for column in columns:
            if column not in table.rows[0]:
                continue
            cells = [table.cell(row, column) for row in range(len(table.rows))]
            named = [path_in(table.folder, cell) if cell else None for cell in cells]
            paths = tuple(path if path is not None and path.is_file() else None for path in named)
            missing = [row for row, path in enumerate(paths) if path is None]
            if len(missing) == len(paths):
                first = next((row for row, cell in enumerate(cells) if cell), None)
                if first is not None and not tried:
                    num_named = sum(bool(cell) for cell in cells)
                    tried = f"{kind}: none of {num_named} files is there ({table.places[first]}: {cells[first]})"
                continue
            files[kind] = paths
            if missing:
                where = f"{table.places[missing[0]]}: {cells[missing[0]] or 'blank'}"
                problems.append(
                    f"{kind}: {len(missing)} of {len(paths)} files are missing, their frames are zeros ({where})"
                )
            break
        else:
            problems += [tried] if tried else []
    return files, problems
