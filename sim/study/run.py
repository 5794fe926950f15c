"""Runs a study from its first pass to its tables; trackers that are trained already are not trained again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from configs.files import locked, write_whole
from configs.progress import PhaseProgress
from configs.study import Study
from sim.bench.latency import latencies_ms
from sim.study.grid import Job, check_models, origin_of, self_jobs, student_jobs, teacher_jobs
from sim.study.outputs import write_outputs
from sim.study.passes import open_passes
from sim.study.work import ROW_KEYS, Trainer, fresh_tracker, tracker_path
from sim.worksheet import SheetRow, fill_sheet, read_sheet

SHEET = "study.json"
GPU_WORKERS = 4


def run_study(study: Study, folder: Path, *, workers: int, progress: PhaseProgress) -> list[SheetRow]:
    """Train and score everything that the folder lacks, then write tables and figures.

    Args:
        study: the study to run.
        folder: the folder of the results: ``study.json`` with a row for every tracker, ``models/``, tables, figures.
        workers: trackers trained at a time, one process and one thread each; on a CPU the results do not depend on it.
        progress: is called after every pass and tracker.

    Returns:
        The rows of the study.

    Raises:
        ValueError: the study names an unknown model, or its data is missing or broken.
    """
    check_models(study)
    with _own_folder(folder, study):
        return _run(study, folder, workers=workers, progress=progress)


def default_workers() -> int:
    """The number of workers: one for every core, but few on a GPU, since each holds all frames in its memory."""
    cores = os.cpu_count() or 1
    return min(cores, GPU_WORKERS) if torch.cuda.is_available() else cores


@contextmanager
def _own_folder(folder: Path, study: Study) -> Iterator[None]:
    """Lock the folder for this process, and check that it does not belong to another study."""
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another process works on this study; wait for it, or name another --out"
    with locked(folder / ".lock", busy):
        snapshot = folder / "study.yaml"
        known = yaml.safe_load(snapshot.read_text()) if snapshot.is_file() else None
        if isinstance(known, dict) and known.get("name") != study.name:
            raise ValueError(f"{folder}: it belongs to the study {known.get('name')!r}; name another --out")
        write_whole(snapshot, yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
        yield


def _run(study: Study, folder: Path, *, workers: int, progress: PhaseProgress) -> list[SheetRow]:
    passes = open_passes(study.data, workers=workers, progress=lambda done, total: progress("passes", done, total))
    teachers = teacher_jobs(study, origin_of(passes))
    born_again = self_jobs(teachers)
    nobody = dict.fromkeys((job.key for job in (*teachers, *born_again)), 0.0)
    total = len(nobody) + len(student_jobs(study, teachers, nobody))
    rows: dict[str, SheetRow] = {}

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
    """Delete rows that are damaged or whose tracker is lost, since other trackers may have to learn from it."""
    rows = read_sheet(folder / SHEET)
    kept = {key: row for key, row in rows.items() if key not in jobs or _is_done(folder, jobs[key], row)}
    if len(kept) < len(rows):
        write_whole(folder / SHEET, json.dumps({"rows": kept}, indent=1) + "\n")


def _is_done(folder: Path, job: Job, row: object) -> bool:
    return isinstance(row, dict) and row.keys() >= ROW_KEYS and tracker_path(folder, job).is_file()


def _time(folder: Path, jobs: Mapping[str, Job], rows: dict[str, SheetRow]) -> None:
    """Measure the latency of each kind of tracker, unless all are known; it does not depend on the weights."""
    if all(row["latency_ms"] is not None for row in rows.values()):
        return
    kinds = {(job.model, job.length, job.future, job.alignment): job for job in jobs.values()}
    found = latencies_ms({kind: fresh_tracker(job) for kind, job in kinds.items()})
    for key, job in jobs.items():
        rows[key]["latency_ms"] = round(found[job.model, job.length, job.future, job.alignment], 3)
    write_whole(folder / SHEET, json.dumps({"rows": {**read_sheet(folder / SHEET), **rows}}, indent=1) + "\n")
