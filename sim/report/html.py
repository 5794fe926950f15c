"""The report of one run, or of several runs of one experiment: one HTML page that needs no other file.

The figures are inside the page as SVG, in its colours, and on request in files beside it as PNG, SVG and PDF for
papers, which take longer to draw than the whole page.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import yaml

from clients.learning.baselines import BASELINES, SWEPT
from configs.files import EXPERIMENT, as_bytes, write_durably
from configs.placement import plugin_folders
from configs.recipes import RECIPES
from server.recorder import CONTROL_ARMS, read_rounds
from sim.data.inspection import label_skews, open_parts
from sim.report.beam_sets import sets_section
from sim.report.budgets import budgets_section
from sim.report.captions import captions_of, kept_sentences, skew_sentence
from sim.report.evidence import EVIDENCE_STEMS, Evidence, gather_evidence
from sim.report.faults import faults_section
from sim.report.figures import Run, draw_all
from sim.report.gains import MARKS, PassScores, pass_gain
from sim.report.page import PAGE, table, words
from sim.report.page_figures import figure_html, figure_svg, figures_folder, save_figures
from sim.report.profile import profile_section
from sim.report.reproduction import reproduction_section
from sim.report.sites import sites_section
from sim.report.summaries import (
    ARM_TITLES,
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
    load_summary,
    own_test_spread,
    show,
    spread,
    table_rows,
    teacher_spread,
    without_repeats,
    wording_of,
)
from sim.report.tables import bytes_lines, measuring_lines
from sim.report.verdict import CLEAR_POINTS, Gain, gain_over, verdict_of

log = logging.getLogger(__name__)

MAX_CLIENTS_OPEN = 16


def write_report(runs: Sequence[Path], path: Path, *, with_files: bool = False) -> None:
    """Write the page, and on request its figures into a folder of its own beside it (:func:`figures_folder`).

    Args:
        runs: the folders of finished runs of one experiment; they may differ in seed and engine.
        path: the HTML file to write.
        with_files: whether each figure is also written as PNG, SVG and PDF.

    Raises:
        ValueError: a run is unfinished or unreadable, or the runs belong to different experiments.
    """
    if not runs:
        raise ValueError("no run folders given; name at least one: softbeam report RUN...")
    for run in runs:
        _know_sensors(run)
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
    evidence = gather_evidence(runs, summaries)
    captions = captions_of(found) | evidence.captions
    drawn = draw_all(found) | evidence.figures
    if with_files:
        save_figures(drawn, figures_folder(path))
    figures = {stem: figure_svg(figure, stem, alt=captions[stem]) for stem, figure in drawn.items()}
    name = summaries[0]["experiment"]

    # What else is missing was not recorded.
    silent = {"score-by-bytes": "Nothing was sent, so there is no figure of scores against bytes."}
    missing = {**(silent if any(run.rounds for run in found) else {}), **evidence.missing}
    of_beams = wording_of(summaries).is_of_beams

    def shown(*stems: str) -> str:
        # A task without beams has none of the figures about them, and no word on why they are missing.
        wanted = [stem for stem in stems if of_beams or stem not in (*EVIDENCE_STEMS, "horizons")]
        return "".join(_figure(figures, stem, captions, missing) for stem in wanted)

    body = [
        f"<h1>{escape(name)}: federated {escape(wording_of(summaries).title)}</h1>",
        _headline(found) + shown("gains"),
        "<h2>What was compared</h2>" + _words(summaries) + budgets_section(summaries[0]),
        "<h2>What the sensors saw, and what was predicted</h2>" + _viewer(evidence) + shown("map") if of_beams else "",
        "<h2>Who holds what</h2>" + _skew(runs, summaries) + shown("beams-held"),
        "<h2>Results</h2>" + _results(summaries, evidence.passes),
        shown("final-accuracy", "learning-curves", "gain-by-horizon", "horizons"),
        "<h2>Who gives what to the ensemble</h2>" + shown("leave-one-out") if of_beams else "",
        "<h2>Which errors were made</h2>" + shown("confusion", "errors", "reliability") if of_beams else "",
        f"<h2>Which beams to sweep</h2>{sets}" if (sets := sets_section(summaries)) else "",
        "<h2>What the communication cost</h2>" + _costs(summaries) + shown("score-by-bytes", "bytes"),
        "<h2>Trust and problems</h2>" + shown("answers") + faults_section(found),
        "<h2>Where the time went</h2>" + profile_section(found),
        "<h2>How to run it again</h2>" + reproduction_section(runs, summaries),
    ]
    page = PAGE.substitute(title=escape(f"{name} - Softbeam report"), body="\n".join(body))
    write_durably(path, as_bytes(page))


def _know_sensors(run: Path) -> None:
    """Add the sensors of a user's own that a run has; one that is gone by now is drawn without its colour."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        sensors = yaml.safe_load((run / EXPERIMENT).read_text())["data"]["sensors"]
        if not sensors:
            return
        # Their encoders need PyTorch, which takes seconds to load.
        from clients.models.own_sensors import known_sensors

        known_sensors(sensors, plugin_folders(json.loads((run / "placement.json").read_text())["plugins"]))


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
        wording=wording_of(summaries),
    )


