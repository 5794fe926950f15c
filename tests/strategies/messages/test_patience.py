"""Semi-synchronous rounds: how long a round waits, and what becomes of those that it does not wait for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from configs.strategy import Strategy
from sim.inline import FIRST_NODE_ID, InlineGrid
from strategies.messages.mailbox import POLL_SECONDS, Arrival, Failed, Sent, is_over, time_limit
from strategies.messages.records import RoundAccount
from strategies.messages.wire import Header, Reply, Request, pack_replies, unpack_header, unpack_requests
from strategies.methods.distillation import DistillationStrategy
from strategies.rules.weighted import Weighted
from tests.made_up import build, encoded, experiment, introducing

NUM_PUBLIC = 10


@pytest.mark.parametrize(
    ("answered_s", "num_asked", "quorum", "expected"),
    [
        ([], 4, 0.5, 100.0),
        ([1.0], 4, 0.5, 100.0),  # half of four is two
        ([1.0, 2.0], 4, 0.5, 3.0),
        ([2.0, 1.0], 4, 0.5, 3.0),  # in any order
        ([1.0, 2.0, 9.0], 4, 0.5, 3.0),  # who comes after the quorum does not move the limit
        ([1.0, 2.0], 5, 0.5, 100.0),  # half of five is three
        ([1.0, 2.0, 4.0], 5, 0.5, 6.0),
        ([1.0], 4, 0.01, 1.5),  # at least one
        ([1.0, 2.0, 3.0], 4, 1.0, 100.0),
        ([1.0, 2.0, 3.0, 4.0], 4, 1.0, 6.0),
        ([float(n) for n in range(1, 8)], 10, 0.7, 10.5),  # 0.7 of 10 is seven, though not in floating point
        ([66.0, 66.8], 4, 0.5, 100.0),  # 100.2, but never longer than the timeout
    ],
)
def test_the_limit_is_a_multiple_of_the_time_that_the_quorum_took(
    answered_s: list[float], num_asked: int, quorum: float, expected: float
) -> None:
    limit = time_limit(answered_s, num_asked, patience=1.5, quorum=quorum, timeout_s=100.0)
    assert limit == pytest.approx(expected)


def test_without_patience_only_the_timeout_counts() -> None:
    assert time_limit([1.0, 2.0], 2, patience=None, quorum=0.5, timeout_s=100.0) == 100.0


def test_patience_of_one_goes_on_with_the_quorum() -> None:
    assert time_limit([1.0, 2.0], 4, patience=1.0, quorum=0.5, timeout_s=100.0) == 2.0


@pytest.mark.parametrize(("key", "value"), [("patience", 0.99), ("quorum", 0.0), ("quorum", 1.01)])
def test_settings_out_of_range_are_refused_by_their_name(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.{key}: must be"):
        experiment(**{key: value})


def test_settings_on_the_boundary_are_taken() -> None:
    assert experiment(patience=1, quorum=1.0).strategy.patience == 1.0
    assert (Strategy().patience, Strategy().quorum) == (None, 0.5)


def test_a_sum_has_no_patience_since_what_comes_late_could_be_unmasked() -> None:
    with pytest.raises(ValueError, match=r"strategy\.secure_sum: .*leave .*patience out"):
        experiment(secure_sum=True, aggregator={"name": "mean"}, patience=1.5)


def sent(*clients: str, was_pushed: bool = True) -> Sent:
    return Sent(1, Header("r", "e", "s", 1, "public"), dict.fromkeys(clients, Request()), was_pushed=was_pushed)


def came(seconds: float, *clients: str) -> Arrival:
    return Arrival({client: Reply() for client in clients}, seconds)


FAILED = Arrival(Failed("Flower error 5"), 0.1)
PATIENT = Strategy(patience=1.5)


@pytest.mark.parametrize(
    ("arrivals", "elapsed_s", "expected"),
    [
        ({}, 99.9, False),
        ({}, 100.0, True),
        ({"m0": came(2.0, "a"), "m1": came(4.0, "b")}, 5.9, False),
        ({"m0": came(2.0, "a"), "m1": came(4.0, "b")}, 6.0, True),
        ({"m0": came(2.0, "a"), "late": came(0.1, "z")}, 6.0, False),  # what was owed is no part of the quorum
        ({"m0": FAILED, "m1": FAILED, "m2": came(4.0, "c")}, 5.9, False),  # one of the two that are left
        ({"m0": FAILED, "m1": FAILED, "m2": came(4.0, "c")}, 6.0, True),
        ({"m0": FAILED, "m1": FAILED, "m2": FAILED}, 99.9, False),
        ({"m0": FAILED, "m1": FAILED, "m2": FAILED, "m3": FAILED}, 0.2, True),
    ],
)
def test_a_round_is_over_by_its_quorum_and_those_that_failed_are_none_of_it(
    arrivals: dict[str, Arrival], elapsed_s: float, expected: bool
) -> None:
    new = {f"m{number}": sent(client) for number, client in enumerate("abcd")}
    assert is_over(new, arrivals, elapsed_s, settings=PATIENT, timeout_s=100.0) is expected


def test_clients_make_a_quorum_and_not_the_nodes_that_carry_them() -> None:
    new = {"m0": sent("a", "b", "c"), "m1": sent("d")}
    assert not is_over(new, {"m1": came(1.0, "d")}, 50.0, settings=PATIENT, timeout_s=100.0)
    assert is_over(new, {"m0": came(1.0, "a", "b", "c")}, 1.5, settings=PATIENT, timeout_s=100.0)


def test_a_round_that_asks_nobody_waits_for_one_that_owes_an_answer() -> None:
    for new in ({}, {"m0": sent("a", was_pushed=False)}):
        assert not is_over(new, {}, 1.0, settings=PATIENT, timeout_s=100.0)
        assert is_over(new, {"late": came(0.5, "z")}, 1.0, settings=PATIENT, timeout_s=100.0)


class Clock:
    """Seconds that pass only while somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class TimedGrid(InlineGrid):
    """Nodes that take their time, each one message after the other."""

    def __init__(self, app: ClientApp, clock: Clock, seconds: list[float]) -> None:
        super().__init__(app, num_nodes=len(seconds))
        self.clock = clock
        self.seconds = seconds
        self.free_at = [0.0] * len(seconds)
        self.due: dict[str, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        ids = list(super().push_messages(messages))
        for message_id, message in zip(ids, messages, strict=True):
            node = message.metadata.dst_node_id - FIRST_NODE_ID
            works_s = self.seconds[node] if message.metadata.message_type == "train.round" else 0.0
            self.free_at[node] = max(self.clock.now, self.free_at[node]) + works_s
            self.due[message_id] = self.free_at[node]
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return list(super().pull_messages(one for one in message_ids if self.due[one] <= self.clock.now))


class Federation:
    """Clients that take so many seconds each; client number n answers beam n with certainty."""

    def __init__(self, seconds: list[float], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.clock = Clock()
        for module in ("mailbox", "records"):
            monkeypatch.setattr(f"strategies.messages.{module}.time", self.clock)
        self.names = [f"{number:03d}-gps" for number in range(len(seconds))]
        self.asked: list[list[str]] = []
        self.strategy = build(
            DistillationStrategy, experiment(publish="ensemble", **settings), aggregator=Weighted(weights=["age"])
        )
        self.grid = TimedGrid(self._app(), self.clock, seconds)
        self.strategy.mailbox.meet(self.grid, num_nodes=len(seconds), timeout=5.0)

    def _app(self) -> ClientApp:
        app = introducing(self.names)

        @app.train("round")
        def take_part(message: Message, context: Context) -> Message:
            header = unpack_header(message.content)
            (client, request), *_ = unpack_requests(message.content).items()
            self.asked[-1].append(client)
            labels = encoded(request.ask, self.names.index(client), header.round)
            reply = Reply(labels, facts={"known_round": header.round - 1})
            return Message(pack_replies(header, {client: reply}), reply_to=message)

        return app

    def round(self, number: int, *, timeout: float = 60.0) -> tuple[RoundAccount, float]:
        """A round's account, and the seconds that it took."""
        self.asked.append([])
        begin = self.clock.now
        return self.strategy.run_round(self.grid, number, timeout), self.clock.now - begin

    def share(self, number: int) -> float:
        """Of a beam in what is published."""
        cache = self.strategy.state.cache
        assert cache is not None
        return float(self.strategy.down.decode(cache.newest, 2.0).probs[..., number].mean())


QUICK_S = [1.0, 1.1, 1.2]
SLOW_S = 12.0
SLOW = "003-gps"


def test_with_a_straggler_ten_times_slower_each_round_takes_at_most_1_3_times_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"patience": 1.2, "late_rounds": 12}
    without = Federation(QUICK_S, monkeypatch, **settings)
    alone_s = [without.round(number)[1] for number in range(1, 15)]
    assert alone_s == pytest.approx([1.2] * 14, abs=POLL_SECONDS + 1e-9)

    federation = Federation([*QUICK_S, SLOW_S], monkeypatch, **settings)
    rounds = [federation.round(number) for number in range(1, 15)]
    assert all(took <= 1.3 * alone for (_, took), alone in zip(rounds, alone_s, strict=True))
    accounts = [account for account, _ in rounds]
    # Two of four had answered after 1.1 s; 1.2 times that is 1.32 s, which the polls round up.
    assert accounts[0].clients[SLOW].problem == "no answer in time; the round went on without it after 1.4 s"
    assert accounts[0].clients[SLOW].fault == "missing"
    assert [accounts[0].clients[name].problem for name in federation.names[:3]] == [""] * 3
    came_in = next(account for account in accounts[1:] if SLOW in account.clients)
    late = came_in.clients[SLOW]
    assert late.problem == ""
    assert late.rounds_late == came_in.round - 1
    went_on_s = rounds[0][1]
    assert late.seconds_late == pytest.approx(SLOW_S - went_on_s, abs=POLL_SECONDS + 1e-9)
    assert [SLOW in asked for asked in federation.asked[: came_in.round + 1]] == [
        True, *[False] * (came_in.round - 1), True,
    ]  # fmt: skip


def test_the_late_answer_of_a_straggler_weighs_by_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation([1.0, 1.0, 1.0, 3.1], monkeypatch, patience=1.2, late_rounds=3)
    shares = []
    for number in (1, 2, 3, 4):
        account, _ = federation.round(number)
        shares.append((account.clients[SLOW].rounds_late if SLOW in account.clients else None, federation.share(3)))
    weight = (1 + 2) ** -0.5
    # Round 1 goes on after 1.2 s, the others after 1.0 s: its answer comes in the third, two rounds late.
    assert [late for late, _ in shares] == [0, None, 2, 0]
    assert [share for _, share in shares] == pytest.approx([0.0, 0.0, weight / (3 + weight), 0.0], abs=1e-6)


def test_an_answer_that_may_not_count_late_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation([*QUICK_S, SLOW_S], monkeypatch, patience=1.2, late_rounds=0)
    for number in range(1, 13):
        account, _ = federation.round(number)
        assert account.clients[SLOW].fault == "missing"
    assert all(SLOW in asked for asked in federation.asked)
    assert federation.share(3) == 0.0


def test_the_timeout_bounds_a_round_of_which_no_quorum_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation([1.0, 50.0, 50.0, 50.0], monkeypatch, patience=1.2)
    account, took = federation.round(1, timeout=4.0)
    assert took == pytest.approx(4.0, abs=POLL_SECONDS + 1e-9)
    assert [entry.problem for entry in account.clients.values()] == ["", *["no answer in time"] * 3]


def test_what_is_owed_does_not_hold_up_a_round_without_patience_either(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation([1.0, 30.0], monkeypatch, late_rounds=5)
    took = [federation.round(number, timeout=4.0)[1] for number in (1, 2, 3)]
    assert took == pytest.approx([4.0, 1.0, 1.0], abs=POLL_SECONDS + 1e-9)


def test_when_all_owe_an_answer_the_round_waits_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation([6.0, 7.0], monkeypatch, late_rounds=5)
    first, _ = federation.round(1, timeout=4.0)
    second, took = federation.round(2, timeout=4.0)
    assert [entry.fault for entry in first.clients.values()] == ["missing", "missing"]
    assert federation.asked[1] == []
    assert took == pytest.approx(2.0, abs=POLL_SECONDS + 1e-9)
    assert {client: entry.rounds_late for client, entry in second.clients.items()} == {"000-gps": 1}


def test_waiting_changes_nothing_where_all_are_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for settings in ({}, {"patience": 1.5, "quorum": 0.5}):
        federation = Federation([1.0, 1.0], monkeypatch, **settings)
        account, _ = federation.round(1)
        cache = federation.strategy.state.cache
        assert cache is not None
        outcomes.append((account.clients, cache.newest.payload))
    assert outcomes[0][0] == outcomes[1][0]
    np.testing.assert_array_equal(outcomes[0][1], outcomes[1][1])
