"""The command ``softbeam study``: the numerical study of the paper that Softbeam builds on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.interruption import WAY_ON
from sim.cli.terminal import ConfigArgument, JsonOption, ProgressBar, SetOption, wide_console


def study(
    config: ConfigArgument,
    override: SetOption = None,
    quick: Annotated[bool, typer.Option(help="Use the small size in the YAML: minutes on two cores.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default: runs/ and the study's name.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Trackers trained at a time; 0 uses every core, or four trackers on a GPU.", min=0)
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train teachers and students with every kind of distillation and compare them; a second call continues.

    It writes study.json (a row for every tracker), study.csv, tables.md, tables.tex and figures. It uses a GPU if
    torch sees one.
    """
    from configs.study_loading import load_study
    from sim.study.outputs import show
    from sim.study.run import default_workers, run_study

    wanted = load_study(config, override or [], quick=quick)
    folder = out or Path("runs") / (f"{wanted.name}-quick" if quick else wanted.name)
    WAY_ON.place = folder
    with ProgressBar(wanted.name, quiet=as_json) as progress:
        rows = run_study(wanted, folder, workers=workers or default_workers(), progress=progress)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    show(rows, wide_console())
    typer.echo(folder)
