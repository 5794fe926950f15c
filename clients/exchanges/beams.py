"""The exchanges of what a client knows about each beam: its mean soft label, or its mean feature (prototype).

N windows, B beams, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients.data.by_beam import count_beams, mean_by_beam
from clients.exchanges.base import Answer, Exchange, own_beams
from clients.exchanges.labels import LabelExchange
from clients.learning.beam_lessons import BeamLesson, PrototypeLesson
from clients.learning.learner import Lesson
from strategies.labels import SoftLabels
from strategies.messages.wire import WireError


class BeamExchange(LabelExchange):
    """Exchanges the mean soft label of every beam that the client has seen."""

    def lesson(self) -> Lesson | None:
        """The mean soft labels of all clients, as a regulariser on the client's own windows."""
        return BeamLesson(self.targets()) if len(self.held) and self.learner.material.is_labelled else None

    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        """The client's own mean soft labels, for those of the beams asked for that it has seen."""
        recording, train = self.learner.material.recording, self.learner.material.train
        probs = self.learner.soften(recording, train, self.settings.temperature)
        seen, means = mean_by_beam(probs, own_beams(self.learner), self.task.num_beams)
        wanted = np.isin(seen, ask)
        return SoftLabels(seen[wanted], means[wanted], self.settings.temperature)


class PrototypeExchange(Exchange):
    """Exchanges the mean feature of every beam that the client has seen."""

    def lesson(self) -> Lesson | None:
        """The mean prototypes of all clients; None if there are none, or if the client has no labels."""
        arrays = self.request.arrays
        if not arrays:
            return None
        beams, features = (arrays.get(name) for name in ("beams", "features"))
        if beams is None or features is None or features.ndim != 2 or len(features) != len(beams):
            raise WireError(f"the request must hold as many features as beams, got the arrays {sorted(arrays)}")
        if not self.learner.material.is_labelled:
            return None  # It has no own windows whose features could be pulled towards the prototypes.
        return PrototypeLesson(beams.astype(np.int64), features.astype(np.float32))

    def answer(self) -> Answer:
        """The client's own prototypes, with the number of windows behind each."""
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
