"""How a beam tracker learns: from labelled windows and, if it has targets, from soft labels on the public set.

Students and the teacher share this code. So do the federation and its controls, *local only* (no targets) and
*offline KD* (the targets of a teacher that does not change). Therefore all of them take the same optimizer steps, with
the same schedule and the same rule for stopping.

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
from clients.learning.optimizer import AdamW, Optimizer
from clients.learning.speed import can_be_perturbed, draw_speeds, play, read_played
from clients.models.seeding import torch_seeded
from clients.models.tracker import Tracker, Windows, predict, predict_features, read_windows
from configs.schema import Training
from configs.seeding import rng_for, seed_for

# The `plateau` schedule halves the rate after more than so many rounds without a better validation score.
PLATEAU_PATIENCE = 1
# Steps over which the learning rate rises to its value; without them a high rate sometimes makes a network useless.
WARM_UP_STEPS = 30


@dataclass(frozen=True)
class Losses:
    """The losses that are minimised.

    Attributes:
        task: a function of logits (N, H, B) and measured linear power (N, H, B).
        distillation: a function of logits (N, H, B), target probabilities (N, H, B) and their temperature.
    """

    task: Callable[[Tensor, Tensor], Tensor]
    distillation: Callable[[Tensor, Tensor, float], Tensor]


class Lesson(Protocol):
    """Knowledge to digest; `clients.learning.lessons` has the kinds."""

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        """An endless iterator over the losses of digest batches; ``rng`` is the only source of randomness."""


@dataclass
class LearningProgress:
    """What a learner remembers beside its weights.

    Attributes:
        round: the number of rounds that it has learned in.
        steps: the number of optimizer steps taken in this phase.
        rate_factor: the factor of the ``plateau`` schedule on the learning rate.
        stalled: the number of rounds since the best score, or since the rate was halved.
        best_score: the highest validation score so far: the geometric mean of the calibrated probability of the best
            beam on the validation windows, in (0, 1]; -1 before the first. On a few passes it says more than a share of
            hits does.
        best_round: the round of the best score.
        confidence_temperature: the temperature that calibrates the tracker on its validation windows.
        best_temperature: the same temperature for the tracker with the best score.
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
    """A beam tracker in training: the model, its optimizer and the validation results so far.

    Args:
        model: a fresh tracker; its input scales are fitted here, on the public set, or on own windows if
            that has no window.
        training: the settings of steps, rates and batches.
        losses: the losses that are minimised.
        material: the windows that the tracker learns from.
        seed: the seed of the experiment; together with ``name`` and the round it fixes every random draw.
        name: the name of the owner, such as a client's id.
        modality_dropout: the probability that a modality is hidden from a training window.
    """

    def __init__(
        self,
        model: Tracker,
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
        # A few passes of one's own do not show how far inputs spread, but everybody has the public set.
        if len(material.public_starts):
            model.fit_scale(material.public, material.public_starts)
        elif material.is_labelled:
            model.fit_scale(material.recording, material.train)
        self.optimizer = AdamW(
            model.parameters(), learning_rate=training.learning_rate, weight_decay=training.weight_decay
        )
        self.best_model = _copy(model)

    @property
    def has_learned(self) -> bool:
        """Whether the learner has learned in at least one round."""
        return self.progress.round > 0

    @property
    def validation(self) -> float | None:
        """The validation score of the tracker that is kept, in (0, 1]; None if it was never validated."""
        return self.progress.best_score if self.progress.best_score >= 0 else None

    @property
    def is_best(self) -> bool:
        """Whether the tracker is as its last round left it and no earlier one validated better: it is what is kept."""
        return 0 < self.progress.round == self.progress.best_round

    def begin_phase(self) -> None:
        """Return to the tracker that validated best, and start the learning-rate schedule again."""
        self.model.load_state_dict(self.best_model)
        self.progress.confidence_temperature = self.progress.best_temperature
        self.progress.steps = 0
        self.progress.rate_factor = 1.0

    def learn(self, lesson: Lesson | None, *, num_steps: int, total_steps: int) -> float:
        """Learn for one round: digest a lesson and revisit own labels, then validate.

        Args:
            lesson: the lesson to digest, such as soft labels of public samples. Without a lesson every step revisits
                own labels; without own labels every step digests the lesson. Without both this is not a round, and
                nothing changes.
            num_steps: the number of optimizer steps in this round.
            total_steps: the number of optimizer steps in this phase; the schedule ends there.

        Returns:
            The mean loss; 0 without lesson and labels.

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
        with torch_seeded(seed_for(self.seed, self.name, "dropout", self.progress.round)):
            self.model.train()
            loss = take_steps(
                self.optimizer,
                self._batch_losses(is_digest.tolist(), lesson, rng),
                rates,
                max_grad_norm=training.max_grad_norm,
            )
        if not np.isfinite(loss):
            raise ValueError(f"{self.name}: the loss is {loss}, which is not finite; lower the learning rate")
        self.progress.steps += num_steps
        self._validate()
        return loss

    def logits(self, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
        """(N, H, B) logits for training."""
        return self.model.decide(self.features(recording, starts))

    def features(self, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
        """(N, D) features for training, with modalities hidden at random."""
        model = self.model
        names = self._sensed(recording)
        return self._learned_features(
            read_windows(recording, starts, modalities=names, num_frames=model.task.num_frames)
        )

    def _sensed(self, recording: Recording) -> list[str]:
        return [name for name in self.model.modalities if name in recording.sensors]

    def _learned_features(self, windows: Windows) -> Tensor:
        """(N, D) features of windows, with modalities hidden at random."""
        model = self.model
        present = None
        if self.modality_dropout > 0 and len(model.modalities) > 1:
            present = torch.rand(len(windows.rows), len(model.modalities)) >= self.modality_dropout
        return model.features(windows, present)

    def predict_features(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) features that the current tracker computes."""
        found: NDArray[np.float32] = predict_features(self.model, recording, starts).numpy()
        return found

    def predict(self, recording: Recording, starts: NDArray[np.int64], *, best: bool) -> Tensor:
        """(N, H, B) logits of the current tracker or, with ``best``, of the tracker that validated best."""
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
        """(N, H, B) probabilities for any windows, calibrated and softened as in :meth:`answer`."""
        logits = self.predict(recording, starts, best=False)
        softness = temperature * self.progress.confidence_temperature
        probs: NDArray[np.float32] = torch.softmax(logits / softness, dim=-1).numpy()
        return probs

    def evaluate(self, recording: Recording, starts: NDArray[np.int64], *, best: bool = True) -> BeamMetrics:
        """Score, on labelled windows, the tracker that validated best or, without ``best``, the current one."""
        task = self.model.task
        scores = self.scores(recording, starts, best=best)
        return BeamMetrics.of(scores, recording.powers(starts, task.num_frames, task.num_future))

    def scores(self, recording: Recording, starts: NDArray[np.int64], *, best: bool = True) -> NDArray[np.float32]:
        """(N, H, B) what :meth:`evaluate` ranks the beams by."""
        found: NDArray[np.float32] = self.predict(recording, starts, best=best).numpy()
        return found

    def state(self) -> dict[str, Any]:
        """The state that the next round needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_model": self.best_model,
            "progress": dict(vars(self.progress)),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state that :meth:`state` made."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_model = state["best_model"]
        self.progress = LearningProgress(**state["progress"])

    def _batch_losses(
        self, is_digest: list[bool], lesson: Lesson | None, rng: np.random.Generator
    ) -> Iterator[Callable[[], Tensor]]:
        own = window_batches(self.material.train, batch_size=self.training.batch_size, rng=rng)
        speeds = rng_for(self.seed, self.name, "speed", self.progress.round)
        digested = iter(()) if lesson is None else lesson.losses(self, rng)
        for digest in is_digest:
            yield next(digested) if digest else self._revisit_loss(next(own), speeds)

    def _revisit_loss(self, starts: NDArray[np.int64], rng: np.random.Generator) -> Callable[[], Tensor]:
        task, recording = self.model.task, self.material.recording
        names = self._sensed(recording)
        if self.training.perturbed_share > 0 and can_be_perturbed(names):
            rows, slots = play(starts, draw_speeds(len(starts), self.training.perturbed_share, rng), task)
            played = torch.from_numpy(recording.power_at(slots))
            windows = read_played(recording, rows, modalities=names, rng=rng)
            return lambda: self.losses.task(self.model.decide(self._learned_features(windows)), played)
        power = torch.from_numpy(recording.powers(starts, task.num_frames, task.num_future))
        return lambda: self.losses.task(self.logits(recording, starts), power)

    def _rate(self, taken: int, total_steps: int) -> float:
        training = self.training
        rate = training.learning_rate * min(1.0, (taken + 1) / WARM_UP_STEPS)
        if training.schedule == "cosine":
            return rate * cosine(taken, total_steps)
        return rate * (self.progress.rate_factor if training.schedule == "plateau" else 1.0)

    def _validate(self) -> None:
        """Keep the tracker if its validation score is the best so far; without validation windows keep the last."""
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


def _copy(model: Tracker) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


# The number of consecutive windows that are drawn together; they share frames (see `clients.models.tracker.Windows`).
RUN_LENGTH = 8


def window_batches(
    positions: NDArray[np.int64], *, batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """An endless iterator over batches of windows, in a new order in every epoch.

    A batch is made of runs of consecutive windows, because these share their frames. In every epoch the runs are cut at
    a random offset and shuffled.

    Args:
        positions: (N,) the windows to draw from, in the order of time.
        batch_size: the number of windows in a batch; the last batch of an epoch may have fewer.
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
    """The factor on the learning rate in a cosine schedule: 1 at the first step, near 0 at the last."""
    return 0.5 * (1.0 + math.cos(math.pi * min(step / num_steps, 1.0)))


def take_steps(
    optimizer: Optimizer,
    losses: Iterable[Callable[[], Tensor]],
    learning_rates: Iterable[float],
    *,
    max_grad_norm: float,
) -> float:
    """Take one optimizer step for every loss.

    Args:
        optimizer: the optimizer of the parameters to train.
        losses: functions, each of which computes the loss of one batch.
        learning_rates: the learning rate of each step.
        max_grad_norm: the norm to which gradients are clipped.

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
