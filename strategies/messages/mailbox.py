"""The server's mailbox: who was asked what, what came back and when, and how long a round waits for the rest.

One message goes to each node, which may carry several clients. A round waits for late clients up to a multiple of the
time that a share of the clients took (:func:`time_limit`); an answer that misses its round may still count in a later
one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from httpx import HTTPError, HTTPStatusError, TransportError

from configs.schema import Experiment, Strategy
from strategies.messages.records import Event, Fault, Member, RegisteredNode
from strategies.messages.roster import Roster
from strategies.messages.wire import (
    HELLO,
    MAX_REASON,
    ROUND,
    Header,
    Reply,
    Request,
    WireError,
    bytes_by_client,
    pack_requests,
    unpack_replies,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

# The seconds between two looks at the grid for replies.
POLL_SECONDS = 0.05
# The seconds between attempts to reach a SuperLink that went away; its supervisor starts it again.
AGAIN_S = (1.0, 2.0, 4.0, 8.0, 15.0)
# A node that joins during a run may delay the round for at most this many seconds while it introduces itself.
INTRODUCTION_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """A request to one client and its answer.

    Attributes:
        client: the id of the client that was asked.
        round: the round in which the client was asked.
        request: what the client was asked.
        reply: what the client answered, or why there is no answer.
        seconds_late: the seconds from when the round went on without this answer until it came; None for an answer in
            time.
    """

    client: str
    round: int
    request: Request
    reply: Reply | WireError
    seconds_late: float | None = None

    @property
    def fault(self) -> Fault:
        """The kind of problem, for an answer that does not count."""
        if isinstance(self.reply, NoAnswer):
            return "missing"
        failed = isinstance(self.reply, Failed) or (isinstance(self.reply, Reply) and self.reply.error)
        return "failed" if failed else "refused"


Found = dict[str, Reply | WireError] | WireError
"""The replies of a message by client, or why there are none."""


class NoAnswer(WireError):
    """No answer has come back in time."""


class Failed(WireError):
    """A node, or Flower in its place, says that it could not answer."""


class Away(Failed):
    """The node was gone when Flower looked for its answer; it may come back."""


@dataclass(frozen=True, eq=False)
class Sent:
    """A message on its way.

    Attributes:
        node: the node that the message is sent to.
        header: the header that an answer must repeat.
        requests: the request to each client, by client id.
        was_pushed: whether Flower accepted the message.
        went_on: the time by `time.monotonic` at which the round went on without the answer; None while the round waits.
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
        found: the replies in it, or why there are none.
        seconds: the seconds from the beginning of the wait until it came.
    """

    found: Found
    seconds: float

    def counts(self, client: str) -> bool:
        """Whether there is an answer of a client in it, as far as can be seen without decoding it."""
        reply = None if isinstance(self.found, WireError) else self.found.get(client)
        return isinstance(reply, Reply) and not reply.error


Arrivals = Mapping[str, Arrival]
"""What came back, by the id of the message that was answered."""


class Mailbox:
    """Asks clients through their nodes and collects the answers; one message per node may carry several clients.

    Args:
        experiment: the experiment; it says how long a round waits and how long a late answer counts.
        kind: the kind of knowledge that is exchanged.
        run: the name of the run, under which clients keep their memory.
        digests: the digests of the experiment and of the source, which clients compare with their own.
        registry: node id -> the client that was provisioned there; None lets every node in.
        members: every client by id, also those that were met before the server was stopped; the roster keeps it up to
            date.

    Attributes:
        roster: who lives on which node.
        sent_bytes: client -> the serialised bytes of the arrays that were last sent to it.
        on_reply: called for each client whose message comes back to :meth:`ask`.
        on_event: called for each `Event`, such as a node that leaves or is refused.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        kind: str,
        run: str,
        digests: tuple[str, str],
        registry: Mapping[int, RegisteredNode] | None = None,
        members: dict[str, Member] | None = None,
    ) -> None:
        self.settings = experiment.strategy
        self._header = partial(Header, run, *digests, kind=kind)
        self.roster = Roster(experiment.task.num_classes, registry=registry, members=members)
        self.sent_bytes: dict[str, int] = {}
        self.on_reply: Callable[[], None] = lambda: None
        self.on_event: Callable[[Event], None] = lambda event: None
        self._owed: dict[str, Sent] = {}
        self._hellos: dict[str, Sent] = {}
        self._away: dict[int, Away] = {}

    @property
    def nodes(self) -> dict[int, set[str]]:
        """Node id -> ids of the clients that live there."""
        return self.roster.nodes

    @property
    def members(self) -> dict[str, Member]:
        """Every client, by id."""
        return self.roster.members

    def meet(self, grid: Grid, *, num_nodes: int, timeout: float) -> dict[str, Member]:
        """Wait for nodes and learn which clients live on them.

        Args:
            grid: the grid that Flower passes in.
            num_nodes: the number of nodes to wait for; if there is a registry, all registered nodes are waited for
                instead. Fewer are enough once the time is over.
            timeout: the seconds to wait for nodes, and the seconds to wait for their introductions after that.

        Raises:
            ValueError: no client introduced itself, and none is known from before.
        """
        registry = self.roster.registry
        wanted = num_nodes if registry is None else len(registry)
        end = time.monotonic() + timeout
        while True:
            while len(self.roster.may_come(_node_ids(grid))) < wanted and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
            events = self._look(grid, timeout=timeout, asks_again=True)
            # Flower counts a node as connected for a minute after its last heartbeat: it may just be starting again.
            if not self._away or time.monotonic() >= end:
                break
        for node, found in self._away.items():
            events += self.roster.introduce(node, found)
        if not self.members and self._hellos:
            # A SuperLink that was killed may have taken the introductions with it: they are asked for once more.
            self._hellos = {}
            events = self._look(grid, timeout=timeout, asks_again=True)
        problems = [event for event in events if event.kind == "refused"]
        for event in problems:
            self._tell(event)
        if not self.members:
            what = f"{problems[0].who}: {problems[0].text}" if problems else f"no node came within {timeout:g} s"
            raise ValueError(f"no client can take part; the first of {len(problems)} problems: {what}")
        return self.members

    def gather(self, grid: Grid, invite: Callable[[], Collection[str]], *, timeout: float) -> None:
        """Find out which clients are connected before a round, and let new nodes introduce themselves.

        Args:
            grid: the grid that Flower passes in.
            invite: says who is to take part; while none of these clients is connected, this waits for one. Where
                nobody of the clients that are known is to take part, there is nothing to wait for.
            timeout: the seconds to wait for one of them.
        """
        end = time.monotonic() + timeout
        # A registered node is known to exist, so one that was refused or silent is asked again in every round.
        asks_again, left = self.roster.registry is not None, timeout
        while True:
            events = self._look(grid, timeout=min(left, INTRODUCTION_SECONDS), asks_again=asks_again)
            for event in [*events, *(one for away in self._away.items() for one in self.roster.introduce(*away))]:
                self._tell(event)
            left, asks_again = end - time.monotonic(), False
            invited = invite()
            if left <= 0 or not self.roster.here.isdisjoint(invited) or (self.members and not invited):
                return
            time.sleep(min(POLL_SECONDS, left))

    def busy(self, round_number: int) -> frozenset[str]:
        """The clients that owe an answer which would still count in a round: they are not asked again meanwhile."""
        late_rounds = self.settings.late_rounds
        self._owed = {key: one for key, one in self._owed.items() if round_number - one.header.round <= late_rounds}
        return frozenset(client for sent in self._owed.values() for client in sent.requests)

    def ask(
        self, grid: Grid, kind: str, requests: Mapping[str, Request], *, round_number: int, timeout: float
    ) -> list[Outcome]:
        """Send each connected client its request, one message per node, and wait; late answers count, too.

        A round waits for the answers to its own requests, by the rule of :func:`time_limit`. Where it asks nobody,
        it waits for the first answer that is still owed.

        Returns:
            What each client answered or why it did not, sorted by client and by the round in which it was asked.
        """
        by_node = {
            node: {client: requests[client] for client in sorted(self.nodes[node]) if client in requests}
            for node in sorted(self.roster.present & self.nodes.keys())
        }
        begin = time.monotonic()
        new = self._send(grid, kind, {node: clients for node, clients in by_node.items() if clients}, round_number)
        owed = self._owed if kind == ROUND else {}
        arrivals = self._collect(
            grid,
            {**owed, **new},
            partial(is_over, new, settings=self.settings if kind == ROUND else None, timeout_s=timeout),
            begin=begin,
            on_reply=self.on_reply,
        )
        now = time.monotonic()
        answers = [
            _outcome(client, sent, excuse(sent, now - begin, timeout) if key not in arrivals else arrivals[key], begin)
            for key, sent in {**owed, **new}.items()
            # An answer that is still owed was recorded as missing in its own round.
            if key in arrivals or key in new
            for client in sent.requests
        ]
        if kind == ROUND:
            missing = {key: replace(one, went_on=now) for key, one in new.items() if one.was_pushed}
            still = {**owed, **(missing if self.settings.late_rounds else {})}
            self._owed = {key: one for key, one in still.items() if key not in arrivals}
        return sorted(answers, key=lambda answer: (answer.client, answer.round))

    def _look(self, grid: Grid, *, timeout: float, asks_again: bool = False) -> list[Event]:
        """Note which nodes are connected, and ask those whose clients are not known to introduce themselves.

        They are asked when the set of connected nodes has changed, which happens once in a simulation. A node that was
        silent before is asked again, but this does not wait for it; its answer is read at a later look. Those that were
        gone when they were asked are noted in ``_away``.
        """
        before = self.roster.present
        events = self.roster.note_present(frozenset(_node_ids(grid)))
        strangers = self.roster.strangers() if asks_again or self.roster.present != before else []
        new = self._send(grid, HELLO, {node: {} for node in strangers}, 0) if strangers else {}
        silent = {one.node for one in self._hellos.values()}
        awaited = {key for key, one in new.items() if one.was_pushed and one.node not in silent}
        asked = {**self._hellos, **new}

        begin, is_enough = time.monotonic(), lambda found, waited_s: awaited <= found.keys() or waited_s >= timeout
        arrivals = self._collect(grid, asked, is_enough, begin=begin)
        self._away = {
            asked[key].node: arrival.found for key, arrival in arrivals.items() if isinstance(arrival.found, Away)
        }
        for key, one in asked.items():
            if key in arrivals and one.node not in self._away:
                events += self.roster.introduce(one.node, arrivals[key].found)
            elif key in awaited and key not in arrivals:
                events += self.roster.introduce(one.node, NoAnswer("did not introduce itself in time"))
        left = self.roster.strangers()
        self._hellos = {key: one for key, one in asked.items() if key not in arrivals and one.node in left}
        # A client that has moved to another node sends nothing more from the old one.
        self._owed = {key: one for key, one in self._owed.items() if one.node in self.nodes}
        return events

    def _send(
        self, grid: Grid, kind: str, requests: Mapping[int, Mapping[str, Request]], round_number: int
    ) -> dict[str, Sent]:
        header = self._header(round=round_number)
        contents = {node: pack_requests(header, clients) for node, clients in requests.items()}
        self.sent_bytes = {
            client: size for content in contents.values() for client, size in bytes_by_client(content).items()
        }
        messages = [
            Message(content, dst_node_id=node, message_type=kind, group_id=str(round_number))
            for node, content in contents.items()
        ]
        # Flower gives no id to a message that it could not push, and no ids at all if all are too large together.
        ids = _push(grid, messages) or [""] * len(messages)
        return {
            message_id or f"lost-{node}": Sent(node, header, dict(clients), was_pushed=bool(message_id))
            for message_id, (node, clients) in zip(ids, requests.items(), strict=True)
        }

    def _collect(
        self,
        grid: Grid,
        sent: Mapping[str, Sent],
        is_enough: Callable[[Arrivals, float], bool],
        *,
        begin: float,
        on_reply: Callable[[], None] = lambda: None,
    ) -> dict[str, Arrival]:
        """What comes back for each message, until all are answered or ``is_enough`` is true.

        ``is_enough`` gets what has come back so far and the seconds since ``begin``.
        """
        arrivals: dict[str, Arrival] = {}
        waiting = {key for key, one in sent.items() if one.was_pushed}
        while waiting:
            replies, unreadable = _pull(grid, waiting)
            for key, error in unreadable.items():
                waiting.remove(key)
                arrivals[key] = Arrival(error, time.monotonic() - begin)
                _tell_of_each(sent[key], on_reply)
            for reply in replies:
                key = reply.metadata.reply_to_message_id
                if key not in waiting:
                    text = "answered a message that nobody waits for, or a second time; the answer is thrown away"
                    self._tell(Event("repeated", f"node {reply.metadata.src_node_id}", text))
                    continue
                waiting.remove(key)
                arrivals[key] = Arrival(_open(reply, sent[key]), time.monotonic() - begin)
                _tell_of_each(sent[key], on_reply)
            if is_enough(arrivals, time.monotonic() - begin):
                break
            if waiting:
                time.sleep(POLL_SECONDS)
        return arrivals

    def _tell(self, event: Event) -> None:
        level = logging.WARNING if event.kind in ("refused", "repeated") else logging.INFO
        log.log(level, "%s: %s", event.who, event.text)
        self.on_event(event)


