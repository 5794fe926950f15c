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

import numpy as np

from clients.learning.task import Wording
from server.recorder import CONTROL_ARMS
from sim.report.answers import draw_answers
from sim.report.style import INK, MUTED, PALETTE, STRENGTHS, STYLES, drawing, panels
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
    wording_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# With more clients of a kind than this, their own lines would hide the mean.
MAX_LINES = 8
# The shortest vertical axis, in points: an effect of three is plain on it, and one of a tenth looks like nothing.
LEAST_SPAN = 8.0
CONTROL_STYLES: Mapping[str, Any] = {"local": "--", "offline_kd": (0, (1, 1))}


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
        figures |= {"final-accuracy": draw_final_accuracy(runs)}
        # A task without slots ahead has one horizon.
        figures |= {"horizons": draw_horizons(runs)} if _wording(runs).is_of_beams else {}
        more = {
            "bytes": draw_bytes(runs) if has_rounds else None,
            "score-by-bytes": draw_score_by_bytes(runs),
            "answers": draw_answers(_summaries(runs), [run.rounds for run in runs]),
        }
        return figures | {stem: figure for stem, figure in more.items() if figure is not None}


def draw_learning_curves(runs: Sequence[Run]) -> Figure:
    """Draw the main score by round: the state that is kept (solid), and the state as the round left it (dotted).

    Thick lines are means over the clients; thin lines are clients, for one run with few of them only.
    """
    rows, main = _modalities(runs), _wording(runs).main
    figure, axes = _panels([row.kind for row in rows], x_label="Round", y_label=_y_label(runs))
    for axis, row in zip(axes, rows, strict=False):
        colour = PALETTE[row.modality]
        if len(runs) == 1 and len(row.clients) <= MAX_LINES:
            for client in row.clients:
                _plot(
                    axis,
                    _by_round(runs, _scores_of([client], main), is_score=True),
                    color=colour,
                    linewidth=0.8,
                    alpha=0.45,
                )
        mean = _by_round(runs, _scores_of(row.clients, main), is_score=True)
        _plot(axis, mean, color=colour, marker="o", markersize=3, label="federated, kept")
        now = _by_round(runs, _scores_of(row.clients, main, "common_now"), is_score=True)
        _plot_now(axis, now, colour, "federated, now")
        for control in CONTROL_ARMS:
            level = arm_spread(_summaries(runs), control, main, clients=row.clients)
            _level(axis, level, colour, ARM_TITLES[control], style=CONTROL_STYLES[control])
    before = teacher_spread(_summaries(runs), "before", main)
    teacher = _by_round(runs, lambda line: score(line["teacher"]["common"], main), is_score=True)
    _plot(axes[-1], teacher, color=INK, marker="o", markersize=3, label="kept")
    now = _by_round(runs, lambda line: score(line["teacher"].get("common_now"), main), is_score=True)
    _plot_now(axes[-1], now, INK, "now")
    _level(axes[-1], before, INK, "before the federation")
    for axis in axes:
        count_rounds(axis)
    _finish(axes)
    return figure


def draw_final_accuracy(runs: Sequence[Run]) -> Figure:
    """Draw the final score per modality and arm, and that of the teacher before and after the federation."""
    rows, main = _modalities(runs), _wording(runs).main
    figure, (axis,) = panels(1, 1, height=2.55)
    arms = arms_of(_summaries(runs))
    for place, row in enumerate(rows):
        for offset, arm in enumerate(arms):
            found = arm_spread(_summaries(runs), arm, main, clients=row.clients)
            _bar(axis, place + 0.27 * (offset - (len(arms) - 1) / 2), found, PALETTE[row.modality], arm)
    for shift, when in ((-0.135, "before"), (0.135, "after")):
        found = teacher_spread(_summaries(runs), when, main)
        _bar(axis, len(rows) + shift, found, MUTED, "local" if when == "before" else "federated")
    axis.set_xticks(range(len(rows) + 1), [*(f"{row.kind}\n{row.title}" for row in rows), "teacher\nbefore, after"])
    axis.set_ylabel(_y_label(runs))
    axis.grid(visible=False, axis="x")
    axis.margins(y=0.12)
    axis.legend(handles=_arm_patches(arms), loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=len(arms))
    return figure