def _skew(runs: Sequence[Path], summaries: Sequence[Summary]) -> str:
    """How the clients' data differ, measured on the data of the runs as far as it is still there."""
    skews: list[float] = []
    for folder in dict.fromkeys(filter(None, map(federation_of, runs))):
        with suppress(ValueError, OSError):
            skews += label_skews(open_parts(folder)).values()
    sentence = skew_sentence(skews, wording_of(summaries))
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
    title = wording_of(summaries).main_metric.title
    lines = [f"<strong>{verdict}</strong>", *_comparisons(summaries), *map(escape, kept_sentences(runs))]
    if len({summary["seed"] for summary in summaries}) == 1:
        lines.append("This is one seed only; another may move these numbers by some points. Use --seeds for several.")
    else:
        lines.append(
            f"A clear difference is at least {CLEAR_POINTS} points of {title}, with an interval that leaves out 0."
        )
    kind = "helped" if is_worth_it else ""
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return f'<p class="lead">{escape(ran)}</p><div class="verdict {kind}">{paragraphs}</div>'


def _comparisons(summaries: Sequence[Summary]) -> list[str]:
    lines, wording = [], wording_of(summaries)
    title = wording.main_metric.title
    for control in CONTROL_ARMS:
        gain = gain_over(summaries, control)
        if gain is not None:
            who = "clients" if len(summaries) == 1 else "clients of all runs"
            mean, low, high = (f"{100 * value:+.1f}" for value in (gain.mean, gain.low, gain.high))
            lines.append(
                f"{title} against {ARM_TITLES[control]} at equal steps: {mean} points on average "
                f"(95 % interval {low} to {high}, paired by client); {gain.num_better} of {gain.num} {who} are better."
            )
    before, after = (
        show(teacher_spread(summaries, when, wording.main), wording.main, wording) for when in ("before", "after")
    )
    return [*lines, f"Teacher: {title} {before} % before, {after} % after the federation."]


def _viewer(evidence: Evidence) -> str:
    """The passes of the test set, or why there are none."""
    if not evidence.viewer:
        return f'<p class="note">{escape(evidence.missing.get("viewer", ""))}</p>'
    return f"<p>{escape(evidence.captions['viewer'])}</p>{evidence.viewer}"


def _results(summaries: Sequence[Summary], passes: Sequence[PassScores]) -> str:
    over = f" and mean ± standard deviation over {len(summaries)} runs" if len(summaries) > 1 else ""
    wording = wording_of(summaries)
    mean = "; mean over the horizons" if wording.is_of_beams else ""
    marks = (
        '<span class="better">▲</span> and <span class="worse">▼</span>: the federated student is clearly better or '
        f"worse than local only in {escape(wording.main_metric.title)}, paired by "
        f"{'test pass' if wording.is_of_beams else 'client'}; ● is a tie. "
    )
    has_marks = any(_gain(summaries, passes, row) for row in table_rows(summaries, by_client=False))
    note = (
        f'<p class="note">On the common test set{mean}{over}. '
        f"{marks if has_marks else ''}"
        "A client without one of the results is left out of the means of its modality.</p>"
    )
    clients = table_rows(summaries, by_client=True)
    state = " open" if len(clients) <= MAX_CLIENTS_OPEN else ""
    return (
        note
        + "<h3>By modality</h3>"
        + _arm_table(summaries, passes, table_rows(summaries, by_client=False), with_teacher=True)
        + f"<details{state}><summary>Every client ({len(clients)})</summary>"
        + _arm_table(summaries, passes, clients, with_teacher=False)
        + "</details>"
        + _own_test_table(summaries)
        + sites_section(summaries)
        + _baseline_table(summaries)
    )


def _own_test_table(summaries: Sequence[Summary]) -> str:
    """The scores of the clients of each modality on their own tests; nothing where no client has one."""
    lines, wording = [], wording_of(summaries)
    for row in table_rows(summaries, by_client=False):
        for place, arm in enumerate(arms := arms_of(summaries)):
            found = {name: own_test_spread(summaries, arm, name, clients=row.clients) for name in wording.metrics}
            if any(found.values()):
                who = [escape(row.title), escape(row.kind)] if place == 0 else ["", ""]
                shown = (show(one, name, wording) for name, one in found.items())
                lines.append((arm == arms[0], [*who, ARM_TITLES[arm], *shown]))
    if not lines:
        return ""
    header = [("Clients", ""), ("Modality", ""), ("Training", "")]
    header += [(metric.title, metric.unit) for metric in wording.metrics.values()]
    return (
        "<h3>On each client's own test</h3>"
        '<p class="note">What a client has set aside of its own data, which is like what it learned from: the '
        "personalised score. Each client counts once.</p>"
        + table(header, lines, numeric=set(range(3, 3 + len(wording.metrics))))
    )


