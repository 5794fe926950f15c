"""What a learner digests beside its own labels: one kind of lesson for each kind of knowledge that is exchanged.

A lesson makes the losses of digest batches; how many steps they get, and with which rates, is the learner's
(`clients.learning.learner`), so that every strategy and control takes the same steps.

N windows or public samples, H horizons, B beams, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from clients.learning.learner import Learner, Lesson, window_batches


class Targets(Protocol):
    """Soft labels to learn from."""

    @property
    def sample_ids(self) -> NDArray[np.int64]:
        """(N,) public samples."""

    @property
    def probs(self) -> NDArray[np.float32]:
        """(N, H, B) rows on the simplex."""

    @property
    def temperature(self) -> float:
        """At which they were softened."""


@dataclass(frozen=True)
class PublicLesson:
    """Soft labels of public samples.

    Attributes:
        targets: for one sample at least.
    """

    targets: Targets

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The distillation loss on batches of the public set."""
        targets, material = self.targets, learner.material
        rows_of_all = np.arange(len(targets.sample_ids))
        for rows in window_batches(rows_of_all, batch_size=learner.training.batch_size, rng=rng):
            starts = material.public_starts[targets.sample_ids[rows]]
            probs = torch.from_numpy(targets.probs[rows])
            yield lambda starts=starts, probs=probs: learner.losses.distillation(  # type: ignore[misc]
                learner.logits(material.public, starts), probs, targets.temperature
            )


def public_lesson(targets: Targets | None) -> PublicLesson | None:
    """The lesson in some targets; None if there are none."""
    return None if targets is None or len(targets.sample_ids) == 0 else PublicLesson(targets)


@dataclass(frozen=True)
class ComparedSamples:
    """Public samples that are compared with each other.

    Attributes:
        sample_ids: (N,) a batch.
        loss: of their features (N, D).
    """

    sample_ids: NDArray[np.int64]
    loss: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RelationLesson:
    """How public samples lie to each other, and their soft labels where there are some.

    Relations alone leave the head that decides on beams as it is.

    Attributes:
        groups: at least one.
        targets: soft labels of some samples; None for none.
    """

    groups: Sequence[ComparedSamples]
    targets: Targets | None = None

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The loss of each group in turn, in a new order in every epoch."""
        while True:
            for index in rng.permutation(len(self.groups)):
                yield partial(self._loss, learner, self.groups[index])

    def _loss(self, learner: Learner, group: ComparedSamples) -> Tensor:
        """What a group costs, and the distillation loss for the share of it that has soft labels."""
        material, targets = learner.material, self.targets
        features = learner.features(material.public, material.public_starts[group.sample_ids])
        loss = group.loss(features)
        if targets is None or not (known := np.isin(group.sample_ids, targets.sample_ids)).any():
            return loss
        rows = np.searchsorted(targets.sample_ids, group.sample_ids[known])
        logits, probs = learner.model.decide(features)[torch.from_numpy(known)], torch.from_numpy(targets.probs[rows])
        return loss + float(known.mean()) * learner.losses.distillation(logits, probs, targets.temperature)


@dataclass(frozen=True)
class JointLesson:
    """Two lessons in turn.

    Attributes:
        first: a lesson.
        second: another.
        share: of the digest batches that are of the second, in [0, 1]; they are spread evenly.
    """

    first: Lesson
    second: Lesson
    share: float

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The losses of both."""
        first, second = self.first.losses(learner, rng), self.second.losses(learner, rng)
        for step in count():
            # Of n batches, n * share rounded are of the second.
            is_second = math.floor((step + 1) * self.share + 0.5) > math.floor(step * self.share + 0.5)
            yield next(second if is_second else first)


@dataclass(frozen=True)
class BeamLesson:
    """The mean soft label of every beam, learned on own windows: no public set is needed.

    Source: federated distillation, arXiv 1811.11479: cross-entropy plus a regulariser towards the mean of the label.

    Attributes:
        targets: for beams instead of samples: (N,) beams and (N, H, B) the mean answer where the beam was the best.
        weight: of the regulariser, >= 0.
    """

    targets: Targets
    weight: float = 1.0

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The task loss plus the distillation loss on batches of own windows whose beams are all known."""
        targets = self.targets
        table = np.zeros((learner.model.task.num_beams, *targets.probs.shape[1:]), np.float32)
        table[targets.sample_ids] = targets.probs
        for starts, power, beams in _own_batches(learner, rng):
            known: NDArray[np.bool_] = np.all(np.isin(beams, targets.sample_ids), axis=1)
            probs = torch.from_numpy(table[beams[known], np.arange(beams.shape[1])])

            def loss(
                starts: NDArray[np.int64] = starts,
                power: Tensor = power,
                known: NDArray[np.bool_] = known,
                probs: Tensor = probs,
            ) -> Tensor:
                logits = learner.logits(learner.material.recording, starts)
                task = learner.losses.task(logits, power)
                if not known.any():
                    return task
                rows = torch.from_numpy(known)
                return task + self.weight * learner.losses.distillation(logits[rows], probs, targets.temperature)

            yield loss


@dataclass(frozen=True)
class PrototypeLesson:
    """The mean feature of every beam, which own features are drawn to.

    Source: FedProto, arXiv 2105.00243: cross-entropy plus the squared distance to the prototype of the label.

    Attributes:
        beams: (N,) beams that have a prototype.
        prototypes: (N, D).
        weight: of the distance, >= 0.
    """

    beams: NDArray[np.int64]
    prototypes: NDArray[np.float32]
    weight: float = 1.0

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The task loss plus the squared distance, on batches of own windows."""
        table = torch.zeros(learner.model.task.num_beams, self.prototypes.shape[1])
        table[torch.from_numpy(self.beams)] = torch.from_numpy(self.prototypes)
        for starts, power, beams in _own_batches(learner, rng):
            now = beams[:, 0]
            known = torch.from_numpy(np.isin(now, self.beams))

            def loss(
                starts: NDArray[np.int64] = starts,
                power: Tensor = power,
                now: NDArray[np.int64] = now,
                known: Tensor = known,
            ) -> Tensor:
                features = learner.features(learner.material.recording, starts)
                task = learner.losses.task(learner.model.decide(features), power)
                if not known.any():
                    return task
                distance = functional.mse_loss(features[known], table[torch.from_numpy(now)][known])
                return task + self.weight * distance

            yield loss


def _own_batches(
    learner: Learner, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], Tensor, NDArray[np.int64]]]:
    """Batches of own training windows: starts (N,), power (N, H, B) and best beams (N, H)."""
    task, recording = learner.model.task, learner.material.recording
    for starts in window_batches(learner.material.train, batch_size=learner.training.batch_size, rng=rng):
        power = recording.powers(starts, task.num_frames, task.num_future)
        yield starts, torch.from_numpy(power), power.argmax(axis=-1).astype(np.int64)
