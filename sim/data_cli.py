"""The commands of ``softbeam data``. Heavy imports stay inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.terminal import ConfigArgument, FollowedRun, JsonOption, SetOption, wide_console

data_cli = typer.Typer(help="Make, inspect and check data.", no_args_is_help=True)


@data_cli.command("make")
def data_make(config: ConfigArgument, override: SetOption = None, as_json: JsonOption = False) -> None:
    """Make the data of an experiment and print its folder; data that is there already is kept."""
    from configs.loading import load_experiment
    from sim.experiments import make_data

    experiment = load_experiment(config, override or [])
    with FollowedRun(experiment, quiet=as_json) as progress:
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
    wide_console().print(table)
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
