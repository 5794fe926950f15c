"""Cells: groups of trained trackers that differ only in their seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from clients.models.registry import MODELS
from sim.worksheet import SheetRow

# The order of sensors and of kinds of knowledge in every table.
SENSES = ("image", "image+radar", "radar")
KINDS = ("none", "self", "response", "relational", "mixed", "feature", "cross-modal", "power")


@dataclass(frozen=True)
class Setting:
    """The values that the rows of a cell have in common.

    The teacher is not one of them: for each seed, that of two teachers teaches which validated better.
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
        """Whether the model is one of ours, not one from the paper."""
        return MODELS[self.model].is_ours

    @property
    def is_realigned(self) -> bool:
        """Whether its radar maps are aligned in another way than its model prescribes."""
        return self.alignment != MODELS[self.model].alignment


@dataclass(frozen=True)
class Cell:
    """All trackers that were trained with one setting.

    Attributes:
        setting: the setting that the rows share.
        rows: seed -> row, in the order of the seeds.
    """

    setting: Setting
    rows: Mapping[int, SheetRow]

    @property
    def first(self) -> SheetRow:
        """Any row, for values that do not depend on the seed, such as the number of parameters."""
        return next(iter(self.rows.values()))

    def mean(self, metric: str) -> float:
        """The mean of a metric over horizons and seeds, in the unit of the rows."""
        return statistics.fmean(row["average"][metric] for row in self.rows.values())

    def by_horizon(self, metric: str) -> list[float]:
        """The mean of a metric over seeds at each horizon, in the unit of the rows."""
        slots = [row["metrics"][metric] for row in self.rows.values()]
        return [statistics.fmean(slot) for slot in zip(*slots, strict=True)]

    @property
    def validation(self) -> float:
        """The mean over seeds of the score that chose the epochs; larger is better."""
        return statistics.fmean(row["validation"] for row in self.rows.values())

    @property
    def latency_ms(self) -> float | None:
        """The median latency over seeds; None if nothing was timed yet."""
        timed = [row["latency_ms"] for row in self.rows.values() if row["latency_ms"] is not None]
        return statistics.median(timed) if timed else None


Cells = Mapping[Setting, Cell]


def cells_of(rows: Sequence[SheetRow]) -> dict[Setting, Cell]:
    """The cells of a study in the order of its tables, for any order of the rows.

    Raises:
        ValueError: two rows have the same setting and seed.
    """
    found: dict[Setting, dict[int, SheetRow]] = {}
    for row in rows:
        setting = Setting(**{field.name: row[field.name] for field in fields(Setting)})
        known = found.setdefault(setting, {})
        if row["seed"] in known:
            raise ValueError(f"{row['key']}: this is the same tracker as {known[row['seed']]['key']}; keep one of them")
        known[row["seed"]] = row
    return {setting: Cell(setting, dict(sorted(found[setting].items()))) for setting in sorted(found, key=_place)}


def untaught(cells: Cells, cell: Cell) -> Cell | None:
    """The cell of the same tracker with its labels alone; None if it is missing, or if ``cell`` is that cell itself."""
    return None if cell.setting.kd == "none" else cells.get(replace(cell.setting, kd="none"))


def teachers_of(cells: Cells, cell: Cell) -> Cell | None:
    """The teacher of each seed as one cell; None if no row of any teacher is found.

    Its setting is that of the first teacher; among several input lengths, the teacher has the longest.
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
    """The place of a cell in a table: teachers first, trackers of the paper before ours, long inputs before short."""
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
