"""Lessons of relations between public samples.

N public samples, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.learning.learner import Learner
from clients.learning.lessons import Targets


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
        logits, probs = learner.decide_on(features)[torch.from_numpy(known)], torch.from_numpy(targets.probs[rows])
        return loss + float(known.mean()) * learner.losses.distillation(logits, probs, targets.temperature)
