"""The figures of a report, drawn with Matplotlib.

One colour per modality in every figure (palette of Okabe and Ito, safe for colour-blind readers); arms differ in line
style and fill, never in colour alone. Several runs are shown by their mean and a band or bar of one s.d.

Matplotlib is imported inside the functions: it is slow to load and most commands draw nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.report.style import INK, MUTED, PALETTE, STRENGTHS, STYLES, drawing
from sim.report.summaries import (
    ARM_TITLES,
    Row,
    Spread,
    Summary,
    arm_spread,
    arms_of,
    bytes_spread,
    comparable,
    score,
    spread,
    table_rows,
    teacher_spread,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Run:
    """The parts of a run that the figures need: its summary and the lines of its rounds."""

    summary: Summary
    rounds: Sequence[Mapping[str, Any]]


def draw_all(runs: Sequence[Run]) -> dict[str, Figure]:
    """File stem -> figure; without a recorded round there are no curves and no bytes."""
    with drawing():
        has_rounds = any(run.rounds for run in runs)
        figures = {"learning-curves": draw_learning_curves(runs)} if has_rounds else {}
        figures |= {"final-accuracy": draw_final_accuracy(runs), "horizons": draw_horizons(runs)}
        return figures | ({"bytes": draw_bytes(runs)} if has_rounds else {})


def draw_learning_curves(runs: Sequence[Run]) -> Figure:
    """Draw Top-5 by round: the state that is kept (solid), and the state as the round left it (dotted).

    Thick lines are means over the clients; thin lines are clients, for one run only.
    """
    rows = _modalities(runs)
    figure, axes = _panels([row.modality for row in rows], x_label="Round", y_label="Top-5 (%)")
    for axis, row in zip(axes, rows, strict=False):
        colour = PALETTE[row.modality]
        if len(runs) == 1:
            for client in row.clients:
                _plot(axis, _by_round(runs, _scores_of([client])), color=colour, linewidth=0.8, alpha=0.45)
        mean = _by_round(runs, _scores_of(row.clients))
        _plot(axis, mean, color=colour, marker="o", markersize=3, label="federated, kept")
        _plot_now(axis, _by_round(runs, _scores_of(row.clients, "common_now")), colour, "federated, now")
        _level(axis, arm_spread(_summaries(runs), "local", "top5", clients=row.clients), colour, "local only")
    before = teacher_spread(_summaries(runs), "before", "top5")
    teacher = _by_round(runs, lambda line: score(line["teacher"]["common"], "top5"))
    _plot(axes[-1], teacher, color=INK, marker="o", markersize=3, label="kept")
    now = _by_round(runs, lambda line: score(line["teacher"].get("common_now"), "top5"))
    _plot_now(axes[-1], now, INK, "now")
    _level(axes[-1], before, INK, "before the federation")
    for axis in axes:
        _count_rounds(axis)
    _finish(axes)
    return figure


def draw_final_accuracy(runs: Sequence[Run]) -> Figure:
    """Draw the final Top-5 per modality and arm, and the Top-5 of the teacher before and after the federation."""
    from matplotlib.figure import Figure

    rows = _modalities(runs)
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    axis = figure.add_subplot()
    arms = arms_of(_summaries(runs))
    for place, row in enumerate(rows):
        for offset, arm in enumerate(arms):
            found = arm_spread(_summaries(runs), arm, "top5", clients=row.clients)
            _bar(axis, place + 0.27 * (offset - (len(arms) - 1) / 2), found, PALETTE[row.modality], arm)
    for shift, when in ((-0.135, "before"), (0.135, "after")):
        found = teacher_spread(_summaries(runs), when, "top5")
        _bar(axis, len(rows) + shift, found, MUTED, "local" if when == "before" else "federated")
    axis.set_xticks(range(len(rows) + 1), [*(f"{row.modality}\n{row.title}" for row in rows), "teacher\nbefore, after"])
    axis.set_ylabel("Top-5 (%)")
    axis.grid(visible=False, axis="x")
    axis.margins(y=0.12)
    axis.legend(handles=_arm_patches(arms), loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=len(arms))
    return figure


def draw_horizons(runs: Sequence[Run]) -> Figure:
    """Draw Top-5 for the current slot and for each slot ahead."""
    rows = _modalities(runs)
    figure, axes = _panels([row.modality for row in rows], x_label="Predicted slot", y_label="Top-5 (%)")
    horizons = range(len(runs[0].summary["teacher"]["before"]["top5"]))
    for axis, row in zip(axes, rows, strict=False):
        for arm in arms_of(_summaries(runs)):
            points = [(h, _at_horizon(runs, row.clients, arm, h)) for h in horizons]
            label = ARM_TITLES[arm]
            _plot(
                axis, points, color=PALETTE[row.modality], linestyle=STYLES[arm], marker="o", markersize=3, label=label
            )
    for when, style in (("before", "--"), ("after", "-")):
        points = [(h, spread(run.summary["teacher"][when]["top5"][h] for run in runs)) for h in horizons]
        _plot(axes[-1], points, color=INK, linestyle=style, marker="o", markersize=3, label=when)
    for axis in axes:
        axis.set_xticks(horizons, ["now", *(f"+{h}" for h in horizons[1:])])
    _finish(axes)
    return figure


def draw_bytes(runs: Sequence[Run]) -> Figure:
    """Draw the encoded bytes of a client by round (left) and per modality beside the student's weights (right)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for way, style, marker in (("uplink", "-", "o"), ("downlink", "--", "s")):
        points = _by_round(runs, _mean_bytes(way))
        _plot(left, points, scale=1e-3, color=INK, linestyle=style, marker=marker, markersize=3, label=way)
    left.set(title="By round, mean over clients", xlabel="Round", ylabel="Bytes per client (kB)")
    _count_rounds(left)
    left.set_ylim(bottom=0)
    left.legend(handlelength=3)
    rows = _modalities(runs)
    for place, row in enumerate(rows):
        colour = PALETTE[row.modality]
        for offset, way in ((-0.2, "uplink"), (0.2, "downlink")):
            found = bytes_spread(_summaries(runs), way, clients=row.clients)
            if found:
                height, error = found.mean / 1e3, (found.sd or 0.0) / 1e3
                face = (colour, STRENGTHS["federated" if way == "uplink" else "local"])
                right.bar(place + offset, height, 0.36, color=face, edgecolor=colour, yerr=error or None, ecolor=INK)
        right.hlines(4 * row.parameters / 1e3, place - 0.42, place + 0.42, color=INK, linewidth=2)
    right.set_xticks(range(len(rows)), [row.modality for row in rows])
    right.set(title="Per round, against the student's weights", ylabel="Bytes per client and round (kB)")
    right.grid(visible=False, axis="x")
    right.margins(y=0.3)
    right.legend(handles=_byte_marks(), loc="upper center", ncols=3, columnspacing=1.0, handlelength=1.4)
    return figure