def draw_horizons(runs: Sequence[Run]) -> Figure:
    """Draw the main score for the current slot and for each slot ahead."""
    rows, main = _modalities(runs), _wording(runs).main
    figure, axes = _panels([row.kind for row in rows], x_label="Predicted slot", y_label=_y_label(runs))
    horizons = range(len(runs[0].summary["teacher"]["before"][main]))
    for axis, row in zip(axes, rows, strict=False):
        for arm in arms_of(_summaries(runs)):
            points = [(h, _at_horizon(runs, row.clients, arm, h, main)) for h in horizons]
            label = ARM_TITLES[arm]
            _plot(
                axis, points, color=PALETTE[row.modality], linestyle=STYLES[arm], marker="o", markersize=3, label=label
            )
    for when, style in (("before", "--"), ("after", "-")):
        points = [(h, spread(run.summary["teacher"][when][main][h] for run in runs)) for h in horizons]
        _plot(axes[-1], points, color=INK, linestyle=style, marker="o", markersize=3, label=when)
    for axis in axes:
        axis.set_xticks(horizons, ["now", *(f"+{h}" for h in horizons[1:])])
    _finish(axes)
    return figure


def draw_bytes(runs: Sequence[Run]) -> Figure:
    """Draw the encoded bytes of a client by round (left) and per modality beside the student's weights (right)."""
    figure, (left, right) = panels(1, 2, height=2.55, between=0.65)
    for way, style, marker in (("uplink", "-", "o"), ("downlink", "--", "s")):
        points = _by_round(runs, _mean_bytes(way))
        _plot(left, points, scale=1e-3, color=INK, linestyle=style, marker=marker, markersize=3, label=way)
    left.set(title="By round, mean over clients", xlabel="Round", ylabel="Bytes per client (kB)")
    count_rounds(left)
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
    right.set_xticks(range(len(rows)), [row.kind for row in rows])
    right.set(title="Per round, against the student's weights", ylabel="Bytes per client and round (kB)")
    right.grid(visible=False, axis="x")
    right.margins(y=0.3)
    right.legend(handles=_byte_marks(), loc="upper center", ncols=3, columnspacing=1.0, handlelength=1.4)
    return figure


def draw_score_by_bytes(runs: Sequence[Run]) -> Figure | None:
    """Draw the main score of each kind against the bytes of a client so far, a dot for each round; None without bytes.

    *Local only* stands at 0 bytes, and a triangle above the axis is where the student's weights would be, sent once.
    """
    curves = bytes_curves(runs)
    if not any(curves.values()):
        return None
    main = _wording(runs).main
    figure, (axis,) = panels(1, 1, height=2.7)
    for row in _modalities(runs):
        if not (points := curves[row.kind]):
            continue
        colour = PALETTE[row.modality]
        x, y = zip(*points, strict=True)
        axis.plot(x, y, color=colour, marker="o", markersize=3.5, label=row.kind)
        alone = arm_spread(_summaries(runs), "local", main, clients=row.clients)
        if alone is not None:
            axis.plot([0.0], [100 * alone.mean], "D", color=colour, markersize=5, markerfacecolor="none", clip_on=False)
        weights = [4 * row.parameters / 1e3]
        axis.plot(weights, [1.02], "v", color=colour, transform=axis.get_xaxis_transform(), clip_on=False)
    axis.set(xlabel="Bytes of a client so far, up and down (kB)", ylabel=_y_label(runs), xlim=(0, None))
    axis.legend(fontsize=7.5, loc="lower right")
    return figure


def bytes_curves(runs: Sequence[Run]) -> dict[str, list[tuple[float, float]]]:
    """Kind of client -> after each round, the kB of a client so far and the main score in %, as means.

    A round in which no client of the kind has a score is left out, and a kind that neither sends nor is sent anything
    has none.
    """
    main, found = _wording(runs).main, dict[str, list[tuple[float, float]]]()
    for row in _modalities(runs):
        scores = dict(_by_round(runs, _scores_of(row.clients, main)))
        spent, curve = 0.0, []
        for number, size in _by_round(runs, _bytes_of(row.clients)):
            spent += size.mean / 1e3 if size else 0.0
            if (score_now := scores[number]) is not None:
                curve.append((spent, 100 * score_now.mean))
        found[row.kind] = curve if spent else []
    return found