def _baseline_table(summaries: Sequence[Summary]) -> str:
    """What needs no training: one line for each baseline and modality that has it; nothing where no client has any."""
    lines, metrics = [], wording_of(summaries).metrics
    for baseline in baselines_of(summaries):
        is_first = True
        for row in table_rows(summaries, by_client=False):
            found = [baseline_spread(summaries, baseline, name, clients=row.clients) for name in metrics]
            if not any(found):
                continue
            who = [BASELINES[baseline], SWEPT[baseline]] if is_first else ["", ""]
            scores = (show(one, name) for one, name in zip(found, metrics, strict=True))
            lines.append((is_first, [*map(escape, (*who, row.kind)), *scores]))
            is_first = False
    if not lines:
        return ""
    said = measuring_lines(summaries)
    measured = f"A student measures nothing for a decision{', but ' if said else ''}{' and '.join(said)}."
    header = [("Rule", ""), ("Measured for a decision", ""), ("Modality", "")]
    header += [(metric.title, metric.unit) for metric in metrics.values()]
    return (
        "<h3>Without learning</h3>"
        f'<p class="note">What a client could do with its own labels alone and no network. {measured} '
        "Where a rule needs the last beam, it has had to sweep all beams in the slot before.</p>"
        + table(header, lines, numeric=set(range(3, 3 + len(metrics))))
    )


def _gain(summaries: Sequence[Summary], passes: Sequence[PassScores], row: Row) -> Gain | None:
    """The gain of some clients over learning alone: paired by test pass, or by client in a task without such scores."""
    if wording_of(summaries).is_of_beams:
        return pass_gain(passes, "local", row.clients)
    return gain_over(summaries, "local", clients=row.clients)


def _arm_table(
    summaries: Sequence[Summary], passes: Sequence[PassScores], rows: Iterable[Row], *, with_teacher: bool
) -> str:
    header = [("Clients", ""), ("Modality", ""), ("Parameters", ""), ("Training", "")]
    wording = wording_of(summaries)
    header += [(metric.title, metric.unit) for metric in wording.metrics.values()]
    lines, arms = [], arms_of(summaries)
    for row in rows:
        for arm in arms:
            cells = [
                show(arm_spread(summaries, arm, name, clients=row.clients), name, wording) for name in wording.metrics
            ]
            gain = _gain(summaries, passes, row) if arm == "federated" else None
            if gain is not None:
                mark, _, kind = MARKS[gain.sign]
                place = list(wording.metrics).index(wording.main)
                cells[place] = f'<span class="{kind}">{mark} {cells[place]}</span>'
            who = (row.title, row.modality, f"{row.parameters:,}") if arm == arms[0] else ("", "", "")
            lines.append((arm == arms[0], [*map(escape, who), ARM_TITLES[arm], *cells]))
    for when in ("before", "after") if with_teacher else ():
        cells = [show(teacher_spread(summaries, when, name), name, wording) for name in wording.metrics]
        parameters = f"{summaries[0]['teacher']['parameters']:,}"
        who = ("teacher", "all", parameters) if when == "before" else ("", "", "")
        lines.append((when == "before", [*who, f"{when} federation", *cells]))
    return table(header, lines, numeric={2, *range(4, 4 + len(wording.metrics))})


def _costs(summaries: Sequence[Summary]) -> str:
    lines = []
    for row in table_rows(summaries, by_client=False):
        up, down = (bytes_spread(summaries, way, clients=row.clients) for way in ("uplink", "downlink"))
        shown = [format_bytes(found.mean) if found else "-" for found in (up, down)]
        lines.append((False, [escape(row.kind), *shown, format_bytes(4 * row.parameters)]))
    header = [("Modality", ""), ("Uplink", "per client and round"), ("Downlink", "per client and round")]
    costs = table([*header, ("Student's weights", "float32, once")], lines, numeric={1, 2, 3})
    sentence = bytes_lines(summaries)[-1]
    return (
        f"<p>{escape(sentence[0].upper() + sentence[1:])}.</p>{costs}"
        '<p class="note">Counted after encoding; 1 kB = 1,000 bytes.</p>'
    )


def _figure(figures: Mapping[str, str], stem: str, captions: Mapping[str, str], missing: Mapping[str, str]) -> str:
    if stem in figures:
        return figure_html(figures[stem], stem, captions[stem])
    why = missing.get(stem, f"No round was recorded, so there is no figure of {stem.replace('-', ' ')}.")
    return f'<p class="note">{escape(why)}</p>'
