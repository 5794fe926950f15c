"""Federated distillation: soft labels of public samples go up, targets come down, in hooks for a subclass to replace.

A new aggregation rule needs no subclass (see `strategies.aggregation`), nor does a new mixture of the parts that the
``strategy`` section offers (see `configs.recipes`). A new choreography overrides one of ``choose_samples``,
``aggregate``, ``calibrate``, ``look_back``, ``teach``, ``targets`` or ``targets_for``.

N samples, H horizons, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from configs.recipes import RECIPES, Traits
from configs.seeding import rng_for
from strategies.cache import CachedLabels, TargetCache
from strategies.codecs.encoding import EncodedLabels, Encoding
from strategies.hindsight import with_hindsight
from strategies.labels import Contribution, SoftLabels, normalise_rows
from strategies.messages.mailbox import Outcome
from strategies.messages.records import TEACHER, Member
from strategies.messages.wire import NO_TARGETS, Reply, Request, WireError, encoded_record
from strategies.methods.base import Choreography, RoundPlan
from strategies.own_code import checked_labels, checked_samples
from strategies.relations import draw_groups, pack_relations

log = logging.getLogger(__name__)


# Samples are drawn in runs of this many neighbours, which share most frames, so a client encodes a frame about once.
RUN_LENGTH = 16


class DistillationStrategy(Choreography):
    """The method in which clients send soft labels and get targets; the arguments are those of `Choreography`.

    Example:
        A method of your own replaces a hook, and declares its traits where they differ.

        >>> class FirstHalf(DistillationStrategy):
        ...     traits = Traits(summable=False)
        ...
        ...     def choose_samples(self, round_number):
        ...         return super().choose_samples(round_number)[: self.num_public // 2]
        >>> FirstHalf.traits.exchange
        'public'
    """

    traits: ClassVar[Traits] = RECIPES["distillation"].traits

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        task = self.experiment.task
        self.up = Encoding(self.settings.codec, task.num_horizons, task.num_classes)
        self.down = Encoding(self.settings.codec_down, task.num_horizons, task.num_classes)
        if self.state.cache is None:
            self.state.cache = TargetCache(self.down.nothing)
        # The samples that clients of a site are asked about, by round and site.
        self._asked_at: dict[tuple[int, str], NDArray[np.int64]] = {}
        # What clients lack and hold of one cache is worked out once for all that know equally much, by round and
        # known round: the packed labels that they lack, and the digest of those that they hold.
        self._known_of: TargetCache | None = None
        self._packed: dict[tuple[int, int], EncodedLabels | None] = {}
        self._digests: dict[tuple[int, int], str | None] = {}

    @property
    def num_items(self) -> int:
        """How many public samples, or other items, clients may be asked about."""
        return self.num_public

    # The hooks, which a new choreography replaces.

    def choose_samples(self, round_number: int) -> NDArray[np.int64]:
        """The public samples that clients are asked about in a round."""
        drawn = self._draw(round_number)
        if self.settings.ask_cached:
            return drawn
        fresh = self._cache().newest.fresh(round_number, self.settings.target_lifetime)
        return drawn[~np.isin(drawn, fresh.sample_ids)]

    def voters(self, contributions: Sequence[Contribution], asked: NDArray[np.int64]) -> list[Contribution]:
        """The contributions that count: those of the clients and, if it votes, that of the teacher."""
        if not self.settings.teacher_votes:
            return list(contributions)
        vote = self.teacher.answer(asked, self.settings.temperature)
        return [*contributions, Contribution(TEACHER, TEACHER, vote, self.teacher.num_examples)]

    def aggregate(self, contributions: Sequence[Contribution], asked: NDArray[np.int64]) -> SoftLabels:
        """The ensemble of all voters."""
        return self.apply_rule(self.voters(contributions, asked))

    def calibrate(self, ensemble: SoftLabels) -> SoftLabels:
        """Sharpen the ensemble as the settings say."""
        probs = sharpen(ensemble.probs, self.settings.sharpen, self.settings.sharpness)
        return SoftLabels(ensemble.sample_ids, probs, ensemble.temperature)

    def look_back(self, labels: SoftLabels) -> SoftLabels:
        """Correct answers for future slots by those of later windows, if the settings say so."""
        return with_hindsight(labels, self.teacher.later_samples()) if self.settings.hindsight else labels

    def teach(self, ensemble: SoftLabels | None) -> None:
        """Let the teacher learn from everything that was aggregated so far."""
        known = self.state.ensembles
        if ensemble is not None:
            known = ensemble if known is None else known.update(ensemble)
        self.state.ensembles = known
        self.teacher.learn(known)

    def targets(self, ensemble: SoftLabels) -> SoftLabels:
        """What is published to all: the ensemble, fused with the teacher."""
        (fused,) = self.fuse([ensemble])
        return fused

    def targets_for(self, contributions: Sequence[Contribution], ensemble: SoftLabels) -> dict[str, SoftLabels]:
        """The targets for single clients, by client; a client that is left out gets the targets for all."""
        return {}

    def first_targets(self) -> SoftLabels | None:
        """The targets that clients digest in round 1, before anyone has answered; None for no targets."""
        if not self.settings.teacher_starts:
            return None
        return self.teacher.answer(np.arange(self.num_public), self.settings.temperature)

    def relate(self, round_number: int) -> dict[str, NDArray[np.generic]]:
        """The teacher's relations between the samples of a round, as they travel; empty if it tells none."""
        speaks = round_number > 1 or self.settings.teacher_starts
        if self.settings.relations is None or not speaks or len(samples := self._draw(round_number)) < 2:
            return {}
        groups = draw_groups(samples, self.experiment, round_number)
        return pack_relations(groups, self.teacher.features(np.concatenate([group.sample_ids for group in groups])))

    def fuse(self, several: Sequence[SoftLabels]) -> list[SoftLabels]:
        """Fuse each with what the teacher says now."""
        if self.settings.publish == "ensemble" or not several:
            return list(several)
        sample_ids = np.unique(np.concatenate([labels.sample_ids for labels in several]))
        taught = self.teacher.answer(sample_ids, self.settings.temperature)
        mix = 1.0 if self.settings.publish == "teacher" else self.settings.mix
        return [_mixed(labels, taught.take(labels.sample_ids), mix) for labels in several]

    # The protocol.

    def prepare(self, round_number: int) -> RoundPlan:
        """Choose the samples; before the first round, publish the first targets."""
        if round_number == 1 and self.settings.sends_targets and (first := self.first_targets()) is not None:
            first = self._checked(first, "first_targets")
            self.state.cache = self._cache().publish(self.down.encode(first, 0))
        relations = self.relate(round_number)
        chosen = self.choose_samples(round_number)
        if self._is_own:
            chosen = checked_samples(chosen, self, "choose_samples", count=self.num_items)
        return RoundPlan(round_number, chosen, relations)

    def request(self, client: str, plan: RoundPlan) -> Request:
        """The targets that a client lacks, the teacher's relations and the samples to answer."""
        known = self.state.known_rounds.get(client, NO_TARGETS)
        answers = self.state.answers.get(client)
        return Request(
            targets=self._lacking(self._cache(client), known, plan.round),
            ask=self._asked_of(client, plan),
            known_round=known,
            answered_round=0 if answers is None else int(answers.rounds.max()),
            arrays=plan.relations,
        )

    def accept(self, member: Member, outcome: Outcome, reply: Reply, plan: RoundPlan) -> Contribution:
        """The contribution of a client, once its answer is checked and decoded."""
        self._note_known_round(outcome, reply)
        if reply.error:
            raise WireError(reply.error)
        if reply.labels is None:
            if len(outcome.request.ask):
                raise WireError("it answered no soft labels")
            nothing = self.up.decode(self.up.nothing, self.settings.temperature)
            return Contribution(member.id, member.modality, nothing, member.num_examples)
        held = self.state.answers.get(member.id) if self.up.is_delta else None
        try:
            cached = self.up.unpack(reply.labels, reference=held, asked=outcome.request.ask)
            labels = self.up.decode(cached, self.settings.temperature)
        except ValueError as error:
            raise WireError(str(error)) from None
        if np.any(cached.rounds != outcome.round):
            raise WireError(f"its answer is of round {cached.rounds[0]}, expected {outcome.round}")
        if self.up.is_delta and len(cached):
            # Whole rows replace what the server held: a client that lost its memory starts over.
            keeps = held is not None and reply.labels.is_delta
            self.state.answers[member.id] = held.update(cached) if keeps and held is not None else cached
        # A late answer counts only for samples that are asked now: elsewhere it alone would replace a whole ensemble.
        ids = labels.sample_ids
        counts = labels if np.array_equal(ids, plan.asked) else labels.take(ids[np.isin(ids, plan.asked)])
        return Contribution(
            member.id,
            member.modality,
            counts,
            member.num_examples,
            age=plan.round - outcome.round,
            seen=None if member.seen is None else np.array(member.seen),
        )

    def num_answers(self, contribution: Contribution) -> int:
        """Return the number of samples that a client answered."""
        return len(contribution.labels)

    def conclude(self, contributions: Sequence[Contribution], plan: RoundPlan) -> int:
        """Aggregate the answers, teach the teacher and publish targets."""
        answered = [one for one in contributions if len(one.labels)]
        ensemble = None
        if answered:
            aggregated = self._checked(self.aggregate(answered, plan.asked), "aggregate")
            ensemble = self._checked(self.calibrate(aggregated), "calibrate")
        own = {} if ensemble is None else self.targets_for(answered, ensemble)
        own = {client: self._checked(labels, "targets_for") for client, labels in own.items()}
        return self.publish(ensemble, own, plan)

    def publish(self, ensemble: SoftLabels | None, own_targets: dict[str, SoftLabels], plan: RoundPlan) -> int:
        """Teach, then publish targets for all and for single clients, unless relations stand in for targets.

        Returns:
            The number of targets published for all.
        """
        ensemble = None if ensemble is None else self._checked(self.look_back(ensemble), "look_back")
        own_targets = {
            client: self._checked(self.look_back(labels), "look_back") for client, labels in own_targets.items()
        }
        self.teach(ensemble)
        if ensemble is None or not self.settings.sends_targets:
            return 0
        targets = self._checked(self.targets(ensemble), "targets")
        fused = dict(zip(own_targets, self.fuse(list(own_targets.values())), strict=True))
        for client in {*own_targets, *self.state.own_caches}:
            mine = self.down.encode(fused.get(client, targets), plan.round)
            self.state.own_caches[client] = self._cache(client).publish(mine)
        self.state.cache = self._cache().publish(self.down.encode(targets, plan.round))
        return len(targets)

    def published(self) -> ArrayRecord:
        """The newest targets, as arrays that could travel."""
        return encoded_record(self.down.pack(self._cache().newest))

    def _checked(self, found: SoftLabels, hook: str) -> SoftLabels:
        """What a hook returned, checked if the strategy is a user's own."""
        if not self._is_own:
            return found
        task = self.experiment.task
        return checked_labels(found, self, hook, shape=(task.num_horizons, task.num_classes), count=self.num_public)

    def _asked_of(self, client: str, plan: RoundPlan) -> NDArray[np.int64]:
        """The samples of a round that a client answers: all, or those of its own site."""
        site = self.mailbox.members[client].site if self.settings.asks == "own_site" else ""
        if not site:
            return plan.asked
        if (plan.round, site) not in self._asked_at:
            at_site = self.teacher.samples_at(site)
            if len(at_site) == 0 and not any(known == site for _, known in self._asked_at):
                log.warning(
                    "strategy.asks: the public set has no sample of %s, so clients there answer none; add the site to "
                    "data.public_from, or leave asks out",
                    site,
                )
            self._asked_at[plan.round, site] = plan.asked[np.isin(plan.asked, at_site)]
        return self._asked_at[plan.round, site]

    def _draw(self, round_number: int) -> NDArray[np.int64]:
        """The public samples that a round is about."""
        rng = rng_for(self.experiment.seed, "public", round_number)
        return draw_samples(self.num_public, self.settings.public_samples, rng)

    def _lacking(self, cache: TargetCache, known_round: int, now: int) -> EncodedLabels | None:
        """The fresh targets that a client lacks which holds all up to a round, packed; None if it lacks none."""
        self._look_at(cache)
        if (now, known_round) not in self._packed:
            lacking = cache.newest.newer_than(known_round).fresh(now, self.settings.target_lifetime)
            held = self._held(cache, known_round, now) if self.down.is_delta else None
            self._packed[now, known_round] = self.down.pack(lacking, reference=held) if len(lacking) else None
        return self._packed[now, known_round]

    def _cache(self, client: str = "") -> TargetCache:
        """The targets published for a client: its own, or those for all."""
        return self.state.own_caches.get(client) or self.state.cache or TargetCache(self.down.nothing)

    def _digest_held(self, cache: TargetCache, known_round: int, now: int) -> str | None:
        """The digest of :meth:`_held`; None if the server cannot know it."""
        self._look_at(cache)
        if (now, known_round) not in self._digests:
            held = self._held(cache, known_round, now)
            self._digests[now, known_round] = None if held is None else held.digest()
        return self._digests[now, known_round]

    def _look_at(self, cache: TargetCache) -> None:
        """Forget what was worked out of another cache."""
        if self._known_of is not cache:
            self._known_of, self._packed, self._digests = cache, {}, {}

    def _held(self, cache: TargetCache, known_round: int, now: int) -> CachedLabels | None:
        """The fresh targets of a client that holds all up to a round; None if the server cannot know them."""
        held = cache.held_at(known_round)
        return None if held is None else held.fresh(now, self.settings.target_lifetime)

    def _note_known_round(self, outcome: Outcome, reply: Reply) -> None:
        """Note which targets a client holds: all from before the round, unless it says that it has fewer."""
        if reply.error and "known_round" not in reply.facts:
            return  # The client may have failed before it could keep anything.
        known = reply.facts.get("known_round", outcome.round - 1)
        if not isinstance(known, int) or not NO_TARGETS <= known < outcome.round:
            raise WireError(f"known_round must be a round from {NO_TARGETS} to {outcome.round - 1}, got {known!r}")
        self.state.known_rounds[outcome.client] = known
        digest = reply.facts.get("cache_digest")
        held = None if digest is None else self._digest_held(self._cache(outcome.client), known, outcome.round)
        if held is not None and digest != held:
            log.warning("client %s holds other targets than were sent to it; it gets them again", outcome.client)
            self.state.known_rounds[outcome.client] = NO_TARGETS


def _mixed(labels: SoftLabels, taught: SoftLabels, share: float) -> SoftLabels:
    if share == 1.0:
        return taught
    probs = normalise_rows((1.0 - share) * labels.probs + share * taught.probs)
    return SoftLabels(labels.sample_ids, probs, labels.temperature)


def draw_samples(num_public: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Public samples for a round, in random runs of consecutive ones.

    Args:
        num_public: the size of the public set.
        wanted: the number of samples to draw; 0, or more than there are, takes all.
        rng: the only source of randomness.

    Returns:
        (N,) strictly increasing.
    """
    if wanted == 0 or wanted >= num_public:
        return np.arange(num_public)
    offset = int(rng.integers(RUN_LENGTH))
    runs = np.split(np.arange(num_public), np.arange(offset, num_public, RUN_LENGTH))
    order = rng.permutation(len(runs))
    return np.sort(np.concatenate([runs[index] for index in order])[:wanted])


def sharpen(probs: NDArray[np.float32], kind: Literal["none", "softmax", "power"], by: float) -> NDArray[np.float32]:
    """Make distributions more certain (entropy reduction).

    Sources: ``softmax``: softmax(p / by), DS-FL, arXiv 2008.06180; ``power``: p^by / sum p^by, the enhanced entropy
    reduction of SCARLET, arXiv 2504.19602. A power of 1 changes nothing, and none moves the ranking of classes.

    Args:
        probs: (..., C) distributions.
        kind: the function; ``none`` leaves distributions as they are.
        by: the temperature of the softmax or the exponent of the power, > 0.
    """
    if kind == "none":
        return probs
    rows = probs.astype(np.float64)
    top = rows.max(axis=-1, keepdims=True)
    return normalise_rows(np.exp((rows - top) / by) if kind == "softmax" else (rows / top) ** by)
