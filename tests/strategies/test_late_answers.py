"""Answers that come late: how late may they be, what do they count for, and who is asked meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from sim.inline import InlineGrid
from strategies.distillation import DistillationStrategy
from strategies.labels import Contribution
from strategies.weights import Weighted
from strategies.wire import Reply, pack_replies, unpack_header, unpack_requests
from tests.strategies.test_distillation import MadeUpTeacher, experiment, parcel

NUM_PUBLIC = 10
SLOW, QUICK = "000-gps", "001-gps"


class SlowGrid(InlineGrid):
    """Holds back the replies of the first node for a number of rounds."""

    def __init__(self, app: ClientApp, *, rounds_late: int) -> None:
        super().__init__(app, num_nodes=2)
        self.rounds_late = rounds_late
        self.held: list[tuple[int, Message]] = []
        self.now = 0

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        arrived = []
        for reply in super().pull_messages(message_ids):
            if reply.metadata.message_type == "train.round" and reply.metadata.src_node_id == 1000:
                self.held.append((self.now + self.rounds_late, reply))
            else:
                arrived.append(reply)
        due = [reply for when, reply in self.held if when <= self.now]
        self.held = [(when, reply) for when, reply in self.held if when > self.now]
        return arrived + due


class Federation:
    """A slow and a quick client; notes what is aggregated."""

    def __init__(self, *, rounds_late: int, **settings: Any) -> None:
        self.aggregated: list[dict[str, int]] = []
        outer = self

        class Noting(DistillationStrategy):
            def aggregate(self, contributions: Any, asked: Any) -> Any:
                outer.aggregated.append({one.client: one.age for one in contributions})
                outer.last = list(contributions)
                return super().aggregate(contributions, asked)

        self.last: list[Contribution] = []
        self.strategy = Noting(
            experiment=experiment(publish="ensemble", **settings),
            aggregator=Weighted(weights=["age"]),
            teacher=MadeUpTeacher(),
            num_public=NUM_PUBLIC,
            run="r",
            digests=("e", "s"),
        )
        self.asked: list[list[str]] = []
        app = ClientApp()

        @app.query("hello")
        def hello(message: Message, context: Context) -> Message:
            client = [SLOW, QUICK][int(context.node_config["partition-id"])]
            facts: dict[str, Any] = {"modality": "gps", "num_examples": 7, "num_passes": 2, "num_parameters": 100}
            return Message(pack_replies(unpack_header(message.content), {client: Reply(facts=facts)}), reply_to=message)

        @app.train("round")
        def take_part(message: Message, context: Context) -> Message:
            header = unpack_header(message.content)
            replies = {}
            for client, request in unpack_requests(message.content).items():
                self.asked[-1].append(client)
                beam = 0 if client == SLOW else 1
                replies[client] = Reply(
                    parcel(request.ask, beam, header.round), facts={"known_round": header.round - 1}
                )
            return Message(pack_replies(header, replies), reply_to=message)

        self.grid = SlowGrid(app, rounds_late=rounds_late)
        self.strategy.letters.meet(self.grid, num_nodes=2, timeout=5.0)

    def run(self, rounds: int) -> list[dict[str, str]]:
        """By round: client -> why it does not count, for those in the account."""
        problems = []
        for number in range(1, rounds + 1):
            self.asked.append([])
            self.grid.now = number
            account = self.strategy.run_round(self.grid, number, timeout=0.15)
            problems.append({client: entry.problem for client, entry in account.clients.items()})
        return problems


def test_an_answer_that_is_just_not_too_late_counts_with_its_age() -> None:
    federation = Federation(rounds_late=2, late_rounds=2)
    problems = federation.run(3)
    assert problems[0] == {SLOW: "no answer in time", QUICK: ""}
    assert problems[1] == {QUICK: ""}  # still owed, which was said before
    assert problems[2] == {SLOW: "", QUICK: ""}
    assert federation.aggregated == [{QUICK: 0}, {QUICK: 0}, {SLOW: 2, QUICK: 0}]


def test_an_answer_that_is_a_round_too_late_never_counts_and_its_client_is_asked_again() -> None:
    federation = Federation(rounds_late=2, late_rounds=1)
    problems = federation.run(3)
    assert federation.aggregated == [{QUICK: 0}, {QUICK: 0}, {QUICK: 0}]
    assert problems[2][SLOW] == "no answer in time"
    assert federation.asked == [[SLOW, QUICK], [QUICK], [SLOW, QUICK]]


def test_without_late_rounds_everyone_is_asked_every_time() -> None:
    federation = Federation(rounds_late=1, late_rounds=0)
    federation.run(3)
    assert federation.asked == [[SLOW, QUICK]] * 3
    assert federation.aggregated == [{QUICK: 0}] * 3


def test_who_owes_an_answer_is_not_asked_for_more_meanwhile() -> None:
    federation = Federation(rounds_late=2, late_rounds=2)
    federation.run(3)
    assert federation.asked == [[SLOW, QUICK], [QUICK], [QUICK]]


def test_a_late_answer_weighs_by_its_age() -> None:
    federation = Federation(rounds_late=1, late_rounds=1)
    federation.run(2)
    cache = federation.strategy.state.cache
    assert cache is not None
    labels = federation.strategy.down.decode(cache.newest, 2.0)
    share = 0.5**0.5 / (1 + 0.5**0.5)  # (1 + 1)^-0.5 against 1
    np.testing.assert_allclose(labels.probs[..., 0], share, atol=1e-6)


def test_a_late_answer_counts_only_for_samples_that_are_asked_for_now() -> None:
    federation = Federation(rounds_late=1, late_rounds=1, public_samples=3)
    federation.run(2)
    late = next(one for one in federation.last if one.client == SLOW)
    quick = next(one for one in federation.last if one.client == QUICK)
    assert set(late.labels.sample_ids) <= set(quick.labels.sample_ids)
    assert len(quick.labels) == 3


@pytest.mark.parametrize("rounds_late", [1, 2])
def test_a_client_that_was_late_gets_afterwards_what_it_lacks(rounds_late: int) -> None:
    federation = Federation(rounds_late=rounds_late, late_rounds=2)
    federation.run(rounds_late + 1)
    assert federation.strategy.state.known_rounds[SLOW] == 0  # what it held when it answered round 1
