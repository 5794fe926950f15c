"""Cohorts: learners that take the steps of their rounds together, each with its own data, order and optimizer.

Learners whose trackers have one architecture and can be stacked (`clients.models.stacked`) decide on a batch of each of
them at once. Everything else stays with each learner: its batches, its dropout, its loss, its optimizer, its
validation. Whatever raises in one of them is the outcome of that one alone. A learner without a partner learns as it
does anywhere else, to the bit.

N windows, H horizons, B beams, S units of the GRU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from clients.data.recording import Recording
from clients.learning.learner import Batch, Learner, Lesson, RoundSteps, WindowsToPredict
from clients.learning.lessons import JointLesson, PublicLesson
from clients.models.device import device_of, returned, sent
from clients.models.stacked import StackedTracker, architecture_of
from clients.models.tracker import BeamTracker, Windows, read_windows

T = TypeVar("T")

# The number of windows of each learner that a stack predicts at once: what they need should fit into caches.
PREDICTION_BATCH = 64


@dataclass(frozen=True, eq=False)
class Learning:
    """A round that a learner has to learn.

    Attributes:
        learner: the learner.
        lesson: the lesson, as for `Learner.learn`.
        num_steps: the number of optimizer steps in this round.
        total_steps: the number of optimizer steps in this phase.
        predicts: windows on which its tracker will have to decide afterwards; a stack decides on them at once.
    """

    learner: Learner
    lesson: Lesson | None
    num_steps: int
    total_steps: int
    predicts: Sequence[WindowsToPredict] = ()

    def alone(self) -> float:
        """Learn without others; returns and raises what `Learner.learn` does."""
        return self.learner.learn(self.lesson, num_steps=self.num_steps, total_steps=self.total_steps)

    def begin(self) -> RoundSteps | None:
        """Begin to learn with others; returns what `Learner.begin_round` does."""
        return self.learner.begin_round(self.lesson, num_steps=self.num_steps, total_steps=self.total_steps)

    @property
    def stack(self) -> Hashable | None:
        """What rounds must have in common to be learned as one; None for one that is learned alone."""
        if not _gives_batches(self.lesson):
            return None
        architecture = architecture_of(self.learner.model)
        return None if architecture is None else (architecture, self.num_steps)


def _gives_batches(lesson: Lesson | None) -> bool:
    """Whether all losses of a lesson are those of batches of windows, on which a stack can decide."""
    if isinstance(lesson, JointLesson):
        return _gives_batches(lesson.first) and _gives_batches(lesson.second)
    return lesson is None or isinstance(lesson, PublicLesson)


def learn_together(rounds: Sequence[Learning]) -> list[float | BaseException]:
    """Let each learner learn its round, those that can be stacked at once; the mean loss of each, or what it raised."""
    stacks: dict[Hashable, list[int]] = defaultdict(list)
    for index, one in enumerate(rounds):
        # Whoever has no company is not asked what it could be stacked with.
        key = one.stack if len(rounds) > 1 else None
        stacks[index if key is None else key].append(index)
    outcomes: dict[int, float | BaseException] = {}
    for indices in stacks.values():
        if len(indices) == 1:
            outcomes[indices[0]] = outcome_of(rounds[indices[0]].alone)
        else:
            outcomes.update(zip(indices, _learn_stacked([rounds[index] for index in indices]), strict=True))
    return [outcomes[index] for index in range(len(rounds))]


def outcome_of(call: Callable[..., T], *arguments: Any) -> T | BaseException:
    """What a call returns or raises; only the interruption by whoever sits before the machine passes through."""
    try:
        return call(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # This includes SystemExit and what libraries in other languages raise.
        return error


class _Member:
    """A learner in a stack. What it raises is kept; it keeps its place then, and its rows are ignored.

    Args:
        one: the round of a learner whose tracker can be stacked.
        steps: the steps that it has to take.

    Attributes:
        model: its tracker.
        predicts: the windows that it will predict, those to validate on included.
        loss: the sum of its losses so far.
        error: what it raised; None if nothing.
        device: where its tracker computes, which is the same for all of a stack.
    """

    def __init__(self, one: Learning, steps: RoundSteps) -> None:
        learner = one.learner
        self.model = cast(BeamTracker, learner.model)
        self.model.train()
        validation = WindowsToPredict(learner.material.recording, learner.material.validation)
        self.predicts = [windows for windows in (validation, *one.predicts) if len(windows.starts)]
        self.loss = 0.0
        self.error: BaseException | None = None
        self.device = device_of(self.model)
        self._learner = learner
        self._steps = steps
        # The stream from which the dropout of a learner alone is drawn.
        self._dropout = torch.Generator().manual_seed(steps.dropout_seed)

    def guarded(self, call: Callable[..., T], *arguments: Any) -> T | None:
        """What a call for this member returns; None if it raises, or if the member failed before."""
        found = None if self.error is not None else outcome_of(call, *arguments)
        if isinstance(found, BaseException):
            self.error = found
            return None
        return found

    def next_batch(self) -> tuple[Batch, Windows, Tensor]:
        """The next batch, its windows, and (N, S) factors on its features, which are those of `torch.nn.Dropout`."""
        batch = next(self._steps.losses)
        if not isinstance(batch, Batch):
            raise TypeError(f"a stack learns from batches, not from {type(batch).__name__}")
        windows, share = batch.read(), self.model.dropout.p
        kept = torch.ones(len(windows.rows), self.model.gru.hidden_size)
        if share > 0:
            kept.bernoulli_(1.0 - share, generator=self._dropout).div_(1.0 - share)
        return batch, windows.on(self.device), sent(kept, self.device)

    def slope(self, batch: Batch, logits: Tensor) -> Tensor:
        """The gradient of the loss of a batch at its logits (N, H * B), of the same shape; the loss is added up."""
        task = self.model.task
        at = returned(logits.detach()).view(len(logits), task.num_horizons, task.num_classes).requires_grad_()
        loss = batch.loss(at)
        (found,) = torch.autograd.grad(loss, at)
        self.loss += float(loss.detach())
        return sent(found.flatten(1), self.device)

    def step(self, number: int) -> None:
        """Take an optimizer step along the gradients that the stack gave."""
        (group,) = self._learner.optimizer.param_groups
        group["lr"] = self._steps.rates[number]
        torch.nn.utils.clip_grad_norm_(group["params"], self._learner.training.max_grad_norm)
        self._learner.optimizer.step()

    def read(self, recording: Recording, starts: NDArray[np.int64]) -> Windows:
        """Windows of a recording."""
        task = self.model.task
        windows = read_windows(recording, starts, modalities=self.model.modalities, num_frames=task.num_frames)
        return windows.on(self.device)

    def foresee(self, windows: WindowsToPredict, logits: Tensor) -> None:
        """Give the learner what the stack decides, (N, H * B), on some windows."""
        task = self.model.task
        self._learner.foresee(windows, logits.view(len(logits), task.num_horizons, task.num_classes))

    def outcome(self) -> float | BaseException:
        """The mean loss of the round, which ends with this; or what the member raised."""
        mean = self.loss / max(len(self._steps.rates), 1)
        self.guarded(self._learner.end_round, self._steps, mean)
        return mean if self.error is None else self.error


def _learn_stacked(rounds: Sequence[Learning]) -> list[float | BaseException]:
    """The mean loss of each learner, or what it raised; all take equally many steps."""
    begun = [outcome_of(one.begin) for one in rounds]
    members = {
        index: _Member(rounds[index], steps) for index, steps in enumerate(begun) if isinstance(steps, RoundSteps)
    }
    if members:
        stack = StackedTracker([member.model for member in members.values()])
        for number in range(rounds[0].num_steps):
            _take_step(stack, list(members.values()), number)
        for wanted in zip_longest(*(member.predicts for member in members.values())):
            _predict(stack, list(members.values()), wanted)
    # There was nothing to learn from for whoever has no steps.
    return [
        members[index].outcome() if index in members else found if isinstance(found, BaseException) else 0.0
        for index, found in enumerate(begun)
    ]


def _take_step(stack: StackedTracker, members: Sequence[_Member], number: int) -> None:
    """Take one optimizer step with each member of the stack."""
    batches = [member.guarded(member.next_batch) for member in members]
    some = next((one for one in batches if one is not None), None)
    if some is None:
        return
    # A member that failed computes on the windows of another one, and nobody asks for what comes out.
    features = stack.features([(one or some)[1] for one in batches])
    logits = stack.decide(features * pad_sequence([(one or some)[2] for one in batches], batch_first=True))
    slopes = torch.zeros_like(logits)
    for place, (member, one) in enumerate(zip(members, batches, strict=True)):
        if one is not None:
            size = len(one[1].rows)
            slope = member.guarded(member.slope, one[0], logits[place, :size])
            if slope is not None:
                slopes[place, :size] = slope
    stack.backward(logits, slopes)
    for member in members:
        member.guarded(member.step, number)


def _predict(stack: StackedTracker, members: Sequence[_Member], wanted: Sequence[WindowsToPredict | None]) -> None:
    """Decide on some windows of each member; where that is not possible, the member will find out itself."""
    parts: list[list[Tensor]] = [[] for _ in members]
    lengths = [0 if one is None else len(one.starts) for one in wanted]
    for first in range(0, max(lengths), PREDICTION_BATCH):
        # Members that predict the same windows of one recording share what is read.
        batches: dict[tuple[int, bytes], Windows | BaseException] = {}
        found: list[Windows | None] = []
        for member, one in zip(members, wanted, strict=True):
            starts = np.empty(0, np.int64) if one is None else one.starts[first : first + PREDICTION_BATCH]
            if one is None or not len(starts):
                found.append(None)
                continue
            key = (id(one.recording), starts.tobytes())
            if key not in batches:
                batches[key] = outcome_of(member.read, one.recording, starts)
            batch = batches[key]
            found.append(None if isinstance(batch, BaseException) else batch)
        some = next((batch for batch in found if batch is not None), None)
        if some is None:
            return
        with torch.no_grad():
            logits = returned(stack.decide(stack.features([batch or some for batch in found])))
        for place, read in enumerate(found):
            if read is not None:
                parts[place].append(logits[place, : len(read.rows)])
    for member, one, own, length in zip(members, wanted, parts, lengths, strict=True):
        if one is not None and sum(map(len, own)) == length:
            member.foresee(one, torch.cat(own))
