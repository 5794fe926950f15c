"""Letters to nodes that come, go, repeat themselves and say who they are not, by a SuperLink that may be killed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Context, Error, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from sim.inline import FIRST_NODE_ID, InlineGrid
from strategies.messages.mailbox import Outcome
from strategies.messages.records import Event, RegisteredNode, RoundAccount
from strategies.messages.wire import Reply, Request, pack_replies, unpack_header, unpack_requests
from strategies.methods.base import FederationState
from strategies.methods.distillation import DistillationStrategy
from strategies.rules.weighted import Mean
from tests.made_up import MadeUpTeacher, ObjectPushError, encoded, experiment

A, B = "000-gps", "001-gps"
NODE_A, NODE_B, NODE_C = (FIRST_NODE_ID + number for number in range(3))


class MovingGrid(InlineGrid):
    """Nodes that may be away; what each lives on can be changed, and replies be tampered with."""

    def __init__(self, app: ClientApp) -> None:
        super().__init__(app, num_nodes=3)
        self.away: set[int] = {NODE_C}
        self.looks = 0
        self.on_look: Callable[[int], None] = lambda look: None
        self.hellos: list[int] = []
        self.silent: set[int] = set()
        self.tamper: Callable[[list[Message]], list[Message]] = lambda replies: replies

    def get_node_ids(self) -> list[int]:
        self.looks += 1
        self.on_look(self.looks)
        return [node for node in super().get_node_ids() if node not in self.away]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        assert not {message.metadata.dst_node_id for message in messages} & self.away
        self.hellos += [m.metadata.dst_node_id for m in messages if m.metadata.message_type == "query.hello"]
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = list(super().pull_messages(message_ids))
        return self.tamper([reply for reply in replies if reply.metadata.src_node_id not in self.silent])


class World:
    """Two clients, of which one may move to a third node."""

    def __init__(self, *, state: FederationState | None = None, meets: bool = True, **arguments: Any) -> None:
        registry = arguments.pop("registry", None)
        self.lives_on = {NODE_A: A, NODE_B: B, NODE_C: B}
        self.modality = dict.fromkeys((NODE_A, NODE_B, NODE_C), "gps")
        self.events: list[Event] = []
        self.asked: list[str] = []
        self.facts: dict[str, Any] = {}
        self.strategy = DistillationStrategy(
            experiment=experiment(**arguments),
            aggregator=Mean(),
            teacher=MadeUpTeacher(),
            num_public=10,
            run="r",
            digests=("e", "s"),
            state=state,
            registry=registry,
        )
        self.mailbox = self.strategy.mailbox
        self.mailbox.on_event = self.events.append
        self.grid = MovingGrid(self._app())
        if meets:
            self.mailbox.meet(self.grid, num_nodes=2, timeout=5.0)

    def _app(self) -> ClientApp:
        app = ClientApp()

        def here(context: Context) -> int:
            return FIRST_NODE_ID + int(context.node_config["partition-id"])

        @app.query("hello")
        def hello(message: Message, context: Context) -> Message:
            counts: dict[str, Any] = {"num_examples": 7, "num_passes": 2, "num_parameters": 100}
            facts = {"modality": self.modality[here(context)], **counts}
            replies = {self.lives_on[here(context)]: Reply(facts=facts)}
            return Message(pack_replies(unpack_header(message.content), replies), reply_to=message)

        @app.train("round")
        def take_part(message: Message, context: Context) -> Message:
            header = unpack_header(message.content)
            replies = {}
            for client, request in unpack_requests(message.content).items():
                self.asked.append(f"{client}@{here(context)}")
                facts = {"known_round": header.round - 1, **self.facts}
                replies[client] = Reply(encoded(request.ask, 0, header.round), facts=facts)
            return Message(pack_replies(header, replies), reply_to=message)

        return app

    def round(self, number: int, *, timeout: float = 5.0) -> RoundAccount:
        self.asked.clear()
        self.events.clear()
        return self.strategy.run_round(self.grid, number, timeout)

    def told(self) -> list[tuple[str, str]]:
        return [(event.kind, event.who) for event in self.events]


def faults(account: RoundAccount) -> dict[str, str]:
    return {client: entry.fault for client, entry in account.clients.items()}


def test_nodes_are_asked_who_they_are_once_while_they_stay_the_same() -> None:
    world = World()
    for number in (1, 2, 3):
        assert faults(world.round(number)) == {A: "", B: ""}
        assert world.events == []
    assert world.grid.hellos == [NODE_A, NODE_B]


def test_a_node_that_vanished_is_not_asked_and_is_asked_again_when_it_is_back() -> None:
    world = World()
    world.grid.away.add(NODE_B)
    account = world.round(1)
    assert faults(account) == {A: "", B: "away"}
    assert account.clients[B].problem == "its node was not connected"
    assert account.clients[B].downlink_bytes == 0
    assert world.asked == [f"{A}@{NODE_A}"]
    assert world.told() == [("left", B)]
    world.grid.away.remove(NODE_B)
    assert faults(world.round(2)) == {A: "", B: ""}
    assert world.told() == [("back", B)]
    assert world.grid.hellos == [NODE_A, NODE_B]


def test_a_client_that_comes_back_on_another_node_is_taken_over() -> None:
    world = World()
    world.round(1)
    world.grid.away = {NODE_B}
    assert faults(world.round(2)) == {A: "", B: ""}
    assert world.asked == [f"{A}@{NODE_A}", f"{B}@{NODE_C}"]
    assert world.told() == [("left", B), ("moved", B)]
    assert world.strategy.state.known_rounds[B] == 1


def test_a_second_node_of_a_client_waits_until_the_first_is_gone() -> None:
    world = World()
    world.grid.away = set()
    world.round(1)
    assert world.told() == [("refused", f"client {B}")]
    assert world.asked == [f"{A}@{NODE_A}", f"{B}@{NODE_B}"]
    world.round(2)
    assert world.events == []
    world.grid.away = {NODE_B}
    world.round(3)
    assert world.told() == [("left", B), ("moved", B)]


def test_a_node_that_comes_late_takes_part_from_then_on() -> None:
    world = World(meets=False)
    world.grid.away = {NODE_B, NODE_C}
    assert list(world.mailbox.meet(world.grid, num_nodes=2, timeout=0.2)) == [A]
    assert faults(world.round(1)) == {A: ""}
    world.grid.away = {NODE_C}
    assert faults(world.round(2)) == {A: "", B: ""}
    assert world.told() == [("joined", B)]
    assert list(world.strategy.state.members) == [A, B]


def test_a_silent_newcomer_holds_up_the_run_once_and_joins_when_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.messages.mailbox.INTRODUCTION_SECONDS", 0.5)
    world = World(meets=False)
    world.grid.away = {NODE_B, NODE_C}
    world.mailbox.meet(world.grid, num_nodes=1, timeout=5.0)
    world.grid.away, world.grid.silent = {NODE_C}, {NODE_B}
    took = []
    for number in (1, 2):
        begin = time.monotonic()
        assert faults(world.round(number)) == {A: ""}
        took.append(time.monotonic() - begin)
    assert took[0] >= 0.5 > took[1]
    world.grid.silent = set()
    world.grid.away = set()  # somebody else comes, and with it the round in which who was silent is asked again
    world.lives_on[NODE_C] = "002-gps"
    assert faults(world.round(3)) == {A: "", B: "", "002-gps": ""}


REGISTRY = {NODE_A: RegisteredNode("roof-1", A, "gps"), NODE_B: RegisteredNode("gate-2", B, "gps")}


def test_the_meeting_waits_for_as_many_nodes_as_are_registered() -> None:
    world = World(registry=REGISTRY, meets=False)
    world.grid.away = {NODE_B}  # a stranger is there in its place

    def comes(look: int) -> None:
        if look == 3:
            world.grid.away = set()

    world.grid.on_look = comes
    assert list(world.mailbox.meet(world.grid, num_nodes=1, timeout=5.0)) == [A, B]
    assert world.told() == [("refused", f"node {NODE_C}")]
    assert NODE_C not in world.grid.hellos


def test_an_impostor_is_refused_in_every_round_and_let_in_when_it_says_who_it_is() -> None:
    world = World(registry=REGISTRY, meets=False)
    world.lives_on[NODE_B] = A
    world.mailbox.meet(world.grid, num_nodes=2, timeout=5.0)
    (event,) = world.events
    assert event.text == f"says that it is {A} (gps), but node gate-2 has the key of {B} (gps)"
    assert faults(world.round(1)) == {A: ""}
    assert world.events == []  # said before
    world.lives_on[NODE_B] = B
    assert faults(world.round(2)) == {A: "", B: ""}
    assert world.told() == [("joined", B)]


def test_while_all_are_away_the_round_waits_for_one() -> None:
    world = World()
    world.round(1)
    world.grid.away = {NODE_A, NODE_B, NODE_C}
    first = world.grid.looks

    def comes(look: int) -> None:
        if look == first + 4:
            world.grid.away = {NODE_B, NODE_C}

    world.grid.on_look = comes
    assert faults(world.round(2)) == {A: "", B: "away"}


def test_a_round_in_which_nobody_comes_is_empty_and_the_next_goes_on() -> None:
    world = World()
    world.round(1)
    world.grid.away = {NODE_A, NODE_B, NODE_C}
    begin = time.monotonic()
    account = world.round(2, timeout=0.3)
    assert 0.3 <= time.monotonic() - begin < 2.0
    assert faults(account) == {A: "away", B: "away"}
    assert (account.num_asked, account.num_targets) == (0, 0)
    assert world.strategy.state.round == 2
    world.grid.away = {NODE_C}
    assert faults(world.round(3)) == {A: "", B: ""}


def test_after_a_stop_the_server_goes_on_without_those_that_are_not_back_yet() -> None:
    first = World()
    first.round(1)
    state = first.strategy.state
    resumed = World(state=state, meets=False)
    resumed.grid.away = {NODE_A, NODE_B, NODE_C}
    assert list(resumed.mailbox.meet(resumed.grid, num_nodes=2, timeout=0.1)) == [A, B]
    resumed.grid.away = {NODE_A, NODE_B}  # B comes back on another node
    assert faults(resumed.round(2)) == {A: "away", B: ""}


def test_the_meeting_waits_for_a_node_that_is_gone_when_it_is_asked_and_comes_back() -> None:
    world = World(meets=False)
    gone = [True]

    def unavailable(replies: list[Message]) -> list[Message]:
        found = [
            gone_in_place_of(reply) if reply.metadata.src_node_id == NODE_B and gone[0] else reply for reply in replies
        ]
        if any(reply.has_error() for reply in found):
            world.grid.away.add(NODE_B)
            world.grid.on_look = lambda look, first=world.grid.looks: come_back() if look >= first + 3 else None
        return found

    def come_back() -> None:
        gone[0] = False
        world.grid.away.discard(NODE_B)

    world.grid.tamper = unavailable
    assert sorted(world.mailbox.meet(world.grid, num_nodes=2, timeout=20.0)) == [A, B]
    assert not gone[0] and not world.events


def test_a_node_that_stays_away_is_told_when_the_time_of_the_meeting_is_over() -> None:
    world = World(meets=False)
    world.grid.tamper = lambda replies: [
        gone_in_place_of(reply) if reply.metadata.src_node_id == NODE_B else reply for reply in replies
    ]
    assert sorted(world.mailbox.meet(world.grid, num_nodes=2, timeout=0.5)) == [A]
    assert world.told() == [("refused", f"node {NODE_B}")]
    assert "no heartbeat" in world.events[0].text


def gone_in_place_of(reply: Message) -> Message:
    """What Flower gives in place of an answer when a node is gone."""
    error = Message(Error(ErrorCode.NODE_UNAVAILABLE, "no heartbeat"), reply_to=reply)
    error.metadata.__dict__.update(reply.metadata.__dict__)
    return error


def test_without_anyone_a_first_meeting_fails_when_its_time_is_over() -> None:
    world = World(meets=False)
    world.grid.away = {NODE_A, NODE_B, NODE_C}
    with pytest.raises(ValueError, match=r"no client can take part.*no node came within 0\.1 s"):
        world.mailbox.meet(world.grid, num_nodes=2, timeout=0.1)


def test_those_who_are_there_are_heard_although_the_time_went_by_waiting_for_more() -> None:
    world = World(meets=False)
    held: list[Message] = []

    def a_little_later(replies: list[Message]) -> list[Message]:
        if replies and not held:
            held.extend(replies)
            return []
        return [*replies, *held]

    world.grid.tamper = a_little_later
    assert list(world.mailbox.meet(world.grid, num_nodes=3, timeout=0.2)) == [A, B]


def test_the_second_of_two_equal_replies_is_thrown_away_and_told() -> None:
    world = World()
    world.grid.tamper = lambda replies: [*replies, *(r for r in replies if r.metadata.src_node_id == NODE_A)]
    account = world.round(1)
    assert faults(account) == {A: "", B: ""}
    assert world.told() == [("repeated", f"node {NODE_A}")]


def test_a_reply_of_an_older_round_is_refused() -> None:
    world = World()
    kept: list[Message] = []

    def replays(replies: list[Message]) -> list[Message]:
        for reply in replies:
            if reply.metadata.src_node_id == NODE_B:
                kept.append(reply)
                reply.content = kept[0].content
        return replies

    world.grid.tamper = replays
    assert faults(world.round(1)) == {A: "", B: ""}
    account = world.round(2)
    assert faults(account) == {A: "", B: "refused"}
    assert account.clients[B].problem == "answers round 1 of run r, expected 2 of r"


def test_an_old_answer_in_a_new_envelope_is_refused() -> None:
    world = World()

    def relabelled(replies: list[Message]) -> list[Message]:
        for reply in replies:
            if reply.metadata.src_node_id == NODE_B:
                header = unpack_header(reply.content)
                old = Reply(encoded(np.arange(10), 0, 1), facts={"known_round": header.round - 1})
                reply.content = pack_replies(header, {B: old})
        return replies

    world.grid.tamper = relabelled
    assert faults(world.round(1)) == {A: "", B: ""}
    account = world.round(2)
    assert faults(account) == {A: "", B: "refused"}
    assert account.clients[B].problem == "its answer is of round 1, expected 2"


@pytest.mark.parametrize("field", ["run", "experiment", "source"])
def test_an_answer_of_another_run_experiment_or_source_is_refused(field: str) -> None:
    world = World()

    def forged(replies: list[Message]) -> list[Message]:
        for reply in replies:
            if reply.metadata.src_node_id == NODE_B:
                reply.content["header"][field] = "other"
        return replies

    world.grid.tamper = forged
    assert faults(world.round(1)) == {A: "", B: "refused"}


def test_an_answer_from_a_node_that_was_not_asked_is_refused() -> None:
    world = World()

    def stolen(replies: list[Message]) -> list[Message]:
        for reply in replies:
            if reply.metadata.src_node_id == NODE_B:
                reply.metadata.__dict__["_src_node_id"] = NODE_C
        return replies

    world.grid.tamper = stolen
    account = world.round(1)
    assert faults(account) == {A: "", B: "refused"}
    assert account.clients[B].problem == f"came from node {NODE_C}, which was not asked"


def test_a_client_that_answers_garbage_in_every_round_costs_the_others_nothing() -> None:
    world = World()

    def garbage(replies: list[Message]) -> list[Message]:
        for reply in replies:
            if reply.metadata.src_node_id == NODE_B:
                reply.content["header"]["clients"] = [B, B]
        return replies

    world.grid.tamper = garbage
    for number in range(1, 6):
        account = world.round(number)
        assert faults(account) == {A: "", B: "refused"}
        assert account.num_targets == 10


def test_a_warning_and_a_new_number_of_examples_come_with_an_answer() -> None:
    world = World()
    world.facts = {"warning": "disk\nfull", "num_examples": 50}
    account = world.round(1)
    assert account.clients[A].warning == "disk full"
    assert account.clients[A].problem == ""
    assert world.strategy.state.members[A].num_examples == 50


def test_the_number_of_examples_of_an_answer_that_is_refused_is_not_believed() -> None:
    world = World()
    world.facts = {"warning": "foggy", "num_examples": 50, "known_round": 9}
    account = world.round(1)
    assert account.clients[A].fault == "refused"
    assert account.clients[A].warning == "foggy"
    assert world.strategy.state.members[A].num_examples == 7


def test_what_kind_of_fault_it_is() -> None:
    request = Request()
    assert Outcome("a", 1, request, Reply(error="out of memory")).fault == "failed"
    assert Outcome("a", 1, request, Reply()).fault == "refused"


def test_a_client_that_owes_an_answer_and_moves_is_asked_anew() -> None:
    world = World(late_rounds=9)
    world.grid.silent = {NODE_B}
    assert faults(world.round(1, timeout=0.2)) == {A: "", B: "missing"}
    assert faults(world.round(2)) == {A: ""}
    world.grid.away = {NODE_B}
    assert faults(world.round(3)) == {A: "", B: ""}
    assert world.asked == [f"{A}@{NODE_A}", f"{B}@{NODE_C}"]


@pytest.mark.parametrize("late_rounds", [0, 9])
def test_messages_that_flower_does_not_take_are_nobodys_debt_and_hold_nothing_up(late_rounds: int) -> None:
    world = World(late_rounds=late_rounds)
    takes = world.grid.push_messages
    world.grid.push_messages = lambda messages: []  # type: ignore[method-assign]
    account = world.round(1)
    assert {entry.problem for entry in account.clients.values()} == {"could not be sent"}
    assert faults(account) == {A: "missing", B: "missing"}
    world.grid.push_messages = takes  # type: ignore[method-assign]
    assert faults(world.round(2)) == {A: "", B: ""}


def server_error(status: int) -> Exception:
    request = httpx.Request("POST", "https://localhost/v1/runtime")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


class Nasty(Exception):
    """An error whose text a terminal would obey."""


NASTY = "\x1b[2J\u202e\u2066\u200b\n\x9b"


def in_the_warning(world: World) -> None:
    world.facts = {"warning": NASTY}


def tampered(change: Callable[[Message], None]) -> Callable[[World], None]:
    def tamper(world: World) -> None:
        def replies(found: list[Message]) -> list[Message]:
            for reply in found:
                if reply.metadata.src_node_id == NODE_B:
                    change(reply)
            return found

        world.grid.tamper = replies

    return tamper


def renamed_metric(reply: Message) -> None:
    reply.content.metric_records[f"{B}/metrics"] = MetricRecord({NASTY: 1.0})


def with_error(reply: Message) -> None:
    reply.content.config_records[f"{B}/facts"]["error"] = NASTY


def of_another_run(reply: Message) -> None:
    reply.content.config_records["header"]["run"] = NASTY


def with_a_strange_client(reply: Message) -> None:
    reply.content.config_records["header"]["clients"] = [B, NASTY]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of what was logged, tracebacks among them; Ray gives handlers a format of its own, with tabs."""
    return [line for record in caplog.records for line in logging.Formatter().format(record).split("\n")]


