"""The exchanges of what a client knows about each class: its mean soft label, or its mean feature (prototype).

N windows, C classes, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients.data.by_class import count_classes, mean_by_class
from clients.exchanges.base import Answer, Exchange, own_classes
from clients.exchanges.labels import LabelExchange
from clients.learning.class_lessons import ClassLesson, PrototypeLesson
from clients.learning.learner import Lesson
from strategies.labels import SoftLabels
from strategies.messages.wire import WireError


class ClassExchange(LabelExchange):
    """Exchanges the mean soft label of every class that the client has seen."""

    def lesson(self) -> Lesson | None:
        """The mean soft labels of all clients, as a regulariser on the client's own windows."""
        return ClassLesson(self.targets()) if len(self.held) and self.learner.material.is_labelled else None

    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        """The client's own mean soft labels, for those of the classes asked for that it has seen."""
        recording, train = self.learner.material.recording, self.learner.material.train
        probs = self.learner.soften(recording, train, self.settings.temperature)
        seen, means = mean_by_class(probs, own_classes(self.learner), self.task.num_classes)
        wanted = np.isin(seen, ask)
        return SoftLabels(seen[wanted], means[wanted], self.settings.temperature)


class PrototypeExchange(Exchange):
    """Exchanges the mean feature of every class that the client has seen."""

    def lesson(self) -> Lesson | None:
        """The mean prototypes of all clients; None if there are none, or if the client has no labels."""
        arrays = self.request.arrays
        if not arrays:
            return None
        classes, features = (arrays.get(name) for name in ("classes", "features"))
        if classes is None or features is None or features.ndim != 2 or len(features) != len(classes):
            raise WireError(f"the request must hold as many features as classes, got the arrays {sorted(arrays)}")
        if not self.learner.material.is_labelled:
            return None  # It has no own windows whose features could be pulled towards the prototypes.
        return PrototypeLesson(classes.astype(np.int64), features.astype(np.float32))

    def answer(self) -> Answer:
        """The client's own prototypes, with the number of windows behind each."""
        recording, train = self.learner.material.recording, self.learner.material.train
        classes = own_classes(self.learner)[:, :1]
        features = self.learner.predict_features(recording, train)
        seen, means = mean_by_class(features[:, None], classes, self.task.num_classes)
        arrays: dict[str, NDArray[np.generic]] = {
            "classes": seen.astype(np.uint16),
            "features": means[:, 0].astype(np.float16),
            "counts": count_classes(classes, self.task.num_classes)[seen].astype(np.uint32),
        }
        return Answer(arrays=arrays)
