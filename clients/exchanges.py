"""What a client does with each kind of knowledge: digest what came, answer what was asked.

An exchange is made for one message. It is told what the client remembers, says what there is to digest, and, after the
learner's steps, what to answer and what to remember. Learning itself is the same for all (`clients.app`).

N samples or windows, H horizons, B beams, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients.desk import Desk
from clients.sensing.by_beam import count_beams, mean_by_beam
from clients.sensing.familiarity import trusted
from clients.sensing.learner import Learner
from clients.sensing.lessons import BeamLesson, Lesson, PrototypeLesson, public_lesson
from clients.sensing.recording import open_recording
from strategies.caching import Holding
from strategies.labels import SoftLabels
from strategies.parcels import Encoding, Parcel
from strategies.wire import NO_TARGETS, Request, WireError

State = Mapping[str, Any]


class BehindError(Exception):
    """The client does not hold what the server thinks it does.

    Attributes:
        known_round: it holds the targets up to this round.
    """

    def __init__(self, known_round: int) -> None:
        super().__init__(f"holds the targets up to round {known_round} only, its memory was lost; it gets them again")
        self.known_round = known_round


@dataclass(frozen=True)
class Said:
    """What an exchange answers.

    Attributes:
        labels: soft labels.
        arrays: what is no soft label.
        facts: plain values.
    """

    labels: Parcel | None = None
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class Exchange(ABC):
    """One message's worth of knowledge.

    Args:
        desk: of the handler.
        learner: of the client, as it was after its last message.
        request: of the server.
        state: what :meth:`state` returned after the client's last message; empty before its first.

    Raises:
        BehindError: the client lacks targets that the server thinks it holds.
        ValueError: the request is malformed.
    """

    def __init__(self, desk: Desk, learner: Learner, request: Request, state: State) -> None:
        self.desk = desk
        self.learner = learner
        self.request = request
        self.settings = desk.placement.experiment.strategy
        self.task = desk.placement.experiment.task

    def lesson(self) -> Lesson | None:
        """What there is to digest."""
        return None

    @abstractmethod
    def answer(self) -> Said:
        """What was asked, after learning."""

    def state(self) -> dict[str, Any]:
        """What to remember until the next message: tensors and plain values."""
        return {}


class LabelExchange(Exchange):
    """Soft labels: keeps what was published and, where differences travel, what it answered."""

    def __init__(self, desk: Desk, learner: Learner, request: Request, state: State) -> None:
        super().__init__(desk, learner, request, state)
        shape = (self.task.num_horizons, self.task.num_beams)
        self.up, self.down = Encoding(self.settings.codec, *shape), Encoding(self.settings.codec_down, *shape)
        known_round = state.get("known_round", NO_TARGETS)
        is_delta = request.targets is not None and request.targets.is_delta
        if known_round < request.known_round or (is_delta and known_round != request.known_round):
            raise BehindError(known_round)
        now, lifetime = desk.header.round, self.settings.target_lifetime
        held = _unpack(state["targets"]).fresh(now, lifetime) if "targets" in state else self.down.nothing
        if request.targets is not None:
            held = held.update(self.down.unpack(request.targets, reference=held)).fresh(now, lifetime)
        self.held = held
        # Its answers as of the last two, since the server may not have got the last one.
        self.answers: dict[int, Holding] = {n: _unpack(one) for n, one in state.get("answers", {}).items()}

    def targets(self) -> SoftLabels:
        """What it holds, decoded."""
        return self.down.decode(self.held, self.settings.temperature)

    @abstractmethod
    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        """Soft labels for what was asked, or for as much of it as the client trusts itself on."""

    def answer(self) -> Said:
        """Encoded soft labels."""
        now = self.desk.header.round
        facts: dict[str, str | int | float | bool] = {"known_round": now - 1, "holding": self.held.digest()}
        if not len(self.request.ask):
            return Said(facts=facts)
        labels = self.answers_to(self.request.ask)
        holding = self.up.encode(labels, now)
        reference = self.answers.get(self.request.answered_round) if self.up.is_delta else None
        parcel = self.up.pack(holding, reference=reference)
        if self.up.is_delta:
            kept = {n: one for n, one in self.answers.items() if n == self.request.answered_round}
            self.answers = {**kept, now: holding if reference is None else reference.update(holding)}
        return Said(labels=parcel, facts=facts)

    def state(self) -> dict[str, Any]:
        """Targets and answers as they were encoded."""
        answers = {number: _pack(one) for number, one in self.answers.items()}
        return {"known_round": self.desk.header.round - 1, "targets": _pack(self.held), "answers": answers}


class PublicExchange(LabelExchange):
    """Soft labels of public samples."""

    def lesson(self) -> Lesson | None:
        """The targets."""
        return public_lesson(self.targets())

    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        """Its calibrated answers, on the samples that its filter lets through."""
        starts = self.learner.material.public_starts
        if ask[-1] >= len(starts):
            raise WireError(f"the public set has {len(starts)} samples, not {ask[-1]}")
        kind, share = self.settings.answer_filter, self.settings.answer_share
        mine = ask[trusted(self.learner, starts[ask], kind=kind, share=share)]
        return SoftLabels(mine, self.learner.answer(mine, self.settings.temperature), self.settings.temperature)


class BeamExchange(LabelExchange):
    """The mean soft label of every beam that the client has seen."""

    def lesson(self) -> Lesson | None:
        """The mean of all clients, as a regulariser on own windows."""
        return BeamLesson(self.targets()) if len(self.held) else None

    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        """Its own means."""
        recording, train = self.learner.material.recording, self.learner.material.train
        probs = self.learner.soften(recording, train, self.settings.temperature)
        seen, means = mean_by_beam(probs, own_beams(self.learner), self.task.num_beams)
        wanted = np.isin(seen, ask)
        return SoftLabels(seen[wanted], means[wanted], self.settings.temperature)


class PrototypeExchange(Exchange):
    """The mean feature of every beam that the client has seen."""

    def lesson(self) -> Lesson | None:
        """The prototypes of all."""
        arrays = self.request.arrays
        if not arrays:
            return None
        beams, features = (arrays.get(name) for name in ("beams", "features"))
        if beams is None or features is None or features.ndim != 2 or len(features) != len(beams):
            raise WireError(f"expected beams and their features, got {sorted(arrays)}")
        return PrototypeLesson(beams.astype(np.int64), features.astype(np.float32))

    def answer(self) -> Said:
        """Its own prototypes."""
        recording, train = self.learner.material.recording, self.learner.material.train
        beams = own_beams(self.learner)[:, :1]
        features = self.learner.predict_features(recording, train)
        seen, means = mean_by_beam(features[:, None], beams, self.task.num_beams)
        arrays: dict[str, NDArray[np.generic]] = {
            "beams": seen.astype(np.uint16),
            "features": means[:, 0].astype(np.float16),
            "counts": count_beams(beams, self.task.num_beams)[seen].astype(np.uint32),
        }
        return Said(arrays=arrays)


class WeightExchange(Exchange):
    """The weights of the student."""

    def __init__(self, desk: Desk, learner: Learner, request: Request, state: State) -> None:
        super().__init__(desk, learner, request, state)
        if request.arrays:
            weights = {name: torch.from_numpy(np.array(value)) for name, value in request.arrays.items()}
            learner.model.load_state_dict(weights)

    def answer(self) -> Said:
        """Its weights, and the scales of its inputs, which they presuppose."""
        return Said(arrays={name: value.numpy() for name, value in self.learner.model.state_dict().items()})


class NoExchange(Exchange):
    """Nothing."""

    def answer(self) -> Said:
        """Nothing."""
        return Said()


class PooledExchange(NoExchange):
    """Nothing; says what its labelled recording would have cost."""

    def answer(self) -> Said:
        """Bytes of its own recording, before its first round."""
        own = open_recording(self.desk.profile.recording)
        arrays = [*own.sensors.values(), *([] if own.power is None else [own.power])]
        is_first = self.learner.progress.round == 1
        return Said(facts={"raw_bytes": sum(array.nbytes for array in arrays) if is_first else 0})


EXCHANGES: dict[str, type[Exchange]] = {
    "public": PublicExchange,
    "beams": BeamExchange,
    "prototypes": PrototypeExchange,
    "weights": WeightExchange,
    "nothing": NoExchange,
    "pooled": PooledExchange,
}


def own_beams(learner: Learner) -> NDArray[np.int64]:
    """(N, H) best beams of a learner's training windows."""
    task, material = learner.model.task, learner.material
    return material.recording.beams(material.train, task.num_frames, task.num_future)


def _pack(holding: Holding) -> dict[str, torch.Tensor]:
    arrays = {"sample_ids": holding.sample_ids, "payload": holding.payload, "rounds": holding.rounds}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _unpack(state: Mapping[str, torch.Tensor]) -> Holding:
    return Holding(*(state[name].numpy() for name in ("sample_ids", "payload", "rounds")))
