"""Files and folders that are whole or not there, whatever stops their writer: a crash, a power cut, a full disk.

There is one way to write a file, :func:`write_durably`, and one for the files of a run, :func:`write_whole`, which is
the same with an error that says how to go on. A folder appears whole (:func:`fresh_folder`), is made once
(:func:`make_once`) and is written to by one process at a time (:func:`locked`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shlex
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.advice import advice_for, again

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOCK = ".lock"
EXPERIMENT = "experiment.yaml"
"""The experiment of a run, in the folder of the run."""
# The number of files that the disk is asked for together.
SYNCED_AT_ONCE = 16
_FOREIGN = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin")

log = logging.getLogger(__name__)


def is_plain_name(text: str) -> bool:
    """Whether a text names one file or folder right here: no separator in it, not empty, not ``.`` or ``..``."""
    return text not in ("", ".", "..") and not set(text) & set("/\\\0")


def read_plain(path: Path) -> bytes:
    """The bytes of a file; a pipe or a device is refused, because whoever reads one may wait for ever.

    Raises:
        OSError: it is no plain file, or cannot be read; the error says which.
    """
    require_plain(path)
    return path.read_bytes()


def require_plain(path: Path) -> None:
    """Refuse a path that is no plain file, before a library opens it.

    Raises:
        OSError: the reasons are those of :func:`read_plain`.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        text = os.strerror(number) if stat.S_ISDIR(mode) else "it is a pipe or a device and no file"
        raise OSError(number, text, str(path))


def map_array(path: Path) -> NDArray[np.generic]:
    """Map the array of a ``.npy`` file into memory.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be opened, or is no plain file: whoever reads a pipe may wait for ever.
        ValueError: it is no whole ``.npy`` array.
    """
    # It is imported here, since commands that read no data start sooner without it.
    import numpy as np

    require_plain(path)
    array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive of numpy.savez under the name of an array")
    return array


def is_foreign(relative: Path | str) -> bool:
    """Whether a path, relative to a folder that is listed, is what an operating system left there, or is hidden.

    macOS puts a file ``._name`` beside each file on other disks and ``__MACOSX`` into archives; file managers leave
    ``.DS_Store``, ``Thumbs.db`` and ``desktop.ini``. Hidden names of our own are drafts and locks. None of it is data.
    """
    return any(part.startswith(".") or part.lower() in _FOREIGN for part in Path(relative).parts)


def listed(folder: Path, pattern: str) -> list[Path]:
    """The paths below a folder whose names fit a pattern, in order, without those that :func:`is_foreign` names."""
    return sorted(path for path in folder.rglob(pattern) if not is_foreign(path.relative_to(folder)))


def temporary_beside(path: Path) -> Path:
    """Where this process writes what is to become ``path``; :func:`remove_leftovers` knows such names."""
    return path.parent / f".{path.name}.{os.getpid()}.tmp"


def as_bytes(content: bytes | str) -> bytes:
    """Content as a file takes it: a path that is no UTF-8 is shown in a text, and does not end the writer."""
    return content.encode(errors="backslashreplace") if isinstance(content, str) else content


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the system say which file it is about, also one that came when the file was open."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_durably(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file, after which the disk holds the old one or the new one, never a part of either.

    Args:
        path: its folder is made if missing.
        content: the content of the file.
        mode: the permissions of a new file, before the umask.

    Raises:
        OSError: it could not be written; the old file is as it was, and nothing half-written is left.
    """
    make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        with _naming(path), open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def modes_like(folder: Path) -> Iterator[None]:
    """Within the block, let those read and write new files who may read and write in a folder, and nobody else.

    So all files of a run have one mode, whichever process writes them and whatever its umask is: the one that the umask
    gave when the run folder was made. Files that are their owner's alone stay so.
    """
    before = os.umask(~folder.stat().st_mode & 0o777)
    try:
        yield
    finally:
        os.umask(before)


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
        OSError: the disk reports an error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(files: Collection[Path]) -> None:
    """Wait until the disk holds some files and what their folders list; one that is gone meanwhile is left out.

    The files are waited for together, which the disk does faster than one after the other.

    Raises:
        OSError: the disk reports an error.
    """

    def wait(path: Path) -> None:
        with suppress(FileNotFoundError):
            sync(path)

    if files:
        with ThreadPoolExecutor(max_workers=SYNCED_AT_ONCE) as threads:
            list(threads.map(wait, [*files, *{path.parent for path in files}]))


def reserve(path: Path, num_bytes: int) -> None:
    """Take room on the disk for a file of a size, before it is written through a memory map.

    A map cannot say that the disk is full: its process is ended by a signal, without a word.

    Raises:
        OSError: there is no room; the file is removed. The message names it and says how to go on.
    """
    try:
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            else:
                file.seek(0, os.SEEK_END)
                while (left := num_bytes - file.tell()) > 0:
                    file.write(bytes(min(left, 1 << 20)))
    except OSError as error:
        path.unlink(missing_ok=True)
        taken = f"it takes {num_bytes / 1e6:.1f} MB"
        raise OSError(f"{path}: cannot be written ({error.strerror or error}); {taken}: {again(error)}") from error


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


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file of a run, after which the disk holds the old one or the new one.

    Raises:
        OSError: the disk takes no more; the old file is as it was. The message says how to go on.
    """
    try:
        write_durably(path, as_bytes(content))
    except OSError as error:
        raise unwritable(path, error) from error


