"""How a beam tracker learns: from labelled windows and, if it has targets, from soft labels on the public set.

Students and the teacher share this code; so do the federation and its controls *local only* (never a
target) and *offline KD* (the targets of a teacher that stays as it is), which is why all of them take
the same optimizer steps, with the same schedule and the same rule for stopping.

N windows or public samples, H horizons, B beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.data.material import Material
from clients.data.recording import Recording
from clients.learning.calibration import fit_temperature
from clients.learning.metrics import BeamMetrics
from clients.models.tracker import BeamTracker, predict, predict_features, read_windows
from configs.schema import Training
from configs.seeding import rng_for, seed_for

# Rounds without a better validation score that the `plateau` schedule bears before it halves the rate.
PLATEAU_PATIENCE = 1
# Steps over which the learning rate rises to its value: without them a high rate now and then kills a network.
WARM_UP_STEPS = 30


@dataclass(frozen=True)
class Losses:
    """What is minimised.

    Attributes:
        task: of logits (N, H, B) and measured linear power (N, H, B).
        distillation: of logits (N, H, B), target probabilities (N, H, B) and their temperature.
    """

    task: Callable[[Tensor, Tensor], Tensor]
    distillation: Callable[[Tensor, Tensor, float], Tensor]


class Lesson(Protocol):
    """Something to digest; the kinds are in `clients.learning.lessons`."""

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """Endless losses of digest batches; whatever is drawn comes from ``rng``."""


@dataclass
class LearningProgress:
    """What a learner remembers beside its weights.

    Attributes:
        round: rounds taken in all.
        steps: optimizer steps taken in this phase.
        rate_factor: of the ``plateau`` schedule.
        stalled: rounds since the best score.
        best_score: geometric mean of the calibrated probability of the best beam on the validation windows, in (0, 1],
            the highest so far; -1 before the first. On a few passes it says more than a share of hits does.
        best_round: when that was.
        confidence_temperature: that makes the tracker's certainty fit its validation windows.
        best_temperature: the same for the best tracker.
    """

    round: int = 0
    steps: int = 0
    rate_factor: float = 1.0
    stalled: int = 0
    best_score: float = -1.0
    best_round: int = 0
    confidence_temperature: float = 1.0
    best_temperature: float = 1.0


class Learner:
    """A beam tracker on its way: model, optimizer and what validation has said so far.

    Args:
        model: the tracker, freshly made; its input scales are fitted here, on the public set where there are no labels.
        training: steps, rates and batches.
        losses: what is minimised.
        material: what it learns from.
        seed: of the experiment; together with ``name`` and the round it fixes every random draw.
        name: of the owner, such as a client's id.
        modality_dropout: chance that a modality is hidden from a training window.
    """

    def __init__(
        self,
        model: BeamTracker,
        *,
        training: Training,
        losses: Losses,
        material: Material,
        seed: int,
        name: str,
        modality_dropout: float = 0.0,
    ) -> None:
        self.model = model
        self.training = training
        self.losses = losses
        self.material = material
        self.seed = seed
        self.name = name
        self.modality_dropout = modality_dropout
        self.progress = LearningProgress()
        if material.is_labelled:
            model.fit_scale(material.recording, material.train)
        else:
            model.fit_scale(material.public, material.public_starts)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        self.best_model = _copy(model)

    @property
    def has_learned(self) -> bool:
        """Whether it has ever had anything to learn from."""
        return self.progress.round > 0

    def begin_phase(self) -> None:
        """Go back to the tracker that validated best and start the learning-rate schedule again."""
        self.model.load_state_dict(self.best_model)
        self.progress.confidence_temperature = self.progress.best_temperature
        self.progress.steps = 0
        self.progress.rate_factor = 1.0

    def learn(self, lesson: Lesson | None, *, num_steps: int, total_steps: int) -> float:
        """One round of optimizer steps, digesting a lesson and revisiting own labels, then a validation.

        Args:
            lesson: to digest, such as soft labels of public samples; without any, every step goes to own labels, and
                without own labels every step goes to the lesson. Without either this is no round, and nothing changes.
            num_steps: in this round.
            total_steps: in this phase; the schedule ends there.

        Returns:
            The mean loss.

        Raises:
            ValueError: the loss is not finite.
        """
        if lesson is None and not self.material.is_labelled:
            return 0.0
        self.progress.round += 1
        training = self.training
        rng = rng_for(self.seed, self.name, "round", self.progress.round)
        digest_share = training.digest_share if self.material.is_labelled else 1.0
        num_digest = 0 if lesson is None else round(num_steps * digest_share)
        is_digest = rng.permutation(np.arange(num_steps) < num_digest)
        rates = [self._rate(self.progress.steps + step, total_steps) for step in range(num_steps)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, self.name, "dropout", self.progress.round))
            self.model.train()
            loss = take_steps(
                self.optimizer,
                self._batch_losses(is_digest.tolist(), lesson, rng),
                rates,
                max_grad_norm=training.max_grad_norm,
            )
        if not np.isfinite(loss):
            raise ValueError(f"{self.name}: the loss is {loss}; lower the learning rate")
        self.progress.steps += num_steps
        self._validate()
        return loss

    def logits(self, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
        """(N, H, B) logits for training."""
        return self.model.decide(self.features(recording, starts))

    def features(self, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
        """(N, D) features for training, with modalities hidden at random."""
        model = self.model
        names = [name for name in model.modalities if name in recording.sensors]
        windows = read_windows(recording, starts, modalities=names, num_frames=model.task.num_frames)
        present = None
        if self.modality_dropout > 0 and len(model.modalities) > 1:
            present = torch.rand(len(starts), len(model.modalities)) >= self.modality_dropout
        return model.features(windows, present)

    def predict_features(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) features of the tracker as it is now."""
        found: NDArray[np.float32] = predict_features(self.model, recording, starts).numpy()
        return found

    def predict(self, recording: Recording, starts: NDArray[np.int64], *, best: bool) -> Tensor:
        """(N, H, B) logits of the tracker, as it is now or as it validated best."""
        if not best:
            return predict(self.model, recording, starts)
        now = _copy(self.model)
        self.model.load_state_dict(self.best_model)
        logits = predict(self.model, recording, starts)
        self.model.load_state_dict(now)
        return logits

    def answer(self, sample_ids: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        """(N, H, B) probabilities for public samples, calibrated on the validation windows, then softened.

        Without calibration an overconfident learner outvotes the others (see `strategies.aggregation`).
        """
        return self.soften(self.material.public, self.material.public_starts[sample_ids], temperature)

    def soften(self, recording: Recording, starts: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        """(N, H, B) probabilities for any windows, as in :meth:`answer`."""
        logits = self.predict(recording, starts, best=False)
        softness = temperature * self.progress.confidence_temperature
        probs: NDArray[np.float32] = torch.softmax(logits / softness, dim=-1).numpy()
        return probs

    def evaluate(self, recording: Recording, starts: NDArray[np.int64]) -> BeamMetrics:
        """Score the tracker that validated best on labelled windows."""
        task = self.model.task
        scores = self.predict(recording, starts, best=True).numpy()
        return BeamMetrics.of(scores, recording.powers(starts, task.num_frames, task.num_future))

    def state(self) -> dict[str, Any]:
        """Everything that the next round needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_model": self.best_model,
            "progress": dict(vars(self.progress)),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a state made by :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_model = state["best_model"]
        self.progress = LearningProgress(**state["progress"])

    def _batch_losses(
        self, is_digest: list[bool], lesson: Lesson | None, rng: np.random.Generator
    ) -> Iterator[Callable[[], Tensor]]:
        own = window_batches(self.material.train, batch_size=self.training.batch_size, rng=rng)
        digested = iter(()) if lesson is None else lesson.losses(self, rng)
        for digest in is_digest:
            yield next(digested) if digest else self._revisit_loss(next(own))

    def _revisit_loss(self, starts: NDArray[np.int64]) -> Callable[[], Tensor]:
        task = self.model.task
        power = torch.from_numpy(self.material.recording.powers(starts, task.num_frames, task.num_future))
        return lambda: self.losses.task(self.logits(self.material.recording, starts), power)

    def _rate(self, taken: int, total_steps: int) -> float:
        training = self.training
        rate = training.learning_rate * min(1.0, (taken + 1) / WARM_UP_STEPS)
        if training.schedule == "cosine":
            return rate * cosine(taken, total_steps)
        return rate * (self.progress.rate_factor if training.schedule == "plateau" else 1.0)

    def _validate(self) -> None:
        """Keep the tracker if its validation windows say that it is the best so far; without any, keep the last."""
        progress, starts = self.progress, self.material.validation
        score = progress.best_score
        if len(starts):
            recording, task = self.material.recording, self.model.task
            logits = predict(self.model, recording, starts)
            beams = recording.beams(starts, task.num_frames, task.num_future)
            progress.confidence_temperature, loss = fit_temperature(logits, torch.from_numpy(beams))
            score = math.exp(-loss)
        if score >= progress.best_score:
            progress.best_score, progress.best_round, progress.stalled = score, progress.round, 0
            progress.best_temperature = progress.confidence_temperature
            self.best_model = _copy(self.model)
            return
        progress.stalled += 1
        if progress.stalled > PLATEAU_PATIENCE:
            progress.rate_factor, progress.stalled = progress.rate_factor / 2.0, 0


def _copy(model: BeamTracker) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


# Consecutive windows drawn together; they share their frames (see `clients.models.tracker.Windows`).
RUN_LENGTH = 8


def window_batches(
    positions: NDArray[np.int64], *, batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Endless batches of windows, shuffled anew in every epoch.

    A batch is made of runs of consecutive windows, because these share their frames; the runs are
    cut at a random offset in every epoch and shuffled.

    Args:
        positions: (N,) what to draw from, in the order of time.
        batch_size: entries of a batch; smaller where fewer are left at the end of an epoch.
        rng: the only source of randomness.

    Raises:
        ValueError: there is nothing to draw from.
    """
    if len(positions) == 0:
        raise ValueError("there is no window to learn from: every pass is shorter than frames + future slots + 1")
    while True:
        cuts = np.arange(int(rng.integers(RUN_LENGTH)), len(positions), RUN_LENGTH)
        runs = [run for run in np.split(positions, cuts) if len(run)]
        shuffled = np.concatenate([runs[index] for index in rng.permutation(len(runs))])
        for first in range(0, len(shuffled), batch_size):
            yield shuffled[first : first + batch_size]


def cosine(step: float, num_steps: float) -> float:
    """Factor on the learning rate: 1 at the first step, near 0 at the last."""
    return 0.5 * (1.0 + math.cos(math.pi * min(step / num_steps, 1.0)))


def take_steps(
    optimizer: torch.optim.Optimizer,
    losses: Iterable[Callable[[], Tensor]],
    learning_rates: Iterable[float],
    *,
    max_grad_norm: float,
) -> float:
    """One optimizer step for every loss.

    Args:
        optimizer: over the parameters to train.
        losses: each computes the loss of one batch.
        learning_rates: one for each step.
        max_grad_norm: gradients are clipped to this norm.

    Returns:
        The mean loss; 0 if there was no step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total, count = 0.0, 0
    for loss_of_batch, learning_rate in zip(losses, learning_rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of_batch()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        optimizer.step()
        total += float(loss.detach())
        count += 1
    return total / max(count, 1)
