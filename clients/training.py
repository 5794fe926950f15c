"""A client's learner: its student, its labels, the public set."""

from __future__ import annotations

from clients.profile import ClientProfile
from clients.sensing.learner import Learner, Losses, Material
from clients.sensing.recording import open_recording
from clients.students import make_student
from configs.schema import Experiment
from strategies.losses import TASK_LOSSES, response_kd


def make_learner(profile: ClientProfile, experiment: Experiment) -> Learner:
    """A fresh learner, the same for the same experiment and client.

    Raises:
        ValueError: a recording is missing or broken, or lacks the client's modality or labels.
    """
    task = experiment.task
    own, public = open_recording(profile.recording), open_recording(profile.public)
    for recording in (own, public):
        if profile.modality not in recording.sensors:
            raise ValueError(f"{recording.folder}: has no {profile.modality}, which client {profile.id} senses")
    train = own.window_starts(task.num_frames, task.num_future, "train")
    if own.power is None or len(train) == 0:
        raise ValueError(f"{own.folder}: no labelled window to train on")
    return Learner(
        make_student(experiment, client=profile.id, modality=profile.modality),
        training=experiment.training,
        losses=Losses(TASK_LOSSES[experiment.training.task_loss], response_kd),
        material=Material(
            recording=own,
            train=train,
            validation=own.window_starts(task.num_frames, task.num_future, "validation"),
            public=public,
            public_starts=public.window_starts(task.num_frames, task.num_future),
        ),
        seed=experiment.seed,
        name=profile.id,
    )
