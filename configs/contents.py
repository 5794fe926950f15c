"""What the files of a folder hold, without reading them all each time.

A file that has the device, inode, size and times of the last look holds what it held then; the time of the change of
state (ctime) cannot be set back, as that of the contents (mtime) can. Any other file is read. So files that were
replaced are noticed although their size and time are as before, and folders that were renamed, copied or touched hold
what they held.

Source: git's index decides alike, and like it, a file that changed within the last moments is looked at again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from configs.files import is_foreign, write_durably

# Files that no reader opens, such as the download beside what was unpacked from it, are told by name and size.
NEVER_READ = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".mp4", ".avi", ".mov", ".bag")
# Clocks of file systems tick up to so slowly.
_TICK_NS = 2 * 10**9


class FolderContents:
    """The digests of the files of a folder.

    Args:
        folder: the folder.
        known: the file that keeps what was found, for the next time; None keeps nothing.
    """

    def __init__(self, folder: Path, known: Path | None = None) -> None:
        self.folder = folder
        self._file = known
        self._known = _read(known)
        self._found: dict[str, list[object]] = {}  # device and inode -> size, both times, digest

    def digest_of(self, path: Path) -> str:
        """The digest of what a file holds, in hexadecimal.

        Raises:
            OSError: it cannot be read.
        """
        state = path.stat()
        if path.suffix.lower() in NEVER_READ:
            return str(state.st_size)
        name, stamp = f"{state.st_dev}:{state.st_ino}", [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        entry = self._found.get(name) or self._known.get(name)
        if entry is None or entry[:-1] != stamp:
            with path.open("rb") as stream:
                entry = [*stamp, hashlib.file_digest(stream, "sha256").hexdigest()]
        self._found[name] = entry
        return str(entry[-1])

    def digest(self) -> str:
        """The digest of names and contents of all files below the folder, however a disk lists them.

        Links to folders are followed. What an operating system left there does not count. A folder that is not there
        has a digest, too; whoever reads it says that it is missing.
        """
        found = hashlib.sha256()
        for path in _files(self.folder):
            found.update(f"{path.relative_to(self.folder).as_posix()} {self.digest_of(path)}\n".encode())
        self._known = {name: entry for name, entry in self._known.items() if name in self._found}
        self.keep()
        return found.hexdigest()

    def keep(self) -> None:
        """Keep what was found for the next time; a cache that cannot be written to costs that time only."""
        newest = time.time_ns() - _TICK_NS
        settled = {name: entry for name, entry in self._found.items() if int(str(entry[2])) < newest}
        if self._file is None or all(self._known.get(name) == entry for name, entry in settled.items()):
            return
        settled = {**self._known, **settled}
        with suppress(OSError):
            write_durably(self._file, json.dumps(settled).encode())


def _files(folder: Path) -> list[Path]:
    """All files below a folder, links to folders followed, each real folder once on its way down."""
    found: list[Path] = []

    def descend(at: Path, above: tuple[str, ...]) -> None:
        real = os.path.realpath(at)
        if real in above:  # a link to a folder above it
            return
        for entry in os.scandir(at):
            if is_foreign(entry.name):
                continue
            if entry.is_dir():
                descend(at / entry.name, (*above, real))
            elif entry.is_file():
                found.append(at / entry.name)

    with suppress(FileNotFoundError, NotADirectoryError):
        descend(folder, ())
    return sorted(found)


def _read(known: Path | None) -> dict[str, list[object]]:
    if known is None:
        return {}
    try:
        values = json.loads(known.read_bytes())
        return {name: entry for name, entry in values.items() if isinstance(entry, list) and len(entry) == 4}
    except (OSError, ValueError, AttributeError):
        return {}
