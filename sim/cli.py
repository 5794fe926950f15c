"""The command line: ``softbeam run``, ``resume``, ``report``, ``compare``, ``strategies`` and ``data``.

Heavy imports stay inside the commands, so that ``softbeam --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from configs.schema import Experiment

cli = typer.Typer(
    help="Federated distillation for sensing-assisted beam tracking.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_cli = typer.Typer(help="Make, inspect and check data.", no_args_is_help=True)
cli.add_typer(data_cli, name="data")

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of one in configs/.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: --set strategy.rounds=4. May be repeated.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run folders.")]


def main() -> None:
    """Run a command; every foreseen error is one line on stderr and exit code 1."""
    # One thread per process: on shared cores more threads only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        cli()
    except (ValueError, RuntimeError, OSError) as error:
        line = " ".join(f"error: {error}".splitlines())
        Console(stderr=True, soft_wrap=True).print(line, style="bold red", markup=False, highlight=False)
        sys.exit(1)


@cli.command()
def run(
    config: ConfigArgument,
    override: SetOption = None,
    seeds: Annotated[str, typer.Option(help="Run once per seed, such as 0,1,2; default: the config's.")] = "",
    engine: Annotated[str, typer.Option(help="ray or inline; default: the config's.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the run folders.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Run an experiment; the last line printed is the run folder."""
    from configs.loading import find_config, load_experiment
    from sim.experiments import run_experiment

    plugins = find_config(config).resolve().parent
    overrides = [*(override or []), *([f"engine.name={engine}"] if engine else [])]
    experiments = [load_experiment(config, [*overrides, *seed]) for seed in _seed_overrides(seeds)]
    folders = []
    for experiment in experiments:
        with _FollowedRun(experiment, quiet=as_json) as progress:
            folders.append(run_experiment(experiment, plugins=plugins, out=out, progress=progress))
    _show(folders, as_json=as_json)
    if not as_json:
        for folder in folders:
            typer.echo(folder)


@cli.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of a run that was stopped.")], as_json: JsonOption = False
) -> None:
    """Go on with a run from its last completed round, as if nothing had happened."""
    from sim.experiments import read_run, resume_experiment

    experiment, _ = read_run(folder)
    with _FollowedRun(experiment, quiet=as_json) as progress:
        resume_experiment(folder.resolve(), progress)
    _show([folder], as_json=as_json)
    if not as_json:
        typer.echo(folder.resolve())


@cli.command()
def report(
    runs: RunsArgument, out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html")
) -> None:
    """Write one self-contained HTML report over one or several runs."""
    from sim.report import write_report

    write_report(runs, out)
    typer.echo(out.resolve())


@cli.command()
def compare(
    runs: RunsArgument,
    select: Annotated[
        bool, typer.Option(help="Runs of one seed that differ in training only: choose per learner by validation.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Mean and s.d. over the seeds of runs of one experiment."""
    _show(runs, as_json=as_json, always_compare=True, select=select)


@cli.command()
def strategies(as_json: JsonOption = False) -> None:
    """List what a YAML may name: strategies, aggregators and codecs."""
    from rich.table import Table

    from strategies.registry import describe

    rows = describe()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("kind", "name", "what it is")
    for row in rows:
        table.add_row(row["kind"], row["name"], row["description"])
    _console().print(table)


@data_cli.command("make")
def data_make(config: ConfigArgument, override: SetOption = None, as_json: JsonOption = False) -> None:
    """Make the data of an experiment and print its folder; data that is there already is kept."""
    from configs.loading import load_experiment
    from sim.experiments import make_data

    experiment = load_experiment(config, override or [])
    with _FollowedRun(experiment, quiet=as_json) as progress:
        folder, seconds = make_data(experiment, progress)
    typer.echo(json.dumps({"folder": str(folder), "seconds": seconds}) if as_json else folder)


@data_cli.command("inspect")
def data_inspect(
    folder: Annotated[Path, typer.Argument(help="A federation, a recording or a DeepSense 6G scenario.")],
    as_json: JsonOption = False,
) -> None:
    """Say what is in a folder of data: modalities, passes, frames, labels, problems."""
    from rich.table import Table

    from sim.inspection import inspect_folder

    rows = inspect_folder(folder)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("part", "modalities", "passes", "frames", "windows", "labelled", "best / 2nd dB", "problems")
    for row in rows:
        gap = row["best_to_second_db"]
        shown = [row["part"], ", ".join(row["modalities"]), row["passes"], row["frames"], row["windows"]]
        shown += ["yes" if row["labelled"] else "no", "" if gap is None else f"{gap:.2f}", len(row["problems"])]
        table.add_row(*(str(value) for value in shown))
    _console().print(table)
    for row in rows:
        for problem in row["problems"][:10]:
            typer.echo(f"{row['part']}: {problem}")


@data_cli.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder of a DeepSense 6G scenario with GPS and power.")],
    split: Annotated[str, typer.Option(help="random (the leaderboard's, leaks between frames) or pass.")] = "random",
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1)] = 5,
    as_json: JsonOption = False,
) -> None:
    """Predict the current beam from GPS alone with the leaderboard's protocol: do reader, labels and metrics agree?"""
    from sim.inspection import check_scenario

    result = check_scenario(folder, split=split, num_seeds=seeds)
    if as_json:
        typer.echo(json.dumps(result, indent=1))
        return
    for name, entry in result["metrics"].items():
        typer.echo(f"{name:14s} {entry['mean']:7.3f} +- {entry['sd']:.3f}")


class _FollowedRun:
    """Rich progress with the time left, on stderr; nothing when quiet."""

    def __init__(self, experiment: Experiment, *, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeLeft())
        self._bars = Progress(*columns, console=Console(stderr=True), disable=quiet)
        self._tasks: dict[str, Any] = {}
        self._title = f"{experiment.name}, seed {experiment.seed}"

    def __enter__(self) -> _FollowedRun:
        return self

    def __exit__(self, *details: object) -> None:
        if self._tasks:  # bars that never began would still print a blank line
            self._bars.stop()

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._bars.start()
            self._tasks[phase] = self._bars.add_task(f"{self._title}: {phase}", total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)


def _show(runs: list[Path], *, as_json: bool, always_compare: bool = False, select: bool = False) -> None:
    from sim.selection import select_by_validation
    from sim.summaries import load_summary
    from sim.tables import bytes_lines, results_table, teacher_lines
    from sim.tables import compare as compare_summaries

    summaries = select_by_validation(runs) if select else [load_summary(folder) for folder in runs]
    if as_json:
        several = always_compare or len(summaries) > 1
        typer.echo(json.dumps(compare_summaries(summaries) if several else summaries[0], indent=1))
        return
    console = _console()
    console.print(results_table(summaries))
    for line in [*teacher_lines(summaries), *bytes_lines(summaries)]:
        console.print(line, highlight=False)


def _console() -> Console:
    """The terminal as wide as it is; a file or a pipe as wide as the tables need."""
    return Console(width=None if sys.stdout.isatty() else 140)


def _seed_overrides(seeds: str) -> list[list[str]]:
    try:
        return [[f"seed={int(seed)}"] for seed in seeds.split(",")] if seeds else [[]]
    except ValueError:
        raise ValueError(f"--seeds {seeds}: expected numbers with commas between them, such as 0,1,2") from None
