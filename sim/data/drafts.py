"""Folders that appear whole or not at all, are made once and written to by one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """A draft beside ``folder`` that takes its name once it is whole, and vanishes on an error.

    Raises:
        ValueError: the folder exists.
    """
    if folder.exists():
        raise ValueError(f"{folder}: exists already; remove it or name another folder")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def make_once(folder: Path, make: Callable[[], None]) -> None:
    """Make a folder that appears whole, unless it is there; another process may make the same meanwhile."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        make()
    except OSError:
        # The other was first; otherwise the disk is to blame.
        if not folder.exists():
            raise


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock in a file, made if missing; a process that ends in any way lets go of it.

    Raises:
        ValueError: another process holds it; the message is ``busy``.
    """
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(busy) from None
        yield
