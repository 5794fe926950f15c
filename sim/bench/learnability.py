"""Measures how well a beam tracker can learn a street: one sensor or all, few frames or many, by day and by night.

Everything is central: one owner trains on labelled passes of site 0 and is scored on passes that it never saw. The
weights that are kept are chosen on validation passes from among the training passes, never on the test passes.

L frames of a window, J slots ahead.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from clients.data.material import Material
from clients.data.recording import Recording, open_recording
from clients.learning.learner import Learner, Losses
from clients.learning.lessons import Targets, public_lesson
from clients.models.seeding import torch_seeded
from clients.models.tracker import BeamTracker, count_parameters
from configs.loading import data_digest, to_values
from configs.schema import Experiment, Task
from configs.seeding import seed_for
from sim.bench.experiments import under, world_name
from sim.data.federation import ensure_federation
from sim.worksheet import SheetRow, row_key
from strategies.losses import response_kd, task_loss

FUSED = "all"
# Number of times that a training is checked on the validation passes.
CHECKS = 10


@dataclass(frozen=True)
class LearningJob:
    """One tracker to train and to score.

    Attributes:
        experiment: the data, sizes and training; the tracker learns from the ``server`` recording.
        inputs: a sensor, or ``all`` for the fused tracker, whose training hides modalities at random.
        num_frames: L, at most ``experiment.task.num_frames``.
        conditions: names from `CONDITIONS` under which it is tested too.
    """

    experiment: Experiment
    inputs: str
    num_frames: int
    conditions: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key of its row in a sheet."""
        experiment = self.experiment
        title = f"{world_name(experiment)} seed {experiment.seed} {self.inputs} L={self.num_frames}"
        values = to_values(experiment)
        return row_key(title, values, data_digest(experiment), self.inputs, self.num_frames, self.conditions)


def experiments_of(job: LearningJob) -> list[Experiment]:
    """The experiments whose data a job needs."""
    return [job.experiment, *(under(job.experiment, condition) for condition in job.conditions)]


def learn_job(job: LearningJob) -> SheetRow:
    """Train and score one tracker.

    Returns:
        The description of the job, the metrics on the ``test`` passes and under each condition, the number of
        parameters, the best score on the validation passes, the check that gave it, and the CPU seconds of training.

    Raises:
        ValueError: a recording is broken, or nothing can be learned from it.
    """
    torch.set_num_threads(1)
    begin = time.process_time()
    experiment, longest = job.experiment, job.experiment.task
    task = longest.model_copy(update={"num_frames": job.num_frames})
    folder, _ = ensure_federation(experiment)
    learner = _learner(job, open_recording(folder / "server"), task=task, longest=longest)
    num_steps = learner.training.first_round_steps
    train(learner, None, num_steps=num_steps)
    trained = time.process_time() - begin
    places = {"test": experiment, **{name: under(experiment, name) for name in job.conditions}}
    metrics = {}
    for name, place in places.items():
        test = open_recording(ensure_federation(place)[0] / "test")
        metrics[name] = learner.evaluate(test, aligned_starts(test, task, longest=longest)).to_dict()
    return {
        "world": world_name(experiment),
        "seed": experiment.seed,
        "inputs": job.inputs,
        "num_frames": job.num_frames,
        "num_steps": num_steps,
        "num_windows": len(learner.material.train),
        "parameters": count_parameters(learner.model),
        "best_check": learner.progress.best_round,
        "validation": learner.progress.best_score,
        "cpu_seconds": round(trained, 2),
        "metrics": metrics,
    }


def aligned_starts(recording: Recording, task: Task, *, longest: Task, split: str | None = None) -> NDArray[np.int64]:
    """(N,) starts of windows of ``task.num_frames`` that have the same labels as windows of ``longest.num_frames``.

    A shorter window starts later by the frames that it lacks, so trackers of all lengths answer for the same slots.
    """
    starts = recording.window_starts(longest.num_frames, longest.num_future, split)
    return starts + longest.num_frames - task.num_frames


def train(learner: Learner, targets: Targets | None, *, num_steps: int) -> None:
    """Take all optimizer steps of a learner, with `CHECKS` checks on its validation passes; it keeps its best state."""
    bounds = [num_steps * part // CHECKS for part in range(CHECKS + 1)]
    for first, last in pairwise(bounds):
        learner.learn(public_lesson(targets), num_steps=last - first, total_steps=num_steps)


def _learner(job: LearningJob, recording: Recording, *, task: Task, longest: Task) -> Learner:
    experiment = job.experiment
    is_fused = job.inputs == FUSED
    modalities: Sequence[str] = experiment.modalities if is_fused else (job.inputs,)
    if unknown := set(modalities) - set(experiment.modalities):
        raise ValueError(f"--inputs: {unknown.pop()!r} is unknown; use {', '.join(experiment.modalities)}, {FUSED}")
    training = experiment.teaching if is_fused else experiment.training
    with torch_seeded(seed_for(experiment.seed, "learnability", job.inputs, job.num_frames)):
        size = experiment.teacher if is_fused else experiment.student_size(job.inputs)
        model = BeamTracker(modalities, size, task)
    return Learner(
        model,
        training=training,
        losses=Losses(task_loss(training.task_loss, training.power_temperature_db), response_kd),
        material=Material(
            recording=recording,
            train=aligned_starts(recording, task, longest=longest, split="train"),
            validation=aligned_starts(recording, task, longest=longest, split="validation"),
            public=recording,
            public_starts=np.empty(0, np.int64),
        ),
        seed=experiment.seed,
        name=f"{job.inputs} L={job.num_frames}",
        modality_dropout=experiment.teaching.modality_dropout if is_fused else 0.0,
    )
