"""What a learner digests beside its own labels: there is one kind of lesson for each kind of knowledge.

A lesson makes the losses of digest batches. The learner (`clients.learning.learner`) decides how many steps they get
and at which rates, so that every strategy and control takes the same steps. Here are soft labels of public samples;
`clients.learning.relation_lesson` has relations between samples, and `clients.learning.class_lessons` has what is known
of each beam.

N windows or public samples, H horizons, B beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.data.material import Material
from clients.learning.learner import Batch, Learner, Lesson, window_batches


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


def client_lesson(targets: Targets | None, material: Material, own_site_share: float) -> Lesson | None:
    """The lesson of a client that consists of targets, some of its batches from the client's own site alone.

    Args:
        targets: soft labels of public samples; None if there are none.
        material: what the client learns from.
        own_site_share: the share of batches from its own site, in [0, 1]; the others are of all that it holds. A client
            that names no site, or has no target there, learns from all alike.
    """
    lesson = public_lesson(targets, material.held)
    if lesson is None or own_site_share == 0:
        return lesson
    starts = material.public_starts[lesson.targets.sample_ids[lesson.rows]]
    is_own = np.isin(starts, material.public.windows_at(starts, material.recording.sites))
    if not is_own.any():
        return lesson
    return JointLesson(lesson, PublicLesson(lesson.targets, lesson.rows[is_own]), own_site_share)
