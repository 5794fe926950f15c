"""The round of the protocol, with made-up clients: what counts, what is refused, and what the server remembers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from configs.schema import Experiment
from sim.inline import InlineGrid
from strategies.codecs.encoding import Encoding
from strategies.labels import SoftLabels
from strategies.messages.wire import Reply, Request, pack_replies, unpack_header
from tests.made_up import (
    BEAMS,
    HORIZONS,
    NUM_PUBLIC,
    Work,
    World,
    answers_beam,
    certain,
    encoded,
    encoding,
    experiment,
    experiment_of,
    experiment_of_two_sites,
    published,
)


def target_ids(request: Request) -> list[int]:
    return [] if request.targets is None else encoding().unpack(request.targets).sample_ids.tolist()


EVERYTHING = list(range(NUM_PUBLIC))


def test_a_round_publishes_the_ensemble_of_those_that_answered() -> None:
    world = World({"000-gps": answers_beam(0), "001-gps": answers_beam(1)}, experiment())
    account = world.round(1)
    labels = published(world)
    np.testing.assert_allclose(labels.probs[:, :, :2], 0.5)
    assert account.num_asked == account.num_targets == NUM_PUBLIC
    assert [entry.problem for entry in account.clients.values()] == ["", ""]
    assert world.teacher.lessons == [EVERYTHING]


def test_the_teacher_counts_as_one_more_when_it_votes() -> None:
    world = World({"000-gps": answers_beam(0), "001-gps": answers_beam(0)}, experiment(teacher_votes=True))
    world.round(1)
    labels = published(world)
    np.testing.assert_allclose(labels.probs[..., [0, 9]], np.broadcast_to([2 / 3, 1 / 3], (NUM_PUBLIC, HORIZONS, 2)))


@pytest.mark.parametrize(("publish", "share_of_teacher"), [("ensemble", 0.0), ("teacher", 1.0), ("mix", 0.25)])
def test_what_is_published_is_the_ensemble_the_teacher_or_their_mix(publish: str, share_of_teacher: float) -> None:
    world = World({"000-gps": answers_beam(0)}, experiment(publish=publish, mix=0.25))
    world.round(1)
    labels = published(world)
    np.testing.assert_allclose(labels.probs[..., 9], share_of_teacher)
    np.testing.assert_allclose(labels.probs[..., 0], 1 - share_of_teacher)


def test_round_1_brings_the_targets_of_the_pretrained_teacher_if_it_starts() -> None:
    for starts, expected in ((True, EVERYTHING), (False, [])):
        world = World({"000-gps": answers_beam(0)}, experiment(teacher_starts=starts))
        world.round(1)
        assert target_ids(world.request_to("000-gps")) == expected


def test_a_client_that_kept_up_gets_each_target_once() -> None:
    world = World({"000-gps": answers_beam(0)}, experiment(public_samples=3))
    asked: list[list[int]] = []
    for number in (1, 2, 3):
        world.round(number)
        request = world.request_to("000-gps")
        assert target_ids(request) == (asked[-1] if asked else EVERYTHING)
        asked.append(request.ask.tolist())
        assert len(asked[-1]) == 3


def test_a_client_that_failed_for_a_round_gets_exactly_what_it_lacks() -> None:
    def fails_in_round_2(name: str, number: int, request: Request) -> Reply:
        if number == 2:
            return Reply(error="ValueError: out of memory")
        return answers_beam(0)(name, number, request)

    world = World({"000-gps": fails_in_round_2, "001-gps": answers_beam(1)}, experiment(public_samples=3))
    asked: list[list[int]] = []
    for number in (1, 2, 3):
        account = world.round(number)
        asked.append(world.request_to("001-gps").ask.tolist())
    assert account.clients["000-gps"].problem == ""
    request = world.request_to("000-gps")
    assert request.known_round == 0
    assert target_ids(request) == sorted({*asked[0], *asked[1]})
    assert target_ids(world.request_to("001-gps")) == asked[1]


@pytest.mark.parametrize("codec", ["float32", "uint4+delta"])
def test_targets_are_packed_once_for_all_that_know_equally_much_and_anew_for_who_fell_behind(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers_in(name: str, number: int, request: Request) -> Reply:
        if (name, number) == ("000-gps", 2):
            return Reply(error="ValueError: out of memory")
        ids = request.ask
        return Reply(encoding(codec).pack(encoding(codec).encode(certain(ids, 3), number)))

    names = [f"{number:03d}-gps" for number in range(4)]
    world = World(dict.fromkeys(names, answers_in), settings_of(codec, len(names)))
    packed: list[int] = []
    pack = Encoding.pack

    def counted(self: Encoding, *arguments: Any, **keywords: Any) -> Any:
        if self is world.strategy.down:
            packed.append(1)
        return pack(self, *arguments, **keywords)

    monkeypatch.setattr(Encoding, "pack", counted)
    numbers = []
    for number in (1, 2, 3):
        packed.clear()
        world.round(number)
        numbers.append(len(packed))
        sent = {name: world.request_to(name).targets for name in names[1:]}
        first = sent[names[1]]
        assert first is not None
        assert all(one is not None and np.array_equal(one.values, first.values) for one in sent.values())
    assert numbers == [1, 1, 2]
    behind = world.request_to("000-gps")
    assert behind.known_round < world.request_to("001-gps").known_round


def settings_of(codec: str, num_clients: int) -> Experiment:
    """An experiment of so many clients whose soft labels travel so."""
    settings = {"codec": codec, "teacher_votes": False, "publish": "ensemble"}
    return experiment_of(num_clients, **settings)


def test_a_client_that_lost_its_memory_is_given_everything_again() -> None:
    def forgets_after_round_1(name: str, number: int, request: Request) -> Reply:
        if number == 2:
            return Reply(error="its memory was lost", facts={"known_round": -1})
        return answers_beam(0)(name, number, request)

    world = World({"000-gps": forgets_after_round_1, "001-gps": answers_beam(1)}, experiment(public_samples=3))
    for number in (1, 2, 3):
        world.round(number)
    assert target_ids(world.request_to("000-gps")) == EVERYTHING


def _outside(name: str, number: int, request: Request) -> Reply:
    return Reply(encoded(np.setdiff1d(np.arange(NUM_PUBLIC), request.ask)[:1], 0, number))


def _fact(key: str, value: Any) -> Work:
    return lambda name, number, request: Reply(encoded(request.ask, 0, number), facts={key: value})


REFUSED: dict[str, tuple[Work, str]] = {
    "an error": (lambda name, number, request: Reply(error="ValueError: oh"), "ValueError: oh"),
    "no labels": (lambda name, number, request: Reply(), "answered no soft labels"),
    "samples not asked for": (_outside, "not asked for"),
    "a single number": (
        lambda name, number, request: Reply(replace(encoded(request.ask, 0, number), values=np.array(5.0, np.float32))),
        "expected values of 3 samples",
    ),
    "an answer of another round": (
        lambda name, number, request: Reply(encoded(request.ask, 0, number + 1)),
        "of round 2, expected 1",
    ),
    "another codec": (
        lambda name, number, request: Reply(
            Encoding("uint8", HORIZONS, BEAMS).pack(
                Encoding("uint8", HORIZONS, BEAMS).encode(certain(request.ask, 0), number)
            )
        ),
        "expected float32",
    ),
    "a NaN metric": (
        lambda name, number, request: Reply(encoded(request.ask, 0, number), {"loss": float("nan")}),
        "not finite",
    ),
    "a known round of the future": (_fact("known_round", 9), "known_round"),
    "a known round in words": (_fact("known_round", "two"), "known_round"),
    "seconds in words": (_fact("seconds", "few"), "seconds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_answer_is_refused_recorded_and_changes_nothing(case: str) -> None:
    work, problem = REFUSED[case]
    world = World({"000-gps": work, "001-gps": answers_beam(1)}, experiment(public_samples=3))
    account = world.round(1)
    assert problem in account.clients["000-gps"].problem
    assert account.clients["001-gps"].problem == ""
    labels = published(world, newer_than=0)
    np.testing.assert_array_equal(labels.probs[..., 1], 1.0)


@pytest.mark.parametrize("fact", ["num_examples", "num_parameters", "num_passes"])
def test_a_client_that_introduces_itself_badly_is_left_out(fact: str) -> None:
    world = World({"000-gps": answers_beam(0)}, experiment())
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        counts: dict[str, Any] = {"num_examples": 7, "num_parameters": 100, "num_passes": 2}
        facts: dict[str, Any] = {"modality": "gps", **counts, fact: "many" if number == 0 else 1}
        replies = {f"{number:03d}-gps": Reply(facts=facts)}
        return Message(pack_replies(unpack_header(message.content), replies), reply_to=message)

    world.strategy.mailbox.nodes.clear()
    world.strategy.mailbox.members.clear()
    members = world.strategy.mailbox.meet(InlineGrid(app, num_nodes=2), num_nodes=2, timeout=5.0)
    assert list(members) == ["001-gps"]


def test_two_nodes_that_claim_the_same_client_are_not_both_heard() -> None:
    world = World({"000-gps": answers_beam(0)}, experiment())
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        header = unpack_header(message.content)
        return Message(
            pack_replies(
                header,
                {"gps": Reply(facts={"modality": "gps", "num_examples": 7, "num_parameters": 1, "num_passes": 2})},
            ),
            reply_to=message,
        )

    world.strategy.mailbox.nodes.clear()
    world.strategy.mailbox.members.clear()
    world.strategy.mailbox.meet(InlineGrid(app, num_nodes=2), num_nodes=2, timeout=5.0)
    heard = [client for clients in world.strategy.mailbox.nodes.values() for client in clients]
    assert heard == ["gps"]


def test_nobody_at_all_is_an_error() -> None:
    world = World({"000-gps": answers_beam(0)}, experiment())
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        content = pack_replies(unpack_header(message.content), {"000-gps": Reply(error="no data")})
        return Message(content, reply_to=message)

    world.strategy.mailbox.nodes.clear()
    world.strategy.mailbox.members.clear()
    with pytest.raises(ValueError, match=r"no client can take part.*no data"):
        world.strategy.mailbox.meet(InlineGrid(app, num_nodes=1), num_nodes=1, timeout=5.0)


def test_a_reply_that_is_not_of_the_protocol_is_a_problem_of_its_clients() -> None:
    world = World({"000-gps": answers_beam(0), "001-gps": answers_beam(1)}, experiment())
    app = ClientApp()

    @app.train("round")
    def take_part(message: Message, context: Context) -> Message:
        if int(context.node_config["partition-id"]) == 0:
            return Message(RecordDict({"header": ConfigRecord({"run": "r"})}), reply_to=message)
        raise RuntimeError("oh")

    world.grid = InlineGrid(app, num_nodes=2)
    account = world.round(1)
    assert "header is incomplete" in account.clients["000-gps"].problem
    assert "oh" in account.clients["001-gps"].problem
    assert account.num_targets == 0
    assert world.teacher.lessons == [[]]
    assert world.strategy.state.round == 1


def test_a_node_that_is_gone_is_missing_once_the_time_is_over() -> None:
    world = World({"000-gps": answers_beam(0)}, experiment())

    class Silent(InlineGrid):
        def pull_messages(self, message_ids: Any) -> list[Message]:
            return []

    world.grid.__class__ = Silent
    account = world.strategy.run_round(world.grid, 1, timeout=0.1)
    assert account.clients["000-gps"].problem == "no answer in time"
    assert account.clients["000-gps"].downlink_bytes > 0


def test_the_bytes_of_a_client_are_counted_in_both_directions() -> None:
    world = World({"000-gps": answers_beam(0)}, experiment(public_samples=3, teacher_starts=False))
    first = world.round(1).clients["000-gps"]
    second = world.round(2).clients["000-gps"]
    answer = 3 * 4 * HORIZONS * BEAMS + 2 + 2  # a bitmap of up to ten ids, one round
    assert answer <= first.uplink_bytes <= answer + 3 * 128
    assert 2 <= first.downlink_bytes <= 2 + 128  # the ids to answer; no targets yet
    assert second.downlink_bytes == first.downlink_bytes + first.uplink_bytes  # and the targets, as many as answers
    assert first.num_answers == 3


def test_start_runs_the_rounds_that_are_left_and_reports_each() -> None:
    world = World({"000-gps": answers_beam(0)}, experiment(rounds=4))
    world.strategy.state.round = 2
    seen: list[int] = []
    world.strategy.start(world.grid, evaluate_fn=lambda number, arrays: seen.append(number))
    assert seen == [3, 4]
    assert world.strategy.state.round == 4


def foretells_nothing(name: str, number: int, request: Request) -> Reply:
    """For now the beam of the sample's number, for later slots all beams alike."""
    ids = request.ask
    probs = np.full((len(ids), HORIZONS, BEAMS), 1 / BEAMS, np.float32)
    probs[:, 0] = 0.0
    probs[np.arange(len(ids)), 0, ids] = 1.0
    labels = encoding().encode(SoftLabels(ids, probs, 2.0), number)
    return Reply(encoding().pack(labels), facts={"known_round": number - 1})


