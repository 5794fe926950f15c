"""Who is who among the processes of this machine: the members of a session, and who listens on a port.

The kernel says both in /proc. On a system without it nothing is known: no members, and no holder of a port.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from strategies.messages.records import one_line

_PROC = Path("/proc")
_LISTENS = "0A"
_LOOK_S = 0.02


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port.

    Attributes:
        pid: its id; None if it belongs to another user and cannot be seen.
        session: the id of its session; None if it cannot be seen.
        command: its name, as it calls itself.
    """

    pid: int | None
    session: int | None
    command: str

    def __str__(self) -> str:
        return f"{self.command} (process {self.pid})" if self.pid is not None else self.command


def can_tell() -> bool:
    """Whether this system says what this module asks for; where it does not, nothing may be concluded from it."""
    return _PROC.is_dir()


def leader_works(pid: int) -> bool:
    """Whether a process that began a session works; where the system does not say it, whether there is such an id."""
    if can_tell():
        return pid in members(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def members(session: int) -> list[int]:
    """The ids of the processes of a session that still work; one that ended and was not waited for does not."""
    return [pid for pid, (state, of) in _processes() if of == session and state != "Z"]


def end_session(session: int, *, grace_s: float) -> list[int]:
    """End what is left of a session: by SIGTERM, and by SIGKILL after some seconds.

    Returns:
        The ids of the processes that were left when this began.
    """
    left = members(session)
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 1.0)):
        end = time.monotonic() + wait_s
        for pid in members(session):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        while members(session) and time.monotonic() < end:
            time.sleep(_LOOK_S)
    return left


def listens(session: int, port: int) -> bool:
    """Whether a process of a session listens on a TCP port of this machine."""
    inodes = set(_listening_inodes(port))
    return bool(inodes) and any(inodes.intersection(_sockets_of(pid)) for pid in members(session))


def holders(port: int) -> list[Holder]:
    """The processes that listen on a TCP port of this machine, at any address; empty if nobody does."""
    inodes = set(_listening_inodes(port))
    if not inodes:
        return []
    found = []
    for pid, (_, session) in _processes():
        if inodes.intersection(_sockets_of(pid)):
            found.append(Holder(pid, session, command_of(pid)))
    return found or [Holder(None, None, "a process of another user")]


def command_of(pid: int) -> str:
    """The command line of a process, in one short line; its name if it has none."""
    with contextlib.suppress(OSError):
        words = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return one_line(words or (_PROC / str(pid) / "comm").read_text().strip())[:80]
    return "a process that has ended"


def _processes() -> Iterator[tuple[int, tuple[str, int]]]:
    """Process id -> its state and its session, for every process."""
    with contextlib.suppress(OSError):
        for name in os.listdir(_PROC):
            if name.isdecimal():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    # The name of the program is in brackets, and may itself contain brackets.
                    fields = (_PROC / name / "stat").read_text(errors="replace").rpartition(")")[2].split()
                    yield int(name), (fields[0], int(fields[3]))


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _sockets_of(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(_PROC / str(pid) / "fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(_PROC / str(pid) / "fd" / descriptor)
                if target.startswith("socket:["):
                    yield target[8:-1]
