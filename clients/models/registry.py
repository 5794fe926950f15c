"""Trackers by name: those of arXiv 2603.16116 and arXiv 2509.11419, and our own lighter ones.

The tracker of the federations (`clients.models.tracker.BeamTracker`) is not among them: the experiment gives its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from clients.data.motion import PIXELS
from clients.models.light import fusion_light, fusion_wide, image_light, image_wide, radar_light
from clients.models.published import (
    fusion_student,
    fusion_teacher,
    image_student,
    image_teacher,
    long_term_student,
    long_term_teacher,
)
from clients.models.seeding import torch_seeded
from clients.models.step_tracker import Alignment, StepTracker
from configs.schema import Task
from configs.spelling import did_you_mean


@dataclass(frozen=True)
class ModelCard:
    """A tracker that a study may name.

    Attributes:
        build: a function that builds it from task, pixels and alignment.
        modalities: the modalities that it senses.
        role: the role that it is meant for.
        description: a description in one line.
        alignment: the alignment of its radar maps, unless another one is asked for.
        is_ours: whether it is our own tracker instead of a published one.
    """

    build: Callable[[Task, int, Alignment], StepTracker]
    modalities: tuple[str, ...]
    role: Literal["teacher", "student"]
    description: str
    alignment: Alignment = "paper"
    is_ours: bool = False


_IMAGE, _FUSION = ("motion",), ("motion", "maps")
MODELS: Mapping[str, ModelCard] = {
    "image-teacher": ModelCard(image_teacher, _IMAGE, "teacher", "image teacher of arXiv 2603.16116"),
    "image-student": ModelCard(image_student, _IMAGE, "student", "image student of arXiv 2603.16116"),
    "fusion-teacher": ModelCard(fusion_teacher, _FUSION, "teacher", "image and radar teacher of arXiv 2603.16116"),
    "fusion-student": ModelCard(fusion_student, _FUSION, "student", "image and radar student of arXiv 2603.16116"),
    "long-term-teacher": ModelCard(long_term_teacher, _IMAGE, "teacher", "image teacher of arXiv 2509.11419"),
    "long-term-student": ModelCard(long_term_student, _IMAGE, "student", "image student of arXiv 2509.11419"),
    "image-wide": ModelCard(image_wide, _IMAGE, "teacher", "our image teacher", "newest", is_ours=True),
    "fusion-wide": ModelCard(fusion_wide, _FUSION, "teacher", "our image and radar teacher", "newest", is_ours=True),
    "image-light": ModelCard(image_light, _IMAGE, "student", "our light image student", "newest", is_ours=True),
    "radar-light": ModelCard(radar_light, ("maps",), "student", "our light radar student", "newest", is_ours=True),
    "fusion-light": ModelCard(
        fusion_light, _FUSION, "student", "our light image and radar student", "newest", is_ours=True
    ),
}


def make_tracker(
    name: str, task: Task, *, seed: int, pixels: int = PIXELS, alignment: Alignment | None = None
) -> StepTracker:
    """A fresh tracker, the same for the same arguments.

    Args:
        name: a key of `MODELS`.
        task: the task, with frames, horizons and beams.
        seed: the seed of the weights.
        pixels: the side of the masks in pixels.
        alignment: the alignment of the radar maps; None takes the alignment on the model's card.

    Raises:
        ValueError: there is no such tracker, or it cannot do this task.
    """
    if name not in MODELS:
        raise ValueError(f"model: there is no {name!r}; choose one of {', '.join(MODELS)}{did_you_mean(name, MODELS)}")
    with torch_seeded(seed):
        return MODELS[name].build(task, pixels, alignment or MODELS[name].alignment)
