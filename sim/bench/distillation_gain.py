"""Measures the gain of distillation on a street: own labels alone against own labels and a teacher on the public set.

Both arms of a node take the same optimizer steps with the same schedule and the same rule for stopping. The teacher
fuses all sensors and was trained on other passes; the public set has no labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clients.data.recording import open_recording
from clients.profile import profiles_of
from clients.training import make_learner
from configs.loading import data_digest, to_values
from configs.schema import Experiment
from server.teacher import make_teacher, pretrain
from sim.bench.experiments import world_name
from sim.bench.learnability import train
from sim.data.federation import ensure_federation
from sim.worksheet import SheetRow, row_key
from strategies.labels import SoftLabels


@dataclass(frozen=True)
class DistillationJob:
    """One seed of the benchmark.

    Attributes:
        experiment: an experiment with one node per sensor.
    """

    experiment: Experiment

    @property
    def key(self) -> str:
        """The key of its row in a sheet."""
        title = f"{world_name(self.experiment)} seed {self.experiment.seed}"
        return row_key(title, to_values(self.experiment), data_digest(self.experiment))


def distil_job(job: DistillationJob) -> SheetRow:
    """Train the teacher, then every node twice.

    Returns:
        The metrics on the test passes: for the teacher, and for the node of each sensor in the arms ``local`` and
        ``distilled``.

    Raises:
        ValueError: a recording is broken, or nothing can be learned from it.
    """
    torch.set_num_threads(1)
    experiment = job.experiment
    folder, _ = ensure_federation(experiment)
    test = open_recording(folder / "test")
    starts = test.window_starts(experiment.task.num_frames, experiment.task.num_future)
    teacher = make_teacher(experiment, folder)
    pretrain(teacher, experiment.teaching.pretrain_steps)
    temperature, every_sample = experiment.strategy.temperature, np.arange(len(teacher.material.public_starts))
    targets = SoftLabels(every_sample, teacher.answer(every_sample, temperature), temperature)
    students: dict[str, Any] = {}
    for number in range(len(experiment.modalities)):
        (profile,) = profiles_of({"partition-id": number}, folder)
        arms = {}
        for arm, given in (("local", None), ("distilled", targets)):
            learner = make_learner(profile, experiment)
            train(learner, given, num_steps=experiment.training.first_round_steps)
            arms[arm] = learner.evaluate(test, starts).to_dict()
        students[profile.modality] = arms
    return {
        "world": world_name(experiment),
        "seed": experiment.seed,
        "num_steps": experiment.training.first_round_steps,
        "teacher": teacher.evaluate(test, starts).to_dict(),
        "students": students,
    }
