"""What a client knows about beams: the mean soft label of each, or the mean feature. N windows, B beams, D features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients.data.by_beam import count_beams, mean_by_beam
from clients.exchanges.base import Answer, Exchange, own_beams
from clients.exchanges.labels import LabelExchange
from clients.learning.learner import Lesson
from clients.learning.lessons import BeamLesson, PrototypeLesson
from strategies.labels import SoftLabels
from strategies.messages.wire import WireError


class BeamExchange(LabelExchange):
    """The mean soft label of every beam that the client has seen."""

    def lesson(self) -> Lesson | None:
        """The mean of all clients, as a regulariser on own windows."""
        return BeamLesson(self.targets()) if len(self.held) and self.learner.material.is_labelled else None

    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        """Its own means."""
        recording, train = self.learner.material.recording, self.learner.material.train
        probs = self.learner.soften(recording, train, self.settings.temperature)
        seen, means = mean_by_beam(probs, own_beams(self.learner), self.task.num_beams)
        wanted = np.isin(seen, ask)
        return SoftLabels(seen[wanted], means[wanted], self.settings.temperature)


class PrototypeExchange(Exchange):
    """The mean feature of every beam that the client has seen."""

    def lesson(self) -> Lesson | None:
        """The prototypes of all."""
        arrays = self.request.arrays
        if not arrays:
            return None
        beams, features = (arrays.get(name) for name in ("beams", "features"))
        if beams is None or features is None or features.ndim != 2 or len(features) != len(beams):
            raise WireError(f"expected beams and their features, got {sorted(arrays)}")
        if not self.learner.material.is_labelled:
            return None  # It has no window of its own whose features could be drawn to anything.
        return PrototypeLesson(beams.astype(np.int64), features.astype(np.float32))

    def answer(self) -> Answer:
        """Its own prototypes."""
        recording, train = self.learner.material.recording, self.learner.material.train
        beams = own_beams(self.learner)[:, :1]
        features = self.learner.predict_features(recording, train)
        seen, means = mean_by_beam(features[:, None], beams, self.task.num_beams)
        arrays: dict[str, NDArray[np.generic]] = {
            "beams": seen.astype(np.uint16),
            "features": means[:, 0].astype(np.float16),
            "counts": count_beams(beams, self.task.num_beams)[seen].astype(np.uint32),
        }
        return Answer(arrays=arrays)