def is_over(
    new: Mapping[str, Sent], arrivals: Arrivals, elapsed_s: float, *, settings: Strategy | None, timeout_s: float
) -> bool:
    """Whether a wait is over.

    It is over when all clients that were asked now have answered or failed, or when the time of :func:`time_limit` is
    over. Answers that are owed from earlier rounds do not delay it, unless nobody was asked now: then it is over with
    the first answer that comes.

    Args:
        new: the messages of this wait.
        arrivals: what has come back so far, for these messages and for owed ones.
        elapsed_s: the seconds since the beginning of the wait.
        settings: the ``strategy`` section, which has ``patience`` and ``quorum``; None waits without patience.
        timeout_s: the seconds after which the wait is over in any case.
    """
    awaited = {key: sent for key, sent in new.items() if sent.was_pushed}
    if elapsed_s >= timeout_s:
        return True
    if not awaited:
        return bool(arrivals)
    if awaited.keys() <= arrivals.keys():
        return True
    if settings is None or settings.patience is None:
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


# Shares such as 0.7 of 10 are a little more than 7 in floating point.
_ROUNDING = 1e-9


def time_limit(
    answered_s: Sequence[float], num_asked: int, *, patience: float | None, quorum: float, timeout_s: float
) -> float:
    """Seconds after its beginning at which a round goes on without those who have not answered yet.

    Let t be the seconds after which ``quorum`` of the clients had answered: the limit is ``patience`` t, but at most
    ``timeout_s``. While fewer have answered, or without patience, it is ``timeout_s``.

    Rounds with patience depend on the wall clock: whose answer comes before the limit differs from machine to machine
    and from run to run, and with it everything that is learned afterwards. Such runs are not reproducible to the bit.

    Source: the reporting window of Bonawitz et al., arXiv 1902.01046, section 2.2, which closes when enough devices
    have reported or its time is over; here its length follows from the clients instead of being a constant.

    Args:
        answered_s: the seconds from the beginning of the round to each answer so far; errors do not count.
        num_asked: the number of clients that were asked and have not failed.
        patience: the factor on t, >= 1; None waits for everyone.
        quorum: the share in (0, 1] of ``num_asked``, rounded up to at least one client.
        timeout_s: the seconds after which the round goes on in any case, > 0.
    """
    needed = max(1, math.ceil(quorum * num_asked - _ROUNDING))
    if patience is None or len(answered_s) < needed:
        return timeout_s
    return min(timeout_s, patience * sorted(answered_s)[needed - 1])


