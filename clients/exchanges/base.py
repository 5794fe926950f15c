"""What a client does with the knowledge in one message: it digests what came and answers what was asked.

An exchange is made for one message. It gets what the client remembers, says what there is to digest and, after the
steps of the learner, what to answer and what to remember. Learning itself is the same for all (`clients.handlers`).
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
from clients.learning.learner import Learner, Lesson, WindowsToPredict
from clients.privacy import drawn_material
from clients.training import make_learner
from strategies.codecs.encoding import EncodedLabels
from strategies.messages.wire import Request

State = Mapping[str, Any]
Facts = Mapping[str, str | int | float | bool]


class BehindError(Exception):
    """The client does not hold the targets that the server expects it to hold.

    Attributes:
        known_round: the last round up to which the client holds the targets.
    """

    def __init__(self, known_round: int) -> None:
        super().__init__(
            f"this client holds the targets up to round {known_round} only, because its memory was lost; "
            "the server sends the missing ones again"
        )
        self.known_round = known_round


@dataclass(frozen=True)
class Answer:
    """What an exchange answers.

    Attributes:
        labels: the encoded soft labels; None if the answer has none.
        metrics: numbers to record, such as the privacy spent.
        arrays: arrays that are not soft labels, such as weights.
        facts: plain values.
    """

    labels: EncodedLabels | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)


class Exchange(ABC):
    """The base of all exchanges, each of which handles the knowledge in one message.

    Args:
        context: the context of the handler.
        learner: the learner of the client, as it was after the client's last message.
        request: the request of the server.
        state: the value that :meth:`state` returned after the client's last message; empty before its first message.

    Raises:
        BehindError: the client lacks targets that the server expects it to hold.
        ValueError: the request is malformed.
    """

    def __init__(self, context: ClientContext, learner: Learner, request: Request, state: State) -> None:
        self.context = context
        self.learner = learner
        self.request = request
        self.settings = context.placement.experiment.strategy
        self.task = context.placement.experiment.task

    @classmethod
    def make_learner(cls, context: ClientContext, state: State | None = None) -> Learner:
        """The client's learner as it was when it had this state, or as it is before its first message."""
        profile, placement = context.profile, context.placement
        choose = partial(drawn_material, context)
        return make_learner(profile, placement.experiment, choose=choose, plugins=placement.plugins, state=state)

    @classmethod
    def introduction(cls, context: ClientContext) -> Facts:
        """The facts that a client adds when it introduces itself, beside those that every client gives."""
        return {}

    def lesson(self) -> Lesson | None:
        """The lesson to digest; None if there is nothing to digest."""
        return None

    def predicts(self) -> list[WindowsToPredict]:
        """The windows on which the student has to decide for the answer, as far as they are known before it learns."""
        return []

    @abstractmethod
    def answer(self) -> Answer:
        """The answer to the request, computed after learning."""

    def state(self) -> dict[str, Any]:
        """The state to remember until the next message, as tensors and plain values."""
        return {}

    def facts_unsaved(self, facts: Facts) -> Facts:
        """The facts of the answer if the result of :meth:`state` could not be saved."""
        return facts


def own_classes(learner: Learner) -> NDArray[np.int64]:
    """(N, H) right classes of a learner's training windows."""
    return learner.classes(learner.material.recording, learner.material.train)
