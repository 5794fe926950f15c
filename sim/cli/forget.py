"""The command ``softbeam forget``: a run without one of its clients."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.interruption import WAY_ON
from sim.cli.terminal import JsonOption, ProgressBar, title_of


def forget(
    run: Annotated[Path, typer.Argument(help="The folder of a simulated run that has finished or was stopped.")],
    client: Annotated[str, typer.Option(help="The client to forget, such as 000-camera.")],
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Let the new run take the place of the old one, which is deleted.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a run again without one client: the result is to the bit that of a run which it never joined.

    The old run is left as it is, with the states of the client, unless --in-place is given.
    """
    from sim.forget import forget_client
    from sim.run_note import read_run

    experiment, _ = read_run(run)
    with ProgressBar(title_of(experiment), quiet=as_json, rounds=experiment.strategy.rounds) as progress:

        def began(folder: Path) -> None:
            WAY_ON.command = shlex.join(["softbeam", "resume", str(folder)])
            progress.begin_in(folder)

        found = forget_client(run, client, in_place=in_place, progress=progress, began=began)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    again = "all rounds were run" if found.kept_rounds is None else f"rounds after {found.kept_rounds} were run"
    typer.echo(f"{client} is forgotten: {again} again without it")
    if not in_place:
        typer.echo(f"{found.before} still holds its states; delete that folder to be rid of them")
    typer.echo(found.folder)
