"""Finds the runs that a command is given: run folders, or folders of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from configs.files import EXPERIMENT
from sim.report.summaries import load_summary

# What a run leaves in its folder from its beginning on.
_MARKS = ("summary.json", EXPERIMENT, "rounds.jsonl", "status.json", "checkpoint")


def find_runs(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The finished runs behind some paths: a run folder is itself, another folder stands for the runs directly in it.

    Returns:
        The run folders in the order of the paths, those of one folder by name; and a line for each folder that was
        left out in a folder of runs, which says why.

    Raises:
        ValueError: a path is missing or not a folder, a run that was named is unfinished or broken, or a folder has no
            finished run.
    """
    runs: list[Path] = []
    notes: list[str] = []
    for path in paths:
        if not path.is_dir():
            what = "it is a file" if path.exists() else "not found"
            raise ValueError(f"{path}: {what}; give the folder of a run, or a folder of runs")
        if is_run(path):
            runs.append(path)
            continue
        inside = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        reasons = {folder: _why_not(folder) for folder in inside}
        found = [folder for folder, reason in reasons.items() if not reason]
        left_out = [f"{folder}: left out, {reason}" for folder, reason in reasons.items() if reason]
        if not found:
            first = f"; the first of {len(left_out)} left out is {left_out[0]}" if left_out else ""
            raise ValueError(f"{path}: there is no finished run in this folder{first}")
        runs += found
        notes += left_out
    return runs, notes


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, whatever became of it."""
    return any((folder / name).exists() for name in _MARKS)


def _why_not(folder: Path) -> str:
    """Why a folder is no finished run; empty if it is one."""
    if not is_run(folder):
        return "it is not the folder of a run"
    if not (folder / "summary.json").exists():
        return _state(folder)
    try:
        load_summary(folder)
    except ValueError as error:
        return str(error)
    return ""


def _state(folder: Path) -> str:
    """How far an unfinished run is, as far as its status file says."""
    way_out = f"softbeam resume {folder}"
    try:
        status = json.loads((folder / "status.json").read_text())
        state, error = status["state"], status.get("error")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"the run is not finished: {way_out}"
    if state == "failed":
        return f"the run failed ({error}); {way_out} goes on with it"
    how = "was stopped" if state == "stopped" else "is not finished"
    return f"the run {how} (round {status.get('round', 0)} of {status.get('rounds', '?')}): {way_out}"
