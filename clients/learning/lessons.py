"""What a learner digests beside its own labels: there is one kind of lesson for each kind of knowledge.

A lesson makes the losses of digest batches. The learner (`clients.learning.learner`) decides how many steps they get
and at which rates, so that every strategy and control takes the same steps. Here are soft labels of public samples;
`clients.learning.relation_lesson` has relations between samples, and `clients.learning.class_lessons` has what is known
of each beam.

N windows or public samples, H horizons, B beams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.learning.learner import Batch, Learner, window_batches


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
        targets: the soft labels.
        rows: (N,) the rows of them to learn from, ascending, at least one.
    """

    targets: Targets
    rows: NDArray[np.int64]

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """The distillation loss on batches of the public set."""
        targets, material = self.targets, learner.material
        for rows in window_batches(self.rows, batch_size=learner.training.batch_size, rng=rng):
            starts = material.public_starts[targets.sample_ids[rows]]
            probs = torch.from_numpy(targets.probs[rows])

            def loss(logits: Tensor, probs: Tensor = probs) -> Tensor:
                return learner.losses.distillation(logits, probs, targets.temperature)

            yield Batch(learner, partial(learner.read, material.public, starts), loss)


def public_lesson(targets: Targets | None, held: NDArray[np.int64] | None = None) -> PublicLesson | None:
    """The lesson that consists of targets; None if there are no targets.

    Args:
        targets: soft labels of public samples.
        held: the ids of the public samples that the learner holds; None means all.
    """
    if targets is None:
        return None
    there = np.ones(len(targets.sample_ids), bool) if held is None else np.isin(targets.sample_ids, held)
    return PublicLesson(targets, np.flatnonzero(there)) if there.any() else None
