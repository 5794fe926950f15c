"""What has come back for the messages of a round so far, and whether it goes on without the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from configs.schema import Strategy
from strategies.patience import time_limit
from strategies.wire import Header, Reply, Request, WireError

Found = dict[str, Reply | WireError] | WireError
"""The replies of a message by client, or why there are none."""


class NoAnswer(WireError):
    """Nothing has come back in time."""


class Failed(WireError):
    """A node, or Flower in its place, says that it could not answer."""


@dataclass(frozen=True, eq=False)
class Sent:
    """A message on its way.

    Attributes:
        node: that it was sent to.
        header: that an answer must repeat.
        requests: by client.
        was_pushed: whether Flower took it.
        went_on: when its round went on without the answer, by `time.monotonic`; None while it waits.
    """

    node: int
    header: Header
    requests: Mapping[str, Request]
    was_pushed: bool = True
    went_on: float | None = None


@dataclass(frozen=True)
class Arrival:
    """What came back for a message.

    Attributes:
        found: in it.
        seconds: after the wait began.
    """

    found: Found
    seconds: float

    def counts(self, client: str) -> bool:
        """Whether it holds an answer of a client, as far as can be seen without decoding it."""
        reply = None if isinstance(self.found, WireError) else self.found.get(client)
        return isinstance(reply, Reply) and not reply.error


Arrivals = Mapping[str, Arrival]
"""By id of the message that was answered."""


def is_over(
    new: Mapping[str, Sent], arrivals: Arrivals, elapsed_s: float, *, settings: Strategy | None, timeout_s: float
) -> bool:
    """Whether a wait is over.

    It is when all that were asked now have answered, or failed, or the time limit of `strategies.patience` is over.
    What is owed from before does not hold it up, unless nobody was asked: then it is over with the first that comes.

    Args:
        new: the messages of this wait.
        arrivals: so far, of new and of owed answers.
        elapsed_s: since its beginning.
        settings: with ``patience`` and ``quorum``; None for none.
        timeout_s: that bounds it in any case.
    """
    awaited = {key: sent for key, sent in new.items() if sent.was_pushed}
    if elapsed_s >= timeout_s:
        return True
    if not awaited:
        return bool(arrivals)
    if awaited.keys() <= arrivals.keys():
        return True
    if settings is None:
        return False
    asked = [(key, client) for key, sent in awaited.items() for client in sent.requests]
    # A client that failed will not answer any more; counted, it would keep the others from being a quorum.
    alive = [(key, client) for key, client in asked if key not in arrivals or arrivals[key].counts(client)]
    answered_s = [arrivals[key].seconds for key, _ in alive if key in arrivals]
    limit = time_limit(answered_s, len(alive), patience=settings.patience, quorum=settings.quorum, timeout_s=timeout_s)
    return elapsed_s >= limit


def excuse(sent: Sent, waited_s: float, timeout_s: float) -> NoAnswer:
    """Why there is no answer to a message after a wait."""
    if not sent.was_pushed:
        return NoAnswer("could not be sent")
    if waited_s < timeout_s:
        return NoAnswer(f"no answer in time; the round went on without it after {waited_s:.1f} s")
    return NoAnswer("no answer in time")
