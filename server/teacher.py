"""The central teacher: it fuses all modalities, is larger than a student and tolerates a missing modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.material import open_material
from clients.data.recording import PUBLIC_LABELS, PUBLIC_POWER, Recording, open_recording
from clients.learning.classification import task_of
from clients.learning.learner import Learner, Losses
from clients.learning.lessons import public_lesson
from clients.learning.task import LearningTask, Scores
from clients.models.device import device_named
from clients.models.own import build_tracker
from clients.models.seeding import torch_seeded
from configs.schema import Experiment
from configs.seeding import seed_for
from strategies.hindsight import NONE, later_samples, with_hindsight
from strategies.labels import SoftLabels
from strategies.losses import response_kd, task_loss


def make_teacher(experiment: Experiment, federation: Path, *, plugins: Sequence[Path] = ()) -> Learner:
    """A fresh teacher on the server's own labelled passes; the same experiment gives the same teacher.

    Args:
        experiment: the experiment, with sizes, steps and seed.
        federation: the folder that holds ``server/`` and ``public/``.
        plugins: the folders in which the module of a teacher of one's own may lie.

    Raises:
        ValueError: a recording is missing or broken, or the server has no labelled window.
    """
    teaching, task = experiment.teaching, task_of(experiment.task, plugins)
    material = open_material(federation / "server", federation / "public", experiment.task)
    with torch_seeded(seed_for(experiment.seed, "teacher")):
        senses = experiment.data.server_modalities
        model = build_tracker(experiment.teacher, senses, experiment.task, key="teacher", folders=plugins)
    return Learner(
        model,
        training=teaching,
        losses=Losses(task.own_loss or task_loss(teaching.task_loss, teaching.power_temperature_db), response_kd),
        material=material,
        seed=experiment.seed,
        name="teacher",
        task=task,
        modality_dropout=teaching.modality_dropout,
        device=device_named(experiment.engine.device),
    )


# How often the teacher is validated while it is trained on its own labels.
PRETRAIN_CHECKS = 8


def pretrain(teacher: Learner, num_steps: int) -> None:
    """Train the teacher on the server's own labels before any client is asked; keep the one that validates best."""
    bounds = [num_steps * part // PRETRAIN_CHECKS for part in range(PRETRAIN_CHECKS + 1)]
    for first, last in pairwise(bounds):
        teacher.learn(None, num_steps=last - first, total_steps=num_steps)
    teacher.begin_phase()


def open_public_classes(federation: Path, learner: Learner) -> NDArray[np.int64] | None:
    """(N, H) right classes of the public samples, if the server knows their labels; else None.

    They are stored with the server's recording, because clients and most strategies do not use them.

    Args:
        federation: the folder of the federation.
        learner: the teacher, which knows the task.
    """
    public = open_recording(federation / "public")
    if (path := federation / PUBLIC_POWER).is_file():
        labelled = replace(public, power=np.load(path, allow_pickle=False))
    elif (path := federation / PUBLIC_LABELS).is_file():
        labelled = replace(public, labels=np.load(path, allow_pickle=False))
    else:
        return None
    return learner.classes(labelled, learner.material.public_starts)


class Distiller:
    """The teacher as the strategy sees it: it answers for public samples and learns from the ensemble.

    Args:
        learner: the pretrained teacher.
        total_rounds: the number of rounds of the federation.
        round: the number of rounds that the teacher has already learned in.
        public_classes: (N, H) right classes of the public samples, if the server knows them.
        hindsight: whether its answers are corrected by what it says of later windows (`strategies.hindsight`).
    """

    def __init__(
        self,
        learner: Learner,
        *,
        total_rounds: int,
        round: int = 0,
        public_classes: NDArray[np.int64] | None = None,
        hindsight: bool = False,
    ) -> None:
        self.learner = learner
        self._hindsight = hindsight
        self._public_classes = public_classes
        self.round = round
        self.total_rounds = total_rounds
        self.num_examples = len(learner.material.train)

    def public_classes(self) -> NDArray[np.int64] | None:
        """(N, H) right classes of the public samples, if the server knows them."""
        return self._public_classes

    @property
    def task(self) -> LearningTask:
        """What the teacher learns."""
        return self.learner.task

    def answer(self, sample_ids: NDArray[np.int64], temperature: float) -> SoftLabels:
        """The soft labels of the teacher for public samples."""
        if not self._hindsight:
            return SoftLabels(sample_ids, self.learner.answer(sample_ids, temperature), temperature)
        later = self.later_samples()
        asked = np.union1d(sample_ids, later[sample_ids])
        asked = asked[asked != NONE]
        said = SoftLabels(asked, self.learner.answer(asked, temperature), temperature)
        return with_hindsight(said, later).take(sample_ids)

    def later_samples(self) -> NDArray[np.int64]:
        """(N, H) the public sample that ends h slots after each one (`strategies.hindsight.later_samples`)."""
        return self._later

    def samples_at(self, site: str) -> NDArray[np.int64]:
        """The public samples that were recorded at a site, ascending."""
        material = self.learner.material
        return np.flatnonzero(
            np.isin(material.public_starts, material.public.windows_at(material.public_starts, [site]))
        )

    @cached_property
    def _later(self) -> NDArray[np.int64]:
        material = self.learner.material
        passes = material.public.pass_ids.astype(np.int64)
        return later_samples(material.public_starts, passes, self.learner.model.task.num_horizons)

    def features(self, sample_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) features of public samples, as the teacher computes them."""
        material = self.learner.material
        return self.learner.predict_features(material.public, material.public_starts[sample_ids])

    def learn(self, ensemble: SoftLabels | None) -> None:
        """Learn for one round from the server's own labels and from the ensemble; None is no ensemble.

        The clients know passes that the server does not, and the server's held-out passes are few. So what was learned
        is kept unless these passes refute it.
        """
        self.round += 1
        training = self.learner.training
        num_steps, total_steps = training.steps(self.round), training.total_steps(self.total_rounds)
        self.learner.learn(public_lesson(ensemble), num_steps=num_steps, total_steps=total_steps, prefers_newest=True)

    def evaluate(self, recording: Recording, *, best: bool = True) -> Scores:
        """Score the teacher that is kept, or the current one, on every window of a labelled recording."""
        task = self.learner.model.task
        return self.learner.evaluate(recording, recording.window_starts(task.num_frames, task.num_future), best=best)

    def evaluate_by_site(self, recording: Recording) -> dict[str, dict[str, list[float]]]:
        """The scores of the teacher that is kept on each part of the common test set.

        Returns:
            Name of `clients.data.recording.SITE_TESTS` -> metrics; empty in a federation with one site.
        """
        task, own = self.learner.model.task, self.learner.material.recording.sites
        starts = recording.window_starts(task.num_frames, task.num_future)
        parts = recording.windows_by_site(starts, own)
        return {name: self.learner.evaluate(recording, part).to_dict() for name, part in parts.items()}
