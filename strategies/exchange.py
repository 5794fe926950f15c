"""The server's letters: who lives on which node, what was asked of whom, what came back, what it weighed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from configs.schema import Experiment
from strategies.accounts import TEACHER, Member
from strategies.wire import (
    HELLO,
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


class Correspondence:
    """Asks clients by way of their nodes; one message per node, which may carry several clients.

    Args:
        experiment: codec, temperature and shapes.
        run: names the run towards the clients.
        digests: of the experiment and of the source, which clients compare with their own.

    Attributes:
        nodes: node id -> client id -> the client, as introduced by :meth:`meet`.
        sent_bytes: client -> serialised bytes of the arrays that were last sent to it.
        on_reply: called for each message that comes back.
    """

    def __init__(self, experiment: Experiment, *, run: str, digests: tuple[str, str]) -> None:
        self.experiment = experiment
        self.run = run
        self.digests = digests
        self.nodes: dict[int, dict[str, Member]] = {}
        self.sent_bytes: dict[str, int] = {}
        self.on_reply: Callable[[], None] = lambda: None

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
        for node_id, reply in self._ask_nodes(grid, HELLO, {node: {} for node in node_ids}, 0, end).items():
            if isinstance(reply, WireError):
                problems.append(f"node {node_id}: {reply}")
                continue
            for client, answer in reply.items():
                try:
                    member = _member(client, answer)
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

    def ask(
        self, grid: Grid, kind: str, requests: Mapping[str, Request], *, round_number: int, timeout: float
    ) -> dict[str, Reply | WireError]:
        """Send each client its request, a message per node, and wait.

        Returns:
            By client: its answer, or why there is none.
        """
        by_node = {
            node: {client: requests[client] for client in sorted(clients) if client in requests}
            for node, clients in sorted(self.nodes.items())
        }
        by_node = {node: clients for node, clients in by_node.items() if clients}
        answers: dict[str, Reply | WireError] = {}
        replies = self._ask_nodes(grid, kind, by_node, round_number, time.monotonic() + timeout)
        for node, reply in replies.items():
            for client in by_node[node]:
                absent = WireError("its node answered without it")
                answers[client] = reply if isinstance(reply, WireError) else reply.get(client, absent)
        return dict(sorted(answers.items()))

    def _ask_nodes(
        self, grid: Grid, kind: str, requests: Mapping[int, Mapping[str, Request]], round_number: int, end: float
    ) -> dict[int, dict[str, Reply | WireError] | WireError]:
        settings = self.experiment.strategy
        header = Header(self.run, *self.digests, round_number, settings.codec, float(settings.temperature))
        task = self.experiment.task
        contents = {node: pack_requests(header, clients) for node, clients in requests.items()}
        self.sent_bytes = {
            client: size for content in contents.values() for client, size in bytes_by_client(content).items()
        }
        messages = [
            Message(content, dst_node_id=node, message_type=kind, group_id=str(round_number))
            for node, content in contents.items()
        ]
        answers: dict[int, dict[str, Reply | WireError] | WireError] = {}
        for node, reply in exchange(grid, messages, end=end, on_reply=self.on_reply).items():
            if reply is None:
                answers[node] = WireError("no answer in time")
            elif reply.has_error():
                answers[node] = WireError(f"Flower error {reply.error.code}: {reply.error.reason}")
            else:
                try:
                    answers[node] = unpack_replies(
                        reply.content, header, num_horizons=task.num_horizons, num_beams=task.num_beams
                    )
                except WireError as error:
                    answers[node] = error
        return answers


def exchange(
    grid: Grid, messages: Sequence[Message], *, end: float, on_reply: Callable[[], None] = lambda: None
) -> dict[int, Message | None]:
    """Push messages and pull the replies until all are there or the time is over.

    Replies are matched by the message that they answer: an error made by Flower itself comes from node 1.

    Args:
        grid: Flower's.
        messages: one per node.
        end: `time.monotonic` at which to stop waiting.
        on_reply: called for each reply that arrives.

    Returns:
        By node, in the order of ``messages``: the reply, or None.
    """
    replies: dict[int, Message | None] = {message.metadata.dst_node_id: None for message in messages}
    pushed = zip(grid.push_messages(messages), replies, strict=True)
    waiting = {message_id: node for message_id, node in pushed if message_id}
    while waiting:
        for reply in grid.pull_messages(list(waiting)):
            node = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                replies[node] = reply
                on_reply()
        if time.monotonic() >= end:
            break
        if waiting:
            time.sleep(POLL_SECONDS)
    return replies


def _member(client: str, hello: Reply | WireError) -> Member:
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
    return Member(id=client, modality=str(hello.facts.get("modality", "")), **numbers)
