"""A round of any federation as a Flower strategy: invite, ask, accept, conclude.

Flower's own ``Strategy.start`` sends weights, takes two phases per round, polls a deployed grid every three
seconds and cannot resume. The class here keeps the interface (the "global arrays" are the published targets) and
drives the grid itself: it pushes, pulls with a short poll, records who is missing, and goes on.

A subclass decides what is exchanged and what becomes of it: soft labels of public samples in
`strategies.methods.distillation`, other knowledge in `strategies.methods.classes`, the baselines in
`strategies.methods.baselines`.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from traceback import format_exception
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
from strategies.labels import Contribution, SoftLabels
from strategies.messages.mailbox import Mailbox, Outcome
from strategies.messages.records import (
    ClientRound,
    Member,
    PhaseClock,
    RegisteredNode,
    RoundAccount,
    one_line,
    printable,
)
from strategies.messages.roster import check_metrics, warning_of, with_counts, worked_seconds
from strategies.messages.wire import ROUND, Reply, Request, WireError
from strategies.own_code import OwnCodeError, apply_rule, blaming, checked_clients, is_own

log = logging.getLogger(__name__)


class Teacher(Protocol):
    """What a strategy needs of the central teacher."""

    num_examples: int

    def answer(self, sample_ids: NDArray[np.int64], temperature: float) -> SoftLabels:
        """Return its own soft labels for public samples."""

    def learn(self, ensemble: SoftLabels | None) -> None:
        """Take the optimizer steps of a round, on the server's own labels and on the ensemble; None for no ensemble."""

    def public_classes(self) -> NDArray[np.int64] | None:
        """(N, H) right classes of the public samples; None if the server does not know them."""

    def later_samples(self) -> NDArray[np.int64]:
        """(N, H) the public sample that ends h slots after each one (`strategies.hindsight.later_samples`)."""

    def samples_at(self, site: str) -> NDArray[np.int64]:
        """The public samples that were recorded at a site, ascending."""

    def features(self, sample_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) the teacher's features of public samples; only relations between them are sent."""


