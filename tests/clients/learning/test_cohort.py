"""Learners of a cohort learn what they would learn alone, and fail alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clients.learning.cohort
import clients.learning.learner
from clients.data.recording import Recording
from clients.learning.class_lessons import ClassLesson
from clients.learning.cohort import Learning, learn_together, outcome_of
from clients.learning.learner import Learner, Lesson, WindowsToPredict
from clients.learning.lessons import JointLesson, PublicLesson, public_lesson
from clients.models.stacked import StackedTracker
from clients.models.tracker import predict
from tests.clients.learning.test_learner import learner, targets, weights

STEPS, TOLERANCE = 8, 1e-5


def crew(street: Recording, public: Recording, **training: Any) -> list[Learner]:
    """Four learners, each with other windows, so that their batches differ in size and end at other steps."""
    found = []
    for number in range(4):
        one = learner(street, public, name=f"{number:03d}-gps", **training)
        one.material = replace(one.material, train=one.material.train[: 12 + 5 * number])
        found.append(one)
    return found


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the stacks that are made."""
    sizes: list[int] = []

    class Counted(StackedTracker):
        def __init__(self, trackers: Any) -> None:
            sizes.append(len(trackers))
            super().__init__(trackers)

    monkeypatch.setattr(clients.learning.cohort, "StackedTracker", Counted)
    return sizes


def learn(crew: list[Learner], lesson: Lesson | None, *, steps: int = STEPS) -> list[float | BaseException]:
    return learn_together([Learning(one, lesson, steps, 3 * STEPS) for one in crew])


def assert_close(one: Learner, other: Learner, tolerance: float = TOLERANCE) -> None:
    """Weights, optimizer and progress."""
    states = [learner.state() for learner in (one, other)]
    for part in ("model", "best_model"):
        for name, value in states[0][part].items():
            torch.testing.assert_close(states[1][part][name], value, atol=tolerance, rtol=tolerance, msg=name)
    optimizers = [state["optimizer"]["state"] for state in states]
    assert optimizers[0].keys() == optimizers[1].keys()
    for place, own in optimizers[0].items():
        assert torch.equal(own["step"], optimizers[1][place]["step"])
        torch.testing.assert_close(optimizers[1][place]["exp_avg"], own["exp_avg"], atol=tolerance, rtol=1e-4)
    progress = [state["progress"] for state in states]
    assert [one.pop("peak_by_pass") for one in progress] == [[], []]  # students keep what validates best
    assert progress[1] == pytest.approx(progress[0], abs=tolerance)


