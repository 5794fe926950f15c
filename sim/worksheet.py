"""A sheet of results that grows job by job; a job whose row is in the sheet is not done again.

A sheet is a JSON file: ``{"rows": {key: row}}``. A key says in words what a job is and ends with the digest of
everything that the job depends on. So a row with other settings, or from an older street, never passes for this job.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from configs.files import write_whole
from configs.signals import deaf_to_interrupts, end_children, end_with_parent

SheetJob = TypeVar("SheetJob")
SheetRow = dict[str, Any]


def row_key(title: str, *facts: object) -> str:
    """The key of a job's row.

    Args:
        title: the name of the job for a reader.
        facts: everything that the result depends on; JSON must be able to hold it.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return f"{title} {digest}"


def read_sheet(sheet: Path | None) -> dict[str, SheetRow]:
    """The rows of a sheet by key; empty if there is no sheet yet.

    Raises:
        ValueError: the file is not a sheet.
    """
    if sheet is None or not sheet.exists():
        return {}
    with suppress(json.JSONDecodeError, UnicodeDecodeError):
        found = json.loads(sheet.read_text())
        if isinstance(found, dict) and isinstance(found.get("rows"), dict):
            return dict(found["rows"])
    raise ValueError(f"{sheet}: not a sheet of results; name another file, or delete this one")


def fill_sheet(
    jobs: Mapping[str, SheetJob], work: Callable[[SheetJob], SheetRow], *, sheet: Path | None, workers: int
) -> Iterator[tuple[str, SheetRow]]:
    """Do the jobs that the sheet lacks, and write every row to the sheet as soon as its job is done.

    Args:
        jobs: key -> job; jobs and ``work`` must be picklable if there are several workers.
        work: the function that does a job and returns its row.
        sheet: the file that holds the rows; None keeps no file.
        workers: the number of processes, each with one job at a time; 1 works in this process.

    Yields:
        Key and row of every job: first the rows that the sheet has, then the others as their jobs finish.

    Raises:
        ValueError: the file is not a sheet.
    """
    rows = read_sheet(sheet)
    yield from ((key, rows[key]) for key in jobs if key in rows)
    missing = {key: job for key, job in jobs.items() if key not in rows}
    for key, row in _finished(missing, work, workers):
        rows[key] = row
        if sheet is not None:
            sheet.parent.mkdir(parents=True, exist_ok=True)
            write_whole(sheet, json.dumps({"rows": rows}, indent=1) + "\n")
        yield key, row


def _finished(
    jobs: Mapping[str, SheetJob], work: Callable[[SheetJob], SheetRow], workers: int
) -> Iterator[tuple[str, SheetRow]]:
    if workers <= 1 or len(jobs) <= 1:
        yield from ((key, work(job)) for key, job in jobs.items())
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent) as pool:
        with deaf_to_interrupts():
            futures = {pool.submit(work, job): key for key, job in jobs.items()}
        failure: BaseException | None = None
        try:
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                if (error := future.exception()) is None:
                    yield futures[future], future.result()
                elif failure is None:
                    # Jobs that have begun are finished and kept; no other job begins.
                    failure = error
                    for other in futures:
                        other.cancel()
        except BaseException:
            end_children()  # an interrupt ends the workers at once: their unfinished jobs would not be kept anyway
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        if failure is not None:
            raise failure
