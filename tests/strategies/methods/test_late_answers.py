"""Answers that come late: how late may they be, what do they count for, and who is asked meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from sim.inline import InlineGrid
from strategies.cache import CachedLabels
from strategies.codecs.encoding import EncodedLabels
from strategies.codecs.packing import unpack_ids
from strategies.labels import Contribution
from strategies.messages.wire import Reply, Request, pack_replies, unpack_header, unpack_requests
from strategies.methods.distillation import DistillationStrategy
from strategies.rules.weighted import Weighted
from tests.made_up import build, certain, experiment, introducing

NUM_PUBLIC = 10
SLOW, QUICK = "000-gps", "001-gps"
CODECS = ["float32", "top8-uint4+delta"]


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
        self.strategy = build(Noting, experiment(publish="ensemble", **settings), aggregator=Weighted(weights=["age"]))
        self.asked: list[list[str]] = []
        self.requests: dict[tuple[str, int], Request] = {}
        self.answers: dict[str, dict[int, CachedLabels]] = {SLOW: {}, QUICK: {}}
        app = introducing([SLOW, QUICK])

        @app.train("round")
        def take_part(message: Message, context: Context) -> Message:
            header = unpack_header(message.content)
            replies = {}
            for client, request in unpack_requests(message.content).items():
                self.asked[-1].append(client)
                self.requests[client, header.round] = request
                labels = self._answer(client, header.round, request)
                replies[client] = Reply(labels, facts={"known_round": header.round - 1})
            return Message(pack_replies(header, replies), reply_to=message)

        self.grid = SlowGrid(app, rounds_late=rounds_late)
        self.strategy.mailbox.meet(self.grid, num_nodes=2, timeout=5.0)

    def _answer(self, client: str, number: int, request: Request) -> EncodedLabels:
        """The slow one is certain of beam 0, the quick one of beam 1; a difference where the codec sends those."""
        encoding, kept = self.strategy.up, self.answers[client]
        cached = encoding.encode(certain(request.ask, 0 if client == SLOW else 1), number)
        reference = kept.get(request.answered_round) if encoding.is_delta else None
        kept[number] = cached if reference is None else reference.update(cached)
        return encoding.pack(cached, reference=reference)

    def run(self, rounds: int) -> list[dict[str, str]]:
        """By round: client -> why it does not count, for those in the account."""
        problems = []
        for number in range(1, rounds + 1):
            self.asked.append([])
            self.grid.now = number
            account = self.strategy.run_round(self.grid, number, timeout=0.15)
            problems.append({client: entry.problem for client, entry in account.clients.items()})
        return problems


@pytest.mark.parametrize("codec", CODECS)
def test_an_answer_that_is_just_not_too_late_counts_with_its_age(codec: str) -> None:
    federation = Federation(rounds_late=2, late_rounds=2, codec=codec)
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


@pytest.mark.parametrize("codec", CODECS)
def test_a_late_answer_weighs_by_its_age(codec: str) -> None:
    federation = Federation(rounds_late=1, late_rounds=1, codec=codec, downlink_codec="float32")
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


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rounds_late", [1, 2])
def test_a_client_that_was_late_gets_afterwards_what_it_lacks(rounds_late: int, codec: str) -> None:
    federation = Federation(rounds_late=rounds_late, late_rounds=2, codec=codec, public_samples=3)
    federation.run(rounds_late + 2)
    request, next_round = federation.requests[SLOW, rounds_late + 2], rounds_late + 2
    assert request.known_round == 0  # what it held when it answered round 1
    assert request.answered_round == (1 if "delta" in codec else 0)
    # Everything published since then, and nothing that it had before.
    asked = [federation.requests[QUICK, number].ask for number in range(1, next_round)]
    assert request.targets is not None
    assert unpack_ids(request.targets.ids).tolist() == sorted(set(np.concatenate(asked).tolist()))
    # Against what it held then, the targets of round 0, it makes of them what the server has.
    cache, down = federation.strategy.state.cache, federation.strategy.down
    assert cache is not None
    first = cache.held_at(0)
    assert first is not None and len(first) == NUM_PUBLIC
    assert request.targets.is_delta == ("delta" in codec)
    expected = cache.held_at(next_round - 1)
    assert expected is not None
    assert first.update(down.unpack(request.targets, reference=first)).digest() == expected.digest()


@pytest.mark.parametrize("codec", CODECS)
def test_an_answer_after_a_late_one_counts_in_full(codec: str) -> None:
    federation = Federation(rounds_late=1, late_rounds=1, codec=codec)
    problems = federation.run(4)
    assert federation.aggregated == [{QUICK: 0}, {SLOW: 1, QUICK: 0}, {QUICK: 0}, {SLOW: 1, QUICK: 0}]
    assert problems[3] == {SLOW: "", QUICK: ""}
    late = next(one for one in federation.last if one.client == SLOW)
    np.testing.assert_array_equal(late.labels.probs, certain(np.arange(NUM_PUBLIC), 0).probs)
