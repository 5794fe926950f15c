"""A study from its first pass to its tables; what was done before is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from configs.study import Study
from server.recorder import write_atomically
from sim.bench.latency import latencies_ms
from sim.bench.worksheet import Row, fill_sheet, read_sheet
from sim.study.grid import Job, check_models, self_jobs, student_jobs, teacher_jobs
from sim.study.outputs import write_outputs
from sim.study.passes import open_passes
from sim.study.work import Trainer, fresh_tracker, tracker_path

SHEET = "study.json"
# Called with what is done, how much of it and of how much.
Progress = Callable[[str, int, int], None]


def run_study(study: Study, folder: Path, *, workers: int, progress: Progress) -> list[Row]:
    """Train and score everything that the folder lacks, then write tables and figures.

    Args:
        study: what to do.
        folder: of the results: ``study.json`` with a row for every tracker, ``models/``, tables and figures.
        workers: trackers trained at a time, one process and one thread each; the results do not depend on it.
        progress: told of every pass and tracker.

    Returns:
        The rows of the study.

    Raises:
        ValueError: the study names what is not there, or its data is missing or broken.
    """
    check_models(study)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "study.yaml", yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    open_passes(study.data, workers=workers, progress=lambda done, total: progress("passes", done, total))
    teachers = teacher_jobs(study)
    born_again = self_jobs(teachers)
    nobody = dict.fromkeys((job.key for job in (*teachers, *born_again)), 0.0)
    total = len(nobody) + len(student_jobs(study, teachers, nobody))
    rows: dict[str, Row] = {}

    def train(jobs: Sequence[Job]) -> None:
        by_key = {job.key: job for job in jobs}
        _forget_lost(folder, by_key)
        for key, row in fill_sheet(by_key, Trainer(folder), sheet=folder / SHEET, workers=workers):
            rows[key] = row
            progress("trackers", len(rows), total)

    train(teachers)
    train(born_again)
    validation = {key: float(row["validation"]) for key, row in rows.items()}
    students = student_jobs(study, [*teachers, *born_again], validation)
    train(students)
    jobs = [*teachers, *born_again, *students]
    _time(folder, {job.key: job for job in jobs}, rows)
    ordered = [rows[job.key] for job in jobs]
    write_outputs(ordered, folder, title=study.name)
    return ordered


def _forget_lost(folder: Path, jobs: Mapping[str, Job]) -> None:
    """Rows whose tracker is gone are not done: others may have to learn from it."""
    rows = read_sheet(folder / SHEET)
    kept = {key: row for key, row in rows.items() if key not in jobs or tracker_path(folder, jobs[key]).is_file()}
    if len(kept) < len(rows):
        write_atomically(folder / SHEET, json.dumps({"rows": kept}, indent=1) + "\n")


def _time(folder: Path, jobs: Mapping[str, Job], rows: dict[str, Row]) -> None:
    """Measure how long each kind of tracker takes, unless all are known: weights do not matter to the clock."""
    if all(row["latency_ms"] is not None for row in rows.values()):
        return
    kinds = {(job.model, job.length, job.future, job.alignment): job for job in jobs.values()}
    found = latencies_ms({kind: fresh_tracker(job) for kind, job in kinds.items()})
    for key, job in jobs.items():
        rows[key]["latency_ms"] = round(found[job.model, job.length, job.future, job.alignment], 3)
    write_atomically(folder / SHEET, json.dumps({"rows": {**read_sheet(folder / SHEET), **rows}}, indent=1) + "\n")
