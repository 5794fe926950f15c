"""A comparison of runs as one HTML page that needs no other file: who is ahead, by how much, and what it costs.

Runs on other data or with other nodes have a section of their own, as in the tables of `sim.report.strategies`. The
page shares its look, its tables and its figures with the report of a run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from configs.files import as_bytes, write_durably
from server.recorder import ARMS
from sim.report.comparison_figures import TIES, draw_all_of
from sim.report.destinations import check_destination
from sim.report.faults import fault_lines
from sim.report.gains import MARKS
from sim.report.labels import differing_settings
from sim.report.page import PAGE, table, words
from sim.report.page_figures import figure_html, figure_svg, figures_folder, save_figures
from sim.report.pairs import Contender, contenders_of, paired_gain, verdict_of_pairs
from sim.report.strategies import Comparison, cells_of, has_gains, notes_of, seeds_in_words, site_tests
from sim.report.style import drawing
from sim.report.summaries import ARM_TITLES, Summary, arm_spread, arms_of, show, wording_of
from sim.report.verdict import Gain

ENDINGS = (".html", ".htm")
# With more rows than this, the table of all pairs would be larger than what it says.
MAX_PAIRED = 12
# With more settings than this, the table of those that differ is folded.
MAX_SETTINGS_OPEN = 8


def write_comparison(comparisons: Sequence[Comparison], path: Path, *, with_files: bool = False) -> None:
    """Write the page, and on request its figures into a folder of its own beside it.

    Args:
        comparisons: the runs apart by their data, as `sim.report.strategies.comparisons_of` gives them.
        path: the HTML file to write.
        with_files: whether each figure is also written as PNG, SVG and PDF.

    Raises:
        ValueError: the name is not one of a page, or no run has a client that was scored.
    """
    check_destination("--page", path, ENDINGS)
    if not any(one.rows for one in comparisons):
        raise ValueError("--page: no run has a client that was scored; look at the problems in its rounds.jsonl")
    drawn, sections = {}, []
    for number, comparison in enumerate(comparisons, start=1):
        contenders = contenders_of(comparison)
        with drawing():
            shown = draw_all_of(comparison, contenders) if contenders else {}
        prefix = f"data{number}-" if len(comparisons) > 1 else ""
        drawn.update({prefix + stem: one.figure for stem, one in shown.items()})
        figures = {
            stem: figure_html(figure_svg(one.figure, prefix + stem, alt=one.caption), prefix + stem, one.caption)
            for stem, one in shown.items()
        }
        sections.append(_section(comparison, contenders, figures, level=3 if len(comparisons) > 1 else 2))
    if with_files:
        save_figures(drawn, figures_folder(path))
    summaries = [summary for comparison in comparisons for summary in comparison.summaries]
    names = ", ".join(dict.fromkeys(str(summary["experiment"]) for summary in summaries))
    body = [
        f"<h1>Comparison: {escape(names)}</h1>",
        f'<p class="lead">{escape(_lead(comparisons))}</p>',
        *sections,
        "<h2>The words of this page</h2>" + "".join(_words(one) for one in _one_of_each_task(comparisons)),
        "<h2>How to make it again</h2>" + _again(summaries),
    ]
    page = PAGE.substitute(title=escape(f"{names} - Softbeam comparison"), body="\n".join(body))
    write_durably(path, as_bytes(page))


def _lead(comparisons: Sequence[Comparison]) -> str:
    runs = sum(len(one.summaries) for one in comparisons)
    rows = [row for one in comparisons for row in one.rows]
    apart = f" on {len(comparisons)} data sets, which are not compared with each other" if len(comparisons) > 1 else ""
    row_s, run_s = ("" if count == 1 else "s" for count in (len(rows), runs))
    said = seeds_in_words(rows)
    counts = f"{len(rows)} row{row_s} of {runs} run{run_s}{apart}"
    return f"{counts}; {said}. The runs of a row differ in nothing but seed, engine and controls."


def _section(comparison: Comparison, contenders: Sequence[Contender], figures: Mapping[str, str], *, level: int) -> str:
    """All that is said of runs on one data set."""
    begin = f"<h2>{escape(comparison.title)}</h2>" if comparison.title else ""
    if not contenders:
        return begin + "<p>None of these runs has a client that was scored.</p>" + _problems(comparison)
    verdict, is_won = verdict_of_pairs(contenders)
    box = f'<div class="verdict {"helped" if is_won else ""}"><p><strong>{escape(verdict)}</strong></p></div>'

    def titled(title: str, *parts: str) -> str:
        body = "".join(parts)
        return f"<h{level}>{title}</h{level}>{body}" if body else ""

    def drawn(*stems: str) -> str:
        return "".join(figures.get(stem, "") for stem in stems)

    return "\n".join(
        [
            begin + box + drawn("leader"),
            titled("What each costs and brings", _rows(contenders, comparison), drawn("bytes")),
            titled("Every pair", _pairs(contenders)),
            titled("For which clients", drawn("scores", "kinds")),
            titled("Against learning alone and offline KD", drawn("controls")),
            titled("By round", drawn("curves")),
            titled("All scores", _scores(contenders)),
            titled("What the rows differ in", _settings(contenders)),
            titled("Problems", _problems(comparison)),
        ]
    )


def _rows(contenders: Sequence[Contender], comparison: Comparison) -> str:
    rows, title = comparison.rows, comparison.wording.main_metric.title
    header = [("", ""), ("Run", ""), ("Seeds", ""), (title, "%"), ("Worst client", "%")]
    header += [("Gain", "mean, points"), ("Gain", "worst, points")] if has_gains(rows) else []
    header += [(name.capitalize(), "%") for name in site_tests(rows).values()]
    header += [("Teacher", "%"), ("Up", "bytes"), ("Down", "bytes"), ("Rounds", "s")]
    lines = [
        (
            False,
            [
                str(one.number),
                escape(("* " if one.row.is_front else "") + one.label),
                ", ".join(map(str, one.row.seeds)),
                *map(escape, cells_of(one.row, rows, comparison.wording)),
            ],
        )
        for one in contenders
    ]
    notes = " ".join(notes_of(rows, comparison.wording))
    return table(header, lines, numeric={0, *range(3, len(header))}) + f'<p class="note">{escape(notes)}</p>'


def _pairs(contenders: Sequence[Contender]) -> str:
    """Every row minus every other as a table; nothing where the figure against the first row says all of it."""
    if not 2 < len(contenders) <= MAX_PAIRED:
        return ""
    gains = {
        (one.number, other.number): paired_gain(one, other)
        for place, one in enumerate(contenders)
        for other in contenders[place + 1 :]
    }
    lines = []
    for one in contenders:
        cells = [
            ""
            if one is other
            else _pair_cell(gains.get((one.number, other.number)), gains.get((other.number, one.number)))
            for other in contenders
        ]
        lines.append((True, [f"{one.number} {escape(one.label)}", *cells]))
    header = [("Row minus column", "points"), *((str(one.number), "") for one in contenders)]
    title = wording_of(contenders[0].runs).main_metric.title
    note = (
        f"{title}, paired by seed and client, with the limits of the 95 % interval. {TIES} One of twenty intervals "
        "leaves out 0 by chance alone."
    )
    return table(header, lines, numeric=set(range(1, len(header)))) + f'<p class="note">{escape(note)}</p>'


def _pair_cell(gain: Gain | None, reverse: Gain | None) -> str:
    """A difference with its mark and limits, of which one of both directions is known."""
    if gain is None and reverse is None:
        return "-"
    if gain is not None:
        mean, low, high, sign = gain.mean, gain.low, gain.high, gain.sign
    else:
        assert reverse is not None
        mean, low, high, sign = -reverse.mean, -reverse.high, -reverse.low, -reverse.sign
    mark, _, kind = MARKS[sign]
    limits = f'<br><span class="unit">{_points(low)} to {_points(high)}</span>'
    return f'<span class="{kind}">{mark} {_points(mean)}</span>{limits}'


def _points(value: float) -> str:
    """A difference in points, of which nothing is never less than nothing."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _scores(contenders: Sequence[Contender]) -> str:
    """Every metric of every row and arm, mean over the clients that have all arms."""
    wording = wording_of(contenders[0].runs)
    lines = []
    for one in contenders:
        everybody = {str(client["id"]) for run in one.runs for client in run["clients"]}
        arms = [arm for arm in ARMS if arm in arms_of(one.runs)]
        for arm in arms:
            cells = [
                show(arm_spread(one.runs, arm, name, clients=everybody), name, wording) for name in wording.metrics
            ]
            who = [str(one.number), escape(one.label)] if arm == arms[0] else ["", ""]
            lines.append((arm == arms[0], [*who, ARM_TITLES[arm], *map(escape, cells)]))
    header = [("", ""), ("Run", ""), ("Training", "")]
    header += [(metric.title, metric.unit) for metric in wording.metrics.values()]
    note = (
        "On the common test set, mean over the clients that have a result for every training shown, and mean ± "
        "standard deviation over the seeds."
    )
    return table(header, lines, numeric={0, *range(3, len(header))}) + f'<p class="note">{escape(note)}</p>'


