"""How processes that share a terminal end together, without a word from those that only work for another."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Let processes that are started in here not see Ctrl-C, which a terminal sends to all; who starts them ends them.

    Even a process that is still importing would print a traceback otherwise.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Asked:
    """Whether a signal has asked this process to end: threads learn of it only by what it breaks."""

    is_set = False


def ask_to_end(is_asked: bool) -> None:
    """Note that a signal asked this process to end, or that it was obeyed."""
    _Asked.is_set = is_asked


def is_asked_to_end() -> bool:
    """Whether a signal has asked this process to end."""
    return _Asked.is_set


def end_children() -> None:
    """End the worker processes of this process at once; what they had not finished is lost."""
    for child in multiprocessing.active_children():
        child.kill()
