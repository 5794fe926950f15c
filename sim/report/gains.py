"""What the federation was worth to the clients of each kind, paired by test pass, and by how far ahead is predicted.

Every arm of a client is scored on the same passes of the common test set. A difference is that of one pass, averaged
over the clients, and its interval covers the passes and the runs. Only where it leaves out 0 and the mean is at least
`sim.report.verdict.CLEAR_POINTS` is a difference called one; all else is a tie, and grey.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from server.recorder import CONTROL_ARMS, PASSES_FILE
from sim.report.intervals import paired_interval
from sim.report.style import GAIN, LOSS, MUTED, PALETTE, panels
from sim.report.summaries import ARM_TITLES, Row, Summary, arms_of, comparable, table_rows
from sim.report.verdict import CLEAR_POINTS, Gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Sign of a gain -> its mark, its colour and its name.
MARKS = {1: ("▲", GAIN, "better"), 0: ("●", MUTED, "tie"), -1: ("▼", LOSS, "worse")}
_MARKERS = {1: "^", 0: "o", -1: "v"}
# The shortest axis of gains, in points: on it, an effect of three is plain to see.
LEAST_REACH = 4.0
# A mean over fewer clients has no interval over clients.
LEAST_CLIENTS = 3


PassScores = Mapping[str, Mapping[str, Any]]
"""Client -> arm -> Top-5 of each test pass of one run."""


def read_passes(run: Path) -> PassScores:
    """The scores by test pass of a run; nothing for a run of an older version."""
    try:
        found: PassScores = json.loads((run / PASSES_FILE).read_text())["top5"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found


def pass_gain(passes: Sequence[PassScores], control: str, clients: Collection[str]) -> Gain | None:
    """The federated students of some clients minus a control in Top-5, paired by test pass; None if it is unknown.

    Args:
        passes: the scores by pass of each run.
        control: the control.
        clients: the ids of the clients over which each pass is averaged.
    """
    runs = [found for one in passes if (found := _by_pass(one, control, clients)) is not None]
    if not runs:
        return None
    interval = paired_interval(runs, "passes")
    everything = np.concatenate(runs)
    return Gain(interval.mean, interval.low, interval.high, int((everything > 0).sum()), len(everything))


def controls_of(summaries: Sequence[Summary]) -> list[str]:
    """The controls that any client has."""
    return [arm for arm in arms_of(summaries) if arm in CONTROL_ARMS]


def gains_by_kind(summaries: Sequence[Summary], passes: Sequence[PassScores]) -> dict[str, dict[str, Gain]]:
    """Control -> kind of client -> its gain; kinds and controls without one are left out."""
    found = {
        control: {
            row.kind: gain
            for row in table_rows(summaries, by_client=False)
            if (gain := pass_gain(passes, control, row.clients)) is not None
        }
        for control in controls_of(summaries)
    }
    return {control: gains for control, gains in found.items() if gains}


def draw_gains(summaries: Sequence[Summary], passes: Sequence[PassScores]) -> Figure | None:
    """Draw the gain of each kind over each control with its interval; None where no pass was scored."""
    by_control = gains_by_kind(summaries, passes)
    if not by_control:
        return None
    kinds = list(dict.fromkeys(kind for gains in by_control.values() for kind in gains))
    longest = max(map(len, kinds))
    figure, axes = panels(
        *(1, len(by_control)), height=0.32 * len(kinds) + 0.25, left=0.35 + 0.075 * longest, between=0.3, share_y=True
    )
    for axis, (control, gains) in zip(axes, by_control.items(), strict=True):
        plot_gains(axis, {kinds.index(kind): gain for kind, gain in gains.items()}, places=len(kinds))
        axis.set(title=f"against {ARM_TITLES[control]}", xlabel="Top-5, points")
    axes[0].set_yticks(range(len(kinds)), kinds)
    return figure


def plot_gains(axis: Axes, gains: Mapping[int, Gain], *, places: int) -> None:
    """Draw gains with their intervals one below the other, on a band in which the mean is a tie.

    Args:
        axis: where to draw; its horizontal axis gets the scale of these gains, in points.
        gains: place from above, counted from 0 -> gain; a place may be empty.
        places: the number of places.
    """
    axis.axvspan(-CLEAR_POINTS, CLEAR_POINTS, color=MUTED, alpha=0.15, linewidth=0)
    axis.axvline(0.0, color=MUTED, linewidth=0.8)
    for place, gain in gains.items():
        colour = MARKS[gain.sign][1]
        axis.plot([100 * gain.low, 100 * gain.high], [place, place], color=colour, linewidth=2)
        axis.plot([100 * gain.mean], [place], marker=_MARKERS[gain.sign], color=colour, markersize=7)
        axis.annotate(
            f"{100 * gain.mean:+.1f}",
            (100 * gain.mean, place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
        )
    # A scale of its own: what offline KD leaves to gain is often a tenth of what learning alone does.
    ends = [100 * end for gain in gains.values() for end in (gain.low, gain.high)]
    low, high = min(-LEAST_REACH / 2, *ends), max(LEAST_REACH / 2, *ends)
    axis.set(xlim=(low - 0.1 * (high - low), high + 0.1 * (high - low)), ylim=(places - 0.4, -0.7))
    axis.grid(visible=False, axis="y")


def gains_caption(summaries: Sequence[Summary], passes: Sequence[PassScores]) -> str:
    """What is to be seen in :func:`draw_gains`."""
    told = []
    for control, gains in gains_by_kind(summaries, passes).items():
        signs = [gain.sign for gain in gains.values()]
        counts = ", ".join(f"{signs.count(sign)} {MARKS[sign][2]}" for sign in (1, 0, -1) if sign in signs)
        told.append(f"against {ARM_TITLES[control]}: {counts}")
    return (
        "Federated students against each control at equal steps, Top-5 on the common test set, with the 95 % interval "
        "over its passes"
        f"{' and the runs' if len(summaries) > 1 else ''}. Kinds of clients {'; '.join(told)}. Grey is a tie: the "
        f"interval holds 0, or the mean is below {CLEAR_POINTS} points."
    )


def draw_gain_by_horizon(summaries: Sequence[Summary]) -> Figure | None:
    """Draw the gain over each control as bars, for each predicted slot; None where there is no control."""
    controls = [control for control in controls_of(summaries) if _horizon_gains(summaries, control)]
    if not controls:
        return None
    figure, axes = panels(1, len(controls), height=2.0, between=0.6)
    rows = table_rows(summaries, by_client=False)
    width = 0.8 / len(rows)
    for axis, control in zip(axes, controls, strict=True):
        axis.axhline(0.0, color=MUTED, linewidth=0.8)
        found = _horizon_gains(summaries, control)
        for place, row in enumerate(rows):
            for horizon, (mean, low, high) in enumerate(found.get(row.kind, [])):
                x = horizon + width * (place - (len(rows) - 1) / 2)
                label = row.kind if horizon == 0 and control == controls[-1] else None
                # Kinds of one modality have one colour, so they differ in strength.
                strength = 1.0 - 0.6 * sum(other.modality == row.modality for other in rows[:place]) / len(rows)
                axis.bar(x, mean, 0.9 * width, color=PALETTE[row.modality], alpha=strength, label=label)
                if low < high:
                    axis.plot([x, x], [low, high], color=MUTED, linewidth=1.0)
        slots = max(len(values) for values in found.values())
        axis.set_xticks(range(slots), ["now", *(f"+{slot}" for slot in range(1, slots))])
        axis.set(title=f"against {ARM_TITLES[control]}", xlabel="Predicted slot")
        axis.grid(visible=False, axis="x")
        low, high = axis.get_ylim()
        axis.set(ylim=(min(low, -LEAST_REACH / 4), max(high, 0.75 * LEAST_REACH)), ylabel="Gain in Top-5 (points)")
    if len(rows) <= 8:
        axes[-1].legend(fontsize=7.5, ncols=2, handlelength=1.2)
    return figure


def gain_by_horizon_caption(summaries: Sequence[Summary]) -> str:
    """What is to be seen in :func:`draw_gain_by_horizon`."""
    told = []
    for control in controls_of(summaries):
        gains = _horizon_gains(summaries, control)
        ends = [(values[0][0], values[-1][0]) for values in gains.values() if len(values) > 1]
        if ends:
            now, last = (float(np.mean(values)) for values in zip(*ends, strict=True))
            told.append(f"{ARM_TITLES[control]} {now:+.1f} points now and {last:+.1f} in the last slot")
    enough = any(len(row.clients) >= LEAST_CLIENTS for row in table_rows(summaries, by_client=False))
    return (
        "Gain of the federated students in Top-5 over the same clients' controls, by predicted slot. Mean of the kinds "
        f"against {', '.join(told) if told else 'a control: there is one slot only'}. "
        + (
            f"Thin lines: 95 % interval over clients, for kinds of at least {LEAST_CLIENTS}."
            if enough
            else f"No kind has {LEAST_CLIENTS} clients, so there is no interval over clients."
        )
    )


def _horizon_gains(summaries: Sequence[Summary], control: str) -> dict[str, list[tuple[float, float, float]]]:
    """Kind -> for each horizon, mean gain in points with both limits of its interval, which are the mean if unknown."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in table_rows(summaries, by_client=False):
        runs = [values for summary in summaries if len(values := _by_client(summary, control, row))]
        if not runs:
            continue
        found[row.kind] = []
        for horizon in range(runs[0].shape[1]):
            groups = [100 * values[:, horizon] for values in runs]
            one = paired_interval(groups, "horizon")
            has_interval = min(map(len, groups)) >= LEAST_CLIENTS
            found[row.kind].append((one.mean, *((one.low, one.high) if has_interval else (one.mean, one.mean))))
    return found


def _by_client(summary: Summary, control: str, row: Row) -> NDArray[np.float64]:
    """(C, H) differences in Top-5 of the clients of a row that have both."""
    pairs = [
        (client["federated"]["top5"], client[control]["top5"])
        for client in comparable(summary, row.clients)
        if client["federated"] and client[control]
    ]
    return np.array([np.subtract(mine, other) for mine, other in pairs], np.float64)


def _by_pass(stored: PassScores, control: str, clients: Collection[str]) -> NDArray[np.float64] | None:
    """(P,) differences of a run by pass, averaged over the clients that have both; None where there are none."""
    differences = [
        np.subtract(arms["federated"], arms[control])
        for client in clients
        if (arms := stored.get(client)) and arms.get("federated") and arms.get(control)
    ]
    return np.mean(differences, axis=0) if differences else None