def _is_away(error: Exception) -> bool:
    """Whether an error means that the SuperLink went away during a call, or is not itself yet: it may soon be back.

    Flower waits by itself for a SuperLink that does not answer. What it raises all the same is an object push whose
    session was lost with the SuperLink, and the status of a server error.
    """
    if isinstance(error, HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, TransportError | ConnectionError) or type(error).__name__ == "ObjectPushError"


def _insist(call: Callable[[], T], what: str) -> T:
    """What a call of the grid gives; it is repeated while the SuperLink is away, and raises if that stays away."""
    for wait_s in AGAIN_S:
        try:
            return call()
        except Exception as error:
            if not _is_away(error):
                raise
            log.warning("%s: the SuperLink is away (%s); trying again in %g s", what, error, wait_s)
            time.sleep(wait_s)
    return call()


def _tell_of_each(sent: Sent, on_reply: Callable[[], None]) -> None:
    for _ in sent.requests:
        on_reply()


def _node_ids(grid: Grid) -> list[int]:
    """The ids of the nodes that are connected."""
    return _insist(lambda: list(grid.get_node_ids()), "looking for nodes")


def _push(grid: Grid, messages: list[Message]) -> list[str]:
    """Push messages, again while the SuperLink is away, and give their ids; there are none if it stays away.

    A message has one id however often it is pushed, so a node gets it once.
    """
    try:
        return _insist(lambda: list(grid.push_messages(messages)), "pushing messages")
    except Exception as error:
        if not _is_away(error):
            raise
        return []


