"""The command line; ``softbeam --help`` lists its commands.

Heavy imports stay inside the commands, so that help answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tomllib
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from rich.console import Console

from configs.advice import explained
from sim.cli.bench import bench_cli
from sim.cli.command_tree import meant, run_command, speaks_json
from sim.cli.compare import compare, find, once, show_runs
from sim.cli.data import data_cli
from sim.cli.deploy import deploy_cli
from sim.cli.forget import forget
from sim.cli.gallery import gallery
from sim.cli.interruption import WAY_ON, interruptible
from sim.cli.store import store_cli
from sim.cli.study import study
from sim.cli.sweep import sweep
from sim.cli.take_home import export, models, predict
from sim.cli.terminal import (
    ConfigArgument,
    JsonOption,
    ProgressBar,
    RunsArgument,
    SetOption,
    complete_engine,
    complete_strategies,
    parse_seeds,
    title_of,
    wide_console,
)
from sim.cli.track import track
from sim.cli.watch import watch

if TYPE_CHECKING:
    from configs.schema import Experiment

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.add_typer(data_cli, name="data")
cli.add_typer(bench_cli, name="bench")
cli.add_typer(deploy_cli, name="deploy")
cli.add_typer(store_cli, name="store")
cli.command()(study)


def main() -> None:
    """Run a command; every expected error becomes one line on stderr and exit code 1."""
    # One thread per process: on shared cores more threads only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command, words = run_command(cli), sys.argv[1:]
    as_json = speaks_json(command, words)
    if told := _no_place_to_work():
        sys.exit(_fail(told, as_json=as_json))
    with interruptible() as interrupts:
        try:
            code = _run(command)
        except click.UsageError as error:
            code = _refuse(meant(error), error, as_json=as_json)
        except click.Abort:  # somebody said no to a question
            code = _fail("nothing was done", as_json=as_json)
        except FruitlessRunError as error:
            code = _fail(str(error), as_json=False)
        except (ValueError, RuntimeError, OSError) as error:
            text = explained(error) if isinstance(error, OSError) else str(error)
            code = _fail(_told_by_own_code(error) or text, as_json=as_json)
        except Exception as error:
            code = _fail_unexpectedly(error, as_json=as_json)
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT
            interrupts.number = interrupts.number or signal.SIGINT
        if interrupts.number is not None:
            if as_json:
                _print_error(WAY_ON.line(interrupts.number), 128 + interrupts.number)
            interrupts.end()
    sys.exit(code)


def _fail_unexpectedly(error: Exception, *, as_json: bool) -> int:
    """Say in one line what a user's own class raised; any other error that nobody expects keeps its stack.

    Raises:
        Exception: the error, if it is ours.
    """
    if told := _told_by_own_code(error):
        return _fail(told, as_json=as_json)
    if as_json:
        _print_error(f"{type(error).__name__}: {error}", 1)
    raise error


def _told_by_own_code(error: Exception) -> str:
    """What a user's own class raised, with the place in it; empty where our code raised, or has told the place."""
    from strategies.own_code import OwnCodeError, place_in_own_code

    place = "" if isinstance(error, OwnCodeError) else place_in_own_code(error)
    return f"{type(error).__name__}: {error} {place}" if place else ""


def _no_place_to_work() -> str:
    """What is wrong with the system or the current folder, at which libraries would fail in ways of their own."""
    try:
        import fcntl  # noqa: F401

        os.getcwd()
    except ImportError:
        return "Softbeam runs on Linux and macOS; on Windows, run it in WSL (wsl --install)"
    except FileNotFoundError:
        return "the current folder was removed; go to one that exists"
    return ""