@pytest.mark.parametrize(
    "way",
    [in_the_warning, *map(tampered, (renamed_metric, with_error, of_another_run, with_a_strange_client))],
    ids=["warning", "metric", "error", "run", "client"],
)
def test_texts_of_a_stranger_are_recorded_and_logged_as_printable_lines(
    way: Callable[[World], None], caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    way(world)
    account = world.round(1)
    texts = [text for entry in account.clients.values() for text in (entry.problem, entry.warning, *entry.metrics)]
    assert any("x1b" in text for text in texts)
    assert all(text.isprintable() for text in texts)
    assert all(line.isprintable() for line in logged(caplog))
    assert all(event.text.isprintable() and event.who.isprintable() for event in world.events)


@pytest.mark.parametrize("name", ["client", "modality"])
def test_a_client_whose_name_cannot_be_shown_is_refused_at_the_meeting(name: str) -> None:
    world = World(meets=False)
    if name == "client":
        world.lives_on[NODE_B] = NASTY
    else:
        world.modality[NODE_B] = NASTY
    assert list(world.mailbox.meet(world.grid, num_nodes=2, timeout=5.0)) == [A]
    (event,) = world.events
    assert event.kind == "refused"
    assert event.text.isprintable() and event.who.isprintable() and "x1b" in event.text


def test_the_traceback_of_what_an_answer_raises_is_logged_as_printable_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()

    def accept(*arguments: Any) -> Any:
        raise Nasty(NASTY)

    monkeypatch.setattr(world.strategy, "accept", accept)
    account = world.round(1)
    assert account.clients[A].problem.startswith("Nasty: \\x1b[2J")
    assert any("Traceback" in line for line in logged(caplog))
    assert all(line.isprintable() for line in logged(caplog))


class MortalGrid(MovingGrid):
    """A grid whose SuperLink is killed once in a phase of a round, and takes a node with it or not.

    A message that was stored before the kill is not stored again, as Flower tells messages apart by their ids.
    """

    def __init__(self, app: ClientApp, phase: str, *, at_round: int, with_node: bool) -> None:
        super().__init__(app)
        self.phase, self.at_round, self.with_node = phase, at_round, with_node
        self.now, self.kills = 0, 0

    def dies(self, phase: str) -> bool:
        """Whether this is the moment; the node is silent in this round and away until the next look."""
        if self.kills or phase != self.phase or self.now != self.at_round:
            return False
        self.kills += 1
        if self.with_node:
            self.silent, self.away = {NODE_B}, {NODE_B, NODE_C}
        return True

    def get_node_ids(self) -> list[int]:
        if self.dies("while the server looks for nodes"):
            raise server_error(500)
        return super().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        if self.dies("before a push"):
            raise httpx.ConnectError("refused")
        away, self.away = self.away, set()  # Flower stores messages for nodes that went away meanwhile
        super().push_messages([message for message in messages if not message.metadata.message_id])
        self.away = away
        if self.dies("in the middle of a push"):
            raise ObjectPushError("the session is lost")
        if self.dies("after a push, before its answer"):
            raise httpx.RemoteProtocolError("disconnected")
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        if self.dies("while nodes work"):
            raise server_error(503)
        if self.dies("before a pull"):
            raise httpx.ReadError("reset")
        replies = super().pull_messages(message_ids)
        if replies and self.dies("in the middle of a pull"):
            raise httpx.ReadError("reset")  # They were handed out, and so are deleted.
        return replies


PHASES = [
    "while the server looks for nodes",
    "before a push",
    "in the middle of a push",
    "after a push, before its answer",
    "while nodes work",
    "before a pull",
    "in the middle of a pull",
]


@pytest.mark.parametrize("with_node", [False, True], ids=["alone", "with a node"])
@pytest.mark.parametrize("at_round", [0, 1, 2, 3], ids=["at the meeting", "first", "between", "last"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_superlink_that_is_killed_in_any_phase_ends_no_run(
    phase: str, at_round: int, with_node: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategies.messages.mailbox.AGAIN_S", (0.0, 0.0))
    monkeypatch.setattr("strategies.messages.mailbox.INTRODUCTION_SECONDS", 0.1)
    world = World(meets=False, registry=REGISTRY)
    grid = world.grid = MortalGrid(world._app(), phase, at_round=at_round, with_node=with_node)
    world.mailbox.meet(grid, num_nodes=2, timeout=0.1 if at_round == 0 else 5.0)
    grid.silent, grid.away = set(), {NODE_C}
    accounts = []
    for number in (1, 2, 3):
        grid.now = number
        asked = number == at_round and (with_node or phase == "in the middle of a pull")
        accounts.append(world.round(number, timeout=0.1 if asked else 5.0))
        assert len(set(world.asked)) == len(world.asked), "a client was asked twice"
        grid.silent, grid.away = set(), {NODE_C}
    assert grid.kills == 1
    for number, account in enumerate(accounts, start=1):
        hit = number == at_round
        lost = hit and phase == "in the middle of a pull"
        assert account.clients[A].fault == ("missing" if lost else ""), number
        if not hit:
            assert account.clients[B].fault == "", number
        elif with_node:
            assert account.clients[B].fault in ("missing", "away"), number
