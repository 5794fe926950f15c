"""A program that a supervisor keeps running: its process, its log as lines of JSON, and when to start it again."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from sim.deploy.processes import can_tell, end_session, holders, listens, members
from strategies.messages.records import one_line, printable

# A program that ends is started again after 1, 2, 4, 8, 10 seconds; if it ran for a minute, after 1 second again.
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 1.0, 10.0, 60.0
STOP_S = 10.0
# What a program that ended leaves behind gets this long to end by itself.
GRACE_S = 2.0
LOG_BYTES, LOG_FILES = 5_000_000, 3

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"^\s*(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\b\s*:?\s*")
_PR_SET_PDEATHSIG = 1

Echo = Callable[[str, str], None]


class GivenUpError(RuntimeError):
    """A program ended and would end again at another start, or it was not ready in time."""


@dataclass(frozen=True)
class Program:
    """The description of a program to keep running.

    Attributes:
        name: the name of the program, of its log and of its entry in the health file.
        command: the program and its arguments.
        environment: the variables to add to the environment of this process.
        fatal: exit code -> what to do about it; after these codes the program is not started again.
        ready: says whether the program does its work; it is asked until it says yes, and only then the next program
            is started. A ``RuntimeError`` means no and gives the reason.
        noise: a regular expression; output lines that contain it are dropped.
        port: the port on which it listens; it does its work only while a process of its own listens there.
        children_go_on: whether the processes that it started go on when it ends and is started again, so that no work
            is lost; otherwise they end with it. All end when the supervisor stops.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    fatal: Mapping[int, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True
    noise: str | None = None
    port: int | None = None
    children_go_on: bool = False


class KeptProgram:
    """A program with its process, its log, and when to start it again.

    Args:
        program: the program to keep running.
        logs: the folder of the log.
        echo: is called with the name of the program and each line that it prints.
    """

    def __init__(self, program: Program, logs: Path, echo: Echo) -> None:
        self.program = program
        self.restarts = 0
        self._echo = echo
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._since = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._start_at = 0.0
        self._last_exit: int | None = None
        self._last_line = ""
        self._left: list[int] = []
        self.last_error = ""
        self._noise = None if program.noise is None else re.compile(program.noise)
        self._log = logging.Logger(program.name)
        self._handler = _Log(logs / f"{program.name}.jsonl", maxBytes=LOG_BYTES, backupCount=LOG_FILES, delay=True)
        self._log.addHandler(self._handler)

    def start(self) -> None:
        """Start the program, and a thread that reads its output."""
        # It has its own session: Ctrl-C reaches the supervisor alone, and all its children can be ended together.
        self._process = subprocess.Popen(
            list(self.program.command),
            env={**os.environ, **self.program.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._since, self._last_line = time.monotonic(), ""
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self._note("INFO", f"started as process {self._process.pid}")

    def keep(self) -> None:
        """Start the program again if it has ended and its pause is over.

        Raises:
            GivenUpError: the program ended with a fatal code.
        """
        now = time.monotonic()
        if self._reader is None:
            return  # It has not been started yet.
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._ended(code, now)
        if now >= self._start_at:
            self.restarts += 1
            self.start()

    def stop(self) -> None:
        """End the program and every process that it started."""
        process = self._process
        if process is not None:
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_S)
            # This ends also the processes that it has left in its group or its session.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        for session in [*self._left, *([] if process is None else [process.pid])]:
            end_session(session, grace_s=GRACE_S)
        if self._reader is not None:
            self._reader.join(timeout=1.0)
        self._handler.close()

    @property
    def is_running(self) -> bool:
        """Whether its process works."""
        return self._process is not None and self._process.poll() is None

    def trouble(self) -> str:
        """Why the program does not do its work now; empty if it does, as far as can be seen from outside."""
        if not self.is_running or self._process is None:
            return self.last_error or "it does not run"
        port = self.program.port
        if port is None or not can_tell():
            return ""
        if listens(self._process.pid, port):
            return ""
        if not (found := holders(port)):
            return f"it does not listen on port {port}"
        return f"port {port} is held by {', '.join(map(str, found))}; end that process"

    def health(self) -> dict[str, object]:
        """The state of the program, for the health file."""
        process = self._process
        # A session that is empty is forgotten, before another may get its number.
        self._left = [session for session in self._left if members(session)]
        return {
            "running": self.is_running,
            "pid": None if process is None else process.pid,
            "restarts": self.restarts,
            "seconds": round(time.monotonic() - self._since, 1) if process is not None else 0.0,
            "last_exit": self._last_exit,
            "last_error": self.last_error,
            "trouble": self.trouble(),
        }

    def _ended(self, code: int, now: float) -> None:
        session = 0 if self._process is None else self._process.pid
        self._process, self._last_exit = None, code
        if self._reader is not None:
            self._reader.join(timeout=0.5)
        self.last_error = one_line(f"ended with code {code}" + (f": {self._last_line}" if self._last_line else ""))
        self._note("ERROR", self.last_error)
        if self.program.children_go_on:
            self._left.append(session)
        # A child that it left, such as a worker of nginx, would go on with its port and its clients.
        elif left := end_session(session, grace_s=GRACE_S):
            self._note("WARNING", f"ended {len(left)} processes that it had left")
        if self.program.port is not None and (others := holders(self.program.port)):
            who = ", ".join(map(str, others))
            self._note("ERROR", f"port {self.program.port} is held by {who}; end that process")
        if code in self.program.fatal:
            raise GivenUpError(f"{self.program.name}: {self.program.fatal[code]}")
        if now - self._since >= STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        self._start_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is None:
            return
        with process.stdout as stream:
            for raw in stream:
                # Programs print colours of their own, and texts of strangers, which are shown as what they are.
                line = printable(_ANSI.sub("", raw.decode(errors="replace")).expandtabs().rstrip())
                if line and not (self._noise and self._noise.search(line)):
                    self._last_line = line
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


class _Log(RotatingFileHandler):
    """A log on a disk that may be full: lines that cannot be written are left out.

    It raises nothing, since a program halts when nobody reads its output any more; and it prints nothing, since there
    would be a traceback for every line.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out."""

    def close(self) -> None:
        """Close the file; the lines that the disk did not take are left out."""
        with contextlib.suppress(OSError):
            super().close()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _die_with_parent() -> None:
    """Have the kernel end the program when the supervisor is killed (Linux); this runs before the program begins."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