def joint_lesson(public: Recording) -> JointLesson:
    """Two of three batches are drawn from the first half of the targets alone."""
    found = targets(public)
    every = np.arange(len(found.sample_ids))
    return JointLesson(PublicLesson(found, every), PublicLesson(found, every[: len(every) // 2]), 2 / 3)


@pytest.mark.parametrize("lesson_of", [lambda public: public_lesson(targets(public)), joint_lesson])
@pytest.mark.parametrize("training", [{}, {"perturbed_share": 0.5}, {"schedule": "plateau"}], ids=str)
def test_three_rounds_together_are_those_of_each_alone_within_1e_5(
    street: Recording,
    public: Recording,
    training: dict[str, Any],
    lesson_of: Callable[[Recording], Lesson],
    stacks: list[int],
) -> None:
    alone, together = crew(street, public, **training), crew(street, public, **training)
    for number in range(3):
        lesson = lesson_of(public) if number else None
        losses = [one.learn(lesson, num_steps=STEPS, total_steps=3 * STEPS) for one in alone]
        assert learn(together, lesson) == pytest.approx(losses, abs=TOLERANCE)
        for one, other in zip(alone, together, strict=True):
            assert_close(one, other)
    assert stacks == [4, 4, 4]
    some = np.arange(5)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.answer(some, 2.0), one.answer(some, 2.0), atol=TOLERANCE)


def test_one_alone_learns_to_the_bit_what_it_learns_without_a_cohort(
    street: Recording, public: Recording, stacks: list[int]
) -> None:
    alone, together = learner(street, public), learner(street, public)
    (loss,) = learn([together], None)
    assert loss == alone.learn(None, num_steps=STEPS, total_steps=3 * STEPS)
    assert all(torch.equal(value, weights(alone)[name]) for name, value in weights(together).items())
    assert stacks == []


def test_equal_cohorts_give_equal_bits_in_whatever_order_they_stand(street: Recording, public: Recording) -> None:
    one, other = crew(street, public), crew(street, public)
    lesson = public_lesson(targets(public))
    losses = learn(one, lesson)
    assert list(reversed(learn(other[::-1], lesson))) == losses
    for mine, theirs in zip(one, other, strict=True):
        assert all(torch.equal(value, weights(theirs)[name]) for name, value in weights(mine).items())


def test_learners_at_different_rounds_rates_and_steps_share_a_stack_if_they_take_equally_many_steps(
    street: Recording, public: Recording, stacks: list[int]
) -> None:
    alone, together = crew(street, public, schedule="plateau"), crew(street, public, schedule="plateau")
    for one in (alone[0], together[0]):
        one.learn(None, num_steps=5, total_steps=3 * STEPS)
        one.progress.rate_factor = 0.25
    for one in alone:
        one.learn(None, num_steps=STEPS, total_steps=3 * STEPS)
    learn(together, None)
    for one, other in zip(alone, together, strict=True):
        assert_close(one, other)
    rounds = [Learning(one, None, STEPS + place // 2, 4 * STEPS) for place, one in enumerate(together)]
    learn_together(rounds)
    assert stacks == [4, 2, 2]


def test_what_cannot_be_stacked_learns_as_alone(street: Recording, public: Recording, stacks: list[int]) -> None:
    lesson = ClassLesson(targets(public).take(np.arange(4)))
    alone, together = crew(street, public)[:2], crew(street, public)[:2]
    losses = [one.learn(lesson, num_steps=STEPS, total_steps=3 * STEPS) for one in alone]
    assert learn(together, lesson) == losses
    assert stacks == []


class TornError(Exception):
    """A batch that cannot be read."""


def torn(one: Learner, after: int) -> None:
    """Let reading fail after some batches."""
    read, left = one.read, iter(range(after))

    def tearing(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise TornError
        return read(*arguments)

    one.read = tearing  # type: ignore[method-assign]


def nan_from(one: Learner, after: int) -> None:
    """Let the loss be no number after some batches."""
    left, task = iter(range(after)), one.losses.task

    def failing(logits: Tensor, power: Tensor) -> Tensor:
        return task(logits, power) * (1.0 if next(left, None) is not None else float("nan"))

    one.losses = replace(one.losses, task=failing)


@pytest.mark.parametrize(("spoil", "kind"), [(torn, TornError), (nan_from, ValueError)])
@pytest.mark.parametrize("after", [0, 3])
def test_a_member_that_fails_fails_alone_and_the_others_learn_what_they_learn_alone(
    street: Recording, public: Recording, spoil: Callable[[Learner, int], None], kind: type[Exception], after: int
) -> None:
    alone, together = crew(street, public), crew(street, public)
    spoil(together[1], after)
    losses = learn(together, None)
    assert isinstance(losses[1], kind)
    for place in (0, 2, 3):
        assert losses[place] == pytest.approx(
            alone[place].learn(None, num_steps=STEPS, total_steps=3 * STEPS), abs=TOLERANCE
        )
        assert_close(alone[place], together[place])


def test_where_all_fail_each_says_why(street: Recording, public: Recording) -> None:
    found = crew(street, public)[:2]
    for one in found:
        torn(one, 0)
    assert [type(loss) for loss in learn(found, None)] == [TornError, TornError]


def test_who_has_nothing_to_learn_from_learns_nothing_and_keeps_nobody_from_learning(
    street: Recording, public: Recording, stacks: list[int]
) -> None:
    found = crew(street, public)
    found[2].material = replace(found[2].material, train=np.empty(0, np.int64))
    before = weights(found[2])
    losses = learn(found, None)
    assert losses[2] == 0.0 and found[2].progress.round == 0
    assert all(torch.equal(value, before[name]) for name, value in weights(found[2]).items())
    assert stacks == [3]


def test_only_an_interruption_passes_through() -> None:
    def raises(error: BaseException) -> float:
        raise error

    assert isinstance(outcome_of(raises, SystemExit()), SystemExit)
    with pytest.raises(KeyboardInterrupt):
        outcome_of(raises, KeyboardInterrupt())


def test_what_a_stack_foresaw_is_what_each_decides_and_is_dropped_when_the_weights_change(
    street: Recording, public: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = crew(street, public)
    starts = found[0].material.public_starts
    rounds = [Learning(one, None, STEPS, STEPS, [WindowsToPredict(public, starts)]) for one in found]
    learn_together(rounds)
    computed: list[int] = []

    def counting(tracker: Any, recording: Recording, starts: Any) -> Tensor:
        computed.append(len(starts))
        return predict(tracker, recording, starts)

    monkeypatch.setattr(clients.learning.learner, "predict", counting)
    for one in found:
        for some in (starts, starts[3:8], starts[:0]):
            torch.testing.assert_close(
                one.predict(public, some, best=False), predict(one.model, public, some), atol=1e-6, rtol=1e-5
            )
    assert computed == []
    with torch.no_grad():
        next(found[1].model.parameters()).add_(0.5)
    for one in found[:2]:
        torch.testing.assert_close(
            one.predict(public, starts, best=False), predict(one.model, public, starts), atol=1e-6, rtol=1e-5
        )
    assert computed == [len(starts)]
    found[0].predict(street, found[0].material.train, best=False)  # nobody foresaw these
    assert len(computed) == 2
    found[0].load_state(found[2].state())
    torch.testing.assert_close(found[0].predict(public, starts, best=False), predict(found[2].model, public, starts))


def test_the_score_that_validates_a_member_is_that_of_one_alone(street: Recording, public: Recording) -> None:
    alone, together = crew(street, public), crew(street, public)
    for one in alone:
        one.learn(None, num_steps=STEPS, total_steps=3 * STEPS)
    learn(together, None)
    for one, other in zip(alone, together, strict=True):
        assert one.validation is not None
        assert other.validation == pytest.approx(one.validation, abs=TOLERANCE)
