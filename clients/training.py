"""A client's learner: its student, its labels, the public set."""

from __future__ import annotations

from pathlib import Path

from clients.profile import ClientProfile, client_folders
from clients.sensing.learner import Learner, Losses
from clients.sensing.material import Material, open_material, pool
from clients.sensing.recording import open_recording
from clients.students import make_student
from configs.schema import Experiment
from strategies.losses import response_kd, task_loss


def make_learner(profile: ClientProfile, experiment: Experiment, *, start: str | None = None) -> Learner:
    """A fresh learner, the same for the same experiment and client.

    Args:
        profile: of the client.
        experiment: sizes, steps and seed.
        start: learners with the same one start from the same weights; None is the client's id.

    Raises:
        ValueError: a recording is missing or broken, or lacks the client's modality or labels.
    """
    material = open_material(profile.recording, profile.public, experiment.task)
    return _learner(profile, experiment, material, start=start or profile.id)


def make_pooled_learner(profile: ClientProfile, experiment: Experiment, federation: Path) -> Learner:
    """A fresh learner on the labelled windows of all clients of a modality, the same for each of them.

    Raises:
        ValueError: as for :func:`make_learner`, or there is no federation on this machine to pool.
    """
    if not (federation / "clients").is_dir():
        raise ValueError("strategy.name: centralised pools raw recordings, which only a simulation has in one place")
    recordings = [open_recording(folder) for folder in client_folders(federation)]
    mine = [recording for recording in recordings if profile.modality in recording.sensors]
    material = pool(mine, open_recording(profile.public), experiment.task)
    return _learner(profile, experiment, material, start=profile.modality, name=profile.modality)


def _learner(
    profile: ClientProfile, experiment: Experiment, material: Material, *, start: str, name: str | None = None
) -> Learner:
    training = experiment.training
    for recording in (material.recording, material.public):
        if profile.modality not in recording.sensors:
            raise ValueError(f"{recording.folder}: has no {profile.modality}, which client {profile.id} senses")
    return Learner(
        make_student(experiment, client=start, modality=profile.modality),
        training=training,
        losses=Losses(task_loss(training.task_loss, training.power_temperature_db), response_kd),
        material=material,
        seed=experiment.seed,
        name=name or profile.id,
    )
