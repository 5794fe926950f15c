"""The exchanges of the methods that distillation is compared with: the client sends its weights, or nothing."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from clients.context import ClientContext
from clients.exchanges.base import Answer, Exchange, State
from clients.learning.learner import Learner
from clients.models.device import returned
from clients.privacy import drawn_material
from clients.training import make_learner, make_pooled_learner, own_recording
from strategies.messages.wire import Request


class WeightExchange(Exchange):
    """Exchanges the weights of the student."""

    @classmethod
    def make_learner(cls, context: ClientContext, state: State | None = None) -> Learner:
        """A learner with the initial weights of its modality, because weights can only be averaged from one start."""
        profile, placement = context.profile, context.placement
        choose = partial(drawn_material, context)
        return make_learner(
            profile,
            placement.experiment,
            start=profile.modality,
            choose=choose,
            plugins=placement.plugins,
            state=state,
        )

    def __init__(self, context: ClientContext, learner: Learner, request: Request, state: State) -> None:
        super().__init__(context, learner, request, state)
        if request.arrays:
            weights = {name: torch.from_numpy(np.array(value)) for name, value in request.arrays.items()}
            learner.model.load_state_dict(weights)

    def answer(self) -> Answer:
        """The student's weights with the input scales that they rely on; empty if the client has no labels."""
        if not self.learner.material.is_labelled:
            return Answer()
        return Answer(arrays={name: returned(value).numpy() for name, value in self.learner.model.state_dict().items()})


class NoExchange(Exchange):
    """Exchanges nothing: the client only learns from its own labels."""

    def answer(self) -> Answer:
        """An empty answer."""
        return Answer()


class PooledExchange(NoExchange):
    """Exchanges nothing, but says how many bytes sending the labelled recording would have cost."""

    @classmethod
    def make_learner(cls, context: ClientContext, state: State | None = None) -> Learner:
        """A learner on the labelled windows of all clients of its modality."""
        here = context.placement
        return make_pooled_learner(context.profile, here.experiment, here.federation, plugins=here.plugins, state=state)

    def answer(self) -> Answer:
        """The fact ``raw_bytes``: the bytes of the client's own recording in its first round, then 0."""
        own = own_recording(self.context.profile, self.context.placement.experiment)
        arrays = (
            [] if own is None else [*own.sensors.values(), *(one for one in (own.power, own.labels) if one is not None)]
        )
        is_first = self.learner.progress.round == 1
        return Answer(facts={"raw_bytes": sum(array.nbytes for array in arrays) if is_first else 0})
