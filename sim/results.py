"""What a finished run is to a script or a notebook, and several of them side by side."""

from __future__ import annotations

import csv
import io
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from configs.files import EXPERIMENT
from configs.loading import build_experiment
from configs.schema import Experiment
from configs.spelling import did_you_mean
from configs.yaml_files import read_config
from server.recorder import read_rounds
from sim.report.beam_sets import set_sentences
from sim.report.exports import as_csv
from sim.report.run_folders import find_runs
from sim.report.sites import sites_table
from sim.report.strategies import comparisons_of, strategy_table
from sim.report.summaries import Summary, by_task, group_by_settings, load_summary, without_repeats
from sim.report.tables import (
    baseline_lines,
    bytes_lines,
    measuring_lines,
    numbered,
    own_test_lines,
    results_table,
    teacher_lines,
)
from sim.take_home.run_models import RunModels

# As wide as any table needs.
_WIDTH = 1000


class Result:
    """A run that has finished.

    Args:
        folder: the folder of the run.

    Raises:
        ValueError: the folder is not that of a finished run.

    Attributes:
        folder: the folder of the run, in which ``summary.json`` says more.
        summary: what ``summary.json`` holds (see ``docs/scripts.md``).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.summary: dict[str, Any] = load_summary(self.folder)

    @property
    def clients(self) -> list[dict[str, Any]]:
        """One entry for each client, with its scores, parameters and bytes."""
        found: list[dict[str, Any]] = self.summary["clients"]
        return found

    @property
    def teacher(self) -> dict[str, Any]:
        """The scores of the teacher before and after the federation, and its parameters."""
        found: dict[str, Any] = self.summary["teacher"]
        return found

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """One entry for each round, as in ``rounds.jsonl``."""
        return read_rounds(self.folder)

    @cached_property
    def experiment(self) -> Experiment:
        """The whole experiment that was run."""
        path = self.folder / EXPERIMENT
        return build_experiment(read_config(path).values, origin=str(path))

    @property
    def students(self) -> Students:
        """Client -> its trained student, read when it is asked for."""
        return Students(self)

    @cached_property
    def models(self) -> RunModels:
        """The students and the teacher: which there are, and each as what it decides by."""
        return RunModels(self.folder)

    def to_dataframe(self) -> Any:
        """A pandas frame with the rows of ``summary.csv``: one for each client, arm and horizon, and the teacher's.

        Raises:
            ImportError: pandas is not installed.
        """
        return _frame((self.folder / "summary.csv").read_text())

    def report(self, *, show: bool = False) -> Path:
        """The page with figures and tables of this run.

        Args:
            show: whether to open it in the browser.
        """
        page = self.folder / "report.html"
        if show:
            webbrowser.open(page.as_uri())
        return page

    def __repr__(self) -> str:
        return _text([self.summary])

    def _repr_html_(self) -> str:
        return _html(repr(self))


class Students(Mapping[str, nn.Module]):
    """The students of a run: each is the tracker in the state that validated best, in evaluation mode.

    Where ``strategy.keeps`` is ``mixture``, a client decides by it and its local self together; this is it alone, and
    ``result.models.decider(client)`` is what the client decides by.

    Args:
        result: the run.
    """

    def __init__(self, result: Result) -> None:
        self._result = result

    def __getitem__(self, client: str) -> nn.Module:
        if client not in list(self):
            raise KeyError(f"{client}: no such client; there are {', '.join(self)}{did_you_mean(client, list(self))}")
        try:
            return self._result.models.tracker(client)
        except ValueError as error:
            raise KeyError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter([one["id"] for one in self._result.clients])

    def __len__(self) -> int:
        return len(self._result.clients)


@dataclass(frozen=True)
class ComparedRuns:
    """Runs side by side; in a notebook it is shown as tables.

    Attributes:
        summaries: the runs, each once.
        notes: a line for each folder that was left out, which says why.
    """

    summaries: tuple[Summary, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, runs: Sequence[Result | str | Path]) -> ComparedRuns:
        """Find the runs behind results and folders.

        Raises:
            ValueError: there is no finished run.
        """
        several = [runs] if isinstance(runs, (Result, str, Path)) else runs
        found, notes = find_runs([one.folder if isinstance(one, Result) else Path(one) for one in several])
        kept, more = without_repeats(found)
        if not kept:
            raise ValueError("compare: there is no run; give results, run folders or folders of runs")
        return cls(tuple(load_summary(folder) for folder in kept), (*notes, *more))

    def to_dataframe(self) -> Any:
        """A pandas frame with one row for each run, as ``softbeam compare --out table.csv`` writes it.

        Raises:
            ImportError: pandas is not installed.
        """
        return _frame(self.to_csv())

    def to_csv(self) -> str:
        """One header, then one row for each run."""
        return as_csv(comparisons_of(self.summaries))

    def to_rows(self) -> list[dict[str, str | float | None]]:
        """The rows of :meth:`to_csv` as dictionaries: numbers as numbers, and None where a cell is empty."""
        rows = csv.DictReader(io.StringIO(self.to_csv()))
        return [{name: _value(cell) for name, cell in row.items()} for row in rows]

    def __repr__(self) -> str:
        return "\n".join([_text(self.summaries), *self.notes])

    def _repr_html_(self) -> str:
        return _html(repr(self))


def _text(summaries: Sequence[Summary]) -> str:
    """The tables that the command line shows of these runs."""
    console = Console(width=_WIDTH, file=io.StringIO(), emoji=False, color_system=None, force_jupyter=False)
    comparisons = comparisons_of(summaries) if len(summaries) > 1 else []
    tables = [strategy_table(one) for one in comparisons if one.rows]
    with console.capture() as captured:
        by_site = [sites_table(group) for group in group_by_settings(summaries).values()]
        for table in [*tables, *map(results_table, by_task(summaries)), *filter(None, by_site)]:
            console.print(table)
        for line in [
            *teacher_lines(summaries),
            *own_test_lines(summaries),
            *baseline_lines(summaries),
            *measuring_lines(summaries),
            *(f"{number}{line}" for number, _, group in numbered(summaries) for line in set_sentences(group)),
            *bytes_lines(summaries),
        ]:
            console.print(line, highlight=False, markup=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _value(cell: str) -> str | float | None:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None


def _html(text: str) -> str:
    return f'<pre style="line-height: 1.2">{escape(text)}</pre>'


def _frame(text: str) -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise ImportError("to_dataframe: pandas is not installed; pip install pandas") from None
    return pd.read_csv(io.StringIO(text))
