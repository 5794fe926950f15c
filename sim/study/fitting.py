"""Trains a tracker of a study on best beams, on a teacher's knowledge of the same windows, or on both.

    L = (1 - a) L_task + a L_KD

Source: arXiv 2603.16116: focal loss, Adam, cosine warm restarts, early stopping. We differ in three ways: epochs are
chosen on validation passes, never on the test; a batch consists of runs of consecutive windows, which share frames;
and there is a mix of response and relations.

F frames, N windows, H horizons, B beams, D features, k partners.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.data.recording import Recording
from clients.learning.calibration import fit_temperature
from clients.learning.learner import cosine, window_batches
from clients.learning.optimizer import Adam
from clients.models.step_tracker import StepTracker
from clients.models.tracker import Windows
from configs.seeding import rng_for, seed_for
from configs.study import Fitting, Kd, TrainingRecipe
from strategies.losses import distil, feature_kd, response_kd, task_loss
from strategies.relations import draw_partners, relational_kd, relations

# The cosine warm restarts: the epochs of the first cycle, and the learning rate at the end of each cycle.
FIRST_CYCLE, LEAST_RATE = 10, 1e-6
# A validation score counts as better if it exceeds the best one so far by this share of it.
MIN_DELTA = 1e-4
PREDICTION_BATCH = 64


class Observation:
    """All frames of a recording on one device, from which windows are made.

    Args:
        recording: the recording of all passes.
        modalities: the modalities that are needed.
        device: the device that computes.
    """

    def __init__(self, recording: Recording, modalities: tuple[str, ...], device: torch.device) -> None:
        self.recording = recording
        self.device = device
        self._frames = {name: torch.from_numpy(np.array(recording.sensors[name])).to(device) for name in modalities}

    def windows(self, starts: NDArray[np.int64], num_frames: int) -> Windows:
        """The windows of ``num_frames`` frames that begin at ``starts`` (N,)."""
        distinct, rows = np.unique(starts[:, None] + np.arange(num_frames), return_inverse=True)
        chosen = torch.from_numpy(distinct).to(self.device)
        frames = {name: frames[chosen] for name, frames in self._frames.items()}
        return Windows(frames, torch.from_numpy(rows.reshape(len(starts), num_frames)).to(self.device))

    def powers(self, starts: NDArray[np.int64], num_frames: int, num_future: int) -> Tensor:
        """(N, H, B) the linear power of the windows that begin at ``starts`` (N,)."""
        return torch.from_numpy(self.recording.powers(starts, num_frames, num_future)).to(self.device)


@dataclass(frozen=True)
class Knowledge:
    """The output of a teacher on training windows.

    Attributes:
        logits: (N, H, B) its logits.
        features: (N, D) its features, as of `StepTracker.features`.
    """

    logits: Tensor
    features: Tensor


@dataclass(frozen=True)
class Fit:
    """A trained tracker at its best epoch.

    Attributes:
        state: the weights and statistics of the tracker.
        epochs: the number of epochs of the training.
        best_epoch: the epoch that the state is from, counted from 1.
        validation: the geometric mean of the calibrated probability of the best beams on the validation windows.
    """

    state: Mapping[str, Tensor]
    epochs: int
    best_epoch: int
    validation: float


def knowledge_of(teacher: StepTracker, observation: Observation, starts: NDArray[np.int64]) -> Knowledge:
    """The output of a teacher on windows of its own length that begin at ``starts`` (N,)."""
    features = _in_batches(teacher, observation, starts, teacher.features)
    with torch.no_grad():
        teacher.eval()
        return Knowledge(teacher.decide(features), features)


def logits_of(tracker: StepTracker, observation: Observation, starts: NDArray[np.int64]) -> Tensor:
    """(N, H, B) the logits of a tracker in evaluation mode."""
    return _in_batches(tracker, observation, starts, tracker.forward)


def fit(
    tracker: StepTracker,
    observation: Observation,
    *,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    kd: Kd,
    knowledge: Knowledge | None,
    recipe: TrainingRecipe,
    fitting: Fitting,
    seed: int,
) -> Fit:
    """Train a tracker and return its best state; the tracker itself keeps its last state.

    Args:
        tracker: an untrained tracker on the device of ``observation``.
        observation: the frames.
        train: (N,) the starts of training windows of the tracker's length.
        validation: (N',) the starts of validation windows of the same length.
        kd: the kind of knowledge.
        knowledge: the output of the teacher, row by row for ``train``; None if ``kd`` needs none.
        recipe: the learning rate and the weights of the losses.
        fitting: the epochs and batches.
        seed: the seed of batches, partners and dropout; all kinds of knowledge see the same batches.

    Raises:
        ValueError: the loss is not finite.
    """
    loss_of = _loss(tracker, observation, train, kd, knowledge, recipe, fitting, rng_for(seed, "study", "partners"))
    optimizer = Adam(tracker.parameters(), learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)
    batches = window_batches(
        np.arange(len(train)), batch_size=fitting.batch_size, rng=rng_for(seed, "study", "batches")
    )
    per_epoch = math.ceil(len(train) / fitting.batch_size)
    best, epoch = Fit({}, 0, 0, 0.0), 0
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "study", "dropout"))
        while epoch < fitting.epochs and epoch - best.best_epoch < fitting.patience:
            tracker.train()
            for number, rows in enumerate(islice(batches, per_epoch)):
                for group in optimizer.param_groups:
                    group["lr"] = _rate(epoch + number / per_epoch, recipe.learning_rate, fitting)
                optimizer.zero_grad(set_to_none=True)
                loss = loss_of(rows)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(tracker.parameters(), fitting.max_grad_norm)
                optimizer.step()
            if not math.isfinite(float(loss.detach())):
                raise ValueError(f"the loss is {float(loss.detach())} in epoch {epoch + 1}; lower the learning rate")
            epoch += 1
            score = _score(tracker, observation, validation)
            if score > best.validation * (1.0 + MIN_DELTA):
                best = Fit(_copy(tracker), epoch, epoch, score)
    return Fit(best.state, epoch, best.best_epoch, best.validation)


def _loss(
    tracker: StepTracker,
    observation: Observation,
    train: NDArray[np.int64],
    kd: Kd,
    knowledge: Knowledge | None,
    recipe: TrainingRecipe,
    fitting: Fitting,
    rng: np.random.Generator,
) -> Callable[[NDArray[np.int64]], Tensor]:
    """The function that gives the loss of a batch, whose rows are indices into ``train``."""
    task = tracker.task
    on_labels = task_loss("focal", recipe.power_temperature_db if kd == "power" else None)
    targets = None if knowledge is None else torch.softmax(knowledge.logits / recipe.temperature, dim=-1)

    def relational(features: Tensor, taught: Tensor) -> Tensor:
        drawn = draw_partners(len(features), fitting.num_partners, rng)
        partners = torch.from_numpy(drawn).to(features.device)
        return relational_kd(
            features,
            relations(taught, partners),
            partners,
            distance_weight=recipe.distance_weight,
            angle_weight=recipe.angle_weight,
        )

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        starts = train[rows]
        features = tracker.features(observation.windows(starts, task.num_frames))
        logits = tracker.decide(features)
        own = on_labels(logits, observation.powers(starts, task.num_frames, task.num_future))
        if knowledge is None or targets is None:
            return own
        picked = torch.from_numpy(rows).to(features.device)
        taught = knowledge.features[picked]
        if kd == "relational":
            return distil(own, relational(features, taught), recipe.weight)
        if kd == "feature":
            by_step = (len(rows), task.num_horizons, -1)
            return distil(own, feature_kd(features.view(by_step), taught.view(by_step)), recipe.weight)
        response = response_kd(logits, targets[picked], recipe.temperature)
        if kd == "mixed":
            response = response + recipe.relation_share * relational(features, taught)
        return distil(own, response, recipe.weight)

    return loss_of


def _rate(epoch: float, learning_rate: float, fitting: Fitting) -> float:
    """The learning rate at a fraction of an epoch."""
    begin, length = 0.0, float(fitting.epochs)
    if fitting.schedule == "restarts":
        length = float(FIRST_CYCLE)
        while epoch >= begin + length:
            begin, length = begin + length, 2.0 * length
    risen = min(1.0, epoch / fitting.warm_up_epochs) if fitting.warm_up_epochs else 1.0
    return LEAST_RATE + (learning_rate - LEAST_RATE) * risen * cosine(epoch - begin, length)


def _score(tracker: StepTracker, observation: Observation, starts: NDArray[np.int64]) -> float:
    task = tracker.task
    beams = observation.powers(starts, task.num_frames, task.num_future).argmax(dim=-1)
    return math.exp(-fit_temperature(logits_of(tracker, observation, starts), beams)[1])


def _in_batches(
    tracker: StepTracker, observation: Observation, starts: NDArray[np.int64], compute: Callable[[Windows], Tensor]
) -> Tensor:
    tracker.eval()
    with torch.no_grad():
        return torch.cat(
            [
                compute(observation.windows(starts[first : first + PREDICTION_BATCH], tracker.task.num_frames))
                for first in range(0, len(starts), PREDICTION_BATCH)
            ]
        )


def _copy(tracker: StepTracker) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in tracker.state_dict().items()}
