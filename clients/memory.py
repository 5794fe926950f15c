"""What a client remembers between two messages, on its own disk: student, optimizer, progress, targets.

Flower gives a client no memory that survives a restart, and in simulation any worker process may serve any
client, so the memory is a file, written atomically and named by the round that made it. The two newest are
kept: a server that resumes may ask for a round again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

KEPT = 2


class ClientMemory:
    """The memory of one client in one run.

    Args:
        folder: of this client and run; made when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, *, before_round: int) -> dict[str, Any] | None:
        """The newest state made before a round; None if there is none.

        Raises:
            ValueError: the file cannot be read.
        """
        paths = [path for path in self._paths() if int(path.stem) < before_round]
        if not paths:
            return None
        try:
            state: dict[str, Any] = torch.load(paths[-1], weights_only=True)
        except Exception as error:
            # torch.load raises whatever the broken byte happened to hit.
            raise ValueError(
                f"{paths[-1]}: not readable ({type(error).__name__}); delete it to start this client anew"
            ) from error
        return state

    def save(self, state: dict[str, Any], *, round_number: int) -> None:
        """Write the state after a round; a crash leaves the old files as they were."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{round_number}.{os.getpid()}.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / f"{round_number:06d}.pt")
        # A later round's state belongs to a course of events that the server has gone back on.
        newer = [path for path in self._paths() if int(path.stem) > round_number]
        for path in [*newer, *self._paths()[: -KEPT - len(newer)]]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.pt"))
