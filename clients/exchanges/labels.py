"""The exchanges of soft labels, on the client's side. N samples or windows, H horizons, B beams."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients.adversary import attack_of, poison
from clients.context import ClientContext
from clients.exchanges.base import Answer, BehindError, Exchange, Facts, State
from clients.learning.density import trusted
from clients.learning.learner import Learner, Lesson, WindowsToPredict
from clients.learning.lessons import JointLesson, client_lesson
from clients.learning.relation_lesson import ComparedSamples, RelationLesson
from clients.learning.state import as_arrays, as_tensors
from clients.privacy import book_release, noise_rng
from configs.strategy import PairRelations
from strategies.cache import CachedLabels
from strategies.codecs.encoding import EncodedLabels, Encoding
from strategies.labels import SoftLabels
from strategies.messages.wire import NO_TARGETS, Request, WireError
from strategies.privacy import privatise, reveal_top1
from strategies.relations import relational_kd, unpack_relations

_decoded: dict[tuple[str | float, ...], SoftLabels] = {}
"""The targets that this process decoded last. Other clients that it serves mostly hold the same ones."""


def decode_targets(encoding: Encoding, cached: CachedLabels, temperature: float, *, digest: str) -> SoftLabels:
    """Targets as soft labels, which nobody may change: a process decodes what many clients hold once for all of them.

    Args:
        encoding: how the targets are encoded.
        cached: the encoded targets.
        temperature: the temperature at which they were softened.
        digest: the digest of ``cached``.

    Raises:
        ValueError: the rows do not stand for distributions.
    """
    key = (encoding.spec, encoding.num_horizons, encoding.num_classes, temperature, digest)
    if key not in _decoded:
        labels = encoding.decode(cached, temperature)
        _decoded.clear()
        _decoded[key] = labels
    return _decoded[key]


@dataclass(frozen=True, eq=False)
class _Step:
    """How this process last went from targets that a client knew to those that it holds now.

    Attributes:
        known: the targets that the client and the server knew.
        sent: the targets that the server sent; None for none.
        setting: what else the result depends on.
        held: the targets that the client holds then.
        digest: their digest.
    """

    known: CachedLabels
    sent: EncodedLabels | None
    setting: tuple[str | int | None, ...]
    held: CachedLabels
    digest: str

    def is_of(self, known: CachedLabels, sent: EncodedLabels | None, setting: tuple[str | int | None, ...]) -> bool:
        """Whether another client takes the same step; its arrays are compared with those of the last one."""
        if self.setting != setting or not all(map(np.array_equal, _parts(self.known), _parts(known))):
            return False
        if sent is self.sent or sent is None or self.sent is None:
            return sent is self.sent
        mine, theirs = self.sent, sent
        return mine.is_delta == theirs.is_delta and all(
            np.array_equal(one, other) and one.dtype == other.dtype
            for one, other in ((mine.ids, theirs.ids), (mine.values, theirs.values), (mine.rounds, theirs.rounds))
        )


_steps: list[_Step] = []
"""The last step, if there was one. Other clients that this process serves mostly take the same."""


def _parts(cached: CachedLabels) -> Iterable[NDArray[np.generic]]:
    return cached.arrays().values()


def held_targets(
    encoding: Encoding, known: CachedLabels, sent: EncodedLabels | None, *, now: int, lifetime: int | None
) -> tuple[CachedLabels, str]:
    """The fresh targets that a client holds once it got what it lacked, and their digest.

    A process works this out once for all clients that knew the same and got the same, so nobody may change the result.

    Args:
        encoding: how targets are encoded.
        known: the targets that the client and the server knew.
        sent: the targets that the server sent; None for none.
        now: the round.
        lifetime: the number of rounds for which targets are fresh; None for ever.

    Raises:
        ValueError: what was sent was not packed by this encoding, or against other targets.
    """
    setting = (encoding.spec, encoding.num_horizons, encoding.num_classes, now, lifetime)
    if not _steps or not _steps[0].is_of(known, sent, setting):
        held = known.fresh(now, lifetime)
        if sent is not None:
            held = held.update(encoding.unpack(sent, reference=held)).fresh(now, lifetime)
        _steps[:] = [_Step(known, sent, setting, held, held.digest())]
    return _steps[0].held, _steps[0].digest


class LabelExchange(Exchange):
    """Exchanges soft labels; it keeps the published targets and, if answers are sent as differences, the answers.

    It keeps two versions of each: the one that the server knew when it asked, and the newest one. The server learns of
    the newest version only from the answer, which may be lost. So the next request may start from either version, and
    it names which one. If an answer is lost, the client loses nothing else, and targets continue as differences.

    Not chosen: complete rows for a client that did not answer the last request. The server would have to remember
    these clients through checkpoints and late answers, and would send the most to those with the worst links.
    """

    def __init__(self, context: ClientContext, learner: Learner, request: Request, state: State) -> None:
        super().__init__(context, learner, request, state)
        shape = (self.task.num_horizons, self.task.num_classes)
        self.up, self.down = Encoding(self.settings.codec, *shape), Encoding(self.settings.codec_down, *shape)
        kept: Mapping[int, Mapping[str, torch.Tensor]] = state.get("targets", {})
        if request.known_round == NO_TARGETS:
            # The server sends all targets again, so what the client holds without the server's knowledge is dropped.
            self.known = self.down.nothing
        elif request.known_round in kept:
            self.known = CachedLabels.from_arrays(as_arrays(kept[request.known_round]))
        else:
            raise BehindError(max(kept, default=NO_TARGETS))
        now, lifetime = context.header.round, self.settings.target_lifetime
        self.held, self.digest = held_targets(self.down, self.known, request.targets, now=now, lifetime=lifetime)
        # The client's first answers, for the attack that repeats them.
        self.first: dict[str, torch.Tensor] | None = state.get("first")
        # The answers after each of the last two rounds, since the server may not have received the last ones.
        self.answers: dict[int, CachedLabels] = {
            n: CachedLabels.from_arrays(as_arrays(one)) for n, one in state.get("answers", {}).items()
        }
        self.no_labels = self.up.decode(self.up.nothing, self.settings.temperature)
        # (N, H, B) what the client answers this time; if it attacks, the poisoned values.
        self.claimed = self.no_labels.probs

    def facts_unsaved(self, facts: Facts) -> Facts:
        """The facts with the round that the server already knew, because the new targets were not saved."""
        known_round = self.request.known_round
        return {**{name: fact for name, fact in facts.items() if name != "cache_digest"}, "known_round": known_round}

    def targets(self) -> SoftLabels:
        """The targets that the client holds, decoded."""
        return decode_targets(self.down, self.held, self.settings.temperature, digest=self.digest)

    @abstractmethod
    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        """Soft labels for the ids asked for, or for those of them on which the client trusts itself."""

    def answer(self) -> Answer:
        """The encoded soft labels that were asked for, after noise or an attack where there is one."""
        now = self.context.header.round
        facts: dict[str, str | int | float | bool] = {"known_round": now - 1, "cache_digest": self.digest}
        if not len(self.request.ask):
            return Answer(facts=facts)
        labels = self._private(self.answers_to(self.request.ask))
        self.claimed = self._claim(labels)
        with np.errstate(invalid="ignore"):  # An attack may send NaN; the codec turns it into some number.
            payload = self.up.codec.encode(self.claimed)
        cached = CachedLabels(labels.sample_ids, payload, np.full(len(labels), now))
        reference = self.answers.get(self.request.answered_round) if self.up.is_delta else None
        encoded = self.up.pack(cached, reference=reference)
        if self.up.is_delta:
            kept = {n: one for n, one in self.answers.items() if n == self.request.answered_round}
            self.answers = {**kept, now: cached if reference is None else reference.update(cached)}
        return Answer(labels=encoded, facts=facts, metrics=book_release(self.context, len(labels)))

    def _private(self, labels: SoftLabels) -> SoftLabels:
        """The soft labels as they may leave this machine, by the rules of ``strategy.privacy``."""
        privacy, probs = self.settings.privacy, labels.probs
        if privacy.clip is not None:
            rng = noise_rng(self.context)
            probs = privatise(probs, clip=privacy.clip, noise_multiplier=privacy.noise_multiplier, rng=rng)
        if privacy.reveal == "top1":
            probs = reveal_top1(probs)
        return SoftLabels(labels.sample_ids, probs, labels.temperature)

    def _claim(self, labels: SoftLabels) -> NDArray[np.float32]:
        """(N, H, B) rows of the answer; an attacker's poisoned rows need not be soft labels."""
        attack = attack_of(self.context.placement, self.context.profile.id)
        if attack is None:
            return labels.probs
        if self.first is None:
            self.first = {"ids": torch.from_numpy(labels.sample_ids), "probs": torch.from_numpy(labels.probs)}
        first = labels.probs.copy()
        known = np.isin(labels.sample_ids, ids := self.first["ids"].numpy())
        first[known] = self.first["probs"].numpy()[np.searchsorted(ids, labels.sample_ids[known])]
        return poison(attack, self.context.placement, labels.probs, labels.sample_ids, first)

    def state(self) -> dict[str, Any]:
        """Targets and answers in encoded form, by round; for targets it is the last round that they include."""
        known_round = self.context.header.round - 1
        targets = {self.request.known_round: self.known, known_round: self.held}
        return {
            "known_round": known_round,
            "targets": {number: as_tensors(one.arrays()) for number, one in targets.items()},
            "answers": {number: as_tensors(one.arrays()) for number, one in self.answers.items()},
            "first": self.first,
        }


