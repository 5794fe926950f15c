"""A client's learner: its student, its labels, the public set."""

from __future__ import annotations

from clients.profile import ClientProfile
from clients.sensing.learner import Learner, Losses
from clients.sensing.material import open_material
from clients.students import make_student
from configs.schema import Experiment
from strategies.losses import TASK_LOSSES, response_kd


def make_learner(profile: ClientProfile, experiment: Experiment) -> Learner:
    """A fresh learner, the same for the same experiment and client.

    Raises:
        ValueError: a recording is missing or broken, or lacks the client's modality or labels.
    """
    material = open_material(profile.recording, profile.public, experiment.task)
    for recording in (material.recording, material.public):
        if profile.modality not in recording.sensors:
            raise ValueError(f"{recording.folder}: has no {profile.modality}, which client {profile.id} senses")
    return Learner(
        make_student(experiment, client=profile.id, modality=profile.modality),
        training=experiment.training,
        losses=Losses(TASK_LOSSES[experiment.training.task_loss], response_kd),
        material=material,
        seed=experiment.seed,
        name=profile.id,
    )
