"""Keeps the programs of one machine running, and reports their state.

On a machine with systemd the unit starts ``softbeam deploy server`` or ``node`` and keeps that command running; the
supervisor keeps the programs of the command running. Not chosen: one unit for each program, which would need three
other ways to start them by hand, in containers and in tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from configs.files import swap_in
from sim.deploy.programs import Echo, GivenUpError, KeptProgram, Program

LOOK_S, HEALTH_S = 0.1, 2.0
READY_S = 120.0
"""How long a program may take until it is ready; a small machine needs half a minute for its imports."""
HEALTH_FILE, PID_FILE, LOG_FOLDER = "health.json", "supervisor.pid", "log"


class Supervisor:
    """Runs programs until it is told to stop. On a full disk it loses health and logs, but the programs go on.

    Args:
        folder: the folder of logs, health and process id; it is made if absent.
        programs: the programs to run; they are started in this order and stopped in the reverse order.
        details: gives further entries of the health file.
        echo: is called with the name of the program and each line that it prints.
    """

    def __init__(
        self,
        folder: Path,
        programs: Sequence[Program],
        *,
        details: Callable[[], Mapping[str, object]] = dict,
        echo: Echo = lambda name, line: None,
    ) -> None:
        self.folder = folder
        make_private(folder)
        make_private(folder / LOG_FOLDER)
        self._details = details
        self._echo = _patient(echo)
        self._kept = [KeptProgram(program, folder / LOG_FOLDER, self._echo) for program in programs]
        self._stop = threading.Event()
        self._is_ready = False
        self._health_at = -HEALTH_S
        self._is_unwell = False

    def run(self, *, started: Callable[[], None] = lambda: None) -> None:
        """Start everything and return when told to stop by SIGTERM, SIGINT or :meth:`stop`.

        Args:
            started: is called once, when all programs are ready.

        Raises:
            ValueError: another supervisor works in the folder.
            GivenUpError: a program cannot go on, or was not ready in time; the message says why.
        """
        with claimed(self.folder):
            self._run(started)

    def stop(self) -> None:
        """Let :meth:`run` return."""
        self._stop.set()

    def _run(self, started: Callable[[], None]) -> None:
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for kept in self._kept:
                kept.start()
                self._wait_for(kept)
            if not self._stop.is_set():
                self._is_ready = True
                self._write_health()
                started()
            while not self._stop.is_set():
                self._look()
        finally:
            self._is_ready = False
            for kept in reversed(self._kept):
                kept.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._write_health()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def _wait_for(self, kept: KeptProgram) -> None:
        program, end = kept.program, time.monotonic() + READY_S
        reason = f"see {self.folder / LOG_FOLDER / program.name}.jsonl"
        while not self._stop.is_set():
            try:
                # What answers at its port may be somebody else.
                if program.ready():
                    if not (trouble := kept.trouble()):
                        return
                    reason = trouble
            except RuntimeError as error:
                reason = str(error)
            if time.monotonic() >= end:
                raise GivenUpError(f"{program.name}: not ready within {READY_S:g} s; {reason}")
            self._look()

    def _look(self) -> None:
        for kept in self._kept:
            kept.keep()
        if time.monotonic() - self._health_at >= HEALTH_S:
            self._write_health()
        self._stop.wait(LOOK_S)

    def _write_health(self) -> None:
        self._health_at = time.monotonic()
        programs = {kept.program.name: kept.health() for kept in self._kept}
        health = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "pid": os.getpid(),
            "ready": self._is_ready and not any(program["trouble"] for program in programs.values()),
            "programs": programs,
            **self._details(),
        }
        try:
            swap_in(self.folder / HEALTH_FILE, json.dumps(health, indent=1) + "\n")
        except OSError as error:
            # This is said once, not every two seconds.
            if not self._is_unwell:
                self._echo("health", f"{'WARNING':8}not written ({error}); the programs go on")
            self._is_unwell = True
        else:
            self._is_unwell = False


def keep_private() -> None:
    """Let only the user of this process read what it and its programs write.

    Their state holds what a site sensed, who takes part and what was learned; other users of the machine, and the
    programs of other services, must not see it.
    """
    os.umask(0o077)


def make_private(folder: Path) -> None:
    """Make a folder, and those above it, for its owner alone; folders that exist already are not changed."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a folder for this process; the kernel releases the lock when the process ends in any way.

    Raises:
        ValueError: another process holds it.
    """
    with (folder / PID_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: process {running_pid(folder)} runs here already; stop it first") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def running_pid(folder: Path) -> int | None:
    """The id of the process that has locked a folder; None if no process has."""
    try:
        with (folder / PID_FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read())
    except (OSError, ValueError):
        pass
    return None


def _patient(echo: Echo) -> Echo:
    """The same function, but without errors: our own output may be on the full disk, and is then left out."""

    def say(name: str, line: str) -> None:
        with contextlib.suppress(OSError):
            echo(name, line)

    return say