def _run(command: click.Command) -> int:
    """Run a command; the exit code that it asks for.

    Raises:
        Exception: whatever the command raises.
    """
    result = command.main(prog_name="softbeam", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _refuse(message: str, error: click.UsageError, *, as_json: bool) -> int:
    """Say what is wrong with the words of a command line."""
    if as_json:
        _print_error(message, error.exit_code)
    if error.ctx is not None:
        typer.echo(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n", err=True)
    typer.echo(f"Error: {message}", err=True)
    return error.exit_code


def _fail(message: str, *, as_json: bool) -> int:
    """Say why a command failed, in one line."""
    if as_json:
        _print_error(message, 1)
    line = " ".join(f"error: {message}".splitlines())
    Console(stderr=True, soft_wrap=True, emoji=False).print(line, style="bold red", markup=False, highlight=False)
    return 1


def _print_error(message: str, code: int) -> None:
    typer.echo(json.dumps({"error": " ".join(message.splitlines()), "exit_code": code}, indent=1))


class FruitlessRunError(RuntimeError):
    """No client of a run ever counted; its results have been shown all the same."""


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from configs.loading import commit_of_source
        from configs.yaml_files import checkout_folder

        checkout, commit = checkout_folder(), commit_of_source()
        if checkout is None:
            number = version("softbeam")
        else:
            # The metadata of an installed checkout may be older than the checkout.
            number = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"]
        typer.echo(f"softbeam {number}" + (f" (commit {commit[:12]})" if commit else ""))
        raise typer.Exit


@cli.callback()
def begin(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Federated distillation for sensing-assisted beam tracking."""


@cli.command()
def run(
    config: ConfigArgument,
    override: SetOption = None,
    seeds: Annotated[str, typer.Option(help="Run once per seed, such as 0,1,2; default: the config's.")] = "",
    engine: Annotated[
        str, typer.Option(help="ray or inline; default: the config's.", autocompletion=complete_engine)
    ] = "",
    strategy: Annotated[
        str,
        typer.Option(
            "--strategies",
            help="Run once per strategy: names with commas between them, or all.",
            autocompletion=complete_strategies,
        ),
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the whole experiment and what it costs; run nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment, or several; the last lines that it prints are the run folders."""
    from configs.loading import left_out, load_experiment
    from configs.yaml_files import find_config, read_config
    from sim.experiments import continue_experiment, run_experiment

    file = read_config(find_config(config))
    plugins = file.plugin_folders
    overrides = [*(override or []), *([f"engine.name={engine}"] if engine else [])]
    if on is not None:
        from sim.deploy.follow import overrides_of, run_on

        if go_on:
            raise ValueError("--continue: it cannot be used with --on; softbeam resume RUN continues a stopped run")
        overrides += [*overrides_of(on), "engine.name=deployment"]
    names = _names_of_strategies(strategy)
    untold = {name: left_out(file, name) for name in names}
    trainer = _who_trains_controls(untold) if strategy else None
    experiments = [
        load_experiment(config, [*overrides, *seed, *_controls(name, trainer)], strategy=name)
        for seed in [[f"seed={seed}"] for seed in parse_seeds(seeds)] or [[]]
        for name in names
    ]
    for name, reasons in untold.items():
        for reason in sorted(set(reasons.values())):
            keys = ", ".join(f"strategy.{key}" for key, why in reasons.items() if why == reason)
            typer.echo(f"{name}: {keys} of {config} left out: {reason}", err=True)
    if dry_run:
        _preview(experiments, plugins, as_json=as_json)
        return
    folders = []
    for experiment in experiments:
        with ProgressBar(title_of(experiment), quiet=as_json, rounds=experiment.strategy.rounds) as progress:
            began = partial(_note_folder, progress, several=len(experiments) > 1, on=on)
            if on is not None:
                folders.append(run_on(on, experiment, plugins=plugins, out=out, progress=progress, began=began))
                continue
            start = continue_experiment if go_on else run_experiment
            where = out or Path("runs")
            folders.append(start(experiment, plugins=plugins, out=where, progress=progress, began=began))
    show_runs(folders, as_json=as_json)
    if not as_json:
        for folder in folders:
            typer.echo(folder)
    _refuse_fruitless(folders)


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
    from sim.experiments import resume_experiment
    from sim.run_note import read_run

    experiment, note = read_run(folder)
    with ProgressBar(title_of(experiment), quiet=as_json, rounds=experiment.strategy.rounds) as progress:
        _note_folder(progress, folder.resolve(), on=on or (Path(note["deployment"]) if "deployment" in note else None))
        if on is not None or "deployment" in note:
            from sim.deploy.follow import resume_on

            resume_on(on or Path(note["deployment"]), folder, progress)
        else:
            resume_experiment(folder.resolve(), progress)
    show_runs([folder], as_json=as_json)
    if not as_json:
        typer.echo(folder.resolve())
    _refuse_fruitless([folder])


@cli.command()
def report(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    figures: Annotated[bool, typer.Option("--figures", help="Write each figure as PNG, SVG and PDF, too.")] = False,
) -> None:
    """Write one self-contained HTML report over one or several runs."""
    from sim.report.html import write_report
    from sim.report.page_figures import figures_folder

    runs = once(find(runs))
    write_report(runs, out, with_files=figures)
    typer.echo(out.resolve())
    if figures:
        typer.echo(f"figures: {figures_folder(out).resolve()}")


cli.command()(compare)
cli.command()(models)
cli.command()(export)
cli.command()(predict)
cli.command()(forget)
cli.command()(sweep)
cli.command()(gallery)
cli.command()(watch)
cli.command()(track)


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


def _refuse_fruitless(folders: list[Path]) -> None:
    """Let a command fail where no client of a run ever counted: whatever the table shows is then no result.

    Raises:
        FruitlessRunError: in every round of a run every client failed; the text has the reason of one.
    """
    from server.recorder import read_rounds, why_fruitless

    for folder in folders:
        if fruitless := why_fruitless(read_rounds(folder)):
            raise FruitlessRunError(f"{folder}: {fruitless}")


def _note_folder(progress: ProgressBar, folder: Path, *, on: Path | None, several: bool = False) -> None:
    """Show where a run lies, and note what is to be said if it is interrupted."""
    again = [word for word in sys.argv[1:] if word != "--continue"]
    WAY_ON.command = shlex.join(["softbeam", *again, "--continue"] if several else ["softbeam", "resume", str(folder)])
    if on is not None:
        WAY_ON.command = shlex.join(["softbeam", "resume", str(folder)])
        stop = shlex.join(["softbeam", "deploy", "stop", str(on)])
        WAY_ON.note = f"once it was submitted, the run continues without this command: {stop} ends it"
    progress.begin_in(folder)


def _preview(experiments: list[Experiment], plugins: tuple[Path, ...], *, as_json: bool) -> None:
    """Print experiments and their costs instead of running them."""
    from clients.learning.contract import check_models, model_costs
    from clients.learning.task_contract import check_task
    from clients.models.own_sensors import add_sensors
    from configs.loading import to_values
    from configs.placement import Placement
    from sim.cli.preview import cost_of, preview_text
    from sim.launch import check_engine
    from sim.track.trackers import check_trackers
    from strategies.registry import find_plugins

    found = []
    for experiment in experiments:
        if experiment.engine.name != "deployment":
            check_engine(experiment.engine)
        method, _ = find_plugins(Placement(experiment, Path(), Path(), plugins))
        add_sensors(experiment.data.sensors, plugins)
        check_models(experiment, plugins)
        check_task(experiment, plugins)
        check_trackers(experiment.track, plugins)
        models = [one.to_dict() for one in model_costs(experiment, plugins)]
        found.append((experiment, {**cost_of(experiment, method), "models": models}))
    if as_json:
        rows = [{"experiment": to_values(experiment), "cost": cost} for experiment, cost in found]
        typer.echo(json.dumps(rows if len(rows) > 1 else rows[0], indent=1))
        return
    typer.echo("---\n".join(preview_text(experiment, cost) for experiment, cost in found), nl=False)


def _names_of_strategies(text: str) -> list[str]:
    """The names that ``--strategies`` gives; one empty name, which keeps the strategy of the file, without it."""
    from configs.recipes import RECIPES

    return list(RECIPES) if text == "all" else [name.strip() for name in text.split(",")]


def _who_trains_controls(untold: Mapping[str, Mapping[str, str]]) -> str:
    """The strategy whose run trains the controls, which are trained once for all.

    They digest and decide by keys of the YAML file as the federated students do. So it is a strategy for which no key
    is left out, if there is one, else one that has a use for each: of several ``local``, or the first.

    Args:
        untold: strategy -> the keys of the file that are left out for it, each with the reason.
    """
    from configs.strategy import NO_USE

    ranks = {name: (NO_USE in reasons.values(), len(reasons) > 0) for name, reasons in untold.items()}
    candidates = [name for name in ranks if ranks[name] == min(ranks.values())]
    return "local" if "local" in candidates else candidates[0]


def _controls(name: str, trainer: str | None) -> list[str]:
    """The override that lets one of several strategies train the controls; none without ``--strategies``."""
    return [] if trainer is None else [f"controls={'true' if name == trainer else 'false'}"]


if __name__ == "__main__":
    main()
