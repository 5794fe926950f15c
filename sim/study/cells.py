"""Trained trackers that differ in nothing but their seed, together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from clients.models.registry import MODELS
from sim.worksheet import SheetRow

# One trained tracker, as the sheet of a study keeps it.
SENSES = ("image", "image+radar", "radar")
KINDS = ("none", "self", "response", "relational", "mixed", "feature", "cross-modal", "power")


@dataclass(frozen=True)
class Setting:
    """What the rows of a cell have in common.

    The teacher is not among it: of two teachers the one that validated better teaches, for each seed anew.
    """

    modality: str
    future: int
    role: str
    model: str
    input_length: int
    kd: str
    alignment: str
    pixels: int
    train_share: float

    @property
    def is_ours(self) -> bool:
        """Whether the model is one of our own instead of the paper's."""
        return MODELS[self.model].is_ours

    @property
    def is_realigned(self) -> bool:
        """Whether its radar maps lie otherwise than the model's own."""
        return self.alignment != MODELS[self.model].alignment


@dataclass(frozen=True)
class Cell:
    """All that was trained of a setting.

    Attributes:
        setting: what the rows share.
        rows: seed -> row, seeds rising.
    """

    setting: Setting
    rows: Mapping[int, SheetRow]

    @property
    def first(self) -> SheetRow:
        """Any row; for what does not depend on the seed, such as the number of parameters."""
        return next(iter(self.rows.values()))

    def mean(self, metric: str) -> float:
        """A metric, mean over horizons and seeds, as it is in the rows."""
        return statistics.fmean(row["average"][metric] for row in self.rows.values())

    def by_horizon(self, metric: str) -> list[float]:
        """A metric at each horizon, mean over seeds, as it is in the rows."""
        slots = [row["metrics"][metric] for row in self.rows.values()]
        return [statistics.fmean(slot) for slot in zip(*slots, strict=True)]

    @property
    def validation(self) -> float:
        """The score that chose the epochs, mean over seeds; larger is better."""
        return statistics.fmean(row["validation"] for row in self.rows.values())

    @property
    def latency_ms(self) -> float | None:
        """Median over seeds; None where nothing was timed yet."""
        timed = [row["latency_ms"] for row in self.rows.values() if row["latency_ms"] is not None]
        return statistics.median(timed) if timed else None


Cells = Mapping[Setting, Cell]


def cells_of(rows: Sequence[SheetRow]) -> dict[Setting, Cell]:
    """The cells of a study in the order of its tables, whatever the order of the rows.

    Raises:
        ValueError: two rows have the same setting and seed.
    """
    found: dict[Setting, dict[int, SheetRow]] = {}
    for row in rows:
        setting = Setting(**{field.name: row[field.name] for field in fields(Setting)})
        known = found.setdefault(setting, {})
        if row["seed"] in known:
            raise ValueError(f"{row['key']}: the same tracker as {known[row['seed']]['key']}; keep one of them")
        known[row["seed"]] = row
    return {setting: Cell(setting, dict(sorted(found[setting].items()))) for setting in sorted(found, key=_place)}


def untaught(cells: Cells, cell: Cell) -> Cell | None:
    """The same tracker with its labels alone; None for one that is itself untaught, or where it is missing."""
    return None if cell.setting.kd == "none" else cells.get(replace(cell.setting, kd="none"))


def teachers_of(cells: Cells, cell: Cell) -> Cell | None:
    """For each seed the teacher that taught it; None where no row of any is there.

    The setting is that of the first; of several lengths the longest is the teacher's.
    """
    rows: dict[int, SheetRow] = {}
    settings: list[Setting] = []
    for seed, row in cell.rows.items():
        for setting in sorted(cells, key=lambda setting: -setting.input_length):
            if row["teacher"] == f"{setting.model} {setting.kd}" and _same_data(setting, cell.setting):
                if seed in cells[setting].rows:
                    rows[seed] = cells[setting].rows[seed]
                    settings.append(setting)
                break
    return Cell(settings[0], rows) if rows else None


def _same_data(one: Setting, other: Setting) -> bool:
    return (one.future, one.train_share, one.pixels) == (other.future, other.train_share, other.pixels)


def _place(setting: Setting) -> tuple[Any, ...]:
    """Where a cell stands in a table: teachers first, the paper's trackers before ours, long inputs before short."""
    return (
        _index(SENSES, setting.modality),
        setting.future,
        setting.role != "teacher",
        setting.is_ours,
        setting.model,
        -setting.input_length,
        setting.is_realigned,
        _index(KINDS, setting.kd),
        setting.pixels,
        setting.train_share,
    )


def _index(order: Sequence[str], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)