def _settings(contenders: Sequence[Contender]) -> str:
    """The settings in which the rows differ; nothing for one row."""
    found = differing_settings([one.runs[0] for one in contenders])
    if len(contenders) < 2 or not found:
        return ""
    header = [("Setting", ""), *((str(one.number), escape(one.label)) for one in contenders)]
    lines = [(False, [escape(key), *(escape(value) or "-" for value in values)]) for key, values in found.items()]
    shown = table(header, lines, numeric=set())
    if len(found) <= MAX_SETTINGS_OPEN:
        return shown
    return f"<details><summary>{len(found)} settings</summary>{shown}</details>"


def _problems(comparison: Comparison) -> str:
    lines = fault_lines(comparison.summaries)
    if not lines:
        return "<p>None: no answer was refused, missing or late, and no control failed.</p>"
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _one_of_each_task(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The first comparison of each task, whose words are explained."""
    found: dict[str, Comparison] = {}
    for one in comparisons:
        found.setdefault(one.wording.title, one)
    return list(found.values())


def _words(comparison: Comparison) -> str:
    parameters = [client.get("parameters", 0) for run in comparison.summaries for client in run["clients"]]
    teachers = [run["teacher"].get("parameters", 0) for run in comparison.summaries]
    return words(
        {arm: ARM_TITLES[arm] for arm in arms_of(comparison.summaries)},
        exchange="",
        teacher_is_larger=min(teachers) > max(parameters, default=0),
        wording=comparison.wording,
    )


def _again(summaries: Sequence[Summary]) -> str:
    """The command, with the folders of the runs."""
    folders = [str(Path(summary["folder"]).resolve()) for summary in summaries if "folder" in summary]
    if len(folders) < len(summaries):
        return "<p>Some rows were chosen by validation from several runs (<code>--select</code>).</p>"
    command = shlex.join(["softbeam", "compare", *folders, "--page", "compare.html"])
    return (
        "<p>On the machine that has the runs; each run says in its own report how it is made again:</p>"
        f'<pre tabindex="0">{escape(command)}</pre>'
    )