def swap_in(path: Path, content: bytes | str) -> None:
    """Replace a file at once for whoever reads it meanwhile, without waiting for the disk: a power cut may lose it.

    Raises:
        OSError: the disk takes no more; the old file is as it was.
    """
    temporary = temporary_beside(path)
    try:
        with _naming(path):
            temporary.write_bytes(as_bytes(content))
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def plain_cell(value: Any) -> Any:
    """A cell of a CSV file that a spreadsheet takes for what it is: a text never begins as a formula does.

    Source: OWASP, CSV injection. Numbers stay numbers.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Add a line of JSON to a file, after which the disk holds it; it begins a line of its own even after a crash.

    Raises:
        OSError: the disk takes no more; the file is as it was.
    """
    # Without a buffer, since a buffer that could not be written would be written after all when the file is closed.
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        try:
            left = memoryview(start + json.dumps(values).encode() + b"\n")
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(size)
            raise unwritable(path, error) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of JSON in a file; none if it is not there. A line cut short by a crash is left out."""
    lines = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def unwritable(path: Path, error: OSError) -> OSError:
    """The error that says how to go on when a file of a run cannot be written, with its run if it is in one."""
    run = next((folder for folder in path.parents if (folder / EXPERIMENT).is_file()), None)
    named = "" if run is None else f" {shlex.quote(str(run))}"
    return OSError(
        f"{path}: cannot be written ({error.strerror or error}); what was there before is whole: "
        f"{advice_for(error)}, then go on with softbeam resume{named}"
    )


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Keep a run folder for this server alone: two servers that write to it would spoil what both have learned.

    Raises:
        ValueError: another server works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, f"{folder}: another server works on this run; wait for its end, or stop it"):
        yield


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """A draft beside ``folder`` that takes its name once it is whole, and vanishes on an error.

    Raises:
        ValueError: the folder exists.
    """
    if folder.exists():
        raise ValueError(f"{folder}: exists already; remove it or name another folder")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.rename(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if error.filename is None:  # such as of a file that was open when the disk was full
            raise OSError(f"{folder}: cannot be written ({error.strerror or error}); {again(error)}") from error
        raise
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def make_once(folder: Path, make: Callable[[], None]) -> bool:
    """Make a folder that appears whole, unless it is there; whoever comes late waits and takes what the first made.

    Returns:
        Whether it was made here.
    """
    if folder.exists():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with waited_for(folder.with_name(f".{folder.name}{LOCK}")):
        if folder.exists():
            return False
        make()
    return True


def _is_at(path: Path, state: os.stat_result) -> bool:
    """Whether a path still leads to the file of a state."""
    try:
        return os.path.samestat(path.stat(), state)
    except FileNotFoundError:
        return False


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Hold the lock in a file as soon as no other process does; the file is made and removed, and waiting is logged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("%s: another process is at work on this; waiting for it", path.parent)
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Who held it before has removed the file, and somebody may have made another one since.
            if not _is_at(path, os.fstat(lock.fileno())):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock in a file, made if missing; a process that ends in any way lets go of it.

    Raises:
        ValueError: another process holds it; the message is ``busy``.
    """
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(busy) from None
        yield
