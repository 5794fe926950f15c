"""The learner of a client: a student, which is the light model of its modality, its own labels and the public set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.data.arrivals import open_growing
from clients.data.material import Material, holding, material_of, pool
from clients.data.recording import Recording, open_recording
from clients.learning.classification import task_of
from clients.learning.learner import Learner, Losses
from clients.models.device import device_named
from clients.models.own import build_tracker
from clients.models.seeding import torch_seeded
from clients.models.tracker import Tracker
from clients.profile import ClientProfile, client_folders
from configs.data import HELD_OUT_SHARE
from configs.schema import Experiment, Training
from configs.seeding import rng_for, seed_for
from strategies.losses import response_kd, task_loss


def own_recording(profile: ClientProfile, experiment: Experiment) -> Recording | None:
    """What a client has recorded so far; None if it records nothing, or has recorded nothing yet.

    Raises:
        ValueError: the recording is missing or broken.
    """
    if profile.recording is None:
        return None
    data = experiment.data
    share = data.validation_share if data.source == "folder" else data.passes.validation_share
    return open_growing(
        profile.recording,
        modality=profile.modality,
        num_classes=experiment.task.num_classes,
        # A share that followed the number of passes would move passes between the splits as they arrive.
        validation_share=HELD_OUT_SHARE if share is None else share,
    )


def make_learner(
    profile: ClientProfile,
    experiment: Experiment,
    *,
    start: str | None = None,
    choose: Callable[[Material], Material] = lambda material: material,
    plugins: Sequence[Path] = (),
    state: Mapping[str, Any] | None = None,
) -> Learner:
    """A learner, the same for the same experiment, client and recording; without labels it only digests.

    Args:
        profile: the profile of the client.
        experiment: the experiment, with sizes, steps and seed.
        start: a name; learners with the same name start from the same weights. None takes the client's id.
        choose: a function that selects what the learner may learn from.
        plugins: the folders in which the module of a student of one's own may lie.
        state: the state of the learner to go on from; None makes a fresh one.

    Raises:
        ValueError: a recording is missing or broken, or lacks the client's modality.
    """
    material = material_of(own_recording(profile, experiment), open_recording(profile.public), experiment.task)
    share = experiment.public_share(profile.id, profile.modality)
    if share < 1:
        material = holding(material, share, rng_for(experiment.seed, "public share", profile.id))
    training = experiment.training_of(profile.id, profile.modality)
    return _learner(
        profile,
        experiment,
        choose(material),
        training=training,
        start=start or profile.id,
        plugins=plugins,
        state=state,
    )


def make_pooled_learner(
    profile: ClientProfile,
    experiment: Experiment,
    federation: Path,
    *,
    plugins: Sequence[Path] = (),
    state: Mapping[str, Any] | None = None,
) -> Learner:
    """A learner on the labelled windows of all clients of a modality; each of these clients gets the same one.

    Raises:
        ValueError: the reasons are those of :func:`make_learner`, or this machine has no federation to pool.
    """
    if not (federation / "clients").is_dir():
        raise ValueError(
            "strategy.name: centralised pools raw recordings, which only a simulation has in one place; "
            "choose another strategy, or run in simulation"
        )
    recordings = [open_recording(folder) for folder in client_folders(federation)]
    mine = [one for one in recordings if profile.modality in one.sensors and one.is_labelled]
    if not mine:
        raise ValueError(f"{federation}: no client has labels for {profile.modality}, so there is nothing to pool")
    material = pool(mine, open_recording(profile.public), experiment.task)
    name = profile.modality
    return _learner(
        profile,
        experiment,
        material,
        training=experiment.training,
        start=name,
        name=name,
        plugins=plugins,
        state=state,
    )


def _learner(
    profile: ClientProfile,
    experiment: Experiment,
    material: Material,
    *,
    training: Training,
    start: str,
    plugins: Sequence[Path],
    name: str | None = None,
    state: Mapping[str, Any] | None = None,
) -> Learner:
    task = task_of(experiment.task, plugins)
    for recording in (material.recording, material.public):
        if profile.modality not in recording.sensors:
            raise ValueError(f"{recording.folder}: has no {profile.modality}, which client {profile.id} senses")
    return Learner(
        make_student(experiment, client=profile.id, modality=profile.modality, start=start, plugins=plugins),
        training=training,
        losses=Losses(task.own_loss or task_loss(training.task_loss, training.power_temperature_db), response_kd),
        material=material,
        seed=experiment.seed,
        name=name or profile.id,
        task=task,
        state=state,
        device=device_named(experiment.engine.device),
    )


def make_student(
    experiment: Experiment, *, client: str, modality: str, start: str = "", plugins: Sequence[Path] = ()
) -> Tracker:
    """A fresh student, the same for the same experiment and client.

    Args:
        experiment: the experiment, with sizes and seed.
        client: the id of the client.
        modality: the modality that the student senses.
        start: a name; students with the same name start from the same weights. Empty takes the client's id.
        plugins: the folders in which the module of a student of one's own may lie.

    Raises:
        ValueError: there is no such student, or it cannot do this task.
    """
    size, key = experiment.student_size(modality, client), f"students.{modality}"
    with torch_seeded(seed_for(experiment.seed, "student", start or client)):
        return build_tracker(size, (modality,), experiment.task, key=key, folders=plugins)
