"""Keeps the programs of one machine running, writes their output as lines of JSON, and says how they are.

On a machine with systemd the unit starts ``softbeam deploy server`` or ``node``, and systemd looks after that; this
looks after what it starts. Not chosen: one unit for each program, which would have made starting by hand, in
containers and in tests three other things.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType

# A program that ends is started again after 1, 2, 4, 8, 10 seconds; one that ran for a minute starts over.
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 1.0, 10.0, 60.0
LOOK_S, HEALTH_S, STOP_S = 0.1, 2.0, 10.0
LOG_BYTES, LOG_FILES = 5_000_000, 3
HEALTH_FILE, PID_FILE, LOG_FOLDER = "health.json", "supervisor.pid", "log"

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"^\s*(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\b\s*:?\s*")
_PR_SET_PDEATHSIG = 1


class GivenUpError(RuntimeError):
    """A program ended in a way that starting it again would not mend."""


@dataclass(frozen=True)
class Program:
    """What to keep running.

    Attributes:
        name: of its log and of its entry in the health file.
        command: program and arguments.
        environment: added to this process's own.
        fatal: exit code -> what to do about it; on these it is not started again.
        ready: whether it does its work; asked until it says yes, before the next program is started.
        noise: a regular expression; lines of its output in which it is found are dropped.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    fatal: Mapping[int, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True
    noise: str | None = None


class Supervisor:
    """Runs programs until it is told to stop.

    Args:
        folder: for logs, health and process id; made if absent.
        programs: started in this order, stopped in the other.
        details: further entries of the health file.
        echo: called with the program's name and each line that it prints.
    """

    def __init__(
        self,
        folder: Path,
        programs: Sequence[Program],
        *,
        details: Callable[[], Mapping[str, object]] = dict,
        echo: Callable[[str, str], None] = lambda name, line: None,
    ) -> None:
        self.folder = folder
        (folder / LOG_FOLDER).mkdir(parents=True, exist_ok=True)
        self._details = details
        self._kept = [_Kept(program, folder / LOG_FOLDER, echo) for program in programs]
        self._stop = threading.Event()

    def run(self, *, started: Callable[[], None] = lambda: None) -> None:
        """Start everything and return when told to stop by SIGTERM, SIGINT or :meth:`stop`.

        Args:
            started: called once, when all programs are ready.

        Raises:
            ValueError: another supervisor works in the folder.
            GivenUpError: a program cannot go on, and why.
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
                while not self._stop.is_set() and not kept.program.ready():
                    self._look()
            if not self._stop.is_set():
                self._write_health()
                started()
            last_health = time.monotonic()
            while not self._stop.wait(LOOK_S):
                self._look()
                if time.monotonic() - last_health >= HEALTH_S:
                    self._write_health()
                    last_health = time.monotonic()
        finally:
            for kept in reversed(self._kept):
                kept.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._write_health()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def _look(self) -> None:
        for kept in self._kept:
            kept.keep()
        self._stop.wait(LOOK_S)

    def _write_health(self) -> None:
        health = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "pid": os.getpid(),
            "programs": {kept.program.name: kept.health() for kept in self._kept},
            **self._details(),
        }
        temporary = self.folder / f".{HEALTH_FILE}.tmp"
        temporary.write_text(json.dumps(health, indent=1) + "\n")
        os.replace(temporary, self.folder / HEALTH_FILE)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for this process: a lock that the kernel lets go of, however the process ends.

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
    """The process that holds a folder; None if there is none (any more)."""
    try:
        with (folder / PID_FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read())
    except (OSError, ValueError):
        pass
    return None


class _Kept:
    """One program: its process, its log, and when to start it again."""

    def __init__(self, program: Program, logs: Path, echo: Callable[[str, str], None]) -> None:
        self.program = program
        self.restarts = 0
        self._echo = echo
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._since = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._start_at = 0.0
        self._last_exit: int | None = None
        self._noise = None if program.noise is None else re.compile(program.noise)
        self._log = logging.Logger(program.name)
        handler = RotatingFileHandler(logs / f"{program.name}.jsonl", maxBytes=LOG_BYTES, backupCount=LOG_FILES)
        self._log.addHandler(handler)
        self._handler = handler

    def start(self) -> None:
        # A session of its own: Ctrl-C reaches the supervisor alone, and all its children can be ended together.
        self._process = subprocess.Popen(
            list(self.program.command),
            env={**os.environ, **self.program.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._since = time.monotonic()
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self._note("INFO", f"started as process {self._process.pid}")

    def keep(self) -> None:
        """Start it again if it has ended and its pause is over."""
        now = time.monotonic()
        if self._reader is None:
            return  # Its turn has not come.
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._ended(code, now)
        if now >= self._start_at:
            self.restarts += 1
            self.start()

    def _ended(self, code: int, now: float) -> None:
        self._process, self._last_exit = None, code
        self._note("ERROR", f"ended with code {code}")
        if code in self.program.fatal:
            raise GivenUpError(f"{self.program.name}: {self.program.fatal[code]}")
        if now - self._since >= STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        self._start_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def stop(self) -> None:
        process = self._process
        if process is not None:
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_S)
            # Also what it has left behind in its group.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        if self._reader is not None:
            self._reader.join(timeout=1.0)
        self._handler.close()

    def health(self) -> dict[str, object]:
        process = self._process
        return {
            "running": process is not None and process.poll() is None,
            "pid": None if process is None else process.pid,
            "restarts": self.restarts,
            "seconds": round(time.monotonic() - self._since, 1) if process is not None else 0.0,
            "last_exit": self._last_exit,
        }

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is None:
            return
        with process.stdout as stream:
            for raw in stream:
                line = _ANSI.sub("", raw.decode(errors="replace")).rstrip()
                if line and not (self._noise and self._noise.search(line)):
                    level = _LEVEL.match(line)
                    self._note(level.group(1) if level else "INFO", line[level.end() :] if level else line)

    def _note(self, level: str, message: str) -> None:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "program": self.program.name,
            "level": "WARNING" if level == "WARN" else level,
            "message": message,
        }
        self._log.info(json.dumps(entry))
        self._echo(self.program.name, f"{entry['level']:8}{message}")


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _die_with_parent() -> None:
    """Before the program begins: have the kernel end it when the supervisor is killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
