"""The command line; ``softbeam --help`` lists its commands.

Heavy imports stay inside the commands, so that help answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sim.cli.bench import bench_cli
from sim.cli.compare import compare, find, once, show_runs
from sim.cli.data import data_cli
from sim.cli.deploy import deploy_cli
from sim.cli.study import study
from sim.cli.terminal import ConfigArgument, JsonOption, ProgressBar, RunsArgument, SetOption, title_of, wide_console

cli = typer.Typer(
    help="Federated distillation for sensing-assisted beam tracking.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.add_typer(data_cli, name="data")
cli.add_typer(bench_cli, name="bench")
cli.add_typer(deploy_cli, name="deploy")
cli.command()(study)


def main() -> None:
    """Run a command; every expected error becomes one line on stderr and exit code 1."""
    # One thread per process: on shared cores more threads only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        cli()
    except (ValueError, RuntimeError, OSError) as error:
        line = " ".join(f"error: {error}".splitlines())
        Console(stderr=True, soft_wrap=True, emoji=False).print(line, style="bold red", markup=False, highlight=False)
        sys.exit(1)


@cli.command()
def run(
    config: ConfigArgument,
    override: SetOption = None,
    seeds: Annotated[str, typer.Option(help="Run once per seed, such as 0,1,2; default: the config's.")] = "",
    engine: Annotated[str, typer.Option(help="ray or inline; default: the config's.")] = "",
    strategy: Annotated[
        str, typer.Option("--strategies", help="Run once per strategy: names with commas between them, or all.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run folders; default: runs, or with --on the server's own.")
    ] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Skip the runs that have finished in that folder; resume the others.")
    ] = False,
    on: Annotated[
        Path | None, typer.Option(help="Run it on the nodes of this deployment (see softbeam deploy).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment, or several; the last lines that it prints are the run folders."""
    from configs.loading import load_experiment
    from configs.yaml_files import find_config, read_config
    from sim.experiments import continue_experiment, run_experiment

    plugins = read_config(find_config(config)).plugin_folders
    overrides = [*(override or []), *([f"engine.name={engine}"] if engine else [])]
    if on is not None:
        from sim.deploy.follow import overrides_of, run_on

        if go_on:
            raise ValueError("--continue: it cannot be used with --on; softbeam resume RUN continues a stopped run")
        overrides += [*overrides_of(on), "engine.name=deployment"]
    experiments = [
        load_experiment(config, [*overrides, *seed, *one])
        for seed in _seed_overrides(seeds)
        for one in _strategy_overrides(strategy)
    ]
    folders = []
    for experiment in experiments:
        with ProgressBar(title_of(experiment), quiet=as_json) as progress:
            if on is not None:
                tell = _telling(title_of(experiment), quiet=as_json)
                folders.append(run_on(on, experiment, plugins=plugins, out=out, progress=progress, tell=tell))
                continue
            start = continue_experiment if go_on else run_experiment
            folders.append(start(experiment, plugins=plugins, out=out or Path("runs"), progress=progress))
    show_runs(folders, as_json=as_json)
    if not as_json:
        for folder in folders:
            typer.echo(folder)
    _refuse_fruitless(folders)


def _telling(title: str, *, quiet: bool) -> Callable[[str], None]:
    """What prints the lines of a run on real machines to a file or a pipe, where its bars are not seen to move."""

    def tell(line: str) -> None:
        if not quiet and not sys.stderr.isatty():
            typer.echo(f"{title}: {line}", err=True)

    return tell


@cli.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of a run that was stopped.")],
    on: Annotated[Path | None, typer.Option(help="Folder of the deployment, if it has moved since.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run from its last completed round, as if nothing had happened."""
    if (folder / "summary.json").is_file():
        typer.echo((folder / "summary.json").read_text() if as_json else f"{folder.resolve()}: already finished")
        return
    from sim.experiments import read_run, resume_experiment

    experiment, note = read_run(folder)
    with ProgressBar(title_of(experiment), quiet=as_json) as progress:
        if on is not None or "deployment" in note:
            from sim.deploy.follow import resume_on

            tell = _telling(title_of(experiment), quiet=as_json)
            resume_on(on or Path(note["deployment"]), folder, progress, tell=tell)
        else:
            resume_experiment(folder.resolve(), progress)
    show_runs([folder], as_json=as_json)
    if not as_json:
        typer.echo(folder.resolve())
    _refuse_fruitless([folder])


@cli.command()
def report(
    runs: RunsArgument, out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html")
) -> None:
    """Write one self-contained HTML report over one or several runs."""
    from sim.report.html import figures_folder, write_report

    runs = once(find(runs))
    write_report(runs, out)
    typer.echo(out.resolve())
    typer.echo(f"figures: {figures_folder(out).resolve()}")


cli.command()(compare)


@cli.command()
def strategies(as_json: JsonOption = False) -> None:
    """List the strategies, aggregators and codecs that a YAML may name."""
    from rich.table import Table

    from strategies.registry import describe

    rows = describe()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("kind", "name", "what it is")
    for row in rows:
        table.add_row(row["kind"], row["name"], row["description"])
    wide_console().print(table)


def _seed_overrides(seeds: str) -> list[list[str]]:
    try:
        numbers = [int(seed) for seed in seeds.split(",")] if seeds else []
    except ValueError:
        raise ValueError(f"--seeds {seeds}: expected numbers with commas between them, such as 0,1,2") from None
    if twice := [seed for seed, times in Counter(numbers).items() if times > 1]:
        raise ValueError(
            f"--seeds {seeds}: seed {twice[0]} stands there more than once; the same seed gives the same run, "
            "which says nothing about the spread: name different seeds"
        )
    return [[f"seed={seed}"] for seed in numbers] or [[]]


def _refuse_fruitless(folders: list[Path]) -> None:
    """Let a command fail where no client of a run ever counted: whatever the table shows is then no result.

    Raises:
        RuntimeError: in every round of a run every client failed; the text has the reason of one.
    """
    from server.recorder import faults_of, read_rounds

    for folder in folders:
        rounds = read_rounds(folder)
        entries = [entry for line in rounds for entry in line["clients"].values()]
        if entries and all(entry["problem"] for entry in entries):
            reason = faults_of(rounds)[0]["reason"]
            raise RuntimeError(f"{folder}: no client counted in any of {len(rounds)} rounds; the last reason: {reason}")


def _strategy_overrides(names: str) -> list[list[str]]:
    """The overrides of each strategy; the controls, which are the same for all, are trained once, with ``local``."""
    from configs.recipes import RECIPES

    if not names:
        return [[]]
    wanted = list(RECIPES) if names == "all" else [name.strip() for name in names.split(",")]
    with_controls = "local" if "local" in wanted else wanted[0]
    return [[f"strategy.name={name}", f"controls={'true' if name == with_controls else 'false'}"] for name in wanted]


if __name__ == "__main__":
    main()
