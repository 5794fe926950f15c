"""Files that are whole or not there, whatever stops their writer: a crash, a power cut, a full disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def is_plain_name(text: str) -> bool:
    """Whether a text names one file or folder right here: no separator in it, not empty, not ``.`` or ``..``."""
    return text not in ("", ".", "..") and not set(text) & set("/\\\0")


def temporary_beside(path: Path) -> Path:
    """Where this process writes what is to become ``path``; :func:`remove_leftovers` knows such names."""
    return path.parent / f".{path.name}.{os.getpid()}.tmp"


def write_durably(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file, after which the disk holds the old one or the new one, never a part of either.

    Args:
        path: its folder is made if missing.
        content: of the file.
        mode: of a new file, less the umask.

    Raises:
        OSError: it could not be written; the old file is as it was, and nothing half-written is left.
    """
    make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents durably; one that is there stays as it is.

    Raises:
        OSError: it could not be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the disk holds what was written to a file, or what a folder lists.

    Raises:
        OSError: the disk could not.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that died while they wrote; those of living ones stay."""
    for path in folder.glob(".*.tmp"):
        writer = path.name.split(".")[-2]
        if writer.isdigit() and (int(writer) == os.getpid() or not _is_alive(int(writer))):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
