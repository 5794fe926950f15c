"""The server's letters: who lives on which node, what was asked of whom, what came back, what it weighed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from configs.schema import Experiment
from strategies.accounts import TEACHER, Member
from strategies.wire import (
    HELLO,
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


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        client: that was asked.
        round: in which it was asked.
        request: what it was asked.
        reply: what it answered, or why there is no answer.
    """

    client: str
    round: int
    request: Request
    reply: Reply | WireError


class _NoAnswer(WireError):
    """Nothing has come back yet."""


@dataclass(frozen=True, eq=False)
class _Sent:
    node: int
    header: Header
    requests: Mapping[str, Request]


_Found = dict[str, Reply | WireError] | WireError


class Correspondence:
    """Asks clients by way of their nodes; one message per node, which may carry several clients.

    Args:
        experiment: how long a late answer counts.
        kind: of knowledge that is exchanged.
        run: names the run towards the clients.
        digests: of the experiment and of the source, which clients compare with their own.

    Attributes:
        nodes: node id -> client id -> the client, as introduced by :meth:`meet`.
        sent_bytes: client -> serialised bytes of the arrays that were last sent to it.
        on_reply: called for each message that comes back.
    """

    def __init__(self, experiment: Experiment, *, kind: str, run: str, digests: tuple[str, str]) -> None:
        self.experiment = experiment
        self.kind = kind
        self.run = run
        self.digests = digests
        self.nodes: dict[int, dict[str, Member]] = {}
        self.sent_bytes: dict[str, int] = {}
        self.on_reply: Callable[[], None] = lambda: None
        self._owed: dict[str, _Sent] = {}

    @property
    def members(self) -> dict[str, Member]:
        """Every client, by id."""
        return dict(sorted((client, member) for node in self.nodes.values() for client, member in node.items()))

    def meet(self, grid: Grid, *, num_nodes: int, timeout: float) -> dict[str, Member]:
        """Wait for nodes and learn who lives on them.

        Args:
            grid: Flower's.
            num_nodes: how many to wait for; fewer are taken once the time is over.
            timeout: seconds.

        Raises:
            ValueError: no client introduced itself.
        """
        end = time.monotonic() + timeout
        while len(node_ids := sorted(grid.get_node_ids())) < num_nodes and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        problems = []
        sent = self._send(grid, HELLO, {node: {} for node in node_ids}, 0)
        for one, reply in self._wait(grid, sent, end).items():
            node_id = one.node
            if isinstance(reply, WireError):
                problems.append(f"node {node_id}: {reply}")
                continue
            for client, answer in reply.items():
                try:
                    member = _member(client, answer, self.experiment.task.num_beams)
                    if client in self.members:
                        raise WireError("a client of this name is on another node already; give each its own client-id")
                    self.nodes.setdefault(node_id, {})[client] = member
                except WireError as error:
                    problems.append(f"client {client}: {error}")
        for problem in problems:
            log.warning("left out: %s", problem)
        if not self.nodes:
            first = problems[0] if problems else f"no node came within {timeout:g} s"
            raise ValueError(f"no client can take part; the first of {len(problems)} problems: {first}")
        return self.members

    def busy(self, round_number: int) -> frozenset[str]:
        """Clients that owe an answer which would still count in a round: they are not asked for more meanwhile."""
        late_rounds = self.experiment.strategy.late_rounds
        self._owed = {key: one for key, one in self._owed.items() if round_number - one.header.round <= late_rounds}
        return frozenset(client for sent in self._owed.values() for client in sent.requests)

    def ask(
        self, grid: Grid, kind: str, requests: Mapping[str, Request], *, round_number: int, timeout: float
    ) -> list[Answer]:
        """Send each client its request, a message per node, and wait; answers that come late count, too.

        Returns:
            What each client answered or why it did not, by client and round asked.
        """
        late_rounds = self.experiment.strategy.late_rounds if kind == ROUND else 0
        by_node = {
            node: {client: requests[client] for client in sorted(clients) if client in requests}
            for node, clients in sorted(self.nodes.items())
        }
        new = self._send(grid, kind, {node: clients for node, clients in by_node.items() if clients}, round_number)
        owed, self._owed = self._owed, {}
        replies = self._wait(grid, {**owed, **new}, time.monotonic() + timeout)
        if late_rounds:
            everything = {**owed, **new}
            self._owed = {key: one for key, one in everything.items() if isinstance(replies[one], _NoAnswer)}
        answers = []
        for sent, reply in replies.items():
            if isinstance(reply, _NoAnswer) and sent.header.round != round_number:
                continue  # Still owed; that it was not in time has been said in its own round.
            for client, request in sent.requests.items():
                absent = WireError("its node answered without it")
                found = reply if isinstance(reply, WireError) else reply.get(client, absent)
                answers.append(Answer(client, sent.header.round, request, found))
        return sorted(answers, key=lambda answer: (answer.client, answer.round))

    def _send(
        self, grid: Grid, kind: str, requests: Mapping[int, Mapping[str, Request]], round_number: int
    ) -> dict[str, _Sent]:
        header = Header(self.run, *self.digests, round_number, self.kind)
        contents = {node: pack_requests(header, clients) for node, clients in requests.items()}
        self.sent_bytes = {
            client: size for content in contents.values() for client, size in bytes_by_client(content).items()
        }
        messages = [
            Message(content, dst_node_id=node, message_type=kind, group_id=str(round_number))
            for node, content in contents.items()
        ]
        pushed = zip(grid.push_messages(messages), requests.items(), strict=True)
        # A message that could not be pushed has no id; its node is silent like any other.
        return {
            message_id or f"lost-{node}": _Sent(node, header, dict(clients)) for message_id, (node, clients) in pushed
        }

    def _wait(self, grid: Grid, sent: Mapping[str, _Sent], end: float) -> dict[_Sent, _Found]:
        """What came back for each message until ``end``; an error made by Flower itself comes from node 1."""
        found: dict[_Sent, _Found] = {one: _NoAnswer("no answer in time") for one in sent.values()}
        waiting = {key for key in sent if not key.startswith("lost-")}
        while waiting:
            for reply in grid.pull_messages(list(waiting)):
                key = reply.metadata.reply_to_message_id
                if key in waiting:
                    waiting.remove(key)
                    found[sent[key]] = _open(reply, sent[key].header)
                    self.on_reply()
            if time.monotonic() >= end:
                break
            if waiting:
                time.sleep(POLL_SECONDS)
        return found


