"""Lessons of what is known of each beam; they are learned on own windows and need no public set.

N windows or beams, H horizons, B beams, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from clients.learning.learner import Learner, window_batches
from clients.learning.lessons import Targets


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
