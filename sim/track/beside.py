"""Trackers beside a run: each in a process of its own, so that one that fails, hangs or crashes never touches the run.

The process follows the files of the run folder. When the run has ended it gets some seconds to send what is left; then
it is ended, and one warning says what is missing and how it is sent later.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sim.track.follow import note_of

GRACE_S = 30.0
"""How long trackers have after the end of a run, all together."""
# `import softbeam` claims the names of the rooms, wherever the tree lies.
_WORK = "import softbeam; from sim.track.follow import work; work()"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Worker:
    """A process that sends a run to a tracker, and the file that its messages go to."""

    name: str
    process: subprocess.Popen[bytes]
    messages: Path


@contextmanager
def tracked(folder: Path, names: Sequence[str], *, goes_on: bool = False) -> Iterator[None]:
    """While a run is carried out, send it to some trackers.

    Args:
        folder: the folder of the run.
        names: the trackers, as ``track`` of an experiment names them.
        goes_on: whether the run goes on elsewhere if this block is interrupted, as on real machines; then the trackers
            go on as well.
    """
    workers = [worker for name in names if (worker := _start(folder, name)) is not None]
    try:
        yield
    except BaseException:
        _close(workers)
        if not goes_on:
            _finish(folder, workers)
        raise
    _close(workers)
    _finish(folder, workers)


def _start(folder: Path, name: str) -> _Worker | None:
    messages = note_of(folder, name).with_suffix(".log")
    try:
        with messages.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _WORK, str(folder.resolve()), name],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C ends the run, and then there is something left to send
            )
    except OSError as error:
        _warn(folder, name, f"it could not be started: {error}")
        return None
    return _Worker(name, process, messages)


def _close(workers: Sequence[_Worker]) -> None:
    """Tell the processes that nobody carries out the run any more from here."""
    for worker in workers:
        with suppress(OSError):
            if worker.process.stdin is not None:
                worker.process.stdin.close()


def _finish(folder: Path, workers: Sequence[_Worker]) -> None:
    """Wait until all is sent, and no longer than `GRACE_S`; a warning for each that failed."""
    end = time.monotonic() + GRACE_S
    for worker in workers:
        try:
            code = worker.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
            _warn(folder, worker.name, f"it did not end within {GRACE_S:.0f} s")
            continue
        if code:
            _warn(folder, worker.name, _last_line(worker.messages) or f"its process ended with {code}")
        else:
            worker.messages.unlink(missing_ok=True)


def _last_line(path: Path) -> str:
    with suppress(OSError):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""
    return ""


def _warn(folder: Path, name: str, why: str) -> None:
    again = shlex.join(["softbeam", "track", str(folder), "--to", name])
    log.warning("%s: %s does not have all of it (%s); the run itself is as it is without: %s", folder, name, why, again)
