"""Comparison of strategies: their accuracy, their cost, and which of them no other beats in both.

Runs with the same settings make one row; seeds are averaged last. Every client is compared with its *local only*
student of the same seed, from a run of the strategy ``local`` or from the controls of the run itself.
The figure shows Top-5 against bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from configs.strategy import Strategy
from sim.report.style import INK, MUTED, drawing
from sim.report.summaries import (
    Spread,
    Summary,
    flatten,
    format_bytes,
    group_by_settings,
    score,
    show,
    spread,
    teacher_spread,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


METRIC = "top5"


@dataclass(frozen=True)
class StrategyRow:
    """One strategy over its seeds; scores are Top-5 on the common test set in [0, 1], mean over the horizons.

    Attributes:
        group: the label that `group_by_settings` gives the runs.
        label: the name of the strategy, and the settings that differ from its recipe.
        runs: the number of seeds.
        mean: the mean score of the clients.
        worst: the score of the worst client of each seed.
        worst_gain: the smallest gain of a client over its local-only student in any seed; None without a reference.
        mean_gain: the mean of those gains; None without a reference.
        teacher: the score of the teacher after the federation.
        bytes_per_client: bytes up and down over the whole run, mean over the clients.
        seconds: the duration of the rounds, mean over the seeds.
        is_front: whether no other row has both a higher mean and fewer bytes.
    """

    group: str
    label: str
    runs: int
    mean: Spread
    worst: Spread
    worst_gain: float | None
    mean_gain: float | None
    teacher: Spread | None
    bytes_per_client: float
    seconds: float
    is_front: bool = False


def strategy_rows(summaries: Sequence[Summary]) -> list[StrategyRow]:
    """Make one row per settings, the best first; settings without a scored client are left out."""
    references = _references(summaries)
    groups = group_by_settings(summaries)
    telling = _telling_keys(list(groups.values()))
    found = [
        _row(group, name=name, label=_label(group[0], telling), references=references) for name, group in groups.items()
    ]
    rows = [row for row in found if row is not None]
    marked = [
        StrategyRow(
            **{
                **vars(row),
                "is_front": not any(
                    other.mean.mean >= row.mean.mean
                    and other.bytes_per_client <= row.bytes_per_client
                    and (other.mean.mean, other.bytes_per_client) != (row.mean.mean, row.bytes_per_client)
                    for other in rows
                ),
            }
        )
        for row in rows
    ]
    return sorted(marked, key=lambda row: -row.mean.mean)


def strategy_table(rows: Sequence[StrategyRow]) -> Table:
    """The rows as a table for the terminal."""
    table = Table(
        "strategy", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=f"Strategies, {_seeds(rows)}", caption=_CAPTION
    )
    table.title_justify = table.caption_justify = "left"
    for title in ("Top-5\n%", "worst\nclient", "gain\nmean", "gain\nworst", "teacher\n%", "bytes\nper client", "s"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        gains = ["-" if gain is None else f"{100 * gain:+.1f}" for gain in (row.mean_gain, row.worst_gain)]
        table.add_row(
            Text(("* " if row.is_front else "  ") + row.label, style="bold" if row.is_front else ""),
            show(row.mean, METRIC),
            show(row.worst, METRIC),
            *gains,
            show(row.teacher, METRIC),
            format_bytes(row.bytes_per_client),
            f"{row.seconds:.0f}",
        )
    return table


_CAPTION = (
    "Top-5 on the common test set, mean over horizons and clients; gain: over the client's local-only student of the "
    "same seed; bytes: up and down, all rounds. * no other has both a higher Top-5 and fewer bytes"
)


def _seeds(rows: Sequence[StrategyRow]) -> str:
    counts = {row.runs for row in rows}
    return f"mean±s.d. over {min(counts)} to {max(counts)} seeds" if len(counts) > 1 else f"{counts.pop()} seeds"


def _references(summaries: Sequence[Summary]) -> dict[tuple[int, str], float]:
    """Find the references: (seed, client) -> Top-5 of the local-only student."""
    found: dict[tuple[int, str], float] = {}
    for summary in summaries:
        is_local = summary.get("settings", {}).get("strategy.name") == "local"
        for client in summary["clients"]:
            for arm in ("local", *(["federated"] if is_local else [])):
                if (value := score(client[arm], METRIC)) is not None:
                    found[summary["seed"], client["id"]] = value
    return found


def _row(
    group: Sequence[Summary], *, name: str, label: str, references: Mapping[tuple[int, str], float]
) -> StrategyRow | None:
    by_seed: list[list[float]] = []
    gains: list[float] = []
    for summary in group:
        scores = {client["id"]: score(client["federated"], METRIC) for client in summary["clients"]}
        known = {client: value for client, value in scores.items() if value is not None}
        if known:
            by_seed.append(list(known.values()))
        gains += [
            value - references[summary["seed"], client]
            for client, value in known.items()
            if (summary["seed"], client) in references
        ]
    mean, worst = spread(statistics.fmean(values) for values in by_seed), spread(min(values) for values in by_seed)
    if mean is None or worst is None:
        return None
    totals = [client["uplink_bytes"] + client["downlink_bytes"] for summary in group for client in summary["clients"]]
    return StrategyRow(
        group=name,
        label=label,
        runs=len(group),
        mean=mean,
        worst=worst,
        worst_gain=min(gains) if gains else None,
        mean_gain=statistics.fmean(gains) if gains else None,
        teacher=teacher_spread(group, "after", METRIC),
        bytes_per_client=statistics.fmean(totals),
        seconds=statistics.fmean(summary["seconds"]["rounds"] for summary in group),
    )


def _telling_keys(groups: Sequence[Sequence[Summary]]) -> list[str]:
    settings = [group[0].get("settings", {}) for group in groups]
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]


def _label(summary: Summary, telling: Sequence[str]) -> str:
    """The name of the strategy and the settings that distinguish its rows; settings of its recipe are left out."""
    settings = summary.get("settings", {})
    name = settings.get("strategy.name", summary["experiment"])
    recipe: dict[str, Any] = {f"strategy.{key}": value for key, value in flatten(_recipe(name)).items()}
    others = [key for key in telling if key != "strategy.name" and settings.get(key) != recipe.get(key)]
    return " ".join([str(name), *(f"{key.removeprefix('strategy.')}={settings.get(key)}" for key in others)])


def _recipe(name: str) -> dict[str, Any]:
    values: dict[str, Any] = Strategy(name=name).model_dump(mode="json")
    return values


FRONT = "#0072b2"
# Points that are closer than this, in the ratio of their bytes and in Top-5, share a label.
SAME_BYTES, SAME_SHARE = 1.15, 0.002


def draw_strategies(rows: Sequence[StrategyRow]) -> Figure:
    """Draw one point per strategy: mean Top-5 and one s.d. over seeds against bytes per client, on a logarithmic axis.

    A strategy that sends nothing is a horizontal line, since zero has no place on that axis.
    """
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.add_subplot()
        exchanging = [row for row in rows if row.bytes_per_client > 0]
        for row in rows:
            if row.bytes_per_client == 0:
                axes.axhline(100 * row.mean.mean, color=MUTED, linestyle="--", linewidth=1)
                axes.annotate(
                    row.label, (1.0, 100 * row.mean.mean), xycoords=("axes fraction", "data"), ha="right", va="bottom"
                )
        for row in exchanging:
            colour = FRONT if row.is_front else MUTED
            x, y = row.bytes_per_client / 1e6, 100 * row.mean.mean
            axes.errorbar(x, y, yerr=100 * (row.mean.sd or 0.0), fmt="o", color=colour, capsize=2, markersize=5)
        for together in _at_one_place(exchanging):
            x, y = together[0].bytes_per_client / 1e6, 100 * together[0].mean.mean
            text = ",\n".join(row.label for row in together)
            axes.annotate(text, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7.5, color=INK)
        front = sorted((row for row in exchanging if row.is_front), key=lambda row: row.bytes_per_client)
        axes.plot(
            [row.bytes_per_client / 1e6 for row in front], [100 * row.mean.mean for row in front], color=FRONT, zorder=0
        )
        axes.set_xscale("log")
        axes.set_xlabel("bytes per client, up and down, whole run / MB")
        axes.set_ylabel("Top-5 of the students / %")
    return figure


def _at_one_place(rows: Sequence[StrategyRow]) -> list[list[StrategyRow]]:
    """Group the rows whose labels would cover each other."""
    places: list[list[StrategyRow]] = []
    for row in rows:
        for place in places:
            ratio = row.bytes_per_client / place[0].bytes_per_client
            if 1 / SAME_BYTES < ratio < SAME_BYTES and abs(row.mean.mean - place[0].mean.mean) < SAME_SHARE:
                place.append(row)
                break
        else:
            places.append([row])
    return places


def save_strategies(rows: Sequence[StrategyRow], path: Path) -> None:
    """Write the figure; the ending of the name says the format.

    Raises:
        ValueError: the ending is not png, pdf or svg, or there is nothing to draw.
    """
    if not rows:
        raise ValueError("--figure: no run has a client that was scored; look at the problems in its rounds.jsonl")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--figure {path}: expected a name that ends in .png, .pdf or .svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_strategies(rows).savefig(path, dpi=160)
