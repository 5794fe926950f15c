"""The command ``softbeam track``: a run that is there already, sent to trackers of experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def track(
    runs: Annotated[list[Path], typer.Argument(help="The folders of runs.")],
    to: Annotated[
        list[str], typer.Option(help="tensorboard, mlflow, wandb, trackio or module:Class. May be repeated.")
    ],
) -> None:
    """Send runs to trackers, each round as a step; one that is under way is followed to its end.

    What a tracker has got is noted in the run folder, and is not sent again.
    """
    from sim.report.run_folders import is_run
    from sim.track.follow import follow, note_of, plugins_of
    from sim.track.trackers import make_tracker

    for run in runs:
        if not is_run(run):
            raise ValueError(f"{run}: not the folder of a run; give one, such as runs/quickstart-20260101-120000")
        for name in to:
            make_tracker(name, (*plugins_of(run), Path()), key="--to")
    for run in runs:
        for name in to:
            tracker = make_tracker(name, (*plugins_of(run), Path()), key="--to")
            try:
                sent = follow(run, name, tracker)
            except Exception as error:
                raise RuntimeError(f"{run}: {name} failed ({type(error).__name__}: {error})") from error
            note = note_of(run, name)
            more = "" if sent else f"; nothing was new ({note} notes what it has; without that file, all is sent again)"
            typer.echo(f"{run}: {sent} round{'' if sent == 1 else 's'} sent to {name}{more}")
