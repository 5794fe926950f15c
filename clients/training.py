"""A client's learner: its student, its labels, the public set."""

from __future__ import annotations

from clients.profile import ClientProfile
from clients.sensing.learner import Learner, Losses
from clients.sensing.material import open_material
from clients.students import make_student
from configs.schema import Experiment
from strategies.losses import response_kd, task_loss


def make_learner(profile: ClientProfile, experiment: Experiment) -> Learner:
    """A fresh learner, the same for the same experiment and client.

    Raises:
        ValueError: a recording is missing or broken, or lacks the client's modality or labels.
    """
    training = experiment.training
    material = open_material(profile.recording, profile.public, experiment.task)
    for recording in (material.recording, material.public):
        if profile.modality not in recording.sensors:
            raise ValueError(f"{recording.folder}: has no {profile.modality}, which client {profile.id} senses")
    return Learner(
        make_student(experiment, client=profile.id, modality=profile.modality),
        training=training,
        losses=Losses(task_loss(training.task_loss, training.power_temperature_db), response_kd),
        material=material,
        seed=experiment.seed,
        name=profile.id,
    )
