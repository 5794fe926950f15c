"""The parts that all commands share: arguments, the terminal and the progress of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from configs.schema import Experiment

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of one in configs/.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: --set strategy.rounds=4. May be repeated.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs.")]


class ProgressBar:
    """Bars of rich with the time left, on stderr; nothing is shown when quiet.

    Args:
        title: the text in front of every phase.
        quiet: whether to show nothing.
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeLeft())
        self._bars = Bars(*columns, console=Console(stderr=True, emoji=False), disable=quiet)
        self._tasks: dict[str, Any] = {}
        self._title = title

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *details: object) -> None:
        if self._tasks:  # bars that never began would still print a blank line
            self._bars.stop()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase is."""
        if phase not in self._tasks:
            self._bars.start()
            self._tasks[phase] = self._bars.add_task(f"{self._title}: {phase}", total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)


def title_of(experiment: Experiment) -> str:
    """The title of a run in its progress bar."""
    return f"{experiment.name}, seed {experiment.seed}"


def wide_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; for a file or a pipe, as wide as the tables need."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(width=None if stream.isatty() else 140, stderr=stderr, emoji=False)
