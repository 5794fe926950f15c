"""The parts that all commands share: arguments, the terminal and the progress of a run."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from configs.progress import PhaseProgress
from sim.cli.interruption import WAY_ON

if TYPE_CHECKING:
    from configs.schema import Experiment

Item = TypeVar("Item")


def complete_config(incomplete: str) -> list[str]:
    """Names in ``configs/`` and its gallery, and YAML files and folders that begin with a word."""
    from glob import escape, glob

    from configs.yaml_files import config_names

    names = config_names()
    paths = sorted(glob(f"{escape(incomplete)}*"))
    files = [f"{path}/" if Path(path).is_dir() else path for path in paths]
    return [name for name in names if name.startswith(incomplete)] + [
        file for file in files if file.endswith(("/", ".yaml", ".yml"))
    ]


def complete_strategies(incomplete: str) -> list[str]:
    """Strategies by name after the last comma of a word, and ``all``."""
    from configs.recipes import RECIPES

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in (*RECIPES, *(() if comma else ("all",))) if name.startswith(last)]


def complete_engine(incomplete: str) -> list[str]:
    """Engines that run virtual clients."""
    return [name for name in ("ray", "inline") if name.startswith(incomplete)]


def complete_preset(incomplete: str) -> list[str]:
    """Presets of the street."""
    from configs.presets import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


ConfigArgument = Annotated[
    str, typer.Argument(help="A YAML file, or the name of one in configs/.", autocompletion=complete_config)
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: --set strategy.rounds=4. May be repeated.")
]
# By how much a new version of a model may be worse than the one that is served.
Top5MarginOption = Annotated[float, typer.Option(min=0, help="Points of Top-5 that it may be worse.")]
PowerMarginOption = Annotated[float, typer.Option(min=0, help="dB of power that it may lose more.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
# As wide as any table needs: lines of a file may be long.
PIPE_WIDTH = 1000
# How long a phase may take in a file or a pipe before a line says how far it is.
HEARTBEAT_S = 10.0
RunsArgument = Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs.")]


class ProgressBar:
    """Progress with the time left, on stderr: bars in a terminal, lines in a file or a pipe; nothing when quiet.

    Lines come at the end of every phase and of every round, and now and then in a phase that takes long.

    Args:
        title: the text in front of every phase.
        quiet: whether to show nothing.
        rounds: the number of rounds of the phase ``federation``; 0 if there are none.
    """

    def __init__(self, title: str, *, quiet: bool = False, rounds: int = 0) -> None:
        self._shown: PhaseProgress | None = None
        self._folder: Path | None = None
        self._bars: _Bars | None = None
        if not quiet and sys.stderr.isatty():
            self._bars = _Bars(title)
            self._shown = self._bars
        elif not quiet:
            self._shown = _Lines(title, rounds)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *details: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase is."""
        if self._shown is not None:
            if self._folder is not None:
                say(f"run folder: {self._folder}")
                self._folder = None
            self._shown(phase, done, total)

    def begin_in(self, folder: Path) -> None:
        """Name the folder of a run before anything else of it is shown; an interrupt names it, too.

        A run that is refused leaves no folder, so none is named before the first work is done.
        """
        WAY_ON.place = self._folder = folder


class _Bars:
    """Bars of rich."""

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeLeft())
        self._bars = Bars(*columns, console=Console(stderr=True, emoji=False))
        self._tasks: dict[str, Any] = {}
        self._title = title

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._bars.start()
            self._tasks[phase] = self._bars.add_task(f"{self._title}: {phase}", total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)

    def stop(self) -> None:
        if self._tasks:  # bars that never began would still print a blank line
            self._bars.stop()


class _Lines:
    """A line for every phase and round; phases may take turns."""

    def __init__(self, title: str, rounds: int) -> None:
        self._title, self._rounds = title, rounds
        self._marks: dict[str, _Mark] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase not in self._marks:
            self._marks[phase] = _Mark(now, done, done if done < total else 0, now)
        mark = self._marks[phase]
        size = total / self._rounds if phase == "federation" and self._rounds else total
        is_step = size > 0 and int(done / size) > int(mark.last / size)
        if not is_step and (done <= mark.last or now - mark.said < HEARTBEAT_S):
            return
        mark.said, mark.last = now, done
        spent, worked = now - mark.begun, done - mark.first
        left = f", {spent / worked * (total - done):.0f} s left" if worked > 0 and done < total else ""
        number = f"round {int(done / size)}" if is_step else f"in round {int(done / size) + 1}"
        of_rounds = f"{number} of {self._rounds}, " if size != total else ""
        say(f"{self._title}: {phase}: {of_rounds}{done} of {total}, {spent:.0f} s{left}")


@dataclass
class _Mark:
    """What was said of a phase: when it began, with how much done, the work at its last line and the time of it."""

    begun: float
    first: int
    last: int
    said: float


def say(line: str) -> None:
    """Print a line on stderr as it is, however long it is."""
    print(line, file=sys.stderr, flush=True)


def tracked(items: Iterable[Item], title: str, *, total: int, quiet: bool = False) -> Iterator[Item]:
    """The items one after the other, with a progress bar, or lines in a file, on stderr."""
    with ProgressBar("softbeam", quiet=quiet) as progress:
        progress(title, 0, total)
        for done, item in enumerate(items, start=1):
            yield item
            progress(title, done, total)


def title_of(experiment: Experiment) -> str:
    """The title of a run in its progress bar."""
    return f"{experiment.name}, seed {experiment.seed}"


def wide_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; for a file or a pipe, as wide as the tables need, without wrapped lines."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(stderr=stderr, emoji=False)
    return _Unwrapped(width=PIPE_WIDTH, stderr=stderr, emoji=False)


class _Unwrapped(Console):
    """A console for a file: text goes on one line however long it is, and no line ends in blanks."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `rich.console.Console.print` does."""
        if all(isinstance(one, str) for one in objects):
            super().print(*objects, **{"soft_wrap": True, **options})
            return
        for one in objects:
            caption = one.caption if isinstance(one, Table) else None
            if isinstance(one, Table):
                one.caption = None  # it would be wrapped to the width of the table
            with self.capture() as captured:
                super().print(one, **options)
            lines = [line.rstrip() for line in captured.get().splitlines()]
            self.file.write("".join(f"{line}\n" for line in lines))
            if caption:
                super().print(caption, soft_wrap=True)


def parse_seeds(text: str) -> list[int]:
    """The seeds that an option names, such as ``0,1,2``; none for an empty one.

    Raises:
        ValueError: one is no seed, or is there twice.
    """
    try:
        numbers = [int(seed) for seed in text.split(",")] if text else []
    except ValueError:
        raise ValueError(f"--seeds {text}: expected numbers with commas between them, such as 0,1,2") from None
    if min(numbers, default=0) < 0:
        raise ValueError(f"--seeds {text}: a seed is a whole number from 0 on")
    if twice := [seed for seed, times in Counter(numbers).items() if times > 1]:
        raise ValueError(
            f"--seeds {text}: seed {twice[0]} stands there more than once; the same seed gives the same run, "
            "which says nothing about the spread: name different seeds"
        )
    return numbers
