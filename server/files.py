"""The files of a run folder: whole or as they were before, and one clear error where the disk takes no more."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients.sensing.durable import temporary_beside, write_durably

LOCK = ".lock"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, after which the disk holds the old one or the new one.

    Raises:
        OSError: the disk takes no more; the old file is as it was.
    """
    try:
        write_durably(path, content)
    except OSError as error:
        raise unwritable(path, error) from error


def show(path: Path, text: str) -> None:
    """Replace a file for whoever reads it meanwhile; what a power cut leaves of it does not matter.

    Raises:
        OSError: the disk takes no more; the old file is as it was.
    """
    temporary = temporary_beside(path)
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Add a line of JSON to a file, after which the disk holds it.

    Raises:
        OSError: the disk takes no more; the file is as it was.
    """
    # Without a buffer, since a buffer that could not be written would be written after all when the file is closed.
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            left = memoryview(json.dumps(values).encode() + b"\n")
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(size)
            raise unwritable(path, error) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of JSON in a file; none if it is not there. A last line cut short by a crash is left out."""
    lines = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def unwritable(path: Path, error: OSError) -> OSError:
    """What to tell when a file of a run cannot be written."""
    return OSError(
        f"{path}: cannot be written ({error.strerror or error}); what was there before is whole: "
        "make room on the disk, then go on with softbeam resume"
    )


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Keep a run folder to this server: two that write one would spoil what both have learned.

    The kernel lets go of the lock however the process ends.

    Raises:
        ValueError: another server works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another server works on this run; wait for its end, or stop it") from None
        yield
