"""The lightweight models of the clients, one per modality."""

from __future__ import annotations

import torch

from clients.sensing.tracker import BeamTracker
from configs.schema import Experiment
from configs.seeding import seed_for


def make_student(experiment: Experiment, *, client: str, modality: str) -> BeamTracker:
    """A fresh student, the same for the same experiment and client.

    Args:
        experiment: gives sizes and seed.
        client: id of the client.
        modality: what it senses.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(experiment.seed, "student", client))
        return BeamTracker((modality,), experiment.student_size(modality), experiment.task)