Points = Sequence[tuple[int, Spread | None]]


def _summaries(runs: Sequence[Run]) -> list[Summary]:
    return [run.summary for run in runs]


def _wording(runs: Sequence[Run]) -> Wording:
    return wording_of(_summaries(runs))


def _y_label(runs: Sequence[Run]) -> str:
    return f"{_wording(runs).main_metric.title} (%)"


def _modalities(runs: Sequence[Run]) -> list[Row]:
    return table_rows(_summaries(runs), by_client=False)


def _by_round(
    runs: Sequence[Run], value: Callable[[Mapping[str, Any]], float | None], *, is_score: bool = False
) -> Points:
    """A value by round; scores without the rounds in which nobody was to be scored (`strategy.evaluate_every`)."""
    numbers = sorted(
        {line["round"] for run in runs for line in run.rounds if not is_score or line["teacher"].get("common")}
    )
    lines = [{line["round"]: line for line in run.rounds} for run in runs]
    return [(n, spread(value(by_number[n]) for by_number in lines if n in by_number)) for n in numbers]


def _scores_of(clients: Sequence[str], main: str, state: str = "common") -> Callable[[Mapping[str, Any]], float | None]:
    def value(line: Mapping[str, Any]) -> float | None:
        entries = [line["clients"][client] for client in clients if client in line["clients"]]
        found = spread(score(entry.get(state), main) for entry in entries)
        return found.mean if found else None

    return value


def _mean_bytes(way: str) -> Callable[[Mapping[str, Any]], float | None]:
    def value(line: Mapping[str, Any]) -> float | None:
        found = spread(entry[f"{way}_bytes"] for entry in line["clients"].values())
        return found.mean if found else None

    return value


def _bytes_of(clients: Sequence[str]) -> Callable[[Mapping[str, Any]], float | None]:
    """The bytes up and down of some clients in a round, mean over those that were asked."""

    def value(line: Mapping[str, Any]) -> float | None:
        entries = [line["clients"][client] for client in clients if client in line["clients"]]
        found = spread(entry.get("uplink_bytes", 0) + entry.get("downlink_bytes", 0) for entry in entries)
        return found.mean if found else None

    return value


def _at_horizon(runs: Sequence[Run], clients: Sequence[str], arm: str, horizon: int, main: str) -> Spread | None:
    per_run = [
        spread(client[arm][main][horizon] for client in comparable(run.summary, clients) if client[arm]) for run in runs
    ]
    return spread(found.mean for found in per_run if found)


def _panels(titles: Sequence[str], *, x_label: str, y_label: str) -> tuple[Figure, list[Axes]]:
    """Make one panel per modality and one for the teacher, all on one vertical scale."""
    count = len(titles) + 1
    columns = min(count, 3)
    figure, axes = panels(math.ceil(count / columns), columns, height=1.75, share_y=True)
    for axis, title in zip(axes, [*titles, "teacher"], strict=False):
        axis.set(title=title, xlabel=x_label)
        axis.yaxis.set_tick_params(labelleft=True)
    for axis in axes[::columns]:
        axis.set_ylabel(y_label)
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


def count_rounds(axis: Axes) -> None:
    """Give the horizontal axis whole rounds as its marks."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _level(axis: Axes, found: Spread | None, colour: str, label: str, *, style: Any = "--") -> None:
    if found is None:
        return
    axis.axhline(found.mean * 100, color=colour, linestyle=style, linewidth=1.3, label=label)
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
    """Add a legend to the first panel (the arms) and to the last (the teacher); fit the shared axis to the lines."""
    lines = [np.asarray(line.get_ydata(), np.float64) for axis in axes for line in axis.lines]
    shown = np.concatenate([np.array([np.nan]), *lines])
    low, high = (0.0, 100.0) if np.isnan(shown).all() else (float(np.nanmin(shown)), float(np.nanmax(shown)))
    room = max(0.06 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    axes[0].set_ylim(max(0.0, low - room), high + room)
    for axis in (axes[0], axes[-1]):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7.5, loc="best", handlelength=3)
