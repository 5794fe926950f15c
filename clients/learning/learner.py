"""How a tracker learns: from labelled windows and, if it has targets, from soft labels on the public set.

Students and the teacher share this code. So do the federation and its controls, *local only* (no targets) and
*offline KD* (the targets of a teacher that does not change). Therefore all of them take the same optimizer steps, with
the same schedule and the same rule for stopping.

N windows or public samples, H horizons, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.data.material import Material
from clients.data.recording import Recording
from clients.learning.calibration import fit_temperature, is_refuted
from clients.learning.optimizer import AdamW, Optimizer
from clients.learning.speed import can_be_perturbed, draw_speeds, play, read_played
from clients.learning.task import BEAM_TRACKING, LearningTask, Scores
from clients.models.device import CPU, moved, returned, returned_all, sent
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
        task: a function of logits (N, H, C) and of what `LearningTask.truth` gives, such as measured power.
        distillation: a function of logits (N, H, C), target probabilities (N, H, C) and their temperature.
    """

    task: Callable[[Tensor, Tensor], Tensor]
    distillation: Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Batch:
    """A batch to learn from: its windows, and the loss of what a learner decides on them.

    Calling it computes the loss with the learner's own tracker. A cohort decides on the windows of many learners at
    once instead, and then asks for each loss (`clients.learning.cohort`).

    Attributes:
        learner: the learner that the batch is for.
        read: a function that reads the windows.
        loss: a function of logits (N, H, B) for these windows.
    """

    learner: Learner
    read: Callable[[], Windows]
    loss: Callable[[Tensor], Tensor]

    def __call__(self) -> Tensor:
        """The loss, with the gradients of the learner's tracker."""
        return self.loss(self.learner.decide(self.read()))


@dataclass(frozen=True)
class RoundSteps:
    """The optimizer steps of a learner in one round.

    Attributes:
        losses: an endless iterator over the losses of the batches.
        rates: the learning rate of each step.
        dropout_seed: the seed of what torch draws in these steps.
    """

    losses: Iterator[Callable[[], Tensor]]
    rates: list[float]
    dropout_seed: int


@dataclass(frozen=True, eq=False)
class WindowsToPredict:
    """Windows on which a tracker has to decide.

    Attributes:
        recording: the recording.
        starts: (N,) the first frame of each window, strictly increasing.
    """

    recording: Recording
    starts: NDArray[np.int64]


def versions_of(model: Tracker) -> tuple[int, ...]:
    """Numbers that change whenever a tensor of a tracker is changed in place."""
    return tuple(value._version for value in model.state_dict(keep_vars=True).values() if torch.is_tensor(value))


