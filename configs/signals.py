"""How processes that share a terminal end together, without a word from those that only work for another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection


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


def end_with_parent() -> None:
    """Let this worker process end as soon as the process that started it has, however that came about.

    A process that is killed ends nobody, and one that a signal interrupts while it starts workers does not know them
    all: those that are left would wait for work for ever. It is the initializer of a pool.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def end_children() -> None:
    """End the worker processes of this process at once; what they had not finished is lost."""
    for child in multiprocessing.active_children():
        child.kill()
