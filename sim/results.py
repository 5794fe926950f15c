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

from clients.memory import ClientMemory
from clients.training import make_student
from configs.loading import build_experiment
from configs.placement import plugin_folders
from configs.schema import Experiment
from configs.spelling import did_you_mean
from configs.yaml_files import read_config
from server.recorder import read_rounds
from sim.experiments import read_run
from sim.report.exports import as_csv
from sim.report.run_folders import find_runs
from sim.report.sites import sites_table
from sim.report.strategies import comparisons_of, strategy_table
from sim.report.summaries import Summary, group_by_settings, load_summary, without_repeats
from sim.report.tables import bytes_lines, results_table, teacher_lines

# As wide as any table needs.
_WIDTH = 1000
# A memory that is newer than the last round of any run.
_AFTER_ALL = 10**6


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
        path = self.folder / "experiment.yaml"
        return build_experiment(read_config(path).values, origin=str(path))

    @property
    def students(self) -> Students:
        """Client -> its trained student, read when it is asked for."""
        return Students(self)

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

    Where ``strategy.keeps`` is ``mixture``, a client decides by it and its local self together; this is it alone.

    Args:
        result: the run.
    """

    def __init__(self, result: Result) -> None:
        self._result = result

    def __getitem__(self, client: str) -> nn.Module:
        modality = {one["id"]: one["modality"] for one in self._result.clients}.get(client)
        if modality is None:
            raise KeyError(f"{client}: no such client; there are {', '.join(self)}{did_you_mean(client, list(self))}")
        state = ClientMemory(self._result.folder / "clients" / client).load(before_round=_AFTER_ALL)
        if state is None:
            raise KeyError(f"{client}: its student is not in {self._result.folder}; it never finished a round here")
        _, note = read_run(self._result.folder)
        folders = plugin_folders(note["plugins"])
        student = make_student(self._result.experiment, client=client, modality=modality, plugins=folders)
        student.load_state_dict(state["learner"]["best_model"])
        return student.eval()

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

    def to_rows(self) -> list[dict[str, str]]:
        """The rows of :meth:`to_csv` as dictionaries."""
        return list(csv.DictReader(io.StringIO(self.to_csv())))

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
        for table in [*tables, results_table(summaries), *filter(None, by_site)]:
            console.print(table)
        for line in [*teacher_lines(summaries), *bytes_lines(summaries)]:
            console.print(line, highlight=False, markup=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _html(text: str) -> str:
    return f'<pre style="line-height: 1.2">{escape(text)}</pre>'


def _frame(text: str) -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise ImportError("to_dataframe: pandas is not installed; pip install pandas") from None
    return pd.read_csv(io.StringIO(text))
