"""A client's federated student beside its local self; what fits the client's own labels better weighs more.

The local self learns from the client's own labels alone, with as many steps. Where the federation misleads a client,
its student fits the client's labels badly, and the client decides by its local self. At a site of which a client has no
labels its local self knows nothing, so there it decides by its federated student.

N windows, H horizons, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.data.recording import Recording
from clients.learning.learner import Learner
from clients.learning.task import LearningTask, Scores

# The number of own windows that are scored, evenly spread: more would hardly change the weights.
SCORED_WINDOWS = 512
# The largest logarithm of the ratio of both weights; in double precision neither is 0 then.
MAX_EVIDENCE = 30.0
# The smallest probability that counts, so that a certain mistake has a finite loss.
TINY = 1e-12


@dataclass(frozen=True)
class Mixture:
    """What a client decides by: the weighted mean of the calibrated probabilities of two students.

    In windows of another site than the client's own it decides by the federated student alone. Where a recording does
    not say from which site it is, all of it counts as the client's own.

    Source: the linear opinion pool, M. Stone, Annals of Mathematical Statistics 32 (1961) 1339.

    Attributes:
        federated: the student that learns from the targets as well.
        local: the student that learns from own labels alone.
        share: the weight of the federated student, in (0, 1); its complement is that of the local self.
    """

    federated: Learner
    local: Learner
    share: float

    @property
    def task(self) -> LearningTask:
        """What both have learned."""
        return self.federated.task

    def truth(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[Any]:
        """(N, H, ...) what decisions for labelled windows are compared with."""
        return self.federated.truth(recording, starts)

    @cached_property
    def validation(self) -> float | None:
        """The geometric mean of the right class's probability on the held-out windows, in (0, 1]; None without any."""
        starts = self.federated.material.validation
        if len(starts) == 0:
            return None
        recording = self.federated.material.recording
        return math.exp(_log_score(self._probs(recording, starts), recording, starts, self.federated))

    def evaluate(self, recording: Recording, starts: NDArray[np.int64]) -> Scores:
        """Score, on labelled windows, the mixture of those two trackers that validated best."""
        return self.task.evaluate(self.decisions(recording, starts), self.truth(recording, starts))

    def decisions(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, H, C) what :meth:`evaluate` scores: probabilities."""
        return self.probs(recording, starts)

    def probs(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, H, C) the weighted mean of the calibrated probabilities of both trackers, at the client's own site."""
        found: NDArray[np.float32] = self._probs(recording, starts).numpy()
        return found

    def _probs(self, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
        federated, local = (_calibrated(one, recording, starts) for one in (self.federated, self.local))
        mixed = self.share * federated + (1.0 - self.share) * local
        own = self.federated.material.recording.sites
        if not own or not recording.sites:
            return mixed
        is_own = torch.from_numpy(np.isin(starts, recording.windows_at(starts, own)))
        return torch.where(is_own[:, None, None], mixed, federated)


def weigh(federated: Learner, local: Learner, num_windows: float) -> Mixture:
    """The mixture of two students of one material, each weighed by the probability that it gives the client's labels.

    The weights are those of the students' likelihoods over ``num_windows`` windows, when neither was preferred before:
    the geometric mean of the probability of the right class, over own training and held-out windows, to the power of
    this number.

    Args:
        federated: the student that learns from the targets as well.
        local: the student that learns from own labels alone.
        num_windows: the number of independent windows that all own windows count for, at least 0. Windows of a pass are
            alike and the students have learned from most of them, so they count for few
            (docs/decisions/0049-no-client-worse-off.md).
    """
    material = federated.material
    starts = np.sort(np.concatenate([material.train, material.validation]))
    some = starts[:: math.ceil(len(starts) / SCORED_WINDOWS)]
    ours, theirs = (
        _log_score(_calibrated(one, material.recording, some), material.recording, some, one)
        for one in (federated, local)
    )
    # Neither weight vanishes, so that both students are there wherever the mixture goes.
    evidence = min(max(num_windows * (ours - theirs), -MAX_EVIDENCE), MAX_EVIDENCE)
    return Mixture(federated, local, 1.0 / (1.0 + math.exp(-evidence)))


def _calibrated(learner: Learner, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
    """(N, H, C) calibrated probabilities of the tracker that validated best."""
    logits = learner.predict(recording, starts, best=True)
    return torch.softmax(logits / learner.progress.best_temperature, dim=-1)


def _log_score(probs: Tensor, recording: Recording, starts: NDArray[np.int64], learner: Learner) -> float:
    """The mean logarithm of the probability of the right class."""
    right = torch.from_numpy(learner.classes(recording, starts)).unsqueeze(-1)
    return float(probs.gather(-1, right).clamp_min(TINY).log().mean())
