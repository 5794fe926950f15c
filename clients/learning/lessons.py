"""What a learner digests beside its own labels: there is one kind of lesson for each kind of knowledge.

A lesson makes the losses of digest batches. The learner (`clients.learning.learner`) decides how many steps they get
and at which rates, so that every strategy and control takes the same steps.

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
        """The temperature at which they were softened."""


@dataclass(frozen=True)
class PublicLesson:
    """A lesson of soft labels of public samples.

    Attributes:
        targets: the soft labels, of at least one sample.
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
    """The lesson that consists of targets; None if there are no targets."""
    return None if targets is None or len(targets.sample_ids) == 0 else PublicLesson(targets)


@dataclass(frozen=True)
class ComparedSamples:
    """Public samples that are compared with each other.

    Attributes:
        sample_ids: (N,) the public samples of one batch.
        loss: a function of their features (N, D).
    """

    sample_ids: NDArray[np.int64]
    loss: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RelationLesson:
    """A lesson of relations between public samples, together with their soft labels if there are some.

    Relations alone do not change the head, which decides on beams.

    Attributes:
        groups: the groups of samples that are compared, at least one.
        targets: the soft labels of some samples; None if there are none.
    """

    groups: Sequence[ComparedSamples]
    targets: Targets | None = None

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The loss of each group in turn, in a new order in every epoch."""
        while True:
            for index in rng.permutation(len(self.groups)):
                yield partial(self._loss, learner, self.groups[index])

    def _loss(self, learner: Learner, group: ComparedSamples) -> Tensor:
        """The loss of a group, plus the distillation loss weighted by the share of its samples with soft labels."""
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
    """Two lessons, whose batches alternate.

    Attributes:
        first: the first lesson.
        second: the second lesson.
        share: the share of the digest batches that belong to the second lesson, in [0, 1]; they are spread evenly.
    """

    first: Lesson
    second: Lesson
    share: float

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The losses of both lessons, one batch after the other."""
        first, second = self.first.losses(learner, rng), self.second.losses(learner, rng)
        for step in count():
            # Of n batches, round(n * share) belong to the second lesson.
            is_second = math.floor((step + 1) * self.share + 0.5) > math.floor(step * self.share + 0.5)
            yield next(second if is_second else first)


@dataclass(frozen=True)
class BeamLesson:
    """A lesson of the mean soft label of every beam; it is learned on own windows and needs no public set.

    Source: federated distillation, arXiv 1811.11479: cross-entropy plus a regulariser towards the mean of the label.

    Attributes:
        targets: soft labels of beams instead of samples: (N,) beams and (N, H, B) the mean soft label over the windows
            in which the beam was the best.
        weight: the weight of the regulariser, >= 0.
    """

    targets: Targets
    weight: float = 1.0

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The task loss on batches of own windows, plus the distillation loss on those whose beams are all known."""
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
    """A lesson of prototypes: the mean feature of every beam, towards which own features are pulled.

    Source: FedProto, arXiv 2105.00243: cross-entropy plus the squared distance to the prototype of the label.

    Attributes:
        beams: (N,) beams that have a prototype.
        prototypes: (N, D) the prototypes of these beams.
        weight: the weight of the distance, >= 0.
    """

    beams: NDArray[np.int64]
    prototypes: NDArray[np.float32]
    weight: float = 1.0

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The task loss on batches of own windows, plus the mean squared distance to the prototypes."""
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
    """An endless iterator over batches of own training windows: starts (N,), power (N, H, B), best beams (N, H)."""
    task, recording = learner.model.task, learner.material.recording
    for starts in window_batches(learner.material.train, batch_size=learner.training.batch_size, rng=rng):
        power = recording.powers(starts, task.num_frames, task.num_future)
        yield starts, torch.from_numpy(power), power.argmax(axis=-1).astype(np.int64)
