"""What a client does with each kind of knowledge: the table, and the kinds that are no soft labels.

N windows, B beams, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from clients.desk import Desk
from clients.exchange import Exchange, Said, State, own_beams
from clients.label_exchanges import BeamExchange, PublicExchange
from clients.masked_exchange import MaskedExchange
from clients.sensing.by_beam import count_beams, mean_by_beam
from clients.sensing.learner import Learner
from clients.sensing.lessons import Lesson, PrototypeLesson
from clients.training import own_recording
from strategies.messages.wire import Request, WireError


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

    def answer(self) -> Said:
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
        return Said(arrays=arrays)


class WeightExchange(Exchange):
    """The weights of the student."""

    def __init__(self, desk: Desk, learner: Learner, request: Request, state: State) -> None:
        super().__init__(desk, learner, request, state)
        if request.arrays:
            weights = {name: torch.from_numpy(np.array(value)) for name, value in request.arrays.items()}
            learner.model.load_state_dict(weights)

    def answer(self) -> Said:
        """Its weights, and the scales of its inputs, which they presuppose; without labels it has none of its own."""
        if not self.learner.material.is_labelled:
            return Said()
        return Said(arrays={name: value.numpy() for name, value in self.learner.model.state_dict().items()})


class NoExchange(Exchange):
    """Nothing."""

    def answer(self) -> Said:
        """Nothing."""
        return Said()


class PooledExchange(NoExchange):
    """Nothing; says what its labelled recording would have cost."""

    def answer(self) -> Said:
        """Bytes of its own recording, before its first round."""
        own = own_recording(self.desk.profile, self.desk.placement.experiment)
        arrays = [] if own is None else [*own.sensors.values(), *([] if own.power is None else [own.power])]
        is_first = self.learner.progress.round == 1
        return Said(facts={"raw_bytes": sum(array.nbytes for array in arrays) if is_first else 0})


EXCHANGES: dict[str, type[Exchange]] = {
    "public": PublicExchange,
    "masked": MaskedExchange,
    "beams": BeamExchange,
    "prototypes": PrototypeExchange,
    "weights": WeightExchange,
    "nothing": NoExchange,
    "pooled": PooledExchange,
}
