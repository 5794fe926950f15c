"""What a client remembers between two messages, on its own disk: student, optimizer, progress, targets.

Flower gives a client no memory that survives a restart, and in simulation any worker process may serve any client. So
the memory is a file, which is written completely or not at all and named by the round that made it. The three newest
files are kept: a server that resumes from its last checkpoint may repeat one round, from the checkpoint before it two
rounds, and if a file has become unreadable, an older one is left.

A real client waits for its disk after each message. A virtual one does not: the operating system holds what it wrote
when its process is killed, and the server waits for the disk, for all clients at once, before each of its checkpoints
(`server.checkpoint`).
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from clients.learning.state import BROKEN, SUFFIX, pack_state, room_for, unpack_state
from configs.files import make_folder, remove_leftovers, swap_in, write_durably

log = logging.getLogger(__name__)

KEPT = 3


class ClientMemory:
    """The memory of one client in one run.

    Args:
        folder: the folder of this client in this run; it is made at the first write.
        is_durable: whether each write waits for the disk; otherwise a power cut may lose what no checkpoint covers.
    """

    def __init__(self, folder: Path, *, is_durable: bool = True) -> None:
        self.folder = folder
        self._write = write_durably if is_durable else swap_in

    def load(self, *, before_round: int) -> dict[str, Any] | None:
        """The newest readable state that was made before a round; None if there is none.

        A file that cannot be read is set aside under the name ``*.broken``. If the older state lacks targets, the
        client tells the server which round it has reached, and the server sends the missing ones again.
        """
        for path in reversed(self._paths()):
            if int(path.stem) >= before_round:
                continue
            try:
                return unpack_state(_content(path))
            except MemoryError:
                raise  # The file itself is not damaged.
            except Exception as error:
                # What is raised depends on which byte is broken.
                set_aside(path, error)
        return None

    @property
    def last_round(self) -> int | None:
        """The round of the newest state; None if there is none."""
        paths = self._paths()
        return int(paths[-1].stem) if paths else None

    def save(self, state: dict[str, Any], *, round_number: int) -> None:
        """Write the state after a round.

        Raises:
            OSError: the disk is full or broken; the old files are unchanged, and no part of a new one is left.
        """
        make_folder(self.folder)
        remove_leftovers(self.folder)
        self._write(self.folder / f"{round_number:06d}{SUFFIX}", pack_state(state))
        # The server has gone back to this round, so the states of later rounds are no longer valid.
        newer = [path for path in self._paths() if int(path.stem) > round_number]
        for path in [*newer, *self._paths()[: -KEPT - len(newer)]]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"[0-9]*{SUFFIX}"))


def _content(path: Path) -> memoryview:
    """The content of a file, which becomes a state in place."""
    with path.open("rb", buffering=0) as file:
        content = room_for(os.fstat(file.fileno()).st_size)
        size = 0
        while size < len(content) and (read := file.readinto(content[size:])):
            size += read
        return content[:size]


def set_aside(path: Path, error: Exception) -> None:
    """Rename a file that cannot be read, so that it is not read again but can still be inspected."""
    log.warning("%s: not readable (%s); set aside as %s%s", path, type(error).__name__, path.name, BROKEN)
    with suppress(OSError):
        path.replace(path.with_name(path.name + BROKEN))
