"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below the ports that systems hand to outgoing connections (Linux 32768 to 60999, IANA 49152 to 65535): between the
# moment in which a port is found free and that in which its server listens, no connection of anybody can take it.
_FIRST, _LAST = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """Ports of this machine at which nobody listens and that no outgoing connection gets; all differ."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = random.SystemRandom().randint(_FIRST, _LAST)
            one = held.enter_context(socket.socket())
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]
