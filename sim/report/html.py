"""The report of one run, or of several runs of one experiment: one HTML page that needs no other file.

The figures are inside the page as SVG, in its colours, and in files beside it as PNG and PDF for papers.
"""

from __future__ import annotations

import io
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.learning.baselines import BASELINES, SWEPT
from configs.files import as_bytes, swap_in, write_durably
from configs.recipes import RECIPES
from server.recorder import CONTROL_ARMS, read_rounds
from sim.data.inspection import label_skews, open_parts
from sim.report.captions import captions_of, kept_sentences, skew_sentence
from sim.report.faults import faults_section
from sim.report.figures import Run, draw_all
from sim.report.page import PAGE, page_svg, table, words
from sim.report.reproduction import reproduction_section
from sim.report.sites import sites_section
from sim.report.style import drawing
from sim.report.summaries import (
    ARM_TITLES,
    METRICS,
    Row,
    Summary,
    arm_spread,
    arms_of,
    baseline_spread,
    baselines_of,
    bytes_spread,
    federation_of,
    format_bytes,
    group_by_settings,
    is_better,
    load_summary,
    show,
    spread,
    table_rows,
    teacher_spread,
    without_repeats,
)
from sim.report.tables import bytes_lines
from sim.report.verdict import CLEAR_POINTS, gain_over, verdict_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

MAX_CLIENTS_OPEN = 16


