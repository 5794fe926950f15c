"""Federated distillation as a Flower strategy: the round of the protocol, in hooks that a subclass may replace.

Flower's own ``Strategy.start`` sends weights, takes two phases per round, polls a deployed grid every three
seconds and cannot resume. Ours keeps the interface (the "global arrays" are the published targets) and drives
the grid itself: push, pull with a short poll, record who is missing, go on.

A new aggregation rule needs no subclass (see `strategies.aggregation`). A new choreography overrides one of
``choose_samples``, ``accept``, ``aggregate``, ``teach`` or ``targets``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from configs.schema import Experiment
from configs.seeding import rng_for
from strategies.accounts import TEACHER, ClientRound, Member, RoundAccount
from strategies.aggregation import Aggregator
from strategies.caching import TargetCache
from strategies.exchange import Correspondence
from strategies.labels import Contribution, SoftLabels, empty_labels, normalise_rows
from strategies.sampling import choose_samples
from strategies.wire import NO_TARGETS, ROUND, Reply, Request, WireError, pack_labels

log = logging.getLogger(__name__)


class Teacher(Protocol):
    """What the strategy needs of the central teacher."""

    num_examples: int

    def answer(self, sample_ids: NDArray[np.int64], temperature: float) -> SoftLabels:
        """Its own soft labels for public samples."""

    def learn(self, ensemble: SoftLabels | None) -> None:
        """A round of optimizer steps on its own labels and on the ensemble."""


@dataclass
class FederationState:
    """All that a strategy must remember to go on after a stop.

    Attributes:
        round: rounds completed.
        cache: the targets published.
        known_rounds: client -> it holds the targets up to this round; a client that holds none is not in it.
        ensembles: aggregated answers so far, which the teacher learns from.
    """

    round: int = 0
    cache: TargetCache = field(default_factory=TargetCache)
    known_rounds: dict[str, int] = field(default_factory=dict)
    ensembles: SoftLabels | None = None


class DistillationStrategy(Strategy):
    """Soft labels up, targets down, one message per node and round.

    Args:
        experiment: rounds, codec, temperature and what is published.
        aggregator: how contributions become the ensemble.
        teacher: of the server.
        num_public: size of the public set.
        run: names the run towards the clients.
        digests: of the experiment and of the source, which clients compare with their own.
        state: to go on from; None starts anew.
    """

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
    ) -> None:
        self.experiment = experiment
        self.settings = experiment.strategy
        self.aggregator = aggregator
        self.teacher = teacher
        self.num_public = num_public
        self.letters = Correspondence(experiment, run=run, digests=digests)
        self.state = state or FederationState()
        self.account: RoundAccount | None = None

    # Hooks: what a new choreography replaces.

    def choose_samples(self, round_number: int) -> NDArray[np.int64]:
        """Public samples to ask for in a round."""
        rng = rng_for(self.experiment.seed, "public", round_number)
        return choose_samples(self.num_public, self.settings.public_samples, rng)

    def accept(self, member: Member, reply: Reply, asked: NDArray[np.int64]) -> Contribution:
        """A client's contribution, if its answer is one.

        Raises:
            WireError: it answered nothing, or samples that nobody asked for.
        """
        if reply.error:
            raise WireError(reply.error)
        if reply.labels is None:
            raise WireError("answered no soft labels")
        if not np.all(np.isin(reply.labels.sample_ids, asked)):
            raise WireError("answered samples that it was not asked for")
        return Contribution(member.id, member.modality, reply.labels, member.num_examples)

    def aggregate(self, contributions: Sequence[Contribution], asked: NDArray[np.int64]) -> SoftLabels:
        """The ensemble of the clients' answers and, if it votes, of the teacher's."""
        if self.settings.teacher_votes:
            vote = self.teacher.answer(asked, self.settings.temperature)
            contributions = [*contributions, Contribution(TEACHER, TEACHER, vote, self.teacher.num_examples)]
        return self.aggregator.aggregate(contributions)

    def teach(self, ensemble: SoftLabels | None) -> None:
        """Let the teacher learn from everything that was aggregated so far."""
        known = self.state.ensembles
        if ensemble is not None:
            known = ensemble if known is None else known.update(ensemble)
        self.state.ensembles = known
        self.teacher.learn(known)

    def targets(self, ensemble: SoftLabels) -> SoftLabels:
        """What is published."""
        if self.settings.publish == "ensemble":
            return ensemble
        taught = self.teacher.answer(ensemble.sample_ids, self.settings.temperature)
        if self.settings.publish == "teacher":
            return taught
        mix = self.settings.mix
        probs = normalise_rows((1.0 - mix) * ensemble.probs + mix * taught.probs)
        return SoftLabels(ensemble.sample_ids, probs, ensemble.temperature)

    def first_targets(self) -> SoftLabels | None:
        """What clients digest in round 1, before anyone has answered; None for nothing."""
        if not self.settings.teacher_starts:
            return None
        return self.teacher.answer(np.arange(self.num_public), self.settings.temperature)

    # The protocol.

    def run_round(self, grid: Grid, round_number: int, timeout: float) -> RoundAccount:
        """One round; afterwards ``state`` holds everything that the next one needs."""
        clock = _Clock()
        if round_number == 1 and (first := self.first_targets()) is not None:
            self.state.cache = self.state.cache.publish(first, 0)
        asked = self.choose_samples(round_number)
        members = self.letters.members
        requests = {}
        for client in members:
            known = self.state.known_rounds.get(client, NO_TARGETS)
            requests[client] = Request(self.state.cache.newer_than(known), asked, known)
        answers = self.letters.ask(grid, ROUND, requests, round_number=round_number, timeout=timeout)
        clock.lap("clients")
        contributions, clients = [], {}
        for client, answer in answers.items():
            downlink = self.letters.sent_bytes[client]
            try:
                if isinstance(answer, WireError):
                    raise answer
                self._note_known_round(client, answer, round_number)
                contribution, entry = self.accept(members[client], answer, asked), _client_round(answer, downlink)
                contributions.append(contribution)
                clients[client] = entry
            except WireError as error:
                log.warning("round %d: client %s does not count: %s", round_number, client, error)
                clients[client] = ClientRound(downlink_bytes=downlink, problem=str(error))
        ensemble = self.aggregate(contributions, asked) if contributions else None
        clock.lap("aggregate")
        self.teach(ensemble)
        clock.lap("teach")
        if ensemble is not None:
            self.state.cache = self.state.cache.publish(self.targets(ensemble), round_number)
        clock.lap("publish")
        self.state.round = round_number
        return RoundAccount(round_number, clients, len(asked), 0 if ensemble is None else len(ensemble), clock.laps)

    def _note_known_round(self, client: str, reply: Reply, round_number: int) -> None:
        """After an answer the client holds everything published before this round, unless it says that it has less."""
        if reply.error and "known_round" not in reply.facts:
            return  # It may have failed before it could remember anything.
        known = reply.facts.get("known_round", round_number - 1)
        if not isinstance(known, int) or not NO_TARGETS <= known < round_number:
            raise WireError(f"known_round must be a round from {NO_TARGETS} to {round_number - 1}, got {known!r}")
        self.state.known_rounds[client] = known

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
            grid: Flower's.
            initial_arrays: not used: before the first round there are no targets.
            num_rounds: 0 takes the experiment's.
            timeout: seconds per round; 0 takes the experiment's.
            train_config: not used.
            evaluate_config: not used.
            evaluate_fn: called after each round; ``account`` holds that round's account then.
        """
        result = Result()
        if not self.letters.nodes:
            self.letters.meet(grid, num_nodes=1, timeout=timeout or self.settings.round_timeout_s)
        for round_number in range(self.state.round + 1, (num_rounds or self.settings.rounds) + 1):
            self.account = self.run_round(grid, round_number, timeout or self.settings.round_timeout_s)
            result.arrays = self._arrays()
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

    def _arrays(self) -> ArrayRecord:
        task = self.experiment.task
        none = empty_labels(task.num_horizons, task.num_beams, self.settings.temperature)
        return pack_labels(self.state.cache.labels or none, self.settings.codec)


class _Clock:
    """Wall-clock seconds of the phases of a round."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.laps[phase] = round(now - self._last, 4)
        self._last = now


def _client_round(reply: Reply, downlink_bytes: int) -> ClientRound:
    seconds = reply.facts.get("seconds", 0.0)
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < np.inf:
        raise WireError(f"seconds must be a number >= 0, got {seconds!r}")
    return ClientRound(
        downlink_bytes=downlink_bytes,
        uplink_bytes=reply.num_bytes,
        metrics=reply.metrics,
        num_answers=0 if reply.labels is None else len(reply.labels),
        seconds=float(seconds),
    )
