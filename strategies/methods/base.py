"""A round of any federation as a Flower strategy: invite, ask, accept, conclude.

Flower's own ``Strategy.start`` sends weights, takes two phases per round, polls a deployed grid every three
seconds and cannot resume. Ours keeps the interface (the "global arrays" are the published targets) and drives
the grid itself: push, pull with a short poll, record who is missing, go on.

What is exchanged, and what becomes of it, is a subclass's: soft labels of public samples in
`strategies.methods.distillation`, other knowledge in `strategies.methods.beams`, the baselines in
`strategies.methods.baselines`.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from configs.recipes import Traits
from configs.schema import Experiment
from configs.seeding import rng_for
from strategies.aggregation import Aggregator
from strategies.cache import CachedLabels, TargetCache
from strategies.labels import SoftLabels
from strategies.messages.mailbox import Mailbox, Outcome
from strategies.messages.records import ClientRound, Member, PhaseClock, RegisteredNode, RoundAccount, one_line
from strategies.messages.roster import check_metrics, warning_of, with_counts, worked_seconds
from strategies.messages.wire import ROUND, Reply, Request, WireError

log = logging.getLogger(__name__)


class Teacher(Protocol):
    """What a strategy needs of the central teacher."""

    num_examples: int

    def answer(self, sample_ids: NDArray[np.int64], temperature: float) -> SoftLabels:
        """Return its own soft labels for public samples."""

    def learn(self, ensemble: SoftLabels | None) -> None:
        """A round of optimizer steps on its own labels and on the ensemble."""

    def public_beams(self) -> NDArray[np.int64] | None:
        """(N, H) best beams of the public samples, if the server knows them."""

    def features(self, sample_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) its features of public samples, of which only relations are told."""


@dataclass
class FederationState:
    """All that a strategy must remember to go on after a stop.

    Attributes:
        round: rounds completed.
        cache: the targets published for all.
        own_caches: client -> the targets published for it alone, where a strategy does that.
        known_rounds: client -> it holds the targets up to this round; a client that holds none is not in it.
        answers: client -> its answers, as far as a codec needs them to send differences.
        ensembles: aggregated answers so far, which the teacher learns from.
        arrays: what else a strategy remembers, by name.
        members: every client that was ever met, by id.
    """

    round: int = 0
    cache: TargetCache | None = None
    own_caches: dict[str, TargetCache] = field(default_factory=dict)
    known_rounds: dict[str, int] = field(default_factory=dict)
    answers: dict[str, CachedLabels] = field(default_factory=dict)
    ensembles: SoftLabels | None = None
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundPlan:
    """What a round is about, decided before anybody is asked, and passed along until it is concluded.

    Attributes:
        round: its number, from 1.
        asked: (N,) public samples, or whatever else is numbered, that clients are asked for.
        relations: what the teacher tells of the relations of public samples, as it travels; empty for nothing.
        taught: what the teacher says of the drawn samples before it learns; None where nobody needs to know.
        participants: client -> the client whose masks are in a secure sum.
        nonce: the number of this attempt at a secure sum, as bytes; empty without one.
        agreed: what the first answer of the round settles for the others, such as the shapes of weights, by name.
    """

    round: int
    asked: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    relations: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    taught: SoftLabels | None = None
    participants: Mapping[str, Member] = field(default_factory=dict)
    nonce: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    agreed: dict[str, Any] = field(default_factory=dict)


