"""The server's mailbox: what was asked of whom, what came back and when, and how long a round waits for the rest.

One message goes to each node, which may carry several clients. A round waits for stragglers a multiple of the time that
a share of the clients took (:func:`time_limit`); an answer that misses its round may still count in a later one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from flwr.app import Message
from flwr.serverapp import Grid
from httpx import HTTPError

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

# Seconds between two looks at the grid for replies.
POLL_SECONDS = 0.05
# A SuperLink that went away is started again by its supervisor: seconds between attempts to push to it.
PUSH_AGAIN_S = (1.0, 2.0, 4.0, 8.0, 15.0)
# A node that joins a run under way holds up the round at most so long with its introduction.
INTRODUCTION_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """What came of the request to one client.

    Attributes:
        client: the client that was asked.
        round: the round in which it was asked.
        request: what it was asked.
        reply: what it answered, or why there is no answer.
        seconds_late: the seconds from when its round went on without it until the answer came; None if it was in time.
    """

    client: str
    round: int
    request: Request
    reply: Reply | WireError
    seconds_late: float | None = None

    @property
    def fault(self) -> Fault:
        """What kind of problem it is if this does not count."""
        if isinstance(self.reply, NoAnswer):
            return "missing"
        failed = isinstance(self.reply, Failed) or (isinstance(self.reply, Reply) and self.reply.error)
        return "failed" if failed else "refused"


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
        node: the node that the message was sent to.
        header: the header that an answer must repeat.
        requests: the request of each client.
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
        found: the replies in it, or why there are none.
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


class Mailbox:
    """Asks clients by way of their nodes; one message per node, which may carry several clients.

    Args:
        experiment: says how long a round waits and how long a late answer counts.
        kind: the kind of knowledge that is exchanged.
        run: the name of the run, which clients keep their memory under.
        digests: the digests of the experiment and of the source; clients compare them with their own.
        registry: node id -> who was provisioned there; None lets every node in.
        members: every client by id, also from before the server was stopped; the roster keeps it up to date.

    Attributes:
        roster: who lives on which node.
        sent_bytes: client -> serialised bytes of the arrays that were last sent to it.
        on_reply: called for each message that comes back to :meth:`ask`.
        on_event: called for what happens beside the answers.
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
        self.roster = Roster(experiment.task.num_beams, registry=registry, members=members)
        self.sent_bytes: dict[str, int] = {}
        self.on_reply: Callable[[], None] = lambda: None
        self.on_event: Callable[[Event], None] = lambda event: None
        self._owed: dict[str, Sent] = {}
        self._hellos: dict[str, Sent] = {}

    @property
    def nodes(self) -> dict[int, set[str]]:
        """Node id -> ids of the clients that live there."""
        return self.roster.nodes

    @property
    def members(self) -> dict[str, Member]:
        """Every client, by id."""
        return self.roster.members

    def meet(self, grid: Grid, *, num_nodes: int, timeout: float) -> dict[str, Member]:
        """Wait for nodes and learn who lives on them.

        Args:
            grid: the grid that Flower passes in.
            num_nodes: how many to wait for, all that are registered if there is a registry; fewer are taken once the
                time is over.
            timeout: seconds to wait for nodes, and again for what they say.

        Raises:
            ValueError: no client introduced itself, and none is known from before.
        """
        registry = self.roster.registry
        wanted = num_nodes if registry is None else len(registry)
        end = time.monotonic() + timeout
        while len(self.roster.may_come(grid.get_node_ids())) < wanted and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        problems = [event for event in self._look(grid, timeout=timeout, asks_again=True) if event.kind == "refused"]
        for event in problems:
            self._tell(event)
        if not self.members:
            what = f"{problems[0].who}: {problems[0].text}" if problems else f"no node came within {timeout:g} s"
            raise ValueError(f"no client can take part; the first of {len(problems)} problems: {what}")
        return self.members

    def gather(self, grid: Grid, invite: Callable[[], Collection[str]], *, timeout: float) -> None:
        """See who is there before a round; nodes that are new introduce themselves.

        Args:
            grid: the grid that Flower passes in.
            invite: who is to take part; while none of them is connected, this waits for one.
            timeout: seconds to wait for one.
        """
        end = time.monotonic() + timeout
        # A registered node exists: one that was refused, or silent, is asked in every round.
        asks_again, left = self.roster.registry is not None, timeout
        while True:
            for event in self._look(grid, timeout=min(left, INTRODUCTION_SECONDS), asks_again=asks_again):
                self._tell(event)
            left, asks_again = end - time.monotonic(), False
            if left <= 0 or not self.roster.here.isdisjoint(invite()):
                return
            time.sleep(min(POLL_SECONDS, left))

    def busy(self, round_number: int) -> frozenset[str]:
        """Clients that owe an answer which would still count in a round: they are not asked for more meanwhile."""
        late_rounds = self.settings.late_rounds
        self._owed = {key: one for key, one in self._owed.items() if round_number - one.header.round <= late_rounds}
        return frozenset(client for sent in self._owed.values() for client in sent.requests)

    def ask(
        self, grid: Grid, kind: str, requests: Mapping[str, Request], *, round_number: int, timeout: float
    ) -> list[Outcome]:
        """Send each connected client its request, a message per node, and wait; answers that come late count, too.

        A round waits for the answers to its own questions, by the rule of :func:`time_limit`. Where it asks nobody,
        it waits for one that is owed.

        Returns:
            What each client answered or why it did not, by client and round asked.
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
            # What is still owed was said to be missing in its own round.
            if key in arrivals or key in new
            for client in sent.requests
        ]
        if kind == ROUND:
            missing = {key: replace(one, went_on=now) for key, one in new.items() if one.was_pushed}
            still = {**owed, **(missing if self.settings.late_rounds else {})}
            self._owed = {key: one for key, one in still.items() if key not in arrivals}
        return sorted(answers, key=lambda answer: (answer.client, answer.round))

    def _look(self, grid: Grid, *, timeout: float, asks_again: bool = False) -> list[Event]:
        """Note which nodes are connected, and let those say who they are of which it is not known.

        They are asked when the set of nodes has changed: in a simulation once. A node that was silent before is asked
        again without waiting for it; whatever it answers is heard at a later look.
        """
        before = self.roster.present
        events = self.roster.note_present(frozenset(grid.get_node_ids()))
        strangers = self.roster.strangers() if asks_again or self.roster.present != before else []
        new = self._send(grid, HELLO, {node: {} for node in strangers}, 0) if strangers else {}
        silent = {one.node for one in self._hellos.values()}
        awaited = {key for key, one in new.items() if one.was_pushed and one.node not in silent}
        asked = {**self._hellos, **new}

        begin, is_enough = time.monotonic(), lambda found, waited_s: awaited <= found.keys() or waited_s >= timeout
        arrivals = self._collect(grid, asked, is_enough, begin=begin)
        for key, one in asked.items():
            if key in arrivals:
                events += self.roster.introduce(one.node, arrivals[key].found)
            elif key in awaited:
                events += self.roster.introduce(one.node, NoAnswer("did not introduce itself in time"))
        left = self.roster.strangers()
        self._hellos = {key: one for key, one in asked.items() if key not in arrivals and one.node in left}
        # Of a client that has moved to another node, nothing more comes from the old one.
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
        """What comes back for each message, until everything has or ``is_enough`` of that and the seconds so far."""
        arrivals: dict[str, Arrival] = {}
        waiting = {key for key, one in sent.items() if one.was_pushed}
        while waiting:
            replies, unreadable = _pull(grid, waiting)
            for key, error in unreadable.items():
                waiting.remove(key)
                arrivals[key] = Arrival(error, time.monotonic() - begin)
                on_reply()
            for reply in replies:
                key = reply.metadata.reply_to_message_id
                if key not in waiting:
                    text = "answered a message that nobody waits for, or a second time; thrown away"
                    self._tell(Event("repeated", f"node {reply.metadata.src_node_id}", text))
                    continue
                waiting.remove(key)
                arrivals[key] = Arrival(_open(reply, sent[key]), time.monotonic() - begin)
                on_reply()
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

    It is when all that were asked now have answered, or failed, or the time limit of :func:`time_limit` is over.
    What is owed from before does not hold it up, unless nobody was asked: then it is over with the first that comes.

    Args:
        new: the messages of this wait.
        arrivals: what has come back so far, new and owed answers.
        elapsed_s: since its beginning.
        settings: the section with ``patience`` and ``quorum``; None waits for everyone.
        timeout_s: the time that bounds the wait in any case.
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


# Shares such as 0.7 of 10 are a little more than 7 in floating point.
_ROUNDING = 1e-9


def time_limit(
    answered_s: Sequence[float], num_asked: int, *, patience: float | None, quorum: float, timeout_s: float
) -> float:
    """Seconds after its beginning at which a round goes on without those who have not answered yet.

    Let t be when ``quorum`` of the clients had answered: the limit is ``patience`` t, at most ``timeout_s``. While
    fewer have answered, or without patience, it is ``timeout_s``.

    Rounds with patience depend on the wall clock: whose answer comes before the limit differs from machine to machine
    and from run to run, and with it everything that is learned afterwards. Such runs are not reproducible to the bit.

    Source: the reporting window of Bonawitz et al., arXiv 1902.01046, section 2.2, which closes when enough devices
    have reported or its time is over; ours is as long as the clients make it instead of a constant.

    Args:
        answered_s: seconds from the beginning of the round to each answer so far; errors are none.
        num_asked: clients that were asked and have not failed.
        patience: >= 1; None waits for everyone.
        quorum: share in (0, 1] of ``num_asked``, rounded up, at least one client.
        timeout_s: > 0.
    """
    needed = max(1, math.ceil(quorum * num_asked - _ROUNDING))
    if patience is None or len(answered_s) < needed:
        return timeout_s
    return min(timeout_s, patience * sorted(answered_s)[needed - 1])


def _push(grid: Grid, messages: list[Message]) -> list[str]:
    """The ids of pushed messages, pushed again where the SuperLink went away; none if it stays away."""
    for wait_s in PUSH_AGAIN_S:
        try:
            return list(grid.push_messages(messages))
        except Exception as error:
            if type(error).__name__ != "ObjectPushError":
                raise
            log.warning("messages could not be pushed (%s); trying again in %g s", error, wait_s)
            time.sleep(wait_s)
    return []


def _pull(grid: Grid, waiting: Collection[str]) -> tuple[list[Message], dict[str, WireError]]:
    """The replies that have come, and why others that have come cannot be read, by message id.

    Flower's grid over HTTP unpacks replies one after the other. Where one cannot be unpacked, those before it are gone
    with it, since it has confirmed them. So it is asked for one reply at a time.
    """
    if type(grid).__name__ != "HttpGrid":
        return list(grid.pull_messages(list(waiting))), {}
    replies, unreadable = list[Message](), dict[str, WireError]()
    for key in waiting:
        try:
            replies += grid.pull_messages([key])
        except (OSError, RuntimeError, HTTPError):
            raise
        except Exception as error:
            unreadable[key] = WireError(f"its reply cannot be unpacked ({type(error).__name__}: {error})"[:MAX_REASON])
    return replies, unreadable


def _outcome(client: str, sent: Sent, came: Arrival | NoAnswer, begin: float) -> Outcome:
    question = (client, sent.header.round, sent.requests[client])
    if isinstance(came, NoAnswer):
        return Outcome(*question, came)
    found = came.found
    reply = found if isinstance(found, WireError) else found.get(client) or WireError("its node answered without it")
    return Outcome(*question, reply, None if sent.went_on is None else max(0.0, begin + came.seconds - sent.went_on))


def _open(reply: Message, sent: Sent) -> Found:
    """What is in a reply; an error that Flower itself makes comes from node 1, an answer only from the node asked."""
    if reply.has_error():
        return Failed(f"Flower error {reply.error.code}: {reply.error.reason}")
    if reply.metadata.src_node_id != sent.node:
        return WireError(f"came from node {reply.metadata.src_node_id}, which was not asked")
    try:
        return unpack_replies(reply.content, sent.header)
    except WireError as error:
        return error
    except Exception as error:  # whatever a stranger's bytes raise
        return WireError(f"its reply cannot be read ({type(error).__name__}: {error})"[:MAX_REASON])