def test_where_each_answers_for_its_own_site_nobody_else_votes_on_its_samples() -> None:
    names = ["000-gps", "001-gps", "002-gps"]
    world = World(
        {name: answers_beam(number) for number, name in enumerate(names)},
        experiment_of_two_sites(asks="own_site", public_samples=8),
        sites={"000-gps": "site-0", "001-gps": "site-1"},
    )
    account = world.round(1)
    drawn = world.request_to("002-gps").ask  # it names no site, and answers all
    assert len(drawn) == 8
    here, there = drawn[drawn < NUM_PUBLIC // 2], drawn[drawn >= NUM_PUBLIC // 2]
    np.testing.assert_array_equal(world.request_to("000-gps").ask, here)
    np.testing.assert_array_equal(world.request_to("001-gps").ask, there)
    assert [account.clients[name].problem for name in names] == ["", "", ""]
    found = published(world, newer_than=0)
    np.testing.assert_allclose(found.take(here).probs[:, 0, :3], [[0.5, 0.0, 0.5]] * len(here))
    np.testing.assert_allclose(found.take(there).probs[:, 0, :3], [[0.0, 0.5, 0.5]] * len(there))


def test_a_client_of_whose_site_no_sample_was_drawn_is_asked_for_none_and_counts_as_answered() -> None:
    def answers_nothing(name: str, number: int, request: Request) -> Reply:
        assert len(request.ask) == 0
        return Reply(facts={"known_round": number - 1})

    world = World(
        {"000-gps": answers_beam(1), "001-gps": answers_nothing},
        experiment_of_two_sites(asks="own_site"),
        sites={"000-gps": "site-0", "001-gps": "site-1"},
    )
    world.strategy.choose_samples = lambda number: np.arange(3)  # type: ignore[method-assign]
    assert {entry.problem for entry in world.round(1).clients.values()} == {""}


def test_a_site_without_public_samples_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World(
        {"000-gps": answers_beam(1), "001-gps": lambda name, number, request: Reply(facts={"known_round": number - 1})},
        experiment_of_two_sites(asks="own_site"),
        sites={"000-gps": "site-0", "001-gps": "site-2"},
    )
    with caplog.at_level("WARNING"):
        for number in (1, 2):
            assert {entry.problem for entry in world.round(number).clients.values()} == {""}
    told = [text for text in caplog.messages if "public set" in text]
    assert told == [
        "strategy.asks: the public set has no sample of site-2, so clients there answer none; add the site to "
        "data.public_from, or leave asks out"
    ]


@pytest.mark.parametrize("hindsight", [False, True])
def test_with_hindsight_the_ensemble_is_corrected_by_later_windows_before_it_is_taught_and_published(
    hindsight: bool,
) -> None:
    world = World({"000-gps": foretells_nothing}, experiment(hindsight=hindsight))
    world.round(1)
    ahead = NUM_PUBLIC - HORIZONS + 1
    lesson = world.teacher.lesson
    assert lesson is not None
    for labels in (published(world), lesson):
        for horizon in range(1, HORIZONS):
            best = labels.probs[:ahead, horizon].argmax(axis=-1)
            assert np.array_equal(best, np.arange(ahead) + horizon) == hindsight
