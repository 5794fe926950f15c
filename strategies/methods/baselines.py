"""The baselines of federated distillation, which take the same rounds and the same optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from configs.recipes import RECIPES, Traits
from strategies.messages.mailbox import Outcome
from strategies.messages.records import Member
from strategies.messages.wire import Reply, Request, WireError
from strategies.methods.base import Choreography, RoundPlan

Weights = Mapping[str, NDArray[np.float32]]
# Name -> the shape of each weight.
Architecture = dict[str, tuple[int, ...]]


class LocalStrategy(Choreography):
    """Every node learns alone; messages carry nothing but metrics."""

    traits: ClassVar[Traits] = RECIPES["local"].traits

    def request(self, client: str, plan: RoundPlan) -> Request:
        """Ask the client only to go on."""
        return Request()

    def accept(self, member: Member, outcome: Outcome, reply: Reply, plan: RoundPlan) -> Member:
        """A client that answers without an error counts."""
        if reply.error:
            raise WireError(reply.error)
        return member

    def conclude(self, contributions: Sequence[Member], plan: RoundPlan) -> int:
        """Let the teacher go on alone, too."""
        self.teacher.learn(None)
        return 0


class CentralisedStrategy(LocalStrategy):
    """Every node trains on the pooled labelled data of its modality: possible in simulation only.

    The bytes that sending its raw recording would cost count as the uplink of its first round.
    """

    traits: ClassVar[Traits] = RECIPES["centralised"].traits

    def uplink_bytes(self, reply: Reply) -> int:
        """The bytes that sending the client's labelled recording would cost, in the round in which it would be sent."""
        raw = reply.facts.get("raw_bytes", 0)
        return raw if isinstance(raw, int) else 0


class FedAvgStrategy(Choreography):
    """The weights of the students, averaged within each modality by labelled windows.

    Source: FedAvg, arXiv 1602.05629. All students of a modality start from the same weights; what is scored is a
    client's student after its own steps, as in the other strategies.
    """

    traits: ClassVar[Traits] = RECIPES["fedavg"].traits

    def prepare(self, round_number: int) -> RoundPlan:
        """The architecture of a modality is that of its average so far; without one, the first answer sets it."""
        modalities = {name.partition("/")[0] for name in self.state.arrays}
        return RoundPlan(round_number, agreed={name: _architecture(self._average(name)) for name in modalities})

    def request(self, client: str, plan: RoundPlan) -> Request:
        """Send the average of the client's modality."""
        return Request(arrays=self._average(self.mailbox.members[client].modality))

    def accept(self, member: Member, outcome: Outcome, reply: Reply, plan: RoundPlan) -> tuple[Member, Weights]:
        """The weights of a client, checked: finite float32, in the architecture that its modality shares."""
        if reply.error:
            raise WireError(reply.error)
        if not reply.arrays:
            raise WireError("it answered no weights")
        if member.num_examples == 0:
            raise WireError("it learned from no labelled window, so its weights count nothing")
        for name, value in reply.arrays.items():
            if value.dtype != np.float32 or not np.all(np.isfinite(value)):
                raise WireError(f"{name}: weights must be finite float32")
        own = _architecture(reply.arrays)
        if own != plan.agreed.setdefault(member.modality, own):
            raise WireError(f"fedavg needs one architecture for all {member.modality} students; its weights differ")
        return member, reply.arrays  # type: ignore[return-value]

    def conclude(self, contributions: Sequence[tuple[Member, Weights]], plan: RoundPlan) -> int:
        """Average the weights within each modality."""
        self.teacher.learn(None)
        for modality in sorted({member.modality for member, _ in contributions}):
            group = [(member, weights) for member, weights in contributions if member.modality == modality]
            total = sum(member.num_examples for member, _ in group)
            for name in group[0][1]:
                mean = sum(member.num_examples / total * weights[name].astype(np.float64) for member, weights in group)
                self.state.arrays[f"{modality}/{name}"] = np.asarray(mean, np.float32)
        return 0

    def _average(self, modality: str) -> dict[str, NDArray[Any]]:
        """The averaged weights of a modality by name; empty before the first average."""
        prefix = f"{modality}/"
        arrays = self.state.arrays
        return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


def _architecture(weights: Mapping[str, NDArray[Any]]) -> Architecture:
    return {name: value.shape for name, value in weights.items()}
