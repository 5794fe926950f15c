"""A made-up release of a few passes that follows the official layout, and copies of measured ones, to be damaged."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

STATION_DEG = np.array([33.42, -111.93])
HEADER = ("index", "unit1_pwr_60ghz", "unit1_loc", "unit2_loc", "unit1_beam_index", "seq_index", "time_stamp[UTC]")
SETTINGS_VARIABLE = "SOFTBEAM_DEEPSENSE"


def drive(num_passes: int, length: int, station_deg: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Power and positions of cars that cross the field north of the mast from west to east, 12 m away."""
    rng = np.random.default_rng(0)
    power, position_deg = [], []
    for _ in range(num_passes):
        east_m = np.linspace(-10.0, 10.0, length) + rng.uniform(-0.3, 0.3)
        beam = 31.5 + 0.7 * np.degrees(np.arctan2(east_m, 12.0))
        power.append(
            0.05 + np.exp(-0.5 * ((np.arange(64) - beam[:, None]) / 3.0) ** 2) + 0.01 * rng.random((length, 64))
        )
        north_deg, east_deg = np.full(length, 12.0 / 110_900.0), east_m / 93_000.0
        position_deg.append(station_deg + np.stack([north_deg, east_deg], axis=1))
    return np.concatenate(power), np.concatenate(position_deg)


@dataclass
class Release:
    """A release before it is written: tests change an attribute, or the files once they are there.

    Attributes:
        num_passes: the number of passes.
        length: the rows of each.
        station_deg: latitude and longitude of the mast.
        header: the names of the columns, in the order of the cells of a row.
        name: the name of the table without its ending.
    """

    num_passes: int = 6
    length: int = 20
    station_deg: NDArray[np.float64] = field(default_factory=STATION_DEG.copy)
    header: list[str] = field(default_factory=lambda: list(HEADER))
    name: str = "scenario7"

    def __post_init__(self) -> None:
        self.power, self.position_deg = drive(self.num_passes, self.length, self.station_deg)
        self.labels: list[object] = (self.power.argmax(axis=1) + 1).tolist()
        self.passes: list[object] = np.repeat(np.arange(1, self.num_passes + 1), self.length).tolist()

    def rows(self) -> list[list[object]]:
        return [
            [
                *(at + 1, f"./unit1/power_{at}.txt", "./unit1/station.txt", f"./unit2/gps_{at}.txt"),
                *(self.labels[at], self.passes[at], f"['10-{at // 600:02d}-{at // 10 % 60:02d}-{at % 10}00']"),
            ]
            for at in range(len(self.labels))
        ]

    def write(self, folder: Path) -> Path:
        """Write the official layout; the folder that holds the table."""
        for name in ("unit1", "unit2"):
            (folder / name).mkdir(parents=True)
        write_csv(folder / f"{self.name}.csv", [self.header, *self.rows()])
        (folder / "unit1" / "station.txt").write_text("\n".join(map(str, self.station_deg)))
        for at, (power, position) in enumerate(zip(self.power, self.position_deg, strict=True)):
            (folder / f"unit1/power_{at}.txt").write_text("\n".join(map(str, power.tolist())))
            (folder / f"unit2/gps_{at}.txt").write_text("\n".join(map(str, position.tolist())))
        return folder


def write_csv(file: Path, rows: list[list[object]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def measured(name: str) -> Path:
    """The folder of measured data; skips the test where it is not there."""
    checkout = Path(__file__).resolve().parents[1]
    root = Path(os.environ.get(SETTINGS_VARIABLE, checkout.parent / "shared" / "real-deepsense"))
    if not (root / name).is_dir():
        pytest.skip(f"DeepSense 6G {name} is not in {root}; set {SETTINGS_VARIABLE} to the folder that holds it")
    return root / name


Arrays = dict[str, NDArray[np.float64]]
Table = list[dict[str, str]]


def damaged_copy(number: int, folder: Path, damage: Callable[[Table, Arrays], None]) -> Path:
    """A copy of a measured scenario, in the compact layout, of which rows or arrays are changed."""
    source = measured(f"scenario{number}")
    with (source / f"scenario{number}.csv").open(newline="") as stream:
        rows: Table = list(csv.DictReader(stream))
    with np.load(source / f"scenario{number}_arrays.npz") as archive:
        arrays: Arrays = {name: np.array(archive[name], np.float64) for name in archive}
    damage(rows, arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / f"scenario{number}.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    np.savez(folder / f"scenario{number}_arrays.npz", **arrays)
    return folder