class PublicExchange(LabelExchange):
    """Exchanges soft labels of public samples."""

    def lesson(self) -> Lesson | None:
        """The targets, together with the teacher's relations between samples if it sent any."""
        targets, wanted = self.targets(), self.settings.relations
        labels = client_lesson(targets, self.learner.material, self.settings.own_site_share)
        groups = [] if wanted is None else self._compared(wanted)
        if wanted is None or not groups:
            return labels
        if labels is not None:
            return JointLesson(labels, RelationLesson(groups, targets), wanted.share)
        # Relations teach no beams: a client without labels that learned only from them would answer at random.
        return RelationLesson(groups) if self.learner.material.is_labelled else None

    def _compared(self, wanted: PairRelations) -> list[ComparedSamples]:
        """The relations between public samples that the teacher sent in this round; they are not kept."""
        experiment, num_public = self.context.placement.experiment, len(self.learner.material.public_starts)
        told = unpack_relations(self.request.arrays, experiment, self.context.header.round, num_public=num_public)
        kd = partial(relational_kd, distance_weight=wanted.distance_weight, angle_weight=wanted.angle_weight)
        return [
            ComparedSamples(group.sample_ids, partial(kd, teacher=seen, partners=torch.from_numpy(group.partners)))
            for group, seen in told
        ]

    def predicts(self) -> list[WindowsToPredict]:
        """The public samples that the server asks for and the client holds."""
        material, ask = self.learner.material, self.request.ask
        mine = ask if material.held is None else ask[np.isin(ask, material.held)]
        if not len(mine) or ask[-1] >= len(material.public_starts):
            return []
        return [WindowsToPredict(material.public, material.public_starts[mine])]

    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        """Calibrated soft labels for the samples that the client holds and its filter accepts.

        There are none before it has learned.
        """
        if not self.learner.has_learned:
            return self.no_labels
        starts, held = self.learner.material.public_starts, self.learner.material.held
        if ask[-1] >= len(starts):
            raise WireError(f"the public set has {len(starts)} samples, but the server asks for sample {ask[-1]}")
        if held is not None and len(ask := ask[np.isin(ask, held)]) == 0:
            return self.no_labels
        kind, share = self.settings.answer_filter, self.settings.answer_share
        mine = ask[trusted(self.learner, starts[ask], kind=kind, share=share)]
        return SoftLabels(mine, self.learner.answer(mine, self.settings.temperature), self.settings.temperature)
