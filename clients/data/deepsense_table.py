"""The index of a DeepSense 6G release: which CSV lists its files, and how the columns are called.

    scenarioN.csv, scenarioN_dev.csv              a scenario: passes in time order
    development_dataset/scenarioN_dev_train.csv   a single-task archive, with ..._val.csv and ..._test.csv: rows of all
                                                  passes in random order, without the pass
    scenarioN_challenge.csv, ml_challenge_*.csv   a challenge: rows without the pass, perhaps without labels

A row of the 2022 challenge is five frames, of which the last one has the label. Only this frame is read; it gets the
position of the second frame, which is the newest that the challenge gives. Columns are found by name, never by place.

Source: www.deepsense6g.net, scenarios 1-9, 23 and 31-34, the single-task archives and the multi-modal challenge 2022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clients.data.table_text import read_table_text
from configs.files import is_foreign

# The names of a column in different releases, the preferred one first. In scenarios 3, 4, 8 and 9 the uncalibrated
# position is wrong by 9 to 28 m (median), which costs 23 points of Top-1 in scenario 9.
LABEL_COLUMNS = ("unit1_beam_index", "unit1_beam", "beam_index_1")
POWER_COLUMNS = ("unit1_pwr_60ghz", "unit1_pwr_1")
POSITION_COLUMNS = ("unit2_loc_cal", "unit2_loc", "unit2_loc_2", "unit2_loc_1")
STATION_COLUMNS = ("unit1_loc", "unit1_loc_1")
PASS_COLUMNS = ("seq_index",)
INDEX_COLUMNS = ("index",)
TIME_COLUMNS = ("time_stamp[UTC]", "time_stamp", "unit1_time_stamp[UTC]")
BOX_COLUMN = "unit1_bbox_tx"
# Kind of sensor file -> its columns. SCR is the LiDAR scan without static clutter; _5 is the challenge's last frame.
FILE_COLUMNS = {
    "camera": ("unit1_rgb", "unit1_rgb_5", "unit1_rgb_1"),
    "radar": ("unit1_radar", "unit1_radar_5", "unit1_radar_1"),
    "lidar": (
        *("unit1_lidar_SCR", "unit1_lidar", "unit1_lidar_SCR_5", "unit1_lidar_5"),
        *("unit1_lidar_SCR_1", "unit1_lidar_1"),
    ),
}
KNOWN_COLUMNS = (
    *(*LABEL_COLUMNS, *POWER_COLUMNS, *POSITION_COLUMNS, *STATION_COLUMNS, *PASS_COLUMNS, *INDEX_COLUMNS),
    *(*TIME_COLUMNS, BOX_COLUMN, *(name for names in FILE_COLUMNS.values() for name in names)),
)
# The file of the base station's position if there is no column for it: the single-task archives have none.
STATION_FILE = Path("unit1/GPS_data/gps_location.txt")
# The file names of the tables of one release; the first pattern that matches a file counts.
_TABLE_PATTERNS = (
    r"scenario\d+(_dev)?",
    r"scenario\d+_dev_(train|val|test)",
    r"ml_challenge_.*",
    r"scenario\d+_challenge.*",
    r".*",
)
ARCHIVE_FOLDER = "development_dataset"

TableRow = Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """The rows of a release's CSV files, one after the other.

    Attributes:
        files: the CSV files.
        folder: the folder that holds them; cells are relative to it.
        rows: for each row, column -> cell.
        places: the file and line of each row, for messages.
        notes: what was unusual about the files and how they were read, a line each.
        too_long: the rows with more cells than there are columns.
        too_short: the rows with fewer cells.
    """

    files: tuple[Path, ...]
    folder: Path
    rows: Sequence[TableRow]
    places: Sequence[str]
    notes: Sequence[str] = ()
    too_long: frozenset[int] = field(default_factory=frozenset)
    too_short: frozenset[int] = field(default_factory=frozenset)

    @property
    def source(self) -> Path:
        """The file that a message about the whole table names."""
        return self.files[0]

    @property
    def name(self) -> str:
        """The name of the scenario, such as ``scenario9``, or of the table of a challenge."""
        match = re.match(r"scenario\d+", self.source.stem, re.IGNORECASE)
        return match.group().lower() if match else self.source.stem

    @property
    def is_scenario(self) -> bool:
        """Whether it is a scenario as recorded, and not an archive or a challenge that was drawn from scenarios."""
        return re.fullmatch(_TABLE_PATTERNS[0], self.source.stem, re.IGNORECASE) is not None

    @property
    def is_recorded(self) -> bool:
        """Whether its rows may follow one another in time; those of an archive or a challenge were drawn."""
        return not any(re.fullmatch(pattern, self.source.stem, re.IGNORECASE) for pattern in _TABLE_PATTERNS[1:-1])

    def column(self, names: Sequence[str]) -> str | None:
        """The first of ``names`` that is a column; None if none is."""
        return next((name for name in names if name in self.rows[0]), None)

    def cell(self, row: int, column: str) -> str:
        """The text of a cell, without blanks around it."""
        return self.rows[row][column].strip()


def read_table(folder: Path) -> Table:
    """Find and read the CSV of a release.

    Args:
        folder: the folder that holds the CSV, or that holds the folder ``development_dataset`` with the CSV.

    Raises:
        ValueError: there is no CSV, or more than one, or it cannot be read.
    """
    files = _find_tables(folder)
    rows: list[TableRow] = []
    places: list[str] = []
    notes: list[str] = []
    too_long: set[int] = set()
    too_short: set[int] = set()
    for file in files:
        text = read_table_text(file, KNOWN_COLUMNS)
        notes += [f"{file.name}: {note}" for note in text.notes]
        for line, row in text.rows:
            if line in text.too_long:
                too_long.add(len(rows))
            if line in text.too_short:
                too_short.add(len(rows))
            rows.append(row)
            places.append(f"{file.name}, line {line}")
    if not rows:
        raise ValueError(f"{files[0]}: there are no rows below the names of the columns; download it again")
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(f"{files[0]}: has other columns than {files[-1].name}; download them again")
    return Table(files, files[0].parent, rows, places, tuple(notes), frozenset(too_long), frozenset(too_short))


def _find_tables(folder: Path) -> tuple[Path, ...]:
    tables = sorted(path for path in folder.glob("*") if path.suffix.lower() == ".csv" and not is_foreign(path.name))
    if not tables and (folder / ARCHIVE_FOLDER).is_dir():
        return _find_tables(folder / ARCHIVE_FOLDER)
    for pattern in _TABLE_PATTERNS:
        named = tuple(path for path in tables if re.fullmatch(pattern, path.stem, re.IGNORECASE))
        if len(named) == 1 or (named and "train" in pattern):
            return named
        if named:
            break
    found = ", ".join(path.name for path in tables)
    if not tables:
        deeper = [path for path in folder.glob("*/*.csv") if not is_foreign(path.relative_to(folder))]
        below = sorted({path.parent.name for path in deeper})
        found = f"none but in {', '.join(below)}" if below else "no CSV" if folder.is_dir() else "no such folder"
    raise ValueError(f"{folder}: expected one scenarioN.csv, found {found}; name the folder that holds the CSV")
