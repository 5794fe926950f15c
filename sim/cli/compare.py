"""``softbeam compare``: several runs side by side; and how runs are shown by the commands that end with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.terminal import JsonOption, RunsArgument, wide_console

# If there are more experiments than this, only the table of strategies is shown.
MAX_DETAILED = 3


def compare(
    runs: RunsArgument,
    select: Annotated[
        bool, typer.Option(help="Choose by validation, for each learner, among runs that differ in training only.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw Top-5 against bytes into this file (.png, .pdf or .svg).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Mean and s.d. over seeds; several strategies side by side, with what each costs."""
    runs = runs if select else once(runs)
    show_runs(runs, as_json=as_json, always_compare=True, select=select)
    if figure is not None:
        from sim.report.strategies import save_strategies, strategy_rows
        from sim.report.summaries import load_summary

        save_strategies(strategy_rows([load_summary(folder) for folder in runs]), figure)


def show_runs(runs: list[Path], *, as_json: bool, always_compare: bool = False, select: bool = False) -> None:
    """Print the tables of runs and what went wrong in them, or the same as JSON."""
    from sim.report.faults import fault_lines
    from sim.report.selection import select_by_validation
    from sim.report.strategies import strategy_rows, strategy_table
    from sim.report.summaries import group_by_settings, load_summary
    from sim.report.tables import bytes_lines, results_table, teacher_lines
    from sim.report.tables import compare as compare_summaries

    summaries = select_by_validation(runs) if select else [load_summary(folder) for folder in runs]
    if as_json:
        several = always_compare or len(summaries) > 1
        typer.echo(json.dumps(compare_summaries(summaries) if several else summaries[0], indent=1))
        return
    console = wide_console()
    num_groups = len(group_by_settings(summaries))
    if num_groups > 1 and (rows := strategy_rows(summaries)):
        console.print(strategy_table(rows))
    if num_groups > MAX_DETAILED:
        return
    console.print(results_table(summaries))
    for line in [*teacher_lines(summaries), *bytes_lines(summaries), *fault_lines(summaries)]:
        console.print(line, highlight=False, markup=False)


def once(runs: list[Path]) -> list[Path]:
    """The runs without those that are the same run once more, and a line on stderr for each that is left out."""
    from sim.report.summaries import without_repeats

    kept, notes = without_repeats(runs)
    for note in notes:
        typer.echo(note, err=True)
    return kept
