"""The folder for data that can be made again: one for each user, wherever a command is given.

    data/          federations and the passes of studies
    converted/     conversions of DeepSense 6G releases
    bench/         what benchmarks keep
    digests/       what the files of releases hold (`configs.contents`)
    runs/          results and memory of runs that Flower started itself; no cache, and never cleaned

A process that uses something in it holds a shared lock in ``.<name>.used`` beside it. The kernel lets go of the lock
however the process ends, and the time of the file is that of the last use.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

from configs.paths import expanded

log = logging.getLogger(__name__)

HOME_VARIABLE = "SOFTBEAM_HOME"
CACHE_VARIABLE = "XDG_CACHE_HOME"
# Where earlier versions kept data: in the folder in which a command was given.
OLD_HOME = ".softbeam"
KINDS = ("data", "converted", "bench", "digests")
USED = ".used"

# The locks that this process holds as long as it lives.
_held: dict[Path, int] = {}
_told: set[Path] = set()


def softbeam_home() -> Path:
    """The folder for generated data.

    It is ``$SOFTBEAM_HOME``; without it, ``softbeam`` in ``$XDG_CACHE_HOME`` or, without that, in ``~/.cache``.

    Raises:
        ValueError: the user has no home, or may not write there, and no variable names a folder.
    """
    if named := os.environ.get(HOME_VARIABLE):
        return expanded(named).resolve()
    cache = Path(os.environ.get(CACHE_VARIABLE, ""))
    try:
        # A relative path is to be ignored. Source: XDG Base Directory Specification 0.8.
        home = (cache if cache.is_absolute() else Path.home() / ".cache") / "softbeam"
    except RuntimeError:
        raise ValueError(f"{HOME_VARIABLE}: this user has no home; set the variable to a folder for data") from None
    if not _can_be_made(home):
        raise ValueError(f"{HOME_VARIABLE}: {home} cannot be written to; set the variable to a folder for data")
    _tell_of_old_home(home)
    return home.resolve()


def _can_be_made(folder: Path) -> bool:
    """Whether this user may make a folder, or write into it where it is there."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return os.access(there, os.W_OK | os.X_OK)


def _tell_of_old_home(home: Path) -> None:
    """Say once where data of earlier versions lies that is not looked into."""
    old = Path(OLD_HOME).absolute()
    if old in _told or not any((old / kind).is_dir() for kind in (*KINDS, "runs")):
        return
    _told.add(old)
    log.warning(
        "%s: an earlier version kept its data here; it is now in %s for all folders. Remove the old folder, or set "
        "%s=%s to go on using it",
        *(old, home, HOME_VARIABLE, old),
    )


def in_use_file(path: Path) -> Path:
    """The file beside an entry in which its users hold a lock."""
    return path.with_name(f".{path.name}{USED}")


def hold(path: Path) -> None:
    """Keep an entry of the cache from being cleaned as long as this process lives, and note that it is used now.

    A path outside of :func:`softbeam_home` is left alone, and so is a cache that cannot be written to.
    """
    if softbeam_home() not in path.resolve().parents:
        return
    file = in_use_file(path.resolve())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        while file not in _held or not is_still(file, _held[file]):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            # Who cleaned it has removed the file; a lock in a removed file holds nobody back.
            if is_still(file, descriptor):
                _held[file] = descriptor
            else:
                os.close(descriptor)
        os.utime(file)
    except OSError as error:
        log.debug("%s: not noted as used (%s)", path, error)


def let_go(path: Path) -> None:
    """Take back :func:`hold` of an entry that could not be made, and leave no trace of it."""
    file = in_use_file(path.resolve())
    if path.exists() or (descriptor := _held.pop(file, None)) is None:
        return
    with suppress(OSError):
        file.unlink()
    os.close(descriptor)


def is_still(path: Path, descriptor: int) -> bool:
    """Whether a path still leads to the file that was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
