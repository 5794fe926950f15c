"""What a student learns from relations alone, and how two lessons share the steps of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.learning.learner import Learner
from clients.learning.lessons import JointLesson
from clients.learning.relation_lesson import ComparedSamples, RelationLesson
from clients.profile import ClientProfile
from clients.training import make_learner
from configs.schema import Experiment
from configs.seeding import rng_for
from sim.data.federation import ensure_federation
from strategies.labels import SoftLabels
from strategies.losses import response_kd
from strategies.relations import draw_groups, pack_relations, relational_kd, unpack_relations
from tests.conftest import tiny_experiment

SETTINGS = tiny_experiment(relations={})


def make(client: str, modality: str, settings: Experiment = SETTINGS) -> Learner:
    folder, _ = ensure_federation(settings)
    profile = ClientProfile(client, modality, folder / "clients" / client, folder / "public", folder / "test")
    return make_learner(profile, settings)


@pytest.fixture
def student() -> Learner:
    return make("002-lidar", "lidar")


@pytest.fixture
def groups(student: Learner) -> list[ComparedSamples]:
    """What another learner of another modality tells of the whole public set."""
    teacher, num_public = make("000-gps", "gps"), len(student.material.public_starts)
    drawn = draw_groups(np.arange(num_public), SETTINGS, 1)
    ids = np.concatenate([group.sample_ids for group in drawn])
    seen = teacher.predict_features(teacher.material.public, teacher.material.public_starts[ids])
    told = unpack_relations(pack_relations(drawn, seen), SETTINGS, 1, num_public=num_public)
    loss = partial(relational_kd, distance_weight=10.0, angle_weight=10.0)
    return [
        ComparedSamples(group.sample_ids, partial(loss, teacher=relations, partners=torch.from_numpy(group.partners)))
        for group, relations in told
    ]


def relational_loss(student: Learner, groups: list[ComparedSamples]) -> float:
    starts = student.material.public_starts
    losses = [
        group.loss(torch.from_numpy(student.predict_features(student.material.public, starts[group.sample_ids])))
        for group in groups
    ]
    return float(torch.stack(losses).mean())


def test_learning_from_relations_alone_lowers_the_relational_loss(
    student: Learner, groups: list[ComparedSamples]
) -> None:
    before = relational_loss(student, groups)
    student.training = student.training.model_copy(update={"digest_share": 1.0, "schedule": "constant"})
    for _ in range(4):
        student.learn(RelationLesson(groups), num_steps=25, total_steps=100)
    assert relational_loss(student, groups) < 0.5 * before


def test_relations_leave_the_head_alone(student: Learner, groups: list[ComparedSamples]) -> None:
    next(RelationLesson(groups).losses(student, rng_for(0, "x")))().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in student.model.head.parameters())
    assert student.model.gru.weight_ih_l0.grad is not None


def test_samples_that_have_soft_labels_are_learned_from_both(student: Learner, groups: list[ComparedSamples]) -> None:
    first, student.model.dropout.p = groups[0], 0.0
    labelled = np.sort(first.sample_ids)[::2]
    probs = np.full((len(labelled), 4, 64), 1 / 64, np.float32)
    lesson = RelationLesson([first], SoftLabels(labelled, probs, 2.0))
    logits = student.logits(student.material.public, student.material.public_starts[labelled])
    share = len(labelled) / len(first.sample_ids)
    expected = relational_loss(student, [first]) + share * response_kd(logits, torch.from_numpy(probs), 2.0).item()
    found = next(lesson.losses(student, rng_for(0, "x")))()
    assert found.item() == pytest.approx(expected, rel=1e-4)
    found.backward()  # type: ignore[no-untyped-call]
    assert student.model.head.weight.grad is not None


def test_soft_labels_of_other_samples_add_nothing(student: Learner, groups: list[ComparedSamples]) -> None:
    others = SoftLabels(np.sort(groups[1].sample_ids), np.full((len(groups[1].sample_ids), 4, 64), 1 / 64, "f4"), 2.0)
    found = next(RelationLesson(groups[:1], others).losses(student, rng_for(0, "x")))()
    assert found.item() == pytest.approx(relational_loss(student, groups[:1]), rel=1e-4)


def test_every_group_is_learned_once_in_an_epoch(student: Learner, groups: list[ComparedSamples]) -> None:
    assert len(groups) > 2
    seen: Counter[int] = Counter()

    def noted(number: int) -> Callable[[Tensor], Tensor]:
        def loss(features: Tensor) -> Tensor:
            seen[number] += 1
            return features.sum()

        return loss

    lesson = RelationLesson([ComparedSamples(one.sample_ids, noted(i)) for i, one in enumerate(groups)])
    losses = lesson.losses(student, rng_for(0, "x"))
    for epoch in (1, 2):
        for _ in groups:
            next(losses)()
        assert seen == dict.fromkeys(range(len(groups)), epoch)


class Named:
    """A lesson whose losses are a number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        while True:
            yield lambda: torch.tensor(self.value)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, [0, 0, 0, 0, 0, 0, 0, 0]),
        (0.25, [0, 1, 0, 0, 0, 1, 0, 0]),
        (0.5, [1, 0, 1, 0, 1, 0, 1, 0]),
        (0.75, [1, 1, 0, 1, 1, 1, 0, 1]),
        (1.0, [1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_two_lessons_take_turns_by_their_share(share: float, expected: list[int], student: Learner) -> None:
    losses = JointLesson(Named(0.0), Named(1.0), share).losses(student, rng_for(0, "x"))
    assert [int(next(losses)()) for _ in expected] == expected


def test_a_student_that_learned_is_the_same_each_time(groups: list[ComparedSamples], tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        learner = make("002-lidar", "lidar")
        learner.learn(RelationLesson(groups), num_steps=6, total_steps=6)
        found.append(learner.model.state_dict())
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
