"""Serves the clients of a node together: wherever each of them has a round to learn, they learn it at once.

The work of a client is a generator. It yields each round that it has to learn as a `Learning`, gets the mean loss, and
returns its reply. So a client does not know whether it has company, and one alone (a real node, and by default every
node of a simulation) does what it would do without this module, to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from clients.learning.cohort import Learning, learn_together, outcome_of
from strategies.messages.wire import Reply

Work = Generator[Learning, float, Reply]
"""What a client does with one message."""


@dataclass(frozen=True)
class Served:
    """What became of the work of a client.

    Attributes:
        reply: its reply, or what it raised.
        seconds: the seconds that it took; of what clients learned at once, each counts an equal share.
    """

    reply: Reply | BaseException
    seconds: float


def serve(works: Mapping[str, Work]) -> dict[str, Served]:
    """Do the work of all clients of a node; whatever raises is the outcome of one client alone.

    Args:
        works: client -> its work, which has not begun.

    Returns:
        Client -> what became of it.
    """
    replies: dict[str, Reply | BaseException] = {}
    seconds = dict.fromkeys(works, 0.0)

    def advance(client: str, call: Callable[[], Learning]) -> None:
        begin = time.monotonic()
        found = outcome_of(call)
        seconds[client] += time.monotonic() - begin
        if isinstance(found, StopIteration):
            replies[client] = found.value
        elif isinstance(found, BaseException):
            replies[client] = found
        else:
            waiting[client] = found

    waiting: dict[str, Learning] = {}
    for client, work in works.items():
        advance(client, work.__next__)
    while waiting:
        rounds, waiting = waiting, {}
        begin = time.monotonic()
        losses = dict(zip(rounds, learn_together(list(rounds.values())), strict=True))
        share = (time.monotonic() - begin) / len(rounds)
        for client, loss in losses.items():
            seconds[client] += share
            work = works[client]
            if isinstance(loss, BaseException):
                advance(client, lambda work=work, loss=loss: work.throw(loss))  # type: ignore[misc]
            else:
                advance(client, lambda work=work, loss=loss: work.send(loss))  # type: ignore[misc]
    return {client: Served(replies[client], seconds[client]) for client in works}


def alone(work: Work) -> Reply:
    """Do the work of one client, and return its reply or raise what it raises."""
    reply = serve({"": work})[""].reply
    if isinstance(reply, BaseException):
        raise reply
    return reply