@dataclass
class FederationState:
    """All that a strategy must remember to go on after a stop.

    Attributes:
        round: the number of completed rounds.
        cache: the targets published for all.
        own_caches: client -> the targets published for this client alone, where a strategy does that.
        known_rounds: client -> the round up to which it holds the targets; a client that holds none is left out.
        answers: client -> its answers, as far as a codec needs them to send differences.
        ensembles: the aggregated answers so far, from which the teacher learns.
        arrays: whatever else a strategy remembers, by name.
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
        round: the number of the round, from 1.
        asked: (N,) the public samples, or other numbered items, that clients are asked about.
        relations: the teacher's relations of public samples, as arrays that travel; empty if none are sent.
        taught: the teacher's answer for the drawn samples before it learns; None where no step needs it.
        participants: the clients whose masks are in a secure sum, by id.
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
    """The round of a method, with one message per node; a subclass says what to ask, to accept and to conclude.

    Args:
        experiment: the experiment, with the number of rounds, the participation and whatever else a subclass reads.
        aggregator: the rule by which contributions become the ensemble.
        teacher: the teacher of the server.
        num_public: the size of the public set.
        run: the name of the run, under which clients keep their memory.
        digests: the digests of the experiment and of the source, which clients compare with their own.
        state: the state to go on from; None starts a new run.
        registry: node id -> the client that was provisioned there; None lets every node in.

    Attributes:
        now: the round under way, or the last one.
        grid: the grid of the round under way, for strategies that ask for more before they conclude.
        extra_bytes: client -> the bytes down and up of such further messages.
    """

    traits: ClassVar[Traits]
    """The traits of the method; for the methods of Softbeam they stand beside the recipes in `configs.recipes`."""

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
        # What a user's own class returns is checked; ours is held by tests.
        self._is_own = is_own(self)
        self._may_have_own_rule = self._is_own or is_own(aggregator)
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
        """Refuse wrong options before anything starts; the constructor would refuse them too late.

        Raises:
            ValueError: an option has a wrong value; the message begins with the name of the option.
        """

    # The parts of a choreography, which a subclass writes or replaces.

    def invite(self, round_number: int) -> list[str]:
        """The clients that take part in a round: a draw of those that are there then."""
        clients = sorted(
            client
            for client, member in self.mailbox.members.items()
            if self.experiment.is_there(client, member.modality, round_number)
        )
        count = min(len(clients), max(1, round(self.settings.participation * len(clients))))
        rng = rng_for(self.experiment.seed, "invitation", round_number)
        return sorted(rng.choice(clients, count, replace=False).tolist())

    @abstractmethod
    def request(self, client: str, plan: RoundPlan) -> Request:
        """What a client is asked in a round."""

    @abstractmethod
    def accept(self, member: Member, outcome: Outcome, reply: Reply, plan: RoundPlan) -> Any:
        """What a client contributes.

        Raises:
            WireError: the answer is not what the client was asked for.
        """

    @abstractmethod
    def conclude(self, contributions: Sequence[Any], plan: RoundPlan) -> int:
        """Learn from the contributions, in the order of clients, and prepare the next requests.

        Returns:
            The number of targets published.
        """

    def prepare(self, round_number: int) -> RoundPlan:
        """Decide what a round is about, before anybody is asked."""
        return RoundPlan(round_number)

    def num_answers(self, contribution: Any) -> int:
        """The number of samples, or of other items asked for, that a client answered."""
        return 0

    def uplink_bytes(self, reply: Reply) -> int:
        """Return the bytes that an answer costs."""
        return reply.num_bytes

    def published(self) -> ArrayRecord:
        """The published targets, which Flower's interface calls the global arrays."""
        return ArrayRecord()

    # The round.

    def run_round(self, grid: Grid, round_number: int, timeout: float) -> RoundAccount:
        """Run one round; afterwards ``state`` holds everything that the next one needs."""
        clock = PhaseClock()
        self.now = round_number
        self.grid = grid
        self.extra_bytes: dict[str, tuple[int, int]] = {}
        self.mailbox.gather(grid, lambda: self._invited(round_number), timeout=timeout)
        plan = self.prepare(round_number)
        invited, here, busy = self._invited(round_number), self.mailbox.roster.here, self.mailbox.busy(round_number)
        requests = {client: self.request(client, plan) for client in invited if client in here - busy}
        # Where no invited client is connected, the time is over; late answers are only picked up.
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

    def apply_rule(self, contributions: Sequence[Contribution]) -> SoftLabels:
        """What the rule makes of contributions; of a user's own rule, every mistake is told in one line.

        Raises:
            OwnCodeError: a user's own rule raised, or what it returned is no ensemble of the contributions.
        """
        if self._may_have_own_rule:
            return apply_rule(self.aggregator, contributions)
        return self.aggregator.aggregate(contributions)

    def _invited(self, round_number: int) -> list[str]:
        found = self.invite(round_number)
        return checked_clients(found, self, "invite", members=self.mailbox.members) if self._is_own else found

    def _judge(self, outcome: Outcome, member: Member, plan: RoundPlan) -> tuple[Any, ClientRound]:
        """The contribution of a client and its record, which names a problem if the answer does not count."""
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
            now = with_counts(member, outcome.reply, self.experiment.task.num_classes)
            contribution = self.accept(now, outcome, outcome.reply, plan)
        except Exception as error:
            # A stranger's bytes may raise anything, here or in a strategy of the user's: it costs that client the
            # round.
            if not isinstance(error, WireError):
                log.warning("round %d: the answer of %s raised\n%s", self.now, outcome.client, _traceback(error))
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
            initial_arrays: this is not used, because there are no targets before the first round.
            num_rounds: the number of rounds of the whole run; 0 takes the number that the experiment gives.
            timeout: the seconds for each round; 0 takes the seconds that the experiment gives.
            train_config: this is not used.
            evaluate_config: this is not used.
            evaluate_fn: called after each round, when ``account`` holds the account of that round.

        Raises:
            OwnCodeError: a rule or a strategy of the user's own raised, or returned what cannot be used.
        """
        result = Result()
        if not self.mailbox.nodes:
            self.mailbox.meet(grid, num_nodes=1, timeout=timeout or self.settings.round_timeout_s)
        for round_number in range(self.state.round + 1, (num_rounds or self.settings.rounds) + 1):
            try:
                with blaming(self):
                    self.account = self.run_round(grid, round_number, timeout or self.settings.round_timeout_s)
            except OwnCodeError as error:
                raise OwnCodeError(f"round {round_number}: {error}") from error
            result.arrays = self.published()
            metrics = evaluate_fn(round_number, result.arrays) if evaluate_fn else None
            if metrics is not None:
                result.evaluate_metrics_serverapp[round_number] = metrics
        return result

    def summary(self) -> None:
        """Log which strategy and which aggregator run."""
        log.info("%s with %s", type(self).__name__, self.aggregator)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Do nothing: :meth:`run_round` takes the place of this part of Flower's interface."""
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Do nothing: :meth:`run_round` takes the place of this part of Flower's interface."""
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Do nothing: clients evaluate when they answer."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Do nothing: clients evaluate when they answer."""
        return None


def _traceback(error: Exception) -> str:
    """The traceback of an error, whose text may quote what a stranger sent."""
    return "\n".join(printable(line) for line in "".join(format_exception(error)).splitlines())