def _pull(grid: Grid, waiting: Collection[str]) -> tuple[list[Message], dict[str, WireError]]:
    """The replies that have come, and why others that have come cannot be read, by message id.

    Flower's grid over HTTP unpacks replies one after the other. Where one cannot be unpacked, those before it are gone
    with it, since it has confirmed them. So it is asked for one reply at a time.
    """
    if type(grid).__name__ != "HttpGrid":
        return _insist(lambda: list(grid.pull_messages(list(waiting))), "pulling replies"), {}
    replies, unreadable = list[Message](), dict[str, WireError]()
    for key in waiting:
        try:
            replies += _insist(partial(_pull_one, grid, key), "pulling replies")
        except (OSError, RuntimeError, HTTPError):
            raise
        except Exception as error:
            unreadable[key] = WireError(f"its reply cannot be unpacked ({type(error).__name__}: {error})"[:MAX_REASON])
    return replies, unreadable


def _pull_one(grid: Grid, key: str) -> list[Message]:
    return list(grid.pull_messages([key]))


def _outcome(client: str, sent: Sent, came: Arrival | NoAnswer, begin: float) -> Outcome:
    question = (client, sent.header.round, sent.requests[client])
    if isinstance(came, NoAnswer):
        return Outcome(*question, came)
    found = came.found
    reply = found if isinstance(found, WireError) else found.get(client) or WireError("its node left it out")
    return Outcome(*question, reply, None if sent.went_on is None else max(0.0, begin + came.seconds - sent.went_on))


def _open(reply: Message, sent: Sent) -> Found:
    """The replies in a message; errors of Flower itself come from node 1, answers only from the node that was asked."""
    if reply.has_error():
        kind = Away if reply.error.code == ErrorCode.NODE_UNAVAILABLE else Failed
        return kind(f"Flower error {reply.error.code}: {reply.error.reason}")
    if reply.metadata.src_node_id != sent.node:
        return WireError(f"came from node {reply.metadata.src_node_id}, which was not asked")
    try:
        return unpack_replies(reply.content, sent.header)
    except WireError as error:
        return error
    except Exception as error:  # whatever a stranger's bytes raise
        return WireError(f"its reply cannot be read ({type(error).__name__}: {error})"[:MAX_REASON])
