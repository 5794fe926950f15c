"""A federation of made-up clients and a made-up teacher, for tests of the protocol alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from configs.loading import build_experiment
from configs.schema import Experiment
from sim.inline import InlineGrid
from strategies.aggregation import Aggregator
from strategies.codecs.encoding import EncodedLabels, Encoding
from strategies.hindsight import NONE
from strategies.labels import SoftLabels
from strategies.messages.records import RoundAccount
from strategies.messages.wire import Reply, Request, pack_replies, unpack_header, unpack_requests
from strategies.methods.base import Choreography
from strategies.methods.distillation import DistillationStrategy
from strategies.rules.weighted import Mean

S = TypeVar("S", bound=Choreography)

NUM_PUBLIC, HORIZONS, BEAMS = 10, 4, 64


def experiment_of(num_clients: int, **strategy: Any) -> Experiment:
    """An experiment of GPS clients whose data nobody reads."""
    values = {
        "name": "made-up",
        "data": {
            "source": "street",
            "passes": {"server": 1, "public": 1, "test": 1, "client": 1},
            "nodes": [{"modality": "gps", "count": num_clients}],
        },
        "strategy": strategy,
    }
    return build_experiment(values, origin="test")


def experiment_of_two_sites(**strategy: Any) -> Experiment:
    """The same experiment on a street with two masts."""
    values = experiment().model_dump(mode="json")
    values["data"]["world"] = {"sites": 2}
    values["strategy"].update(strategy)
    return build_experiment(values, origin="test")


def experiment(**strategy: Any) -> Experiment:
    return experiment_of(2, **{"codec": "float32", "teacher_votes": False, "publish": "ensemble", **strategy})


def certain(ids: NDArray[np.int64], beam: int) -> SoftLabels:
    probs = np.zeros((len(ids), HORIZONS, BEAMS), np.float32)
    probs[..., beam] = 1.0
    return SoftLabels(ids, probs, 2.0)


def encoding(codec: str = "float32") -> Encoding:
    return Encoding(codec, HORIZONS, BEAMS)


def encoded(ids: NDArray[np.int64], beam: int, number: int) -> EncodedLabels:
    return encoding().pack(encoding().encode(certain(ids, beam), number))


class ObjectPushError(Exception):
    """As Flower raises it where a push session is lost with its SuperLink."""


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

    def public_classes(self) -> NDArray[np.int64] | None:
        return None if self.best_beams is None else np.repeat(np.array(self.best_beams)[:, None], HORIZONS, axis=1)

    def later_samples(self) -> NDArray[np.int64]:
        """All public samples are windows of one pass."""
        later = np.arange(NUM_PUBLIC)[:, None] + np.arange(HORIZONS)
        return np.where(later < NUM_PUBLIC, later, NONE)

    def samples_at(self, site: str) -> NDArray[np.int64]:
        """The first two sites have a half of the public set each, and others have none."""
        halves = np.array_split(np.arange(NUM_PUBLIC), 2)
        return {"site-0": halves[0], "site-1": halves[1]}.get(site, np.empty(0, np.int64))

    def learn(self, ensemble: SoftLabels | None) -> None:
        self.lesson = ensemble
        self.lessons.append([] if ensemble is None else ensemble.sample_ids.tolist())


def build(
    strategy_class: type[S],
    settings: Experiment,
    *,
    aggregator: Aggregator | None = None,
    teacher: MadeUpTeacher | None = None,
    num_public: int = NUM_PUBLIC,
    **arguments: Any,
) -> S:
    """A strategy with a made-up teacher, as the server would build it."""
    return strategy_class(
        experiment=settings,
        aggregator=aggregator or Mean(),
        teacher=teacher or MadeUpTeacher(),
        num_public=num_public,
        run="r",
        digests=("e", "s"),
        **arguments,
    )


def introducing(names: Sequence[str], sites: Mapping[str, str] | None = None) -> ClientApp:
    """An app whose nodes introduce themselves as GPS clients of these names, by partition; rounds are to be added."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        name = names[int(context.node_config["partition-id"])]
        facts: dict[str, Any] = {"modality": "gps", "num_examples": 7, "num_passes": 2, "num_parameters": 100}
        facts |= {"site": sites[name]} if sites and name in sites else {}
        return Message(pack_replies(unpack_header(message.content), {name: Reply(facts=facts)}), reply_to=message)

    return app


Work = Callable[[str, int, Request], Reply]


class World:
    """Two clients, each on a node of its own; ``works`` says what each does with a request."""

    def __init__(
        self,
        works: dict[str, Work],
        settings: Experiment,
        *,
        teacher: MadeUpTeacher | None = None,
        strategy_class: type[DistillationStrategy] = DistillationStrategy,
        sites: Mapping[str, str] | None = None,
    ) -> None:
        self.requests: list[dict[str, Request]] = []
        self.teacher = teacher or MadeUpTeacher()
        self.strategy = build(strategy_class, settings, teacher=self.teacher)
        app = introducing(list(works), sites)

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


def published(world: World, newer_than: int = -1) -> SoftLabels:
    cache = world.strategy.state.cache
    assert cache is not None
    return encoding().decode(cache.newest.newer_than(newer_than), 2.0)
