"""The inline engine: every client runs in this process, one message after the other.

It serves tests, debugging and tiny runs: it starts in no time, stops at breakpoints and is deterministic. Server and
clients share nothing but bytes: every message, reply and client state is a pickled copy, as it would be between
processes. A client that ends the process (``os._exit``) ends the run with it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from traceback import extract_tb
from typing import TypeVar
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY, SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from configs.seeding import rng_for

FIRST_NODE_ID = 1000
"""The first node id. It is far from 0, so that code which takes node ids for partition ids fails at once."""

T = TypeVar("T")


class GuardedApp(ClientApp):
    """A `ClientApp` that always answers: with its handler's reply, or with an error reply that says what went wrong.

    Without it, a handler that returns anything but a reply leaves the server waiting until its timeout.
    """

    def __init__(self, client_app: ClientApp) -> None:
        super().__init__()
        self._client_app = client_app

    def __call__(self, message: Message, context: Context) -> Message:
        """The reply to ``message``; never raises because of the handler."""
        try:
            reply = self._client_app(message, context)
        except (Exception, SystemExit) as error:
            frame = extract_tb(error.__traceback__)[-1]
            return error_reply(message, f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")
        if not isinstance(reply, Message):
            name = type(reply).__name__
            return error_reply(
                message, f"{message.metadata.message_type}: expected a Message from the handler, got {name}"
            )
        if reply.metadata.reply_to_message_id != message.metadata.message_id:
            return error_reply(message, f"{message.metadata.message_type}: build the reply with reply_to=message")
        return reply


def error_reply(message: Message, reason: str, code: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION) -> Message:
    """A reply to ``message`` that carries an error instead of content."""
    return Message(Error(code=code, reason=reason), reply_to=message)


class InlineGrid(Grid):
    """A grid whose nodes live in this process and answer while messages are pushed.

    An error reply leaves the state of its client as it was before the message.

    Args:
        client_app: the `ClientApp` that every node runs.
        num_nodes: the number of nodes; node ``FIRST_NODE_ID + i`` has partition ``i``.
        shuffle_seed: seed that shuffles node ids, work and replies, as a network may; None keeps their order.
    """

    def __init__(self, client_app: ClientApp, *, num_nodes: int, shuffle_seed: int | None = None) -> None:
        self._client_app = GuardedApp(client_app)
        self._rng = None if shuffle_seed is None else rng_for(shuffle_seed, "inline")
        self._replies: dict[str, Message] = {}
        self.set_run(Run.create_empty(run_id=uuid4().int >> 65))
        self._contexts = {
            FIRST_NODE_ID + partition: Context(
                run_id=self.run.run_id,
                node_id=FIRST_NODE_ID + partition,
                node_config={PARTITION_ID_KEY: partition, NUM_PARTITIONS_KEY: num_nodes},
                state=RecordDict(),
                run_config={},
            )
            for partition in range(num_nodes)
        }

    def set_run(self, run: Run) -> None:
        """Serve ``run`` from now on; messages that are built in this process belong to it."""
        self._run = run
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run.run_id, SUPERLINK_NODE_ID

    @property
    def run(self) -> Run:
        """The run that this grid serves."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the server to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The ids of all nodes."""
        return self._in_any_order(list(self._contexts))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have every message answered, and return the message ids in the order of ``messages``.

        Raises:
            ValueError: a message is for a node that does not exist.
        """
        messages = list(messages)
        for message in messages:
            if message.metadata.dst_node_id not in self._contexts:
                raise ValueError(f"message to node {message.metadata.dst_node_id}: no such node, see get_node_ids()")
            message.metadata.__dict__["_message_id"] = str(uuid4())
        for message in self._in_any_order(messages):
            self._replies[message.metadata.message_id] = self._answer(_copy(message))
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to the messages with these ids; each reply is handed out once."""
        found = [message_id for message_id in message_ids if message_id in self._replies]
        return [self._replies.pop(message_id) for message_id in self._in_any_order(found)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies to ``messages``; ``timeout`` has no effect, since pushing returns when all have answered."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        context = _copy(self._contexts[node_id])
        try:
            reply = _copy(self._client_app(message, context))
            context = _copy(context)  # a pickle of its own: in one pickle, reply and state would still share records
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            reply = error_reply(message, f"the reply or the client's state cannot be pickled: {error}")
        if not reply.has_error():
            self._contexts[node_id] = context
        reply.metadata.__dict__["_message_id"] = str(uuid4())
        return reply

    def _in_any_order(self, items: Sequence[T]) -> list[T]:
        if self._rng is None:
            return list(items)
        return [items[i] for i in self._rng.permutation(len(items))]


def _copy(value: T) -> T:
    copied: T = pickle.loads(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
    return copied


def run_inline(
    server_app: ServerApp, client_app: ClientApp, *, num_nodes: int, shuffle_seed: int | None = None
) -> None:
    """Run both apps in this process; return when the ServerApp returns and raise what it raises.

    Args:
        server_app: the `ServerApp`; its main gets an `InlineGrid`.
        client_app: the `ClientApp` that every node runs.
        num_nodes: the number of virtual nodes.
        shuffle_seed: seed that shuffles every order that a network may change; None keeps the order.
    """
    grid = InlineGrid(client_app, num_nodes=num_nodes, shuffle_seed=shuffle_seed)
    server_app(grid, Context(grid.run.run_id, SUPERLINK_NODE_ID, {}, RecordDict(), {}))
