"""The round of the protocol, with made-up clients: what counts, what is refused, and what the server remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from configs.loading import build_experiment
from configs.schema import Experiment
from sim.inline import InlineGrid
from strategies.codecs.encoding import EncodedLabels, Encoding
from strategies.labels import SoftLabels
from strategies.messages.records import RoundAccount
from strategies.messages.wire import Reply, Request, pack_replies, unpack_header, unpack_requests
from strategies.methods.distillation import DistillationStrategy
from strategies.rules.weighted import Mean

NUM_PUBLIC, HORIZONS, BEAMS = 10, 4, 64


def experiment(**strategy: Any) -> Experiment:
    values = {
        "name": "made-up",
        "data": {
            "source": "street",
            "passes": {"server": 1, "public": 1, "test": 1, "client": 1},
            "nodes": [{"modality": "gps", "count": 2}],
        },
        "strategy": {"codec": "float32", "teacher_votes": False, "publish": "ensemble", **strategy},
    }
    return build_experiment(values, origin="test")


def certain(ids: NDArray[np.int64], beam: int) -> SoftLabels:
    probs = np.zeros((len(ids), HORIZONS, BEAMS), np.float32)
    probs[..., beam] = 1.0
    return SoftLabels(ids, probs, 2.0)


def encoding(codec: str = "float32") -> Encoding:
    return Encoding(codec, HORIZONS, BEAMS)


def encoded(ids: NDArray[np.int64], beam: int, number: int) -> EncodedLabels:
    return encoding().pack(encoding().encode(certain(ids, beam), number))


def published(world: World, newer_than: int = -1) -> SoftLabels:
    cache = world.strategy.state.cache
    assert cache is not None
    return encoding().decode(cache.newest.newer_than(newer_than), 2.0)


class MadeUpTeacher:
    """Answers beam 9 with certainty and notes what it is given to learn from.

    Args:
        best_beams: of the public samples at all horizons; None if it does not know them.
    """

    num_examples = 5

    def __init__(self, best_beams: list[int] | None = None) -> None:
        self.best_beams = best_beams
        self.lessons: list[list[int]] = []
        self.lesson: SoftLabels | None = None

    def answer(self, sample_ids: NDArray[np.int64], temperature: float) -> SoftLabels:
        return certain(sample_ids, 9)

    def public_beams(self) -> NDArray[np.int64] | None:
        return None if self.best_beams is None else np.repeat(np.array(self.best_beams)[:, None], HORIZONS, axis=1)

    def learn(self, ensemble: SoftLabels | None) -> None:
        self.lesson = ensemble
        self.lessons.append([] if ensemble is None else ensemble.sample_ids.tolist())


Work = Callable[[str, int, Request], Reply]
Facts = dict[str, str | int | float | bool]


class World:
    """Two clients, each on a node of its own; ``works`` says what each does with a request."""

    def __init__(
        self,
        works: dict[str, Work],
        settings: Experiment,
        *,
        teacher: MadeUpTeacher | None = None,
        strategy_class: type[DistillationStrategy] = DistillationStrategy,
    ) -> None:
        self.requests: list[dict[str, Request]] = []
        self.teacher = teacher or MadeUpTeacher()
        self.strategy = strategy_class(
            experiment=settings,
            aggregator=Mean(),
            teacher=self.teacher,
            num_public=NUM_PUBLIC,
            run="r",
            digests=("e", "s"),
        )
        app = ClientApp()
        names = list(works)

        @app.query("hello")
        def hello(message: Message, context: Context) -> Message:
            name = names[int(context.node_config["partition-id"])]
            facts: Facts = {"modality": "gps", "num_examples": 7, "num_passes": 2, "num_parameters": 100}
            return Message(pack_replies(unpack_header(message.content), {name: Reply(facts=facts)}), reply_to=message)

        @app.train("round")
        def take_part(message: Message, context: Context) -> Message:
            header = unpack_header(message.content)
            requests = unpack_requests(message.content)
            self.requests.append(requests)
            answers = {name: works[name](name, header.round, request) for name, request in requests.items()}
            return Message(pack_replies(header, answers), reply_to=message)

        self.grid = InlineGrid(app, num_nodes=len(works))
        self.strategy.mailbox.meet(self.grid, num_nodes=len(works), timeout=5.0)

    def round(self, number: int) -> RoundAccount:
        self.requests.clear()
        return self.strategy.run_round(self.grid, number, timeout=5.0)

    def request_to(self, client: str) -> Request:
        return next(requests[client] for requests in self.requests if client in requests)


def answers_beam(beam: int) -> Work:
    return lambda name, number, request: Reply(encoded(request.ask, beam, number), facts={"known_round": number - 1})


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


# Beam 9, which the teacher names, is the best for seven of ten samples.
BEST_BEAMS = [9, 2, 9, 9, 2, 9, 9, 9, 2, 9]
WRONG = [1, 4, 8]


def corrected_world(**works: Work) -> World:
    clients = {f"{number:03d}-gps": work for number, work in enumerate(works.values())}
    return World(clients, experiment(publish="corrected"), teacher=MadeUpTeacher(BEST_BEAMS))


def beams_of(labels: SoftLabels | None) -> dict[int, int]:
    assert labels is not None
    assert np.ptp(labels.probs.argmax(axis=-1), axis=-1).max() == 0
    return dict(zip(labels.sample_ids.tolist(), labels.probs[:, 0].argmax(axis=-1).tolist(), strict=True))


def test_clients_are_asked_only_what_the_teacher_gets_wrong_where_it_corrects_the_ensemble() -> None:
    world = corrected_world(first=answers_beam(0))
    account = world.round(1)
    assert world.request_to("000-gps").ask.tolist() == WRONG
    assert account.num_asked == 3
    assert account.num_targets == NUM_PUBLIC


def test_the_teacher_learns_from_what_is_published_its_own_right_answers_and_the_ensemble_elsewhere() -> None:
    world = corrected_world(first=answers_beam(0))
    world.round(1)
    expected = {sample: 0 if sample in WRONG else 9 for sample in EVERYTHING}
    assert beams_of(world.teacher.lesson) == expected
    assert beams_of(published(world)) == expected


def test_where_nobody_answers_only_what_the_teacher_gets_right_is_published() -> None:
    world = corrected_world(first=lambda name, number, request: Reply(error="ValueError: oh"))
    assert world.round(1).num_targets == 7
    assert beams_of(world.teacher.lesson) == {sample: 9 for sample in EVERYTHING if sample not in WRONG}


def test_a_teacher_that_gets_everything_right_asks_nothing_and_publishes_everything() -> None:
    settings = experiment(publish="corrected", teacher_starts=False)
    world = World({"000-gps": lambda *asked: Reply()}, settings, teacher=MadeUpTeacher([9] * NUM_PUBLIC))
    account = world.round(1)
    assert account.num_asked == 0
    assert account.clients["000-gps"].problem == ""
    assert beams_of(published(world)) == dict.fromkeys(EVERYTHING, 9)


def test_to_correct_needs_best_beams() -> None:
    with pytest.raises(ValueError, match=r"^strategy\.publish: corrected needs the best beams"):
        World({"000-gps": answers_beam(0)}, experiment(publish="corrected"))


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
        counts: Facts = {"num_examples": 7, "num_parameters": 100, "num_passes": 2}
        facts: Facts = {"modality": "gps", **counts, fact: "many" if number == 0 else 1}
        replies = {f"{number:03d}-gps": Reply(facts=facts)}
        return Message(pack_replies(unpack_header(message.content), replies), reply_to=message)

    world.strategy.mailbox.nodes.clear()
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
