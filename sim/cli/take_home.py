"""The commands that take models out of a run: ``softbeam models``, ``export`` and ``predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.terminal import JsonOption, ProgressBar, tracked, wide_console

RunArgument = Annotated[Path, typer.Argument(help="The folder of a run that has finished.")]


def models(run: RunArgument, as_json: JsonOption = False) -> None:
    """List the students of a run and its teacher: which round each is from, how it validated and what it weighs."""
    from rich.table import Table

    from sim.take_home.run_models import RunModels

    rows = RunModels(run).rows()
    if as_json:
        typer.echo(json.dumps([row.to_dict() for row in rows], indent=1))
        return
    table = Table("model", "senses", "kind")
    for title in ("kept from round", "latest round", "validation", "parameters", "kB"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            *(row.name, row.modality, row.kind if row.is_here else f"{row.kind}, not here"),
            "?" if row.kept_round is None else str(row.kept_round),
            "?" if row.round is None else str(row.round),
            "-" if row.validation is None else f"{row.validation:.3f}",
            f"{row.parameters:,}",
            "-" if row.bytes is None else f"{row.bytes / 1000:.0f}",
        )
    wide_console().print(table)


def export(
    run: RunArgument,
    client: Annotated[
        str, typer.Option(help="A client such as 000-camera, teacher, or all; softbeam models lists them.")
    ] = "all",
    form: Annotated[str, typer.Option("--format", help="onnx, torch or safetensors.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Write graphs in eight bits besides.")] = False,
    state: Annotated[
        str, typer.Option(help="kept: the state that validated best; latest: the one after the last round.")
    ] = "kept",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the folders of the models; default: exported/ in the run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write models of a run into folders of their own: graphs or weights, model.json and a model card.

    Graphs are checked against torch on the test set. A model that was exported to the same place is replaced.
    """
    from typing import get_args

    from sim.take_home.run_models import RunModels, State
    from sim.take_home.writer import FORMATS, Format, export_model

    if form not in FORMATS:
        raise ValueError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    if state not in get_args(State):
        raise ValueError(f"--state {state}: expected one of {', '.join(get_args(State))}")
    chosen: Format = next(one for one in FORMATS if one == form)
    wanted: State = "kept" if state == "kept" else "latest"
    found = RunModels(run)
    names = [row.name for row in found.rows() if row.is_here] if client == "all" else [client]
    where = out or run / "exported"
    with ProgressBar("softbeam", quiet=as_json) as progress:
        written = [
            export_model(found, name, where, form=chosen, int8=int8, state=wanted, progress=progress)
            for name in tracked(names, "export", total=len(names), quiet=as_json)
        ]
    if as_json:
        typer.echo(json.dumps([one.to_dict() for one in written], indent=1))
        return
    for one in written:
        sizes = ", ".join(f"{name} {size / 1000:.1f} kB" for name, size in one.sizes.items())
        changes = one.manifest.checks.get("int8", {}).get("top5_change_points", {})
        small = "".join(f", int8 {kind} {change:+.2f} points Top-5" for kind, change in changes.items())
        differences = one.manifest.checks.get("largest_difference_from_torch", {})
        checked = f", within {max(differences.values()):.0e} of torch" if differences else ""
        typer.echo(f"{one.manifest.name}: {sizes}{checked}{small}")
    typer.echo(where.resolve())


def predict(
    model: Annotated[Path, typer.Argument(help="A folder that softbeam export wrote, or a store of versions.")],
    source: Annotated[
        str, typer.Argument(help="A recording, a DeepSense 6G folder, a file of JSON lines, or - for standard input.")
    ],
    int8: Annotated[bool, typer.Option("--int8", help="Use the graphs in eight bits.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many beams of each horizon are told.")] = 5,
    hold: Annotated[int, typer.Option(min=0, help="Slots in a row in which an old frame may stand in.")] = 2,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with what comes into the folder.")] = False,
    idle: Annotated[
        float | None, typer.Option(min=0, help="With --watch, end after so many seconds without anything new.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(min=0, help="Tell the beams to sweep so that one loses at most so many dB.")
    ] = None,
    wanted: Annotated[float, typer.Option(help="For which share of windows, in per cent.")] = 90.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print lines of JSON.")] = False,
) -> None:
    """Tell beams, probabilities and latency for every slot of a source; beams count from 0.

    A line of JSON is a slot: {"gps": [3.1, 12.0]}, with a list or the path of a .npy file for each sensor. Of a store,
    the current version answers, and another one that becomes current goes on where it was.
    """
    from clients.serving.predict import predict as tell
    from clients.serving.predict import served, source_of
    from configs.paths import expanded

    precision = "int8" if int8 else "float32"
    found = served(model, precision=precision, tell=lambda line: typer.echo(line, err=True))
    place = source if source == "-" else str(expanded(source))
    slots = source_of(place, found, watch=watch, idle_s=idle)
    sweep = None if within is None else (within, wanted / 100.0)
    tally = tell(found, slots, typer.echo, top=top, hold=hold, as_json=as_json, sweep=sweep)
    typer.echo(tally.line(), err=True)
