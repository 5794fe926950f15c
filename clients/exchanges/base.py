"""What a client does with one message's worth of knowledge: digest what came, answer what was asked.

An exchange is made for one message. It is told what the client remembers, says what there is to digest, and, after the
learner's steps, what to answer and what to remember. Learning itself is the same for all (`clients.handlers`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.context import ClientContext
from clients.learning.learner import Learner, Lesson
from clients.privacy import drawn_material
from clients.training import make_learner
from strategies.codecs.encoding import EncodedLabels
from strategies.messages.wire import Request

State = Mapping[str, Any]
Facts = Mapping[str, str | int | float | bool]


class BehindError(Exception):
    """The client does not hold what the server thinks it does.

    Attributes:
        known_round: it holds the targets up to this round.
    """

    def __init__(self, known_round: int) -> None:
        super().__init__(
            f"holds the targets up to round {known_round}, not those that the server thinks: its memory was lost; "
            "it gets what it lacks"
        )
        self.known_round = known_round


@dataclass(frozen=True)
class Answer:
    """What an exchange answers.

    Attributes:
        labels: soft labels.
        arrays: what is no soft label.
        facts: plain values.
        metrics: numbers to record, such as the privacy spent.
    """

    labels: EncodedLabels | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)


class Exchange(ABC):
    """One message's worth of knowledge.

    Args:
        context: of the handler.
        learner: of the client, as it was after its last message.
        request: of the server.
        state: what :meth:`state` returned after the client's last message; empty before its first.

    Raises:
        BehindError: the client lacks targets that the server thinks it holds.
        ValueError: the request is malformed.
    """

    def __init__(self, context: ClientContext, learner: Learner, request: Request, state: State) -> None:
        self.context = context
        self.learner = learner
        self.request = request
        self.settings = context.placement.experiment.strategy
        self.task = context.placement.experiment.task

    @classmethod
    def make_learner(cls, context: ClientContext) -> Learner:
        """The client's learner as it is before its first message."""
        profile, experiment = context.profile, context.placement.experiment
        return make_learner(profile, experiment, choose=partial(drawn_material, context))

    @classmethod
    def introduction(cls, context: ClientContext) -> Facts:
        """What a client says of itself beside what every client says, when it introduces itself."""
        return {}

    def lesson(self) -> Lesson | None:
        """What there is to digest."""
        return None

    @abstractmethod
    def answer(self) -> Answer:
        """What was asked, after learning."""

    def state(self) -> dict[str, Any]:
        """What to remember until the next message: tensors and plain values."""
        return {}

    def facts_unsaved(self, facts: Facts) -> Facts:
        """The facts of the answer, as they are where :meth:`state` could not be written."""
        return facts


def own_beams(learner: Learner) -> NDArray[np.int64]:
    """(N, H) best beams of a learner's training windows."""
    task, material = learner.model.task, learner.material
    return material.recording.beams(material.train, task.num_frames, task.num_future)