def _open(reply: Message, header: Header) -> _Found:
    if reply.has_error():
        return WireError(f"Flower error {reply.error.code}: {reply.error.reason}")
    try:
        return unpack_replies(reply.content, header)
    except WireError as error:
        return error


def _member(client: str, hello: Reply | WireError, num_beams: int) -> Member:
    if isinstance(hello, WireError):
        raise hello
    if hello.error:
        raise WireError(hello.error)
    if client == TEACHER:
        raise WireError(f"{TEACHER} is the server's own name; give the client another client-id")
    numbers = {}
    for name in ("num_parameters", "num_passes", "num_examples"):
        value = hello.facts.get(name)
        if not isinstance(value, int) or value < 0:
            raise WireError(f"introduced itself with {name}={value!r}, expected a count")
        numbers[name] = value
    seen = hello.facts.get("seen")
    if seen is not None and not (isinstance(seen, list) and len(seen) == num_beams and set(seen) <= {0, 1}):
        raise WireError(f"introduced itself with seen={seen!r}, expected a 0 or 1 for each of {num_beams} beams")
    try:
        public_key = bytes.fromhex(str(hello.facts.get("public_key", "")))
    except ValueError:
        raise WireError("introduced itself with a public_key that is not hexadecimal") from None
    return Member(
        id=client,
        modality=str(hello.facts.get("modality", "")),
        seen=None if seen is None else tuple(seen),
        public_key=public_key,
        **numbers,
    )
