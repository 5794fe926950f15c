"""What a client does in the methods that distillation is compared with: it sends its weights, or nothing."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from clients.context import ClientContext
from clients.exchanges.base import Answer, Exchange, State
from clients.learning.learner import Learner
from clients.privacy import drawn_material
from clients.training import make_learner, make_pooled_learner, own_recording
from strategies.messages.wire import Request


class WeightExchange(Exchange):
    """The weights of the student."""

    @classmethod
    def make_learner(cls, context: ClientContext) -> Learner:
        """A learner that starts like all of its modality: averaged weights need one starting point."""
        profile, experiment = context.profile, context.placement.experiment
        return make_learner(profile, experiment, start=profile.modality, choose=partial(drawn_material, context))

    def __init__(self, context: ClientContext, learner: Learner, request: Request, state: State) -> None:
        super().__init__(context, learner, request, state)
        if request.arrays:
            weights = {name: torch.from_numpy(np.array(value)) for name, value in request.arrays.items()}
            learner.model.load_state_dict(weights)

    def answer(self) -> Answer:
        """Its weights, and the scales of its inputs, which they presuppose; without labels it has none of its own."""
        if not self.learner.material.is_labelled:
            return Answer()
        return Answer(arrays={name: value.numpy() for name, value in self.learner.model.state_dict().items()})


class NoExchange(Exchange):
    """Nothing."""

    def answer(self) -> Answer:
        """Nothing."""
        return Answer()


class PooledExchange(NoExchange):
    """Nothing; says what its labelled recording would have cost."""

    @classmethod
    def make_learner(cls, context: ClientContext) -> Learner:
        """A learner on the labelled windows of all clients of its modality."""
        return make_pooled_learner(context.profile, context.placement.experiment, context.placement.federation)

    def answer(self) -> Answer:
        """Bytes of its own recording, before its first round."""
        own = own_recording(self.context.profile, self.context.placement.experiment)
        arrays = [] if own is None else [*own.sensors.values(), *([] if own.power is None else [own.power])]
        is_first = self.learner.progress.round == 1
        return Answer(facts={"raw_bytes": sum(array.nbytes for array in arrays) if is_first else 0})
