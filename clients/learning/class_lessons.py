"""Lessons of what is known of each class; they are learned on own windows and need no public set.

N windows or classes, H horizons, C classes, D features.
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
class ClassLesson:
    """A lesson of the mean soft label of every class; it is learned on own windows and needs no public set.

    Source: federated distillation, arXiv 1811.11479: cross-entropy plus a regulariser towards the mean of the label.

    Attributes:
        targets: soft labels of classes instead of samples: (N,) classes and (N, H, C) the mean soft label over the
            windows in which the class was the right one.
        weight: the weight of the regulariser, >= 0.
    """

    targets: Targets
    weight: float = 1.0

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The task loss on batches of own windows, plus the distillation loss on those whose classes are all known."""
        targets = self.targets
        table = np.zeros((learner.model.task.num_classes, *targets.probs.shape[1:]), np.float32)
        table[targets.sample_ids] = targets.probs
        for starts, truth, classes in _own_batches(learner, rng):
            known: NDArray[np.bool_] = np.all(np.isin(classes, targets.sample_ids), axis=1)
            probs = torch.from_numpy(table[classes[known], np.arange(classes.shape[1])])

            def loss(
                starts: NDArray[np.int64] = starts,
                truth: Tensor = truth,
                known: NDArray[np.bool_] = known,
                probs: Tensor = probs,
            ) -> Tensor:
                logits = learner.logits(learner.material.recording, starts)
                task = learner.losses.task(logits, truth)
                if not known.any():
                    return task
                rows = torch.from_numpy(known)
                return task + self.weight * learner.losses.distillation(logits[rows], probs, targets.temperature)

            yield loss


@dataclass(frozen=True)
class PrototypeLesson:
    """A lesson of prototypes: the mean feature of every class, towards which own features are pulled.

    Source: FedProto, arXiv 2105.00243: cross-entropy plus the squared distance to the prototype of the label.

    Attributes:
        classes: (N,) classes that have a prototype.
        prototypes: (N, D) the prototypes of these classes.
        weight: the weight of the distance, >= 0.
    """

    classes: NDArray[np.int64]
    prototypes: NDArray[np.float32]
    weight: float = 1.0

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The task loss on batches of own windows, plus the mean squared distance to the prototypes."""
        table = torch.zeros(learner.model.task.num_classes, self.prototypes.shape[1])
        table[torch.from_numpy(self.classes)] = torch.from_numpy(self.prototypes)
        for starts, truth, classes in _own_batches(learner, rng):
            now = classes[:, 0]
            known = torch.from_numpy(np.isin(now, self.classes))

            def loss(
                starts: NDArray[np.int64] = starts,
                truth: Tensor = truth,
                now: NDArray[np.int64] = now,
                known: Tensor = known,
            ) -> Tensor:
                features = learner.features(learner.material.recording, starts)
                task = learner.losses.task(learner.decide_on(features), truth)
                if not known.any():
                    return task
                distance = functional.mse_loss(features[known], table[torch.from_numpy(now)][known])
                return task + self.weight * distance

            yield loss


def _own_batches(
    learner: Learner, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], Tensor, NDArray[np.int64]]]:
    """An endless iterator over batches of own training windows: starts (N,), truth (N, H, ...), classes (N, H)."""
    recording = learner.material.recording
    for starts in window_batches(learner.material.train, batch_size=learner.training.batch_size, rng=rng):
        truth = learner.truth(recording, starts)
        yield starts, torch.from_numpy(truth), learner.task.classes(truth)