def write_report(runs: Sequence[Path], path: Path) -> None:
    """Write the page, and its figures into a folder of its own beside it (:func:`figures_folder`).

    Args:
        runs: the folders of finished runs of one experiment; they may differ in seed and engine.
        path: the HTML file to write.

    Raises:
        ValueError: a run is unfinished or unreadable, or the runs belong to different experiments.
    """
    if not runs:
        raise ValueError("no run folders given; name at least one: softbeam report RUN...")
    runs, notes = without_repeats(runs)
    for note in notes:
        log.warning("%s", note)
    found = [Run(load_summary(run), read_rounds(run)) for run in runs]
    summaries = [run.summary for run in found]
    groups = group_by_settings(summaries)
    if len(groups) > 1:
        raise ValueError(
            f"a report covers the seeds of one experiment, got {'; '.join(groups)}: "
            "write one report for each, or use softbeam compare"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    captions = captions_of(found)
    folder = figures_folder(path)
    try:
        figures = {stem: _save(figure, folder, stem, alt=captions[stem]) for stem, figure in draw_all(found).items()}
    except OSError:
        with suppress(OSError):
            folder.rmdir()  # where not a single figure was written, no folder is left
        raise
    name = summaries[0]["experiment"]
    body = [
        f"<h1>{escape(name)}: federated beam tracking</h1>",
        _headline(found),
        "<h2>What was compared</h2>" + _words(summaries) + _skew(runs),
        "<h2>Results</h2>" + _results(summaries),
        *(_figure(figures, stem, captions) for stem in ("final-accuracy", "learning-curves", "horizons")),
        "<h2>What the communication cost</h2>" + _costs(summaries),
        _figure(figures, "bytes", captions),
        "<h2>Problems</h2>" + faults_section(found),
        "<h2>How to run it again</h2>" + reproduction_section(runs, summaries),
    ]
    page = PAGE.substitute(title=escape(f"{name} - Softbeam report"), body="\n".join(body))
    write_durably(path, as_bytes(page))


def figures_folder(page: Path) -> Path:
    """The folder of a page's figures: beside it, under its name, so that no other page writes there."""
    return page.with_name(f"{page.stem}-figures")


def write_run_report(run: Path) -> None:
    """Write the report of a run into its folder; a page that cannot be made costs the run nothing but the page."""
    try:
        write_report([run], run / "report.html")
    except Exception as error:
        # Whatever went wrong: the results are there, and what they cost is not to be lost over a picture.
        log.warning(
            "%s: the run is complete, but its report could not be made (%s: %s); softbeam report %s --out %s makes it",
            *(run, type(error).__name__, error, shlex.quote(str(run)), shlex.quote(str(run / "report.html"))),
        )


def _words(summaries: Sequence[Summary]) -> str:
    first = summaries[0]
    largest = max((client["parameters"] for client in first["clients"]), default=0)
    return words(
        {arm: ARM_TITLES[arm] for arm in arms_of(summaries)},
        exchange=_exchange_of(first["settings"]),
        teacher_is_larger=first["teacher"]["parameters"] > largest,
    )


def _skew(runs: Sequence[Path]) -> str:
    """How the clients' data differ, measured on the data of the runs as far as it is still there."""
    skews: list[float] = []
    for folder in dict.fromkeys(filter(None, map(federation_of, runs))):
        with suppress(ValueError, OSError):
            skews += label_skews(open_parts(folder)).values()
    sentence = skew_sentence(skews)
    return f"<p>{escape(sentence)}</p>" if sentence else ""


def _exchange_of(settings: Mapping[str, Any]) -> str:
    """What travels in a run, as `configs.recipes.Traits` names it; empty for a strategy of a user's own."""
    recipe = RECIPES.get(str(settings.get("strategy.name", "")))
    if recipe is None:
        return ""
    return "secure_sum" if settings.get("strategy.secure_sum") else recipe.traits.exchange


def _headline(runs: Sequence[Run]) -> str:
    summaries = [run.summary for run in runs]
    first = summaries[0]
    seeds = ", ".join(str(summary["seed"]) for summary in summaries)
    engines = ", ".join(dict.fromkeys(summary["engine"] for summary in summaries))
    seconds = spread(summary["seconds"]["total"] for summary in summaries)
    rounds = ", ".join(dict.fromkeys(str(summary["rounds"]) for summary in summaries))
    method = f"Strategy {first['settings'].get('strategy.name', 'not recorded')}"
    ran = (
        f"{method}, {len(first['clients'])} clients, {rounds} rounds, engine {engines}: "
        f"{len(summaries)} run{'s' if len(summaries) > 1 else ''}, seed {seeds}, "
        f"{seconds.mean if seconds else 0:.0f} s each."
    )
    verdict, is_worth_it = verdict_of(summaries)
    lines = [f"<strong>{verdict}</strong>", *_comparisons(summaries), *map(escape, kept_sentences(runs))]
    if len({summary["seed"] for summary in summaries}) == 1:
        lines.append("This is one seed only; another may move these numbers by some points. Use --seeds for several.")
    else:
        lines.append(
            f"A clear difference is at least {CLEAR_POINTS} points of Top-5, with an interval that leaves out 0."
        )
    kind = "helped" if is_worth_it else ""
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return f'<p class="lead">{escape(ran)}</p><div class="verdict {kind}">{paragraphs}</div>'


def _comparisons(summaries: Sequence[Summary]) -> list[str]:
    lines = []
    for control in CONTROL_ARMS:
        gain = gain_over(summaries, control)
        if gain is not None:
            who = "clients" if len(summaries) == 1 else "clients of all runs"
            mean, low, high = (f"{100 * value:+.1f}" for value in (gain.mean, gain.low, gain.high))
            lines.append(
                f"Top-5 against {ARM_TITLES[control]} at equal steps: {mean} points on average (95 % interval {low} to "
                f"{high}, paired by client); {gain.num_better} of {gain.num} {who} are better."
            )
    before, after = (show(teacher_spread(summaries, when, "top5"), "top5") for when in ("before", "after"))
    return [*lines, f"Teacher: Top-5 {before} % before, {after} % after the federation."]


def _results(summaries: Sequence[Summary]) -> str:
    over = f" and mean ± standard deviation over {len(summaries)} runs" if len(summaries) > 1 else ""
    bold = '<span class="better">Bold ▲</span>: the federated student is better than local only. '
    note = (
        f'<p class="note">On the common test set; mean over the horizons{over}. '
        f"{bold if 'local' in arms_of(summaries) else ''}"
        "A client without one of the results is left out of the means of its modality.</p>"
    )
    clients = table_rows(summaries, by_client=True)
    state = " open" if len(clients) <= MAX_CLIENTS_OPEN else ""
    return (
        note
        + "<h3>By modality</h3>"
        + _arm_table(summaries, table_rows(summaries, by_client=False), with_teacher=True)
        + f"<details{state}><summary>Every client ({len(clients)})</summary>"
        + _arm_table(summaries, clients, with_teacher=False)
        + "</details>"
        + sites_section(summaries)
        + _baseline_table(summaries)
    )


def _baseline_table(summaries: Sequence[Summary]) -> str:
    """What needs no training: one line for each baseline and modality that has it; nothing where no client has any."""
    lines = []
    for baseline in baselines_of(summaries):
        is_first = True
        for row in table_rows(summaries, by_client=False):
            found = [baseline_spread(summaries, baseline, name, clients=row.clients) for name in METRICS]
            if not any(found):
                continue
            who = [BASELINES[baseline], SWEPT[baseline]] if is_first else ["", ""]
            scores = (show(one, name) for one, name in zip(found, METRICS, strict=True))
            lines.append((is_first, [*map(escape, (*who, row.modality)), *scores]))
            is_first = False
    if not lines:
        return ""
    header = [("Rule", ""), ("Measured for a decision", ""), ("Modality", "")]
    header += [(metric.title, metric.unit) for metric in METRICS.values()]
    return (
        "<h3>Without learning</h3>"
        '<p class="note">What a client could do with its own labels alone and no network. A student measures nothing '
        "for a decision; where a rule needs the last beam, it has had to sweep all beams in the slot before.</p>"
        + table(header, lines, numeric=set(range(3, 3 + len(METRICS))))
    )


def _arm_table(summaries: Sequence[Summary], rows: Iterable[Row], *, with_teacher: bool) -> str:
    header = [("Clients", ""), ("Modality", ""), ("Parameters", ""), ("Training", "")]
    header += [(metric.title, metric.unit) for metric in METRICS.values()]
    lines, arms = [], arms_of(summaries)
    for row in rows:
        for arm in arms:
            cells = []
            for name in METRICS:
                found, control = (arm_spread(summaries, a, name, clients=row.clients) for a in (arm, "local"))
                is_gain = arm == "federated" and is_better(name, found, control)
                cells.append(f'<span class="better">▲ {show(found, name)}</span>' if is_gain else show(found, name))
            who = (row.title, row.modality, f"{row.parameters:,}") if arm == arms[0] else ("", "", "")
            lines.append((arm == arms[0], [*map(escape, who), ARM_TITLES[arm], *cells]))
    for when in ("before", "after") if with_teacher else ():
        cells = [show(teacher_spread(summaries, when, name), name) for name in METRICS]
        parameters = f"{summaries[0]['teacher']['parameters']:,}"
        who = ("teacher", "all", parameters) if when == "before" else ("", "", "")
        lines.append((when == "before", [*who, f"{when} federation", *cells]))
    return table(header, lines, numeric={2, *range(4, 4 + len(METRICS))})


def _costs(summaries: Sequence[Summary]) -> str:
    lines = []
    for row in table_rows(summaries, by_client=False):
        up, down = (bytes_spread(summaries, way, clients=row.clients) for way in ("uplink", "downlink"))
        shown = [format_bytes(found.mean) if found else "-" for found in (up, down)]
        lines.append((False, [escape(row.modality), *shown, format_bytes(4 * row.parameters)]))
    header = [("Modality", ""), ("Uplink", "per client and round"), ("Downlink", "per client and round")]
    costs = table([*header, ("Student's weights", "float32, once")], lines, numeric={1, 2, 3})
    sentence = bytes_lines(summaries)[-1]
    return (
        f"<p>{escape(sentence[0].upper() + sentence[1:])}.</p>{costs}"
        '<p class="note">Counted after encoding; 1 kB = 1,000 bytes.</p>'
    )


def _figure(figures: Mapping[str, str], stem: str, captions: Mapping[str, str]) -> str:
    if stem not in figures:
        return f'<p class="note">No round was recorded, so there is no figure of {stem.replace("-", " ")}.</p>'
    return f"<figure>{figures[stem]}<figcaption>{escape(captions[stem])}</figcaption></figure>"


def _save(figure: Figure, folder: Path, stem: str, *, alt: str) -> str:
    """Write ``<stem>.png`` and ``<stem>.pdf``; the same figure as SVG to stand in the page."""
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        # Laid out once; each save would do it again.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        files: tuple[tuple[str, dict[str, Any]], ...] = (("png", {}), ("pdf", {"CreationDate": None}))
        for suffix, metadata in files:
            drawn = io.BytesIO()
            figure.savefig(drawn, format=suffix, dpi=200, facecolor="white", metadata=metadata)
            swap_in(folder / f"{stem}.{suffix}", drawn.getvalue())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return page_svg(buffer.getvalue(), stem, alt)
