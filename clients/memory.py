"""What a client remembers between two messages, on its own disk: student, optimizer, progress, targets.

Flower gives a client no memory that survives a restart, and in simulation any worker process may serve any
client, so the memory is a file, written whole or not at all and named by the round that made it. The three newest are
kept: a server that resumes from its last checkpoint may ask for a round again, from the one before it for two, and a
file that has become unreadable leaves an older one.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from clients.learning.state import BROKEN, pack_state, unpack_state
from configs.files import make_folder, remove_leftovers, write_durably

log = logging.getLogger(__name__)

KEPT = 3


class ClientMemory:
    """The memory of one client in one run.

    Args:
        folder: of this client and run; made when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, *, before_round: int) -> dict[str, Any] | None:
        """The newest readable state made before a round; None if there is none.

        A file that cannot be read is set aside under the name ``*.broken``. What the older state lacks of the targets,
        the server sends again: the client tells it how far it is behind.
        """
        for path in reversed(self._paths()):
            if int(path.stem) >= before_round:
                continue
            try:
                return unpack_state(path.read_bytes())
            except MemoryError:
                raise  # The file is as good as ever.
            except Exception as error:
                # torch.load raises whatever the broken byte happened to hit.
                set_aside(path, error)
        return None

    def save(self, state: dict[str, Any], *, round_number: int) -> None:
        """Write the state after a round.

        Raises:
            OSError: the disk is full or broken; the old files are as they were, and no part of a new one is left.
        """
        make_folder(self.folder)
        remove_leftovers(self.folder)
        write_durably(self.folder / f"{round_number:06d}.pt", pack_state(state))
        # A later round's state belongs to a course of events that the server has gone back on.
        newer = [path for path in self._paths() if int(path.stem) > round_number]
        for path in [*newer, *self._paths()[: -KEPT - len(newer)]]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.pt"))


def set_aside(path: Path, error: Exception) -> None:
    """Rename a file that cannot be read, so that nobody tries again and somebody can look at it."""
    log.warning("%s: not readable (%s); set aside as %s%s", path, type(error).__name__, path.name, BROKEN)
    with suppress(OSError):
        path.replace(path.with_name(path.name + BROKEN))
