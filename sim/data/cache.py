"""What lies in the folder for generated data: what made it, its size, when it was used, and who uses it now."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.files import LOCK, is_foreign
from configs.home import KINDS, USED, in_use_file, is_still, softbeam_home
from configs.spelling import did_you_mean
from sim.data.conversion import PROVENANCE

DRAFT = "draft"


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache.

    Attributes:
        path: the path of the folder or file.
        kind: the folder in which it lies, one of `KINDS`; ``draft`` if its making was stopped.
        made_by: what made it, in words.
        num_bytes: its size on the disk.
        used: when it was used last, or else made, in seconds since 1970.
        in_use: whether a running process uses or makes it.
    """

    path: Path
    kind: str
    made_by: str
    num_bytes: int
    used: float
    in_use: bool

    @property
    def name(self) -> str:
        """The name by which `softbeam data clean` takes it."""
        return self.path.name

    def to_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return {
            "name": self.name,
            "kind": self.kind,
            "path": str(self.path),
            "made_by": self.made_by,
            "bytes": self.num_bytes,
            "used": self.used,
            "in_use": self.in_use,
        }


@dataclass(frozen=True)
class CleaningResult:
    """What cleaning did.

    Attributes:
        freed: the entries that are gone.
        kept: the entries that stay because a running process uses them.
    """

    freed: tuple[CacheEntry, ...]
    kept: tuple[CacheEntry, ...]

    @property
    def num_bytes(self) -> int:
        """The room that was made."""
        return sum(entry.num_bytes for entry in self.freed)


def cache_entries() -> list[CacheEntry]:
    """Everything in the cache, by kind and name; what Flower's own runs left in ``runs/`` is no cache."""
    found = []
    for kind in KINDS:
        folder = softbeam_home() / kind
        if not folder.is_dir():
            continue
        if kind == "digests":
            found.append(_entry(folder, kind))
            continue
        for path in sorted(folder.iterdir()):
            if not is_foreign(path.name):
                found.append(_entry(path, kind))
            elif _is_draft(path):
                found.append(_entry(path, DRAFT))
    return found


def clean_cache(entries: Sequence[CacheEntry]) -> CleaningResult:
    """Remove entries, except those that a running process uses or makes.

    A process that begins to use an entry meanwhile waits until it is gone, and makes it again.

    Raises:
        OSError: something cannot be removed; what was removed before it is gone.
    """
    freed, kept = [], []
    for entry in entries:
        with _alone(entry.path, make=True) as is_free:
            if not is_free:
                kept.append(entry)
                continue
            # Under another name first: a process that is killed now leaves a draft, and no half of a federation.
            doomed = entry.path.with_name(f".{entry.name.lstrip('.')}.{os.getpid()}")
            entry.path.rename(doomed)
            if doomed.is_dir() and not doomed.is_symlink():
                shutil.rmtree(doomed)
            else:
                doomed.unlink()
            freed.append(entry)
    return CleaningResult(tuple(freed), tuple(kept))


def _entry(path: Path, kind: str) -> CacheEntry:
    with _alone(path) as is_free:
        return CacheEntry(path, kind, _made_by(path, kind), _size(path), _last_use(path), not is_free)


def _is_draft(path: Path) -> bool:
    """Whether a hidden path is what a stopped process was making: ``.name.draft`` or ``.name.PID``."""
    ending = path.suffix[1:]
    return path.is_dir() and path.name.startswith(".") and (ending == DRAFT or ending.isdigit())


def _entry_of(path: Path) -> Path:
    """The entry that a draft is to become; any other path is an entry itself."""
    return path.with_name(path.name[1:].rpartition(".")[0]) if path.name.startswith(".") else path


@contextmanager
def _alone(path: Path, *, make: bool = False) -> Iterator[bool]:
    """Hold the locks of those who use and make an entry, and say whether nobody else does.

    With ``make``, the lock is there also if nobody has used the entry so far, so that others wait for it from now on.
    """
    entry = _entry_of(path)
    with (
        _lock(in_use_file(entry), make=make) as nobody_uses,
        _lock(entry.with_name(f".{entry.name}{LOCK}")) as nobody_makes,
    ):
        yield nobody_uses and nobody_makes


@contextmanager
def _lock(file: Path, *, make: bool = False) -> Iterator[bool]:
    """Hold the lock in a file if there is one and nobody has it; a file without an entry is removed at the end."""
    try:
        descriptor = os.open(file, os.O_RDWR | (os.O_CREAT if make else 0), 0o666)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield is_still(file, descriptor)
        entry = file.with_name(file.name[1:].removesuffix(USED).removesuffix(LOCK))
        if not entry.exists():
            file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    """The bytes of all files of an entry; what vanishes meanwhile does not count."""
    total = 0
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            total += one.lstat().st_size if not one.is_dir() else 0
    return total


def _last_use(path: Path) -> float:
    for file in (in_use_file(_entry_of(path)), path):
        with suppress(FileNotFoundError):
            return file.stat().st_mtime
    return time.time()


def _made_by(path: Path, kind: str) -> str:
    if kind == DRAFT:
        return f"a process that was stopped, for {_entry_of(path).name}"
    if kind == "digests":
        return "reading releases: what their files hold"
    if kind == "bench":
        return "softbeam bench"
    if path.name.startswith("study-"):
        return "softbeam study"
    file = path / (PROVENANCE if kind == "converted" else "federation.json")
    try:
        values = json.loads(file.read_text())
        if kind == "converted":
            return f"conversion of {values['scenario']}"
        source = values.get("scenario") or values.get("source", "data")
        name = path.name.rpartition("-")[0]
        return f"{name}, seed {values.get('seed', '?')}: {source}, {len(values.get('clients', []))} clients"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "unknown"


def choose_entries(
    entries: Sequence[CacheEntry], names: Sequence[str], *, older_s: float | None = None
) -> list[CacheEntry]:
    """The entries of these names, or all of them; of these, the ones that were last used so long ago.

    Args:
        entries: the entries to choose from.
        names: names or paths of entries, or names of experiments; none means all.
        older_s: the least number of seconds since the last use; None means any.

    Raises:
        ValueError: there is no entry of a name.
    """
    chosen = list(entries)
    if names:
        # What an experiment made has its name, and behind that a digest.
        known = {name for entry in entries for name in (entry.name, entry.name.rpartition("-")[0] or entry.name)}
        wanted = {Path(name.rstrip("/")).name for name in names}
        for name in sorted(wanted - known):
            raise ValueError(f"{name}: not in the cache{did_you_mean(name, known)}; see softbeam data list")
        chosen = [entry for entry in entries if {entry.name, entry.name.rpartition("-")[0]} & wanted]
    now = time.time()
    return [entry for entry in chosen if older_s is None or now - entry.used >= older_s]


def seconds_of(age: str) -> float:
    """The seconds in an age such as ``36h``, ``30d`` or ``2w``; a bare number counts days.

    Raises:
        ValueError: it is no age.

    Example:
        >>> [seconds_of(age) for age in ("90s", "2h", "1", "2w")]
        [90.0, 7200.0, 86400.0, 1209600.0]
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", age)
    if found is None:
        raise ValueError(f"--older {age}: expected a number with s, m, h, d or w, such as 30d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "": 86400, "d": 86400, "w": 604800}[found[2]]