Points = Sequence[tuple[int, Spread | None]]


def _summaries(runs: Sequence[Run]) -> list[Summary]:
    return [run.summary for run in runs]


def _modalities(runs: Sequence[Run]) -> list[Row]:
    return table_rows(_summaries(runs), by_client=False)


def _by_round(runs: Sequence[Run], value: Callable[[Mapping[str, Any]], float | None]) -> Points:
    numbers = sorted({line["round"] for run in runs for line in run.rounds})
    lines = [{line["round"]: line for line in run.rounds} for run in runs]
    return [(n, spread(value(by_number[n]) for by_number in lines if n in by_number)) for n in numbers]


def _scores_of(clients: Sequence[str], state: str = "common") -> Callable[[Mapping[str, Any]], float | None]:
    def value(line: Mapping[str, Any]) -> float | None:
        entries = [line["clients"][client] for client in clients if client in line["clients"]]
        found = spread(score(entry.get(state), "top5") for entry in entries)
        return found.mean if found else None

    return value


def _mean_bytes(way: str) -> Callable[[Mapping[str, Any]], float | None]:
    def value(line: Mapping[str, Any]) -> float | None:
        found = spread(entry[f"{way}_bytes"] for entry in line["clients"].values())
        return found.mean if found else None

    return value


def _at_horizon(runs: Sequence[Run], clients: Sequence[str], arm: str, horizon: int) -> Spread | None:
    per_run = [
        spread(client[arm]["top5"][horizon] for client in comparable(run.summary, clients) if client[arm])
        for run in runs
    ]
    return spread(found.mean for found in per_run if found)


def _panels(titles: Sequence[str], *, x_label: str, y_label: str) -> tuple[Figure, list[Axes]]:
    """Make one panel per modality and one for the teacher, all on one vertical scale."""
    from matplotlib.figure import Figure

    count = len(titles) + 1
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(8.2, 2.5 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for axis, title in zip(axes, [*titles, "teacher"], strict=False):
        axis.set(title=title, xlabel=x_label)
        axis.yaxis.set_tick_params(labelleft=True)
    for row in grid:
        row[0].set_ylabel(y_label)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _plot(axis: Axes, points: Points, *, scale: float = 100.0, **style: Any) -> None:
    """Draw a line that breaks where a value is missing, with a band of one s.d. if there are several runs."""
    x = [place for place, _ in points]
    middle = [math.nan if found is None else found.mean * scale for _, found in points]
    half = [(found.sd or 0.0) * scale if found else 0.0 for _, found in points]
    axis.plot(x, middle, **style)
    if any(half):
        low, high = ([m + sign * h for m, h in zip(middle, half, strict=True)] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _plot_now(axis: Axes, points: Points, colour: str, label: str) -> None:
    """Draw the state as the rounds left it, if it was recorded."""
    if any(found for _, found in points):
        _plot(axis, points, color=colour, linestyle=":", marker="x", markersize=3.5, linewidth=1.3, label=label)


def _count_rounds(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _level(axis: Axes, found: Spread | None, colour: str, label: str) -> None:
    if found is None:
        return
    axis.axhline(found.mean * 100, color=colour, linestyle="--", linewidth=1.3, label=label)
    if found.sd:
        axis.axhspan(
            (found.mean - found.sd) * 100, (found.mean + found.sd) * 100, color=colour, alpha=0.08, linewidth=0
        )


def _bar(axis: Axes, place: float, found: Spread | None, colour: str, arm: str) -> None:
    if found is None:
        return
    height, error = found.mean * 100, (found.sd or 0.0) * 100
    axis.bar(place, height, 0.25, color=(colour, STRENGTHS[arm]), edgecolor=colour, yerr=error or None, ecolor=INK)
    axis.annotate(
        f"{height:.1f}", (place, height + error), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7.5
    )


def _arm_patches(arms: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(facecolor=(MUTED, STRENGTHS[arm]), edgecolor=MUTED, label=ARM_TITLES[arm]) for arm in arms]


def _byte_marks() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=(MUTED, STRENGTHS["federated"]), edgecolor=MUTED, label="up"),
        Patch(facecolor=(MUTED, STRENGTHS["local"]), edgecolor=MUTED, label="down"),
        Line2D([], [], color=INK, linewidth=2, label="weights"),
    ]


def _finish(axes: Sequence[Axes]) -> None:
    """Add a legend to the first panel (the arms) and to the last (the teacher); start the axis at zero."""
    axes[0].set_ylim(bottom=0)
    for axis in (axes[0], axes[-1]):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7.5, loc="best", handlelength=3)
