"""``softbeam compare``: several runs side by side; and how runs are shown by the commands that end with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.terminal import JsonOption, RunsArgument, wide_console

if TYPE_CHECKING:
    from sim.report.figures import Run

# If there are more experiments than this, only the table of strategies is shown.
MAX_DETAILED = 3


def compare(
    runs: RunsArgument,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A short name for a row; once for each row, in the order in which the runs are given."),
    ] = None,
    select: Annotated[
        bool, typer.Option(help="Choose by validation, for each learner, among runs that differ in training only.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Draw Top-5 (or what a task of your own counts) against bytes into this file (.png, .pdf or .svg)."
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Write the table into this file (.csv: a row per run; .md or .tex). May be repeated."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write one self-contained HTML page into this file: who is ahead, by how much, for whom."),
    ] = None,
    page_figures: Annotated[
        bool, typer.Option("--page-figures", help="Write each figure of that page as PNG, SVG and PDF, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Mean and s.d. over seeds; several strategies side by side, with what each costs.

    Runs on other data or with other nodes stand in tables of their own.
    """
    from sim.report.comparison_page import ENDINGS as PAGE_ENDINGS
    from sim.report.comparison_page import write_comparison
    from sim.report.destinations import check_destination
    from sim.report.exports import ENDINGS, save_table
    from sim.report.page_figures import figures_folder
    from sim.report.selection import select_by_validation
    from sim.report.strategies import FORMATS, comparisons_of, save_comparisons
    from sim.report.summaries import Summary, load_summary, with_labels

    asked: list[tuple[str, Path, tuple[str, ...]]] = [("--out", path, ENDINGS) for path in out or []]
    asked += [] if figure is None else [("--figure", figure, FORMATS)]
    asked += [] if page is None else [("--page", page, PAGE_ENDINGS)]
    for option, path, endings in asked:
        check_destination(option, path, endings)
    if page_figures and page is None:
        raise ValueError("--page-figures: these are the figures of a page; name it with --page FILE.html")
    runs = find(runs) if select else once(find(runs))
    summaries: list[Summary] = []
    summaries += select_by_validation(runs) if select else [load_summary(folder) for folder in runs]
    for summary in summaries:
        if names := summary.get("unselected"):
            seed, which = summary["seed"], "; ".join(names)
            typer.echo(f"seed {seed}: nothing validated these, so they are those of the first run: {which}", err=True)
    if label:
        summaries = with_labels(summaries, label)
    comparisons = comparisons_of(summaries)
    written = [*(out or []), *([] if figure is None else [figure]), *([] if page is None else [page])]
    for path in out or []:
        save_table(comparisons, path)
    if figure is not None:
        save_comparisons(comparisons, figure)
    if page is not None:
        write_comparison(comparisons, page, with_files=page_figures)
        written += [figures_folder(page)] if page_figures else []
    show_summaries(summaries, as_json=as_json, always_compare=True)
    for path in written:
        typer.echo(path.resolve(), err=as_json)


def show_runs(runs: Sequence[Path], *, as_json: bool) -> None:
    """Print the tables of runs and what went wrong in them, or the same as JSON."""
    from sim.report.summaries import load_summary

    show_summaries([load_summary(folder) for folder in runs], as_json=as_json)


def show_summaries(summaries: Sequence[Mapping[str, Any]], *, as_json: bool, always_compare: bool = False) -> None:
    """Print the tables of runs and what went wrong in them, or the same as JSON.

    Args:
        summaries: as `sim.report.summaries.load_summary` reads them.
        as_json: whether to print JSON.
        always_compare: whether the JSON of a single run is that of a comparison, too.
    """
    from sim.report.beam_sets import set_sentences
    from sim.report.budgets import budget_lines
    from sim.report.captions import kept_sentences
    from sim.report.faults import fault_lines
    from sim.report.sites import sites_table
    from sim.report.strategies import comparisons_of, strategy_table
    from sim.report.summaries import by_task, group_by_settings
    from sim.report.tables import (
        baseline_lines,
        bytes_lines,
        measuring_lines,
        numbered,
        own_test_lines,
        results_table,
        teacher_lines,
    )
    from sim.report.tables import compare as compare_summaries

    if as_json:
        several = always_compare or len(summaries) > 1
        typer.echo(json.dumps(compare_summaries(summaries) if several else _as_written(summaries[0]), indent=1))
        return
    console = wide_console()
    num_groups = len(group_by_settings(summaries))
    if num_groups > 1:
        for comparison in comparisons_of(summaries):
            if comparison.rows:
                console.print(strategy_table(comparison))
    if num_groups > MAX_DETAILED:
        return
    for part in by_task(summaries):
        console.print(results_table(part))
    groups = numbered(summaries)
    for number, _, group in groups:
        if (by_site := sites_table(group, number=number)) is not None:
            console.print(by_site)
    kept = [f"{number}{line}" for number, _, group in groups for line in kept_sentences(_with_rounds(group))]
    for line in [
        *teacher_lines(summaries),
        *own_test_lines(summaries),
        *baseline_lines(summaries),
        *measuring_lines(summaries),
        *(f"{number}{line}" for number, _, group in groups for line in budget_lines(group[0])),
        *kept,
        *(f"{number}{line}" for number, _, group in groups for line in set_sentences(group)),
        *bytes_lines(summaries),
        *fault_lines(summaries),
    ]:
        console.print(line, highlight=False, markup=False)


def find(runs: Sequence[Path]) -> list[Path]:
    """The runs that are meant, those of a folder of runs one by one, and a line on stderr for what is left out."""
    from sim.report.run_folders import find_runs

    found, notes = find_runs(runs)
    for note in notes:
        typer.echo(note, err=True)
    return found


def once(runs: list[Path]) -> list[Path]:
    """The runs without those that are the same run once more, and a line on stderr for each that is left out."""
    from sim.report.summaries import without_repeats

    kept, notes = without_repeats(runs)
    for note in notes:
        typer.echo(note, err=True)
    return kept


def _as_written(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as its file has it, with its settings."""
    return {key: value for key, value in summary.items() if key not in ("folder", "data_digest")}


def _with_rounds(summaries: Sequence[Mapping[str, Any]]) -> list[Run]:
    """The runs with their rounds, of those that come from one folder."""
    from server.recorder import read_rounds
    from sim.report.figures import Run

    return [Run(summary, read_rounds(Path(summary["folder"]))) for summary in summaries if "folder" in summary]
