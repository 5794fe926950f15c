"""The figures of the page of a comparison: who is ahead, for which clients, against the controls, and by round.

Each figure shows the rows of one comparison under their numbers. What runs over many rows is drawn as small multiples:
one panel for each row, on one scale, with all others in grey behind it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.recorder import CONTROL_ARMS, read_rounds
from sim.report.figures import count_rounds
from sim.report.gains import plot_gains
from sim.report.pairs import Contender, counts_in_words, gains_to, kinds_of, paired_gain_of_kind
from sim.report.strategies import Comparison, draw_against_bytes
from sim.report.style import INK, MUTED, PALETTE, panels
from sim.report.summaries import (
    ARM_TITLES,
    Spread,
    Summary,
    score,
    spread,
    wording_of,
)
from sim.report.verdict import CLEAR_POINTS, Gain, gain_over

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of more rows than this, only the best have a panel of their own.
MAX_PANELS = 12
# A label beside an axis is cut after so many characters; the table of the page has all of it.
MAX_LABEL = 26
CHARACTER_IN, ROW_IN = 0.068, 0.3
TIES = f"Grey is a tie: the 95 % interval holds 0, or the mean is below {CLEAR_POINTS} points."


@dataclass(frozen=True)
class Shown:
    """A figure and its caption, which says what to see in it."""

    figure: Figure
    caption: str


def draw_all_of(comparison: Comparison, contenders: Sequence[Contender]) -> dict[str, Shown]:
    """Stem -> figure of a comparison; what its runs have nothing for is left out.

    Args:
        comparison: the comparison.
        contenders: its rows, the best first; at least one.
    """
    found = {
        "leader": _leader(contenders),
        "scores": _scores(contenders),
        "kinds": _kinds(contenders),
        "controls": _controls(contenders),
        "curves": _curves(contenders),
        "bytes": _bytes(comparison, contenders),
    }
    return {stem: shown for stem, shown in found.items() if shown is not None}


def _leader(contenders: Sequence[Contender]) -> Shown | None:
    """Each row against the one with the highest mean."""
    leader, others = contenders[0], contenders[1:]
    gains = gains_to(leader, others)
    if not gains:
        return None
    title = _title(contenders)
    figure, (axis,) = panels(1, 1, height=_height(others), left=_left(others))
    plot_gains(axis, {one.number - 2: gains[one.number] for one in others if one.number in gains}, places=len(others))
    axis.set(title=f"minus {_short(leader)}", xlabel=f"{title}, points")
    _name_rows(axis, others)
    caption = (
        f"Each row minus the first one, {leader.label}, in {title} on the common test set, paired by seed and client, "
        f"with 95 % interval: {counts_in_words(gains)}. {TIES}{_of_many(len(gains))}"
    )
    return Shown(figure, caption)


def _scores(contenders: Sequence[Contender]) -> Shown:
    """The score of each row: of all clients, of each kind, and of the teacher; small dots are seeds."""
    title, main = _title(contenders), wording_of(contenders[0].runs).main
    everybody = [client for kind in kinds_of(contenders) for client in kind.clients]
    places = [("all clients", _mean_of(everybody, main), INK)]
    places += [(kind.kind, _mean_of(kind.clients, main), PALETTE[kind.modality]) for kind in kinds_of(contenders)]
    places += [("teacher", lambda run: score(run["teacher"]["after"], main), INK)]
    figure, axes = _grid(len(places), height=_height(contenders), left=_left(contenders), columns=3)
    for axis, (name, value_of, colour) in zip(axes, places, strict=True):
        for place, one in enumerate(contenders):
            values = [value for run in one.runs if (value := value_of(run)) is not None]
            _dot(axis, place, spread(values), values, colour)
        axis.set(title=name, ylim=(len(contenders) - 0.4, -0.6), xlabel=f"{title} (%)")
        axis.grid(visible=False, axis="y")
        _name_rows(axis, contenders)
    means = [one.row.mean.mean for one in contenders]
    several = any(len(one.runs) > 1 for one in contenders)
    seeds = ", one s.d. over the seeds (line) and each seed (small dots)" if several else ""
    return Shown(
        figure,
        f"{title} on the common test set: mean over the clients{seeds}. "
        f"The means of the rows lie {100 * (max(means) - min(means)):.1f} points apart, between {100 * min(means):.1f} "
        f"and {100 * max(means):.1f} %. Each panel has a scale of its own.",
    )


def _kinds(contenders: Sequence[Contender]) -> Shown | None:
    """Each row against the first one, for each kind of client."""
    leader, others = contenders[0], contenders[1:]
    found: dict[str, dict[int, Gain]] = {}
    for kind in kinds_of(contenders):
        gains = {one.number: paired_gain_of_kind(one, leader, kind.clients) for one in others}
        known = {number: gain for number, gain in gains.items() if gain is not None}
        if known:
            found[kind.kind] = known
    if not found:
        return None
    title = _title(contenders)
    figure, axes = _grid(len(found), height=_height(others), left=_left(others), columns=2)
    for axis, (kind_name, gains_of_kind) in zip(axes, found.items(), strict=True):
        plot_gains(axis, {number - 2: gain for number, gain in gains_of_kind.items()}, places=len(others))
        axis.set(title=kind_name, xlabel=f"{title}, points")
        _name_rows(axis, others)
    told = "; ".join(f"{kind}: {counts_in_words(gains)}" for kind, gains in found.items())
    return Shown(
        figure,
        f"The same by kind of client: each row minus {leader.label} in {title}, paired by seed and test pass. {told}. "
        f"{TIES}",
    )


def _controls(contenders: Sequence[Contender]) -> Shown | None:
    """Each row against its own controls."""
    found = {
        control: {one.number: gain for one in contenders if (gain := gain_over(one.runs, control)) is not None}
        for control in CONTROL_ARMS
    }
    found = {control: gains for control, gains in found.items() if gains}
    if not found:
        return None
    title = _title(contenders)
    figure, axes = _grid(len(found), height=_height(contenders), left=_left(contenders), columns=2)
    for axis, (control, gains) in zip(axes, found.items(), strict=True):
        plot_gains(axis, {number - 1: gain for number, gain in gains.items()}, places=len(contenders))
        axis.set(title=f"against {ARM_TITLES[control]}", xlabel=f"{title}, points")
        _name_rows(axis, contenders)
    told = "; ".join(f"against {ARM_TITLES[control]} {counts_in_words(gains)}" for control, gains in found.items())
    lacking = [one.label for one in contenders if all(one.number not in gains for gains in found.values())]
    without = f" Without controls of its own: {', '.join(lacking)}." if lacking else ""
    return Shown(
        figure,
        f"Federated students of each row against the controls of the same run, in {title}, paired by seed and client: "
        f"{told}. {TIES}{without}",
    )


def _curves(contenders: Sequence[Contender]) -> Shown | None:
    """The mean score of the clients by round: a panel for each of the best rows, with all others behind it.

    One row alone has none: its report shows its curves.
    """
    main, title = wording_of(contenders[0].runs).main, _title(contenders)
    curves = {one.number: _by_round(one.runs, main) for one in contenders}
    drawn = [one for one in contenders if curves[one.number]][:MAX_PANELS]
    if len(contenders) < 2 or not drawn:
        return None
    figure, axes = _grid(len(drawn), height=1.35, left=0.6, columns=3)
    for axis, one in zip(axes, drawn, strict=True):
        for other in drawn:
            rounds, means = _points(curves[other.number])
            axis.plot(rounds, means, color=MUTED, alpha=0.45, linewidth=0.8)
        rounds, means = _points(curves[one.number])
        axis.plot(rounds, means, color=INK, marker="o", markersize=2.5)
        deviations = [100 * (found.sd or 0.0) for found in curves[one.number].values()]
        if any(deviations):
            low, high = ([m + s * d for m, d in zip(means, deviations, strict=True)] for s in (-1, 1))
            axis.fill_between(rounds, low, high, color=INK, alpha=0.15, linewidth=0)
        axis.set(title=_short(one), xlabel="Round")
        count_rounds(axis)
    for axis in axes[::3]:
        axis.set_ylabel(f"{title} (%)")
    hidden = sum(bool(curve) for curve in curves.values()) - len(drawn)
    few = f" Shown are the best {len(drawn)}; {hidden} more are not." if hidden else ""
    return Shown(
        figure,
        f"{title} of the state that is kept, mean over the clients, by round: one panel for each row, the others in "
        f"grey. {_change_in_words({one.label: curves[one.number] for one in drawn})}{few}",
    )


def _change_in_words(curves: Mapping[str, Mapping[int, Spread]]) -> str:
    """By how much the rows change from the first round to the last, and which change least and most."""
    ends = {label: list(curve.values()) for label, curve in curves.items()}
    told = {label: 100 * (found[-1].mean - found[0].mean) for label, found in ends.items()}
    most, least = max(told, key=lambda label: told[label]), min(told, key=lambda label: told[label])
    begin = "From the first round to the last it changes by"
    if f"{told[least]:+.1f}" == f"{told[most]:+.1f}":
        return f"{begin} {told[most]:+.1f} points{' in each' if len(told) > 1 else ''}."
    return f"{begin} {told[least]:+.1f} ({least}) to {told[most]:+.1f} points ({most})."


def _bytes(comparison: Comparison, contenders: Sequence[Contender]) -> Shown:
    """The score against the bytes, as `softbeam compare --figure` draws it, without its legend."""
    figure, (axis,) = panels(1, 1, height=3.0)
    draw_against_bytes(axis, Comparison("", comparison.summaries, comparison.rows))
    front = [f"{one.number} ({one.label})" for one in contenders if one.row.is_front]
    title = _title(contenders)
    silent = [str(one.number) for one in contenders if one.row.bytes_per_client == 0]
    level = f" Dashed: rows that send nothing ({', '.join(silent)})." if silent else ""
    named = ", ".join(front[:MAX_PANELS])
    return Shown(
        figure,
        f"{title} against the bytes of a client in the whole run, with one s.d. over the seeds. Numbers are those of "
        f"the table. No other row has both more {title} and fewer bytes than {named}.{level}",
    )


def _title(contenders: Sequence[Contender]) -> str:
    return wording_of(contenders[0].runs).main_metric.title


def _of_many(count: int) -> str:
    """What is to be known of intervals that are looked at together."""
    if count < 2:
        return ""
    return (
        f" These are {count} intervals, each for itself; the first row was chosen by the same scores, which flatters "
        "its lead a little."
    )


def _short(contender: Contender) -> str:
    """Number and label as they fit beside an axis."""
    text = textwrap.shorten(contender.label, MAX_LABEL, placeholder="…") or contender.label[:MAX_LABEL]
    return f"{contender.number} {text}".replace("$", r"\$")


def _left(contenders: Sequence[Contender]) -> float:
    """The room for the names of rows, in inches."""
    return 0.3 + CHARACTER_IN * max(len(_short(one)) for one in contenders)


def _height(contenders: Sequence[Contender]) -> float:
    return ROW_IN * len(contenders) + 0.25


def _name_rows(axis: Axes, contenders: Sequence[Contender]) -> None:
    axis.set_yticks(range(len(contenders)), [_short(one) for one in contenders])


def _grid(count: int, *, height: float, left: float, columns: int) -> tuple[Figure, list[Axes]]:
    """Panels with one vertical scale, which has its names or numbers beside the first panel of each line only."""
    columns = min(columns, count)
    figure, axes = panels(math.ceil(count / columns), columns, height=height, left=left, between=0.25, share_y=True)
    for axis in axes[count:]:
        axis.remove()
    for place, axis in enumerate(axes[:count]):
        axis.yaxis.set_tick_params(labelleft=place % columns == 0)
    return figure, axes[:count]


def _dot(axis: Axes, place: float, found: Spread | None, values: Sequence[float], colour: str) -> None:
    """A mean with one s.d., and its values."""
    if found is None:
        return
    if found.sd is not None:
        low, high = 100 * (found.mean - found.sd), 100 * (found.mean + found.sd)
        axis.plot([low, high], [place, place], color=colour, linewidth=1.5)
        axis.plot([100 * one for one in values], [place] * len(values), ".", color=colour, alpha=0.5, markersize=5)
    axis.plot([100 * found.mean], [place], "o", color=colour, markersize=6)


def _mean_of(clients: Sequence[str], main: str) -> Callable[[Summary], float | None]:
    wanted = set(clients)

    def value(run: Summary) -> float | None:
        found = spread(score(client["federated"], main) for client in run["clients"] if client["id"] in wanted)
        return found.mean if found else None

    return value


def _by_round(runs: Sequence[Summary], main: str) -> dict[int, Spread]:
    """Round -> mean score of the clients, over the runs whose folders are known."""
    by_run: list[dict[int, float]] = []
    for run in runs:
        lines: Sequence[Mapping[str, Any]] = read_rounds(Path(run["folder"])) if "folder" in run else ()
        means = {
            int(line["round"]): spread(score(entry.get("common"), main) for entry in line["clients"].values())
            for line in lines
        }
        by_run.append({number: found.mean for number, found in means.items() if found})
    numbers = sorted({number for one in by_run for number in one})
    found = {number: spread(one.get(number) for one in by_run) for number in numbers}
    return {number: one for number, one in found.items() if one is not None}


def _points(curve: Mapping[int, Spread]) -> tuple[list[int], list[float]]:
    return list(curve), [100 * found.mean for found in curve.values()]
