"""The figures of a study: accuracy by horizon, accuracy against operations, gain by input length.

Every kind of knowledge has one colour in all figures, and its own marker, line style and hatch, so that colour alone
never carries the meaning. Published results are hollow. Bars on points are 95 % intervals over test passes and seeds.
Matplotlib is imported inside the functions, as in `sim.report.figures`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sim.report.style import INK, MUTED, drawing
from sim.study.cells import KINDS, Cell, Cells, cells_of, untaught
from sim.study.published import published_gain, published_of
from sim.study.statistics import Interval, difference, level
from sim.worksheet import SheetRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Look:
    """How a kind of knowledge is drawn."""

    colour: str
    marker: str
    line: str
    hatch: str


# Source of the colours: Okabe and Ito, "Color Universal Design", 2008.
LOOKS = {
    "none": Look("#d55e00", "o", "--", ""),
    "self": Look("#000000", "s", "-", ""),
    "response": Look("#0072b2", "^", "-.", "//"),
    "relational": Look("#009e73", "D", ":", ".."),
    "mixed": Look("#cc79a7", "v", "-", "xx"),
    "feature": Look("#e69f00", "P", "--", "\\\\"),
    "cross-modal": Look("#56b4e9", "X", "-.", "++"),
    "power": Look("#f0e442", "*", ":", "oo"),
}
LINES = ("none", "response", "relational", "mixed")
# Format -> metadata that must not be written into a file, since it would differ from day to day.
ENDINGS = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
Style = dict[str, Any]
METRIC, METRIC_TITLE = "top5", "Top-5"
# The least width of an entry of a legend.
LEGEND_INCHES = 2.0
# The text after the kind of knowledge in the legend.
SUFFIX = ", published"


def draw_all(rows: Sequence[SheetRow]) -> dict[str, Figure]:
    """Draw all figures: file stem -> figure. A figure without any data is left out.

    Raises:
        ValueError: two rows are the same tracker, or rows to compare were tested on different windows.
    """
    cells = cells_of(rows)
    with drawing():
        drawn = {
            "accuracy-by-horizon": draw_horizons(cells),
            "accuracy-by-macs": draw_macs(cells),
            "gain-by-length": draw_gains(cells),
        }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def render(figure: Figure, ending: str) -> bytes:
    """A figure as the bytes of a file; the same figure gives the same bytes.

    Args:
        figure: a figure from :func:`draw_all`.
        ending: a key of `ENDINGS`.
    """
    content = io.BytesIO()
    with drawing():
        figure.savefig(content, format=ending, dpi=200, metadata=ENDINGS[ending])
    return content.getvalue()


def draw_horizons(cells: Cells) -> Figure | None:
    """Draw Top-5 of every predicted slot: a panel for each set of sensors and J, a line for each kind of knowledge.

    It shows the student of the paper, or ours if a study has no other, with the longest input, and the teacher that
    validated best.
    """
    groups = _grouped(cells.values(), "modality", "future")
    if not groups:
        return None
    figure, panels = _panels([f"{modality}, J = {future}" for modality, future in groups])
    for axes, group in zip(panels, groups.values(), strict=True):
        for label, kd, cell in _told(group):
            look, values = LOOKS[kd], [100 * value for value in cell.by_horizon(METRIC)]
            style: Style = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "markersize": 4}
            axes.plot(range(len(values)), values, label=label, **style)
        slots = range(group[0].setting.future + 1)
        axes.set_xticks(slots, ["now", *(f"+{slot}" for slot in slots[1:])])
        axes.set(xlabel="Predicted slot", ylabel=f"{METRIC_TITLE} (%)")
    _legend(figure, panels)
    return figure


def draw_macs(cells: Cells) -> Figure | None:
    """Draw Top-5 against the operations of a window: a panel for each J, published results hollow.

    A tracker is shown with its labels alone and with the kind of knowledge that validated best, which the test passes
    do not influence; lines join its input lengths.
    """
    groups = _grouped([cell for cell in cells.values() if not cell.setting.is_realigned], "future")
    if not groups:
        return None
    figure, panels = _panels([f"J = {future}" for (future,) in groups], width=6.0, height=4.4)
    for axes, group in zip(panels, groups.values(), strict=True):
        for tracker in _grouped(group, "model").values():
            shown = [cell for same in _grouped(tracker, "input_length").values() for cell in _leading(same)]
            for line in _grouped(shown, "kd").values():
                levels = [100 * cell.mean(METRIC) for cell in line]
                axes.plot([_mmacs(cell) for cell in line], levels, color=MUTED, linewidth=0.8, zorder=1)
            for cell in shown:
                _point(axes, cell)
            _name(axes, max(shown, key=lambda cell: (cell.setting.input_length, cell.mean(METRIC))))
        for known in filter(None, (published_of(cell.setting) for cell in group)):
            _hollow(axes, known.mmacs, known.top5, known.kd)
        axes.set_xscale("log")
        axes.margins(x=0.2, y=0.16)
        axes.set(xlabel="Operations of a window (MMAC)", ylabel=f"{METRIC_TITLE} (%)")
    _legend(figure, panels)
    return figure


def draw_gains(cells: Cells) -> Figure | None:
    """Draw the gain of each kind of knowledge by input length: one panel per student and J, published gains hollow."""
    gains = {cell.setting: gain for cell in cells.values() if (gain := _gain(cells, cell)) is not None}
    groups = _grouped([cells[setting] for setting in gains], "model", "future")
    if not groups:
        return None
    figure, panels = _panels([f"{model}, J = {future}" for model, future in groups])
    for axes, group in zip(panels, groups.values(), strict=True):
        lengths = _grouped(group, "input_length")
        width = 0.8 / max(len(kinds) for kinds in lengths.values())
        for center, kinds in enumerate(lengths.values()):
            for number, cell in enumerate(kinds):
                place = center + (number - (len(kinds) - 1) / 2) * width
                _bar(axes, place, 0.9 * width, gains[cell.setting], cell.setting.kd)
                if (known := published_of(cell.setting)) and (points := published_gain(known, METRIC)) is not None:
                    _hollow(axes, place, points, cell.setting.kd)
        axes.axhline(0.0, color=INK, linewidth=0.8)
        axes.set_xticks(range(len(lengths)), [f"L = {length}" for (length,) in lengths])
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(f"{METRIC_TITLE} over no KD (points)")
    _legend(figure, panels)
    return figure


def _told(group: Sequence[Cell]) -> list[tuple[str, str, Cell]]:
    """The label, kind of knowledge and cell of each line of a panel; the group is in the order of the tables."""
    teachers = [cell for cell in group if cell.setting.role == "teacher"]
    students = [cell for cell in group if cell.setting.role == "student"]
    lines = [("teacher", "self", max(teachers, key=lambda cell: cell.validation))] if teachers else []
    # The first student is that of the paper, with the longest input.
    for kd in LINES:
        same = [one for one in students if one.setting == replace(students[0].setting, kd=kd)]
        lines += [(f"student, {kd}", kd, one) for one in same]
    return lines


def _gain(cells: Cells, cell: Cell) -> Interval | None:
    """The gain of a student over itself with labels alone; None for other cells, and for realigned ones (ablations)."""
    plain = untaught(cells, cell)
    if plain is None or cell.setting.role != "student" or cell.setting.is_realigned:
        return None
    return difference(cell, plain, METRIC)


def _grouped(cells: Iterable[Cell], *names: str) -> dict[tuple[Any, ...], list[Cell]]:
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(getattr(cell.setting, name) for name in names), []).append(cell)
    return groups


def _panels(titles: Sequence[str], *, width: float = 3.2, height: float = 2.7) -> tuple[Figure, list[Axes]]:
    """Make a panel for each title, at most three beside each other; ``width`` and ``height`` of each are in inches."""
    from matplotlib.figure import Figure

    columns = min(len(titles), 3)
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(1.0 + width * columns, 0.6 + height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(titles) :]:
        axes.remove()
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title)
    return figure, panels[: len(titles)]


def _leading(kinds: Sequence[Cell]) -> list[Cell]:
    """The cells to show of one tracker and input length: labels alone, and the other cell that validated best."""
    plain = [cell for cell in kinds if cell.setting.kd == "none"]
    taught = [cell for cell in kinds if cell.setting.kd != "none"]
    return plain + sorted(taught, key=lambda cell: -cell.validation)[:1]


def _mmacs(cell: Cell) -> float:
    return float(cell.first["macs"]) / 1e6


def _point(axes: Axes, cell: Cell) -> None:
    look, found = LOOKS[cell.setting.kd], level(cell, METRIC)
    style: Style = {"fmt": look.marker, "color": look.colour, "markersize": 6, "elinewidth": 1, "capsize": 2}
    axes.errorbar(_mmacs(cell), found.value, yerr=_bars(found), label=cell.setting.kd, **style)


def _bar(axes: Axes, place: float, width: float, found: Interval, kd: str) -> None:
    look = LOOKS[kd]
    style: Style = {"color": (look.colour, 0.65), "edgecolor": INK, "hatch": look.hatch, "linewidth": 0.6}
    error: Style = {"ecolor": INK, "elinewidth": 1, "capsize": 2}
    axes.bar(place, found.value, width, yerr=_bars(found), label=kd, error_kw=error, **style)


def _bars(found: Interval) -> list[list[float]]:
    """The lengths of a bar down and up from the value to its limits; they are never negative."""
    return [[max(found.value - found.low, 0.0)], [max(found.high - found.value, 0.0)]]


def _hollow(axes: Axes, x: float, y: float, kd: str) -> None:
    look = LOOKS[kd]
    style: Style = {"marker": look.marker, "markeredgecolor": look.colour, "markerfacecolor": "white"}
    axes.plot([x], [y], label=f"{kd}{SUFFIX}", linestyle="none", zorder=4, **style)


def _name(axes: Axes, cell: Cell) -> None:
    place = (_mmacs(cell), level(cell, METRIC).high)
    # Names are slanted, since trackers of similar cost are close to each other.
    style: Style = {"rotation": 60, "rotation_mode": "anchor", "fontsize": 7.5, "color": INK}
    axes.annotate(cell.setting.model, place, xytext=(2, 3), textcoords="offset points", ha="left", **style)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Add one legend for all panels, with each label once: kinds of knowledge in order, then the published ones."""
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = ["teacher", *(f"student, {kd}" for kd in KINDS), *KINDS, *(f"{kd}{SUFFIX}" for kd in KINDS)]
    labels = sorted(found, key=order.index)
    columns = max(1, min(len(labels), int(figure.get_figwidth() / LEGEND_INCHES)))
    handles = [found[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=3)
