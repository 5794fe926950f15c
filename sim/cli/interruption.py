"""Ctrl-C and signals that end a command: one line says what is left and how to go on, whatever is at work.

A signal reaches Python code only, and libraries answer it with stacks of their own, from threads and from other
processes. So the first one silences them, ends the worker processes and unwinds the command; whatever does not unwind
in time is left behind.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from configs.signals import ask_to_end, end_children

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE_S = 20.0
"""How long a command may take to unwind after a signal, such as to shut down Ray."""
THREADS_S = 1.0
"""How long threads may take to end by themselves."""
TIDYING_S = 5.0
"""How long libraries may take for what they do at the end of a process."""


class Interruption(KeyboardInterrupt):
    """A signal asked this command to end."""


class WayOn:
    """What the line says that a command prints when it is interrupted.

    Attributes:
        place: the folder or file that holds what was done until then; None if there is none.
        command: the command that goes on; None means the same command again.
        note: what else is to be said of the place.
    """

    def __init__(self) -> None:
        self.place: Path | None = None
        self.command: str | None = None
        self.note = ""

    def line(self, number: int) -> str:
        """The line for a signal."""
        cause = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        command = self.command or shlex.join(["softbeam", *sys.argv[1:]])
        place = "" if self.place is None else f"{self.place}: "
        note = f"; {self.note}" if self.note else ""
        return f"{place}stopped by {cause}{note}; go on with {command}"


WAY_ON = WayOn()


class Interrupts:
    """What this process has got of signals so far.

    Attributes:
        number: the first signal; None if there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._limit: threading.Timer | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first unwinds the command, the second ends it where it is."""
        if self.number is not None:
            self.end()
        self.number = number
        ask_to_end(True)
        _silence_libraries()
        end_children()
        self._limit = threading.Timer(GRACE_S, leave, (number,))
        self._limit.daemon = True
        self._limit.start()
        raise Interruption(signal.Signals(number).name)

    def end(self) -> None:
        """End this process as the signal asked, once the command has unwound; without one, nothing happens."""
        if self._limit is not None:
            self._limit.cancel()
        if self.number is not None:
            leave(self.number)


def leave_on_signals() -> None:
    """Let signals end this process with one line until `interruptible` takes over; ignored ones stay ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: leave(number))


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Let signals end what runs in here; one that is ignored, as by ``nohup``, stays ignored."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts  # only the main thread gets signals
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupts.note)
    try:
        yield interrupts
    finally:
        ask_to_end(False)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def leave(number: int) -> NoReturn:
    """Say how to go on, and end this process with the exit code of a signal, whatever its threads are at."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    with suppress(OSError):
        os.write(2, f"{WAY_ON.line(number)}\n".encode(errors="replace"))
    if threading.current_thread() is threading.main_thread() and not _others_work_on():
        # Libraries tidy up after themselves, but may wait for what the signal ended, such as the workers of a pool.
        limit = threading.Timer(TIDYING_S, os._exit, (128 + number,))
        limit.daemon = True
        limit.start()
        sys.exit(128 + number)
    os._exit(128 + number)


def _others_work_on() -> bool:
    """Whether a thread that Python would wait for goes on working; those of ended workers need a moment."""
    others = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    deadline = time.monotonic() + THREADS_S
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    return any(thread.is_alive() for thread in others)


def _silence_libraries() -> None:
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda details: None
    sys.unraisablehook = lambda details: None
