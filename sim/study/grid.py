"""The trackers that a study trains, in the order in which they need each other.

The first are teachers that learn from labels alone, then come teachers that learn from these (born again), then
students, which learn from the teacher with the same sensors that validated better.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clients.data.recording import Recording
from clients.models.registry import MODELS, ModelCard
from clients.models.step_tracker import Alignment
from configs.loading import digest_with_sources
from configs.study import Kd, Study, StudyPart
from sim.worksheet import row_key

_TITLES = {("motion",): "image", ("motion", "maps"): "image+radar", ("maps",): "radar"}
# The kinds of knowledge that need a teacher.
TAUGHT = ("self", "response", "feature", "relational", "mixed", "cross-modal")
# Changing one of these may change what a tracker learns or how it is scored, so it is trained again.
STUDY_SOURCES = (
    "clients/data/**/*.py",
    "clients/models/**/*.py",
    "clients/learning/**/*.py",
    "configs/seeding.py",
    "strategies/losses.py",
    "strategies/relations.py",
    "sim/study/fitting.py",
    "sim/study/passes.py",
    "sim/study/scores.py",
    "sim/study/work.py",
)


@dataclass(frozen=True)
class Job:
    """One tracker to train and to score.

    Attributes:
        study: the study that it is part of.
        future: J, which identifies the part of the study.
        model: a key of `MODELS`.
        kd: the kind of knowledge.
        length: L, the number of frames of a window.
        alignment: the alignment of the radar maps.
        seed: the seed of weights, batches and validation passes.
        origin: the digest from :func:`origin_of`, the same for all jobs of a run.
        teacher: the job whose tracker it learns from; None if it needs none.
    """

    study: Study
    future: int
    model: str
    kd: Kd
    length: int
    alignment: Alignment
    seed: int
    origin: str
    teacher: Job | None = None

    @property
    def part(self) -> StudyPart:
        """The part of the study to which it belongs."""
        return next(part for part in self.study.parts if part.future == self.future)

    @property
    def card(self) -> ModelCard:
        """The card of its model in the registry."""
        return MODELS[self.model]

    @property
    def modality(self) -> str:
        """The name of its sensors for readers."""
        return _TITLES[self.card.modalities]

    @property
    def title(self) -> str:
        """The name of the job for readers."""
        aligned = "" if self.alignment == self.card.alignment else f" {self.alignment}"
        return f"{self.model} {self.kd} L={self.length} J={self.future}{aligned} seed {self.seed}"

    @property
    def key(self) -> str:
        """The key of its row, which depends on everything that determines its result."""
        study = self.study
        facts = {
            "title": self.title,
            "origin": self.origin,
            "alignment": self.alignment,
            "part": self.part.train_share,
            "longest": study.lengths[0],
            "pixels": study.pixels,
            "fitting": study.fitting_of(self.model, self.kd).model_dump(mode="json"),
            "recipe": study.recipe(self.model, self.kd).model_dump(mode="json"),
            "teacher": None if self.teacher is None else self.teacher.key,
        }
        return row_key(self.title, facts)


def check_models(study: Study) -> None:
    """Check that every model of a study exists, has the right role, and has a teacher with its sensors.

    Raises:
        ValueError: a model does not; the message starts with the dotted path.
    """
    for number, part in enumerate(study.parts):
        for path, names, role in (("teachers", part.teachers, "teacher"), ("students", part.students, "student")):
            _check_names(f"parts.{number}.{path}", names, role)
        if unknown := set(part.born_again or ()) - set(part.teachers):
            raise ValueError(f"parts.{number}.born_again: {min(unknown)} is not among the teachers")
        sensors = {MODELS[name].modalities for name in part.teachers}
        for name in part.students:
            if MODELS[name].modalities not in sensors:
                raise ValueError(f"parts.{number}.students: {name} has no teacher with its sensors")
    for number, ablation in enumerate(study.ablations):
        _check_names(f"ablations.{number}.models", ablation.models, "student")
    for name in study.recipes:
        _check_names("recipes", [name], None)


def _check_names(path: str, names: Sequence[str], role: str | None) -> None:
    for name in names:
        if name not in MODELS:
            raise ValueError(f"{path}: there is no model {name!r}; use {', '.join(MODELS)}")
        if role is not None and MODELS[name].role != role:
            raise ValueError(f"{path}: {name} is a {MODELS[name].role}; name a {role}")


def origin_of(recording: Recording) -> str:
    """The digest of everything that all trackers of a run depend on: frames, labels, and the code as it is now.

    It is taken once, before the first tracker, since the code may be edited while the run goes on.
    """
    digest = hashlib.sha256()
    for name, array in (("passes", recording.pass_ids), ("power", recording.power), *sorted(recording.sensors.items())):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest_with_sources({"frames": digest.hexdigest()}, STUDY_SOURCES)


def teacher_jobs(study: Study, origin: str) -> list[Job]:
    """The jobs of teachers that learn from labels alone."""
    return [
        Job(study, part.future, model, "none", study.lengths[0], MODELS[model].alignment, seed, origin)
        for seed in study.seeds
        for part in study.parts
        for model in part.teachers
    ]


def self_jobs(teachers: Sequence[Job]) -> list[Job]:
    """The jobs of the same teachers born again, that is, taught by the first ones.

    Source: arXiv 1805.04770.
    """
    return [
        replace(job, kd="self", teacher=job)
        for job in teachers
        if job.part.born_again is None or job.model in job.part.born_again
    ]


def student_jobs(study: Study, teachers: Sequence[Job], validation: Mapping[str, float]) -> list[Job]:
    """The jobs of all students.

    Args:
        study: the study.
        teachers: the jobs of all trained teachers.
        validation: key of a teacher -> its score on the validation passes; the best teacher with the same sensors
            teaches.
    """
    found: dict[tuple[Any, ...], Job] = {}
    for seed in study.seeds:
        for part in study.parts:
            best: dict[tuple[str, ...], Job] = {}
            for job in teachers:
                if (job.seed, job.future) != (seed, part.future):
                    continue
                other = best.get(job.card.modalities)
                if other is None or validation[job.key] > validation[other.key]:
                    best[job.card.modalities] = job
            for model, kd, length, alignment in _students(study, part):
                teacher = _teacher_of(model, kd, best)
                if kd in TAUGHT and teacher is None:
                    continue
                job = Job(study, part.future, model, kd, length, alignment, seed, teachers[0].origin, teacher)
                found.setdefault((model, kd, length, alignment, seed, part.future), job)
    return list(found.values())


def _students(study: Study, part: StudyPart) -> list[tuple[str, Kd, int, Alignment]]:
    students: list[tuple[str, Kd, int, Alignment]] = [
        (model, kd, length, MODELS[model].alignment)
        for length in study.lengths
        for model in part.students
        for kd in (study.kd if length == study.lengths[0] else study.short_kd)
    ]
    for ablation in study.ablations:
        if ablation.futures and part.future not in ablation.futures:
            continue
        students += [
            (model, kd, length, ablation.alignment or MODELS[model].alignment)
            for length in ablation.lengths or study.lengths[:1]
            for model in ablation.models
            for kd in ablation.kd
        ]
    return students


def _teacher_of(model: str, kd: str, best: Mapping[tuple[str, ...], Job]) -> Job | None:
    if kd not in TAUGHT:
        return None
    mine = MODELS[model].modalities
    if kd != "cross-modal":
        return best.get(mine)
    more = [job for sensors, job in best.items() if len(sensors) > len(mine)]
    return max(more, key=lambda job: len(job.card.modalities), default=None)


def describe(job: Job) -> dict[str, Any]:
    """The part of a row that describes its job."""
    return {
        "key": job.key,
        "model": job.model,
        "modality": job.modality,
        "role": job.card.role,
        "input_length": job.length,
        "future": job.future,
        "kd": job.kd,
        "teacher": None if job.teacher is None else f"{job.teacher.model} {job.teacher.kd}",
        "alignment": job.alignment,
        "pixels": job.study.pixels,
        "seed": job.seed,
        "train_share": job.part.train_share,
    }
