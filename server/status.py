"""The status of a run, in a file that other programs may read at any time."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from configs.files import swap_in
from configs.signals import is_asked_to_end
from strategies.messages.records import one_line

log = logging.getLogger(__name__)

FILE = "status.json"
# Seconds between two writes while only the progress changes.
INTERVAL_SECONDS = 0.5
# The states of a run on which no process works any more; a server that was killed wrote none of them.
ENDED = ("finished", "stopped", "failed")


class Status:
    """Keeps ``status.json`` of a run folder up to date, for as long as the run lasts.

    The file holds ``state`` (starting, running, finished, stopped by a signal, failed), ``phase`` with ``done`` of
    ``total``, ``round`` (the last one completed) of ``rounds``, ``time`` of writing (UTC), ``pid`` of the server and,
    if the run failed or gave no result, ``error`` in one line. A server that was killed leaves the last state
    unchanged: check whether its process still exists.

    Args:
        folder: the folder of the run; it is made if it is missing.
        num_rounds: the number of rounds of the federation.
    """

    def __init__(self, folder: Path, *, num_rounds: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._values: dict[str, Any] = {
            "state": "starting",
            "phase": "",
            "done": 0,
            "total": 0,
            "round": 0,
            "rounds": num_rounds,
            "error": "",
            "pid": os.getpid(),
        }
        self._next_time = 0.0

    def __enter__(self) -> Status:
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._values["state"] = "finished"
        elif is_asked_to_end() or isinstance(error, KeyboardInterrupt):
            self._values["state"] = "stopped"  # whatever broke meanwhile, broke because of it
        else:
            self._values |= {"state": "failed", "error": one_line(f"{type(error).__name__}: {error}")}
        self._write()

    def following(self, progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
        """A progress callback that keeps the file up to date before it calls another one."""

        def follow(phase: str, done: int, total: int) -> None:
            is_new = self._values["state"] != "running" or self._values["phase"] != phase
            self._values |= {"state": "running", "phase": phase, "done": done, "total": total}
            if is_new or time.monotonic() >= self._next_time:
                self._write()
            progress(phase, done, total)

        return follow

    def note(self, error: str) -> None:
        """Say what is wrong with a run that ends without an error, such as that no client ever counted."""
        self._values["error"] = one_line(error)

    def complete(self, round_number: int) -> None:
        """Note that a round is over."""
        self._values["round"] = round_number
        if time.monotonic() >= self._next_time:
            self._write()

    def _write(self) -> None:
        self._next_time = time.monotonic() + INTERVAL_SECONDS
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            swap_in(self._path, json.dumps({**self._values, "time": now}, indent=1) + "\n")
        except OSError as error:
            # A run must not end because its status cannot be written.
            log.warning("%s: not written (%s)", self._path, error)


def read_status(folder: Path) -> dict[str, Any]:
    """The last status that the ServerApp of a run wrote; its state is ``starting`` before the first."""
    nothing = {"state": "starting", "phase": "", "done": 0, "total": 0}
    try:
        status: dict[str, Any] = {**nothing, **json.loads((folder / FILE).read_text())}
    except (OSError, ValueError):
        return nothing
    return status


def is_alive(pid: int) -> bool:
    """Whether a process of this machine still works; a zombie (ended, but not waited for) does not."""
    try:
        os.kill(pid, 0)
        # The name of the program is in brackets, and may itself contain brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True  # The process belongs to another user, or there is no /proc here.