@dataclass(frozen=True, eq=False)
class Foreseen:
    """What a tracker decides on some windows, as long as its weights stay what they were.

    Attributes:
        windows: the windows.
        logits: (N, H, B) what it decides.
        versions: the versions of its tensors then.
    """

    windows: WindowsToPredict
    logits: Tensor
    versions: tuple[int, ...]

    def logits_of(self, model: Tracker, recording: Recording, starts: NDArray[np.int64]) -> Tensor | None:
        """(N, H, B) logits of some of the windows; None if there are others, or the weights have changed."""
        known = self.windows.starts
        if recording is not self.windows.recording or not np.isin(starts, known).all():
            return None
        if versions_of(model) != self.versions:
            return None
        return self.logits[torch.from_numpy(np.searchsorted(known, starts))]


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
        best_score: the validation score of the tracker that is kept, which is the highest so far unless the newest is
            preferred: the geometric mean of the calibrated probability of the right class on the validation windows, in
            (0, 1]; -1 before the first. On a few passes it says more than a share of hits does.
        best_round: the round of the tracker that is kept.
        confidence_temperature: the temperature that calibrates the tracker on its validation windows.
        best_temperature: the same temperature for the tracker that is kept.
        peak_by_pass: where the newest is preferred, what each held-out pass says of the tracker with the highest score
            so far: the mean logarithm of the probability of the right class.
    """

    round: int = 0
    steps: int = 0
    rate_factor: float = 1.0
    stalled: int = 0
    best_score: float = -1.0
    best_round: int = 0
    confidence_temperature: float = 1.0
    best_temperature: float = 1.0
    peak_by_pass: list[float] = field(default_factory=list)


class Learner:
    """A tracker in training: the model, its optimizer and the validation results so far.

    Args:
        model: a fresh tracker; its input scales are fitted here, on the public set, or on own windows if
            that has no window.
        training: the settings of steps, rates and batches.
        losses: the losses that are minimised.
        material: the windows that the tracker learns from.
        seed: the seed of the experiment; together with ``name`` and the round it fixes every random draw.
        name: the name of the owner, such as a client's id.
        task: what is learned.
        modality_dropout: the probability that a modality is hidden from a training window.
        state: the state to go on from, as :meth:`state` gave it, which has the input scales too; None begins anew.
        device: where the tracker computes; whatever a learner takes or gives lies on the CPU.
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
        task: LearningTask = BEAM_TRACKING,
        modality_dropout: float = 0.0,
        state: Mapping[str, Any] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.model = model
        self.device = device
        self.training = training
        self.losses = losses
        self.material = material
        self.seed = seed
        self.name = name
        self.task = task
        self.modality_dropout = modality_dropout
        self._foreseen: list[Foreseen] = []
        self.progress = LearningProgress()
        # A few passes of one's own do not show how far inputs spread, but everybody has the public set.
        if state is None and len(material.held_starts):
            model.fit_scale(material.public, material.held_starts)
        elif state is None and material.is_labelled:
            model.fit_scale(material.recording, material.train)
        moved(model, device)
        self.optimizer = AdamW(
            model.parameters(), learning_rate=training.learning_rate, weight_decay=training.weight_decay
        )
        if state is None:
            self.best_model = _copy(model)
        else:
            self.load_state(state)

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

    def learn(self, lesson: Lesson | None, *, num_steps: int, total_steps: int, prefers_newest: bool = False) -> float:
        """Learn for one round: digest a lesson and revisit own labels, then validate.

        Args:
            lesson: the lesson to digest, such as soft labels of public samples. Without a lesson every step revisits
                own labels; without own labels every step digests the lesson. Without both this is not a round, and
                nothing changes.
            num_steps: the number of optimizer steps in this round.
            total_steps: the number of optimizer steps in this phase; the schedule ends there.
            prefers_newest: whether the tracker as it is now is kept unless the held-out passes refute it
                (`clients.learning.calibration.is_refuted`); else it is kept only if it validates best.

        Returns:
            The mean loss; 0 without lesson and labels.

        Raises:
            ValueError: the loss is not finite.
        """
        steps = self.begin_round(lesson, num_steps=num_steps, total_steps=total_steps)
        if steps is None:
            return 0.0
        with torch_seeded(steps.dropout_seed, self.device):
            self.model.train()
            loss = take_steps(self.optimizer, steps.losses, steps.rates, max_grad_norm=self.training.max_grad_norm)
        self.end_round(steps, loss, prefers_newest=prefers_newest)
        return loss

    def begin_round(self, lesson: Lesson | None, *, num_steps: int, total_steps: int) -> RoundSteps | None:
        """The steps of the next round, which :meth:`learn` or a cohort takes; None if there is nothing to learn from.

        The arguments are those of :meth:`learn`.
        """
        if lesson is None and not self.material.is_labelled:
            return None
        self._foreseen.clear()
        self.progress.round += 1
        rng = rng_for(self.seed, self.name, "round", self.progress.round)
        digest_share = self.training.digest_share if self.material.is_labelled else 1.0
        num_digest = 0 if lesson is None else round(num_steps * digest_share)
        is_digest = rng.permutation(np.arange(num_steps) < num_digest)
        return RoundSteps(
            losses=self._batch_losses(is_digest.tolist(), lesson, rng),
            rates=[self._rate(self.progress.steps + step, total_steps) for step in range(num_steps)],
            dropout_seed=seed_for(self.seed, self.name, "dropout", self.progress.round),
        )

    def end_round(self, steps: RoundSteps, loss: float, *, prefers_newest: bool = False) -> None:
        """Count the steps of a round, whose mean loss is given, and validate.

        Raises:
            ValueError: the loss is not finite.
        """
        if not np.isfinite(loss):
            raise ValueError(f"{self.name}: the loss is {loss}, which is not finite; lower the learning rate")
        self.progress.steps += len(steps.rates)
        self._validate(prefers_newest)

    def logits(self, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
        """(N, H, C) logits for training."""
        return self.decide(self.read(recording, starts))

    def decide(self, windows: Windows) -> Tensor:
        """(N, H, B) logits of windows for training, with modalities hidden at random."""
        return returned(self.model.decide(self._learned_features(windows)))

    def decide_on(self, features: Tensor) -> Tensor:
        """(N, H, B) logits for training from what :meth:`features` gave, (N, D)."""
        return returned(self.model.decide(sent(features, self.device)))

    def features(self, recording: Recording, starts: NDArray[np.int64]) -> Tensor:
        """(N, D) features for training, with modalities hidden at random."""
        return returned(self._learned_features(self.read(recording, starts)))

    def read(self, recording: Recording, starts: NDArray[np.int64]) -> Windows:
        """The windows that begin at these frames, of the modalities that the tracker senses and the recording has."""
        names, num_frames = self._sensed(recording), self.model.task.num_frames
        return read_windows(recording, starts, modalities=names, num_frames=num_frames)

    def _sensed(self, recording: Recording) -> list[str]:
        return [name for name in self.model.modalities if name in recording.sensors]

    def _learned_features(self, windows: Windows) -> Tensor:
        """(N, D) features of windows where the tracker lives, with modalities hidden at random."""
        model = self.model
        present = None
        if self.modality_dropout > 0 and len(model.modalities) > 1:
            # The same modalities are hidden on every device.
            drawn = torch.rand(len(windows.rows), len(model.modalities)) >= self.modality_dropout
            present = sent(drawn, self.device)
        return model.features(windows.on(self.device), present)

    def predict_features(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) features that the current tracker computes."""
        found: NDArray[np.float32] = predict_features(self.model, recording, starts).numpy()
        return found

    def predict(self, recording: Recording, starts: NDArray[np.int64], *, best: bool) -> Tensor:
        """(N, H, C) logits of the current tracker or, with ``best``, of the tracker that validated best."""
        if not best or self._is_as_best():
            known = (one.logits_of(self.model, recording, starts) for one in self._foreseen)
            found = next((logits for logits in known if logits is not None), None)
            return predict(self.model, recording, starts) if found is None else found
        now = _copy(self.model)
        self.model.load_state_dict(self.best_model)
        logits = predict(self.model, recording, starts)
        self.model.load_state_dict(now)
        return logits

    def foresee(self, windows: WindowsToPredict, logits: Tensor) -> None:
        """Take what the current tracker decides on some windows, (N, H, B), from whoever computed it at less cost.

        It is what :meth:`predict` returns for these windows until the tracker changes.
        """
        self._foreseen.append(Foreseen(windows, logits, versions_of(self.model)))

    def _is_as_best(self) -> bool:
        """Whether the tracker has the weights of the one that validated best, so that nothing has to be swapped."""
        # Weights may have come from elsewhere since the last round, so that `is_best` does not tell.
        now = self.model.state_dict()
        return now.keys() == self.best_model.keys() and all(
            torch.is_tensor(value) and torch.equal(returned(value), self.best_model[name])
            for name, value in now.items()
        )

    def answer(self, sample_ids: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        """(N, H, C) probabilities for public samples, calibrated on the validation windows, then softened.

        Without calibration an overconfident learner outvotes the others (see `strategies.aggregation`).
        """
        return self.soften(self.material.public, self.material.public_starts[sample_ids], temperature)

    def soften(self, recording: Recording, starts: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        """(N, H, C) probabilities for any windows, calibrated and softened as in :meth:`answer`."""
        logits = self.predict(recording, starts, best=False)
        softness = temperature * self.progress.confidence_temperature
        probs: NDArray[np.float32] = torch.softmax(logits / softness, dim=-1).numpy()
        return probs

    def evaluate(self, recording: Recording, starts: NDArray[np.int64], *, best: bool = True) -> Scores:
        """Score, on labelled windows, the tracker that validated best or, without ``best``, the current one."""
        return self.task.evaluate(self.decisions(recording, starts, best=best), self.truth(recording, starts))

    def decisions(self, recording: Recording, starts: NDArray[np.int64], *, best: bool = True) -> NDArray[np.float32]:
        """(N, H, C) what :meth:`evaluate` scores."""
        progress = self.progress
        temperature = progress.best_temperature if best else progress.confidence_temperature
        return self.task.decisions(self.predict(recording, starts, best=best), temperature)

    def probs(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, H, C) calibrated probabilities of the tracker that validated best."""
        logits = self.predict(recording, starts, best=True)
        found: NDArray[np.float32] = torch.softmax(logits / self.progress.best_temperature, dim=-1).numpy()
        return found

    def truth(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[Any]:
        """(N, H, ...) what decisions for labelled windows are compared with."""
        return self.task.truth_of(recording, starts, self.model.task)

    def classes(self, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N, H) the right classes of labelled windows."""
        return self.task.classes_of(recording, starts, self.model.task)

    def state(self) -> dict[str, Any]:
        """The state that the next round needs, as tensors and plain values."""
        return {
            "model": returned_all(self.model.state_dict()),
            "optimizer": returned_all(self.optimizer.state_dict()),
            "best_model": self.best_model,
            "progress": dict(vars(self.progress)),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state that :meth:`state` made."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_model = state["best_model"]
        self.progress = LearningProgress(**state["progress"])

    def _is_refuted(self, logits: Tensor, classes: Tensor) -> bool:
        """Whether the held-out passes refute the current tracker; if they do not, it may become the peak.

        Args:
            logits: (N, H, C) what it decides on the validation windows.
            classes: (N, H) the right classes there.
        """
        progress, recording, starts = self.progress, self.material.recording, self.material.validation
        if not progress.peak_by_pass:
            kept = self.predict(recording, starts, best=True)
            progress.peak_by_pass = self._scores_by_pass(kept / progress.best_temperature, classes)
        now = self._scores_by_pass(logits / progress.confidence_temperature, classes)
        if is_refuted(now, progress.peak_by_pass):
            return True
        if fmean(now) >= fmean(progress.peak_by_pass):
            progress.peak_by_pass = now
        return False

    def _scores_by_pass(self, logits: Tensor, classes: Tensor) -> list[float]:
        """The mean logarithm of the probability of the right class, for each held-out pass."""
        scores = torch.log_softmax(logits, dim=-1).gather(-1, classes.unsqueeze(-1)).flatten(1).mean(dim=1).numpy()
        passes = self.material.recording.pass_ids[self.material.validation]
        return [float(scores[passes == number].mean()) for number in np.unique(passes)]

    def _batch_losses(
        self, is_digest: list[bool], lesson: Lesson | None, rng: np.random.Generator
    ) -> Iterator[Callable[[], Tensor]]:
        own = window_batches(self.material.train, batch_size=self.training.batch_size, rng=rng)
        speeds = rng_for(self.seed, self.name, "speed", self.progress.round)
        digested = iter(()) if lesson is None else lesson.losses(self, rng)
        for digest in is_digest:
            yield next(digested) if digest else self._revisit_loss(next(own), speeds)

    def _revisit_loss(self, starts: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        recording = self.material.recording
        names = self._sensed(recording)
        if self.training.perturbed_share > 0 and can_be_perturbed(names):
            rows, slots = play(starts, draw_speeds(len(starts), self.training.perturbed_share, rng), self.model.task)
            played = torch.from_numpy(self.task.truth(recording, slots))
            windows = read_played(recording, rows, modalities=names, rng=rng)
            return Batch(self, lambda: windows, lambda logits: self.losses.task(logits, played))
        truth = torch.from_numpy(self.truth(recording, starts))
        return Batch(self, lambda: self.read(recording, starts), lambda logits: self.losses.task(logits, truth))

    def _rate(self, taken: int, total_steps: int) -> float:
        training = self.training
        rate = training.learning_rate * min(1.0, (taken + 1) / WARM_UP_STEPS)
        if training.schedule == "cosine":
            return rate * cosine(taken, total_steps)
        return rate * (self.progress.rate_factor if training.schedule == "plateau" else 1.0)

    def _validate(self, prefers_newest: bool) -> None:
        """Keep the tracker if its validation score is the best so far; without validation windows keep the last.

        Where the newest is preferred, it is kept with a lower score, too, unless the held-out passes refute it.
        """
        progress, starts = self.progress, self.material.validation
        score, is_kept = progress.best_score, True
        if len(starts):
            recording = self.material.recording
            logits = self.predict(recording, starts, best=False)
            classes = torch.from_numpy(self.classes(recording, starts))
            progress.confidence_temperature, loss = fit_temperature(logits, classes)
            score = math.exp(-loss)
            is_kept = not self._is_refuted(logits, classes) if prefers_newest else score >= progress.best_score
        if is_kept:
            progress.best_score, progress.best_round, progress.stalled = score, progress.round, 0
            progress.best_temperature = progress.confidence_temperature
            self.best_model = _copy(self.model)
            return
        progress.stalled += 1
        if progress.stalled > PLATEAU_PATIENCE:
            progress.rate_factor, progress.stalled = progress.rate_factor / 2.0, 0


def _copy(model: Tracker) -> dict[str, Tensor]:
    """The weights and scales of a tracker on the CPU, as they are now."""
    return {name: returned(value.detach()).clone() for name, value in model.state_dict().items()}


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