class Choreography(Strategy):
    """One message per node and round; what a subclass must say is what to ask, what to accept and what follows.

    Args:
        experiment: rounds, participation and whatever else the subclass reads.
        aggregator: how contributions become the ensemble.
        teacher: the central teacher on the server.
        num_public: size of the public set.
        run: the name of the run, which clients keep their memory under.
        digests: the digests of the experiment and of the source; clients compare them with their own.
        state: the state to go on from; None starts anew.
        registry: node id -> who was provisioned there; None lets every node in.

    Attributes:
        now: the round under way, or the last one.
        grid: the grid of the round under way, for strategies that ask for more before they conclude.
        extra_bytes: client -> down and up, of what such messages cost.
    """

    traits: ClassVar[Traits]
    """What the method is like; those of our own stand beside their recipes in `configs.recipes`."""

    def __init__(
        self,
        *,
        experiment: Experiment,
        aggregator: Aggregator,
        teacher: Teacher,
        num_public: int,
        run: str,
        digests: tuple[str, str],
        state: FederationState | None = None,
        registry: Mapping[int, RegisteredNode] | None = None,
    ) -> None:
        self.experiment = experiment
        self.settings = experiment.strategy
        self.aggregator = aggregator
        self.teacher = teacher
        self.num_public = num_public
        self.state = state or FederationState()
        self.mailbox = Mailbox(
            experiment,
            kind=self.traits.exchange,
            run=run,
            digests=digests,
            registry=registry,
            members=self.state.members,
        )
        self.account: RoundAccount | None = None
        self.now = self.state.round

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Refuse options before anything starts, which building a strategy would do too late.

        Raises:
            ValueError: an option has a wrong value; the text begins with its name.
        """

    # What a choreography is made of.

    def invite(self, round_number: int) -> list[str]:
        """The clients that take part in a round."""
        clients = sorted(self.mailbox.members)
        count = max(1, round(self.settings.participation * len(clients)))
        rng = rng_for(self.experiment.seed, "invitation", round_number)
        return sorted(rng.choice(clients, count, replace=False).tolist())

    @abstractmethod
    def request(self, client: str, plan: RoundPlan) -> Request:
        """What a client is asked in a round."""

    @abstractmethod
    def accept(self, member: Member, outcome: Outcome, reply: Reply, plan: RoundPlan) -> Any:
        """What a client contributes.

        Raises:
            WireError: its answer is not what it was asked for.
        """

    @abstractmethod
    def conclude(self, contributions: Sequence[Any], plan: RoundPlan) -> int:
        """Learn from what was contributed, in order of clients, and prepare the next requests.

        Returns:
            The number of targets published.
        """

    def prepare(self, round_number: int) -> RoundPlan:
        """Decide what a round is about, before anybody is asked."""
        return RoundPlan(round_number)

    def num_answers(self, contribution: Any) -> int:
        """Samples, or whatever was asked for, that a client answered."""
        return 0

    def uplink_bytes(self, reply: Reply) -> int:
        """Return the bytes that an answer costs."""
        return reply.num_bytes

    def published(self) -> ArrayRecord:
        """What Flower's interface calls the global arrays."""
        return ArrayRecord()

    # The round.

    def run_round(self, grid: Grid, round_number: int, timeout: float) -> RoundAccount:
        """One round; afterwards ``state`` holds everything that the next one needs."""
        clock = PhaseClock()
        self.now = round_number
        self.grid = grid
        self.extra_bytes: dict[str, tuple[int, int]] = {}
        self.mailbox.gather(grid, lambda: self.invite(round_number), timeout=timeout)
        plan = self.prepare(round_number)
        invited, here, busy = self.invite(round_number), self.mailbox.roster.here, self.mailbox.busy(round_number)
        requests = {client: self.request(client, plan) for client in invited if client in here - busy}
        # Where nobody came, the time is over; what is owed is only picked up.
        left = timeout if here.intersection(invited) else 0.0
        outcomes = self.mailbox.ask(grid, ROUND, requests, round_number=round_number, timeout=left)
        members = self.mailbox.members
        clock.lap("clients")
        away = ClientRound(downlink_bytes=0, problem="its node was not connected", fault="away")
        clients = {client: away for client in invited if client not in here | busy}
        contributions = []
        for outcome in outcomes:
            contribution, clients[outcome.client] = self._judge(outcome, members[outcome.client], plan)
            if not clients[outcome.client].problem:
                contributions.append(contribution)
        num_targets = self.conclude(contributions, plan)
        for client, (down, up) in self.extra_bytes.items():
            entry = clients[client]
            clients[client] = replace(
                entry, downlink_bytes=entry.downlink_bytes + down, uplink_bytes=entry.uplink_bytes + up
            )
        clock.lap("conclude")
        self.state.round = round_number
        num_asked = max((len(request.ask) for request in requests.values()), default=0)
        return RoundAccount(round_number, dict(sorted(clients.items())), num_asked, num_targets, clock.laps)

    def _judge(self, outcome: Outcome, member: Member, plan: RoundPlan) -> tuple[Any, ClientRound]:
        """What a client contributes, and its line in the account, which names a problem if it does not count."""
        entry = ClientRound(
            downlink_bytes=self.mailbox.sent_bytes.get(outcome.client, 0),
            rounds_late=self.now - outcome.round,
            seconds_late=outcome.seconds_late,
        )
        try:
            if isinstance(outcome.reply, WireError):
                raise outcome.reply
            entry = replace(entry, warning=warning_of(outcome.reply))
            seconds = worked_seconds(outcome.reply)
            check_metrics(outcome.reply, self.experiment.task.num_horizons)
            now = with_counts(member, outcome.reply, self.experiment.task.num_beams)
            contribution = self.accept(now, outcome, outcome.reply, plan)
        except Exception as error:
            # A stranger's bytes may raise anything, here or in a strategy of the user's: it costs that client the
            # round.
            if not isinstance(error, WireError):
                log.warning("round %d: the answer of %s raised", self.now, outcome.client, exc_info=error)
                error = WireError(f"{type(error).__name__}: {error}")
            problem = one_line(str(error)) or "refused without a reason"
            log.warning("round %d: client %s does not count: %s", self.now, outcome.client, problem)
            return None, replace(entry, problem=problem, fault=outcome.fault)
        if now != member:
            self.mailbox.roster.update(now)
        return contribution, replace(
            entry,
            uplink_bytes=self.uplink_bytes(outcome.reply),
            metrics=outcome.reply.metrics,
            num_answers=self.num_answers(contribution),
            seconds=seconds,
        )

    # Flower's interface.

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 0,
        timeout: float = 0.0,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds that are left; after each, ``evaluate_fn`` gets its number and the published targets.

        Args:
            grid: the grid that Flower passes in.
            initial_arrays: not used: before the first round there are no targets.
            num_rounds: 0 takes the experiment's.
            timeout: seconds per round; 0 takes the experiment's.
            train_config: not used.
            evaluate_config: not used.
            evaluate_fn: called after each round; ``account`` holds that round's account then.
        """
        result = Result()
        if not self.mailbox.nodes:
            self.mailbox.meet(grid, num_nodes=1, timeout=timeout or self.settings.round_timeout_s)
        for round_number in range(self.state.round + 1, (num_rounds or self.settings.rounds) + 1):
            self.account = self.run_round(grid, round_number, timeout or self.settings.round_timeout_s)
            result.arrays = self.published()
            metrics = evaluate_fn(round_number, result.arrays) if evaluate_fn else None
            if metrics is not None:
                result.evaluate_metrics_serverapp[round_number] = metrics
        return result

    def summary(self) -> None:
        """Log what runs."""
        log.info("%s with %s", type(self).__name__, self.aggregator)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Not part of our round; see :meth:`run_round`."""
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Not part of our round; see :meth:`run_round`."""
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Not part of our round: clients evaluate when they answer."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Not part of our round: clients evaluate when they answer."""
        return None
