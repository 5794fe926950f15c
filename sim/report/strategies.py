"""Comparison of strategies: their accuracy, their cost, and which of them no other beats in both.

Runs with the same settings make one row; seeds are averaged last. Every client is compared with its *local only*
student of the same seed, from the controls of the run itself or from a run of the strategy ``local``. Only runs on the
same data, with the same nodes, stand in one table and on one axis. The figure shows the main metric of the task against
bytes; in beam tracking that is Top-5.
"""

from __future__ import annotations

import io
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from clients.data.recording import SITE_TESTS
from clients.learning.task import Wording
from configs.files import swap_in
from server.recorder import OWN_TEST
from sim.report.destinations import check_destination
from sim.report.labels import settings_that_differ
from sim.report.sites import shown_parts, site_spread
from sim.report.style import INK, MUTED, drawing
from sim.report.summaries import (
    DATA_SECTIONS,
    Spread,
    Summary,
    data_keys,
    format_bytes,
    group_by_settings,
    own_test_spread,
    score,
    show,
    spread,
    teacher_spread,
    wording_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StrategyRow:
    """One strategy over its seeds; scores are the main metric on the common test set in [0, 1], mean over the horizons.

    Attributes:
        label: what tells the row from the others, see `sim.report.labels`.
        experiment: the name of the experiment.
        strategy: the name of the strategy; empty if it is not recorded.
        seeds: the seeds of the runs.
        mean: the mean score of the clients.
        worst: the score of the worst client of each seed.
        worst_gain: the smallest gain of a client over its local-only student in any seed; None without a reference.
        mean_gain: the mean of those gains; None without a reference.
        teacher: the score of the teacher after the federation.
        uplink_bytes: bytes up over the whole run, mean over the clients.
        downlink_bytes: bytes down over the whole run, mean over the clients.
        seconds: the duration of the rounds, mean over the seeds.
        by_site: tests (`sim.report.sites`, and each client's own) -> the mean score of the clients on them; empty where
            there are none.
        is_front: whether no other row has both a higher mean and fewer bytes.
    """

    label: str
    experiment: str
    strategy: str
    seeds: tuple[int, ...]
    mean: Spread
    worst: Spread
    worst_gain: float | None
    mean_gain: float | None
    teacher: Spread | None
    uplink_bytes: float
    downlink_bytes: float
    seconds: float
    by_site: Mapping[str, Spread | None] = field(default_factory=dict)
    is_front: bool = False

    @property
    def bytes_per_client(self) -> float:
        """Bytes up and down over the whole run, mean over the clients."""
        return self.uplink_bytes + self.downlink_bytes

    def is_beaten_by(self, other: StrategyRow) -> bool:
        """Whether another row has at least this mean for at most these bytes, and is better in one of them."""
        mine, theirs = (self.mean.mean, -self.bytes_per_client), (other.mean.mean, -other.bytes_per_client)
        return mine != theirs and all(one <= two for one, two in zip(mine, theirs, strict=True))


@dataclass(frozen=True)
class Comparison:
    """Runs on the same data, with the same nodes.

    Attributes:
        title: what tells their data from that of the other comparisons; empty if there is only one.
        summaries: the runs.
        rows: one row per settings, the best first; settings without a scored client are left out.
    """

    title: str
    summaries: tuple[Summary, ...]
    rows: tuple[StrategyRow, ...]

    @property
    def wording(self) -> Wording:
        """What the task of the runs and its scores are called."""
        return wording_of(self.summaries)


def comparisons_of(summaries: Sequence[Summary]) -> list[Comparison]:
    """The runs apart by their data and nodes, in order of appearance."""
    parts: dict[str, list[Summary]] = {}
    for summary, key in zip(summaries, data_keys(summaries), strict=True):
        parts.setdefault(key, []).append(summary)
    firsts = [part[0] for part in parts.values()]
    found = []
    for number, part in enumerate(parts.values(), start=1):
        names = ", ".join(dict.fromkeys(summary["experiment"] for summary in part))
        differences = settings_that_differ(part[0], firsts, sections=DATA_SECTIONS) or "other files or other code"
        title = f"Data {number} ({differences}): {names}" if len(parts) > 1 else ""
        found.append(Comparison(title, tuple(part), tuple(strategy_rows(part))))
    return found


def strategy_rows(summaries: Sequence[Summary]) -> list[StrategyRow]:
    """One row per settings of runs on the same data, the best first; settings without a scored client are left out."""
    references = _references(summaries)
    found = [_row(group, label=label, references=references) for label, group in group_by_settings(summaries).items()]
    rows = [row for row in found if row is not None]
    marked = [replace(row, is_front=not any(row.is_beaten_by(other) for other in rows)) for row in rows]
    return sorted(marked, key=lambda row: -row.mean.mean)


def strategy_table(comparison: Comparison) -> Table:
    """The rows of a comparison as a table for the terminal; what no row has is left out."""
    rows, wording = comparison.rows, comparison.wording
    title = Text("\n".join(filter(None, (comparison.title, f"Strategies, {seeds_in_words(rows)}"))))
    table = Table(
        "run", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, caption=" ".join(notes_of(rows, wording))
    )
    table.title_justify = table.caption_justify = "left"
    gains = ("gain\nmean", "gain\nworst") if has_gains(rows) else ()
    sites = [title.replace(" ", "\n") for title in site_tests(rows).values()]
    for header in (
        f"{wording.main_metric.title}\n%",
        "worst\nclient",
        *gains,
        *sites,
        "teacher\n%",
        "bytes\nup",
        "bytes\ndown",
        "s",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(("* " if row.is_front else "  ") + row.label, style="bold" if row.is_front else ""),
            *cells_of(row, rows, wording),
        )
    return table


def cells_of(row: StrategyRow, rows: Sequence[StrategyRow], wording: Wording) -> list[str]:
    """The numbers of a row as texts: score, worst, gains and sites if any row has them, teacher, bytes, seconds."""
    main = wording.main
    gains = [_show_gain(gain) for gain in (row.mean_gain, row.worst_gain)] if has_gains(rows) else []
    sizes = [format_bytes(size) for size in (row.uplink_bytes, row.downlink_bytes)]
    return [
        show(row.mean, main, wording),
        show(row.worst, main, wording),
        *gains,
        *(show(row.by_site.get(part), main, wording) for part in site_tests(rows)),
        show(row.teacher, main, wording),
        *sizes,
        f"{row.seconds:.0f}",
    ]


def has_gains(rows: Sequence[StrategyRow]) -> bool:
    """Whether any row has a reference that it gains over."""
    return any(row.mean_gain is not None for row in rows)


def site_tests(rows: Sequence[StrategyRow]) -> dict[str, str]:
    """The tests beside the whole common one that any row has a score on, with their titles."""
    tests = {**SITE_TESTS, OWN_TEST: "own test"}
    return {part: title for part, title in tests.items() if any(row.by_site.get(part) for row in rows)}


def notes_of(rows: Sequence[StrategyRow], wording: Wording) -> list[str]:
    """What a reader must know about the numbers of a table, a sentence each."""
    title = wording.main_metric.title
    over = "horizons and clients" if wording.is_of_beams else "clients"
    notes = [f"{title} on the common test set, mean over {over}, in %; worst: the worst client of each seed."]
    if has_gains(rows):
        notes.append("Gain: points over the client's local-only student of the same seed.")
    tests = site_tests(rows)
    if tests.keys() & SITE_TESTS.keys():
        notes.append("Own site, unseen site: the same on tests of a client's own site, and of sites that are held out.")
    if OWN_TEST in tests:
        notes.append("Own test: the same, each client on what it has set aside of its own rows.")
    notes.append("Bytes: per client over the whole run, up and down; s: seconds of the rounds.")
    return [*notes, f"*: no other run of this table has both a higher {title} and fewer bytes."]


def seeds_in_words(rows: Sequence[StrategyRow]) -> str:
    """The number of seeds behind the rows, such as ``mean±s.d. over 2 to 3 seeds`` or ``seed 0``."""
    counts = sorted({len(row.seeds) for row in rows})
    if counts == [1]:
        seeds = sorted({seed for row in rows for seed in row.seeds})
        return f"seed {seeds[0]}" if len(seeds) == 1 else "one seed each"
    return f"mean±s.d. over {' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} seeds"


def _show_gain(gain: float | None) -> str:
    return "-" if gain is None else f"{100 * gain:+.1f}"


def _references(summaries: Sequence[Summary]) -> dict[tuple[int, str], float]:
    """Find the references: (seed, client) -> score of the local-only student; a run has its own before these."""
    found: dict[tuple[int, str], float] = {}
    main = wording_of(summaries).main
    for summary in summaries:
        is_local = summary.get("settings", {}).get("strategy.name") == "local"
        for client in summary["clients"]:
            for arm in ("local", *(["federated"] if is_local else [])):
                if (value := score(client[arm], main)) is not None:
                    found[summary["seed"], client["id"]] = value
    return found


def _row(group: Sequence[Summary], *, label: str, references: Mapping[tuple[int, str], float]) -> StrategyRow | None:
    main, by_seed = wording_of(group).main, list[list[float]]()
    gains: list[float] = []
    for summary in group:
        own = {client["id"]: score(client["local"], main) for client in summary["clients"]}
        scores = {client["id"]: score(client["federated"], main) for client in summary["clients"]}
        known = {client: value for client, value in scores.items() if value is not None}
        if known:
            by_seed.append(list(known.values()))
        for client, value in known.items():
            reference = own[client] if own[client] is not None else references.get((summary["seed"], client))
            gains += [] if reference is None else [value - reference]
    mean, worst = spread(statistics.fmean(values) for values in by_seed), spread(min(values) for values in by_seed)
    if mean is None or worst is None:
        return None
    clients = [client for summary in group for client in summary["clients"]]
    return StrategyRow(
        label=label,
        experiment=group[0]["experiment"],
        strategy=str(group[0].get("settings", {}).get("strategy.name", "")),
        seeds=tuple(summary["seed"] for summary in group),
        mean=mean,
        worst=worst,
        worst_gain=min(gains) if gains else None,
        mean_gain=statistics.fmean(gains) if gains else None,
        teacher=teacher_spread(group, "after", main),
        uplink_bytes=statistics.fmean(client["uplink_bytes"] for client in clients),
        downlink_bytes=statistics.fmean(client["downlink_bytes"] for client in clients),
        seconds=statistics.fmean(summary["seconds"]["rounds"] for summary in group),
        by_site={
            **{part: site_spread(group, part, "federated", main) for part in shown_parts(group)},
            **({OWN_TEST: on_own_test} if (on_own_test := own_test_spread(group, "federated", main)) else {}),
        },
    )


FRONT = "#0072b2"
# Points that are closer than this, in the ratio of their bytes and in their score, share a number.
SAME_BYTES, SAME_SHARE = 1.15, 0.004
FORMATS = (".png", ".pdf", ".svg")
AXES_IN, LINE_IN = (6.0, 4.2), 0.17
# The width of a legend's line in characters, and of a character in inches.
LEGEND_WIDTH, CHARACTER_IN = 36, 0.075


def draw_comparisons(comparisons: Sequence[Comparison]) -> Figure:
    """Draw the mean score and one s.d. over seeds against bytes per client, on axes of their own for each data.

    The points have numbers, and a legend beside the axes says what they are, so that many runs and long names fit.
    Bytes are on a logarithmic axis; a strategy that sends nothing is a horizontal line: zero has no place there.
    """
    from matplotlib.figure import Figure

    legends = [_legend_lines(comparison.rows) for comparison in comparisons]
    heights = [max(AXES_IN[1], 0.9 + LINE_IN * len(lines)) for lines in legends]
    longest = max(len(line) for lines in legends for line in lines)
    with drawing():
        width = AXES_IN[0] + 0.5 + CHARACTER_IN * longest
        figure = Figure(figsize=(width, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(comparisons), 1, squeeze=False, height_ratios=heights).ravel()
        for part, comparison, lines in zip(parts, comparisons, legends, strict=True):
            axes, side = part.subplots(1, 2, width_ratios=(AXES_IN[0], width - AXES_IN[0]))
            draw_against_bytes(axes, comparison)
            side.axis("off")
            text = "\n".join(lines).replace("$", r"\$")
            side.text(0.0, 1.0, text, va="top", fontsize=8, color=INK, linespacing=1.35)
    return figure


def _legend_lines(rows: Sequence[StrategyRow]) -> list[str]:
    """The lines of a legend: number and label of each row, long labels over several lines."""
    lines = []
    for number, row in enumerate(rows, start=1):
        lines += textwrap.wrap(
            f"{number:>2}  {row.label}", LEGEND_WIDTH, subsequent_indent="      ", break_on_hyphens=False
        )
    return lines


def draw_against_bytes(axes: Axes, comparison: Comparison) -> None:
    """Draw the mean score of each row, under its number, against its bytes; a line joins those that none beats."""
    numbers = {row.label: str(number) for number, row in enumerate(comparison.rows, start=1)}
    exchanging = [row for row in comparison.rows if row.bytes_per_client > 0]
    silent = [row for row in comparison.rows if row.bytes_per_client == 0]
    for row in silent:
        axes.axhline(100 * row.mean.mean, color=MUTED, linestyle="--", linewidth=1)
    for together in _at_one_place(silent):
        text, place = ", ".join(numbers[row.label] for row in together), (1.0, 100 * together[0].mean.mean)
        axes.annotate(text, place, xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    for row in exchanging:
        colour = FRONT if row.is_front else MUTED
        x, y = row.bytes_per_client / 1e6, 100 * row.mean.mean
        axes.errorbar(x, y, yerr=100 * (row.mean.sd or 0.0), fmt="o", color=colour, capsize=2, markersize=5)
    for together in _at_one_place(exchanging):
        x, y = together[0].bytes_per_client / 1e6, 100 * together[0].mean.mean
        text = textwrap.fill(", ".join(numbers[row.label] for row in together), 16)
        axes.annotate(text, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, color=INK)
    front = sorted((row for row in exchanging if row.is_front), key=lambda row: row.bytes_per_client)
    axes.plot(
        [row.bytes_per_client / 1e6 for row in front], [100 * row.mean.mean for row in front], color=FRONT, zorder=0
    )
    if exchanging:
        axes.set_xscale("log")
    if comparison.title:
        axes.set_title(textwrap.fill(comparison.title, 70).replace("$", r"\$"), loc="left", fontsize=9)
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("bytes per client, up and down, whole run / MB")
    axes.set_ylabel(f"{comparison.wording.main_metric.title} of the students / %")


def _at_one_place(rows: Sequence[StrategyRow]) -> list[list[StrategyRow]]:
    """Group the rows whose numbers would cover each other."""
    places: list[list[StrategyRow]] = []
    for row in rows:
        for place in places:
            sizes = (row.bytes_per_client, place[0].bytes_per_client)
            is_near = not any(sizes) or (all(sizes) and abs(math.log(sizes[0] / sizes[1])) < math.log(SAME_BYTES))
            if is_near and abs(row.mean.mean - place[0].mean.mean) < SAME_SHARE:
                place.append(row)
                break
        else:
            places.append([row])
    return places


def save_comparisons(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write the figure, whole or not at all; the ending of the name says the format.

    Raises:
        ValueError: the name is not one of a figure, or there is nothing to draw.
    """
    check_destination("--figure", path, FORMATS)
    drawable = [comparison for comparison in comparisons if comparison.rows]
    if not drawable:
        raise ValueError("--figure: no run has a client that was scored; look at the problems in its rounds.jsonl")
    drawn = io.BytesIO()
    with drawing():
        draw_comparisons(drawable).savefig(drawn, format=path.suffix.lower()[1:], dpi=160, facecolor="white")
    swap_in(path, drawn.getvalue())
