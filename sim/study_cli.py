"""``softbeam study``: the numerical study of the paper that Softbeam goes out from; what its trackers cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sim.terminal import ConfigArgument, JsonOption, Progress, SetOption, wide_console


def add_study_commands(cli: typer.Typer, bench_cli: typer.Typer) -> None:
    """Add ``softbeam study`` and ``softbeam bench trackers``."""
    cli.command()(study)
    bench_cli.command("trackers")(bench_trackers)


def bench_trackers(
    model: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all.")] = None,
    frames: Annotated[int, typer.Option(help="Frames that a tracker sees.", min=2)] = 8,
    future: Annotated[int, typer.Option(help="Slots ahead.", min=1)] = 3,
    rounds: Annotated[int, typer.Option(help="Of the clock; all trackers take turns in each.", min=1)] = 30,
    as_json: JsonOption = False,
) -> None:
    """Measure parameters, operations, bytes and milliseconds of the trackers of a study, whole and streaming."""
    from clients.models.registry import MODELS
    from sim.bench.tracker_cost import costs_table, tracker_costs

    costs = tracker_costs(model or list(MODELS), num_frames=frames, num_future=future, rounds=rounds)
    if as_json:
        typer.echo(json.dumps([asdict(cost) for cost in costs], indent=1))
        return
    wide_console().print(costs_table(costs))


def study(
    config: ConfigArgument,
    override: SetOption = None,
    quick: Annotated[bool, typer.Option(help="The small size in the YAML: minutes on two cores.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default: runs/ and the study's name.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Trackers trained at a time; 0 takes every core, on a GPU four.", min=0)
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train teachers and students with every kind of distillation and compare them; run it again to go on.

    Writes study.json (a row for every tracker), study.csv, tables.md, tables.tex and figures. A GPU is used where
    torch sees one.
    """
    from configs.study_loading import load_study
    from sim.study.outputs import show
    from sim.study.run import default_workers, run_study

    wanted = load_study(config, override or [], quick=quick)
    folder = out or Path("runs") / (f"{wanted.name}-quick" if quick else wanted.name)
    with Progress(wanted.name, quiet=as_json) as progress:
        rows = run_study(wanted, folder, workers=workers or default_workers(), progress=progress)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    show(rows, wide_console())
    typer.echo(folder)
