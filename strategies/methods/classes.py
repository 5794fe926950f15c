"""Methods without a public set: knowledge belongs to classes, not to samples.

N classes of C, H horizons, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from configs.recipes import RECIPES, Traits
from strategies.labels import Contribution, SoftLabels
from strategies.messages.mailbox import Outcome
from strategies.messages.records import Member
from strategies.messages.wire import Reply, Request, WireError
from strategies.methods.base import Choreography, RoundPlan
from strategies.methods.distillation import DistillationStrategy


class ClassLabelStrategy(DistillationStrategy):
    """Clients send the mean soft label of every class instead of soft labels of samples.

    Source: federated distillation, arXiv 1811.11479; the mean is over all clients, not over the others only.
    """

    traits: ClassVar[Traits] = RECIPES["fd"].traits

    @property
    def num_items(self) -> int:
        """Clients are asked about classes."""
        return self.experiment.task.num_classes

    def choose_samples(self, round_number: int) -> NDArray[np.int64]:
        """Ask for every class."""
        return np.arange(self.num_items)

    def aggregate(self, contributions: Sequence[Contribution], asked: NDArray[np.int64]) -> SoftLabels:
        """The ensemble of the clients alone: the teacher answers for samples, not for classes."""
        return self.apply_rule(contributions)

    def teach(self, ensemble: SoftLabels | None) -> None:
        """Let the teacher learn from its own labels only: it cannot learn from soft labels of classes."""
        self.teacher.learn(None)

    def targets(self, ensemble: SoftLabels) -> SoftLabels:
        """Publish the ensemble as it is."""
        return ensemble

    def first_targets(self) -> SoftLabels | None:
        """Publish nothing before anybody has answered."""
        return None


@dataclass(frozen=True)
class Prototypes:
    """The mean feature of each class that a client has seen.

    Attributes:
        classes: (N,) the classes, strictly increasing.
        features: (N, D) float32 mean features.
        counts: (N,) the number of windows in which the class was the right one.
    """

    classes: NDArray[np.int64]
    features: NDArray[np.float32]
    counts: NDArray[np.int64]


class PrototypeStrategy(Choreography):
    """Clients share the mean feature of every class, over all that have seen it, weighted by how often.

    Source: FedProto, arXiv 2105.00243. Features of all students must have one size (``students.*.hidden``).
    """

    traits: ClassVar[Traits] = RECIPES["fedproto"].traits

    def prepare(self, round_number: int) -> RoundPlan:
        """The size of features is that of the prototypes so far; before there are any, the first answer sets it."""
        features: NDArray[Any] | None = self.state.arrays.get("features")
        return RoundPlan(round_number, agreed={} if features is None else {"size": int(features.shape[1])})

    def request(self, client: str, plan: RoundPlan) -> Request:
        """Send the prototypes so far."""
        return Request(arrays=self.state.arrays)

    def accept(self, member: Member, outcome: Outcome, reply: Reply, plan: RoundPlan) -> Prototypes:
        """The prototypes of a client, checked: they are finite and have the same size as those of the others."""
        if reply.error:
            raise WireError(reply.error)
        try:
            classes, features, counts = (reply.arrays[name] for name in ("classes", "features", "counts"))
        except KeyError as error:
            raise WireError(f"it answered no {error.args[0]}") from None
        num_classes = self.experiment.task.num_classes
        if classes.dtype != np.uint16 or classes.ndim != 1 or np.any(np.diff(classes.astype(np.int64)) <= 0):
            raise WireError("classes must be uint16 and strictly increasing")
        if len(classes) and classes.max() >= num_classes:
            raise WireError(f"classes must be below {num_classes}, got {classes.max()}")
        if features.dtype != np.float16 or features.ndim != 2 or len(features) != len(classes):
            raise WireError(
                f"expected float16 features of {len(classes)} classes, got {features.dtype} {features.shape}"
            )
        if not np.all(np.isfinite(features)):
            raise WireError("features must be finite")
        if counts.dtype != np.uint32 or counts.shape != classes.shape or np.any(counts == 0):
            raise WireError("counts must be uint32 and at least 1 for each class")
        if len(classes):
            size = plan.agreed.setdefault("size", features.shape[1])
            if features.shape[1] != size:
                raise WireError(
                    f"its features have {features.shape[1]} values, those of others {size}; fedproto needs one "
                    "size (students.*.hidden)"
                )
        return Prototypes(classes.astype(np.int64), features.astype(np.float32), counts.astype(np.int64))

    def num_answers(self, contribution: Prototypes) -> int:
        """Return the number of classes that a client has seen."""
        return len(contribution.classes)

    def conclude(self, contributions: Sequence[Prototypes], plan: RoundPlan) -> int:
        """Average each class over the clients that have seen it; classes that nobody answered keep their prototype."""
        self.teacher.learn(None)
        contributions = [one for one in contributions if len(one.classes)]
        if not contributions:
            return 0
        num_classes, size = self.experiment.task.num_classes, contributions[0].features.shape[1]
        sums, counts = np.zeros((num_classes, size)), np.zeros(num_classes)
        for one in contributions:
            sums[one.classes] += one.counts[:, None] * one.features
            counts[one.classes] += one.counts
        table = np.zeros((num_classes, size), np.float16)
        known = np.zeros(num_classes, np.bool_)
        if self.state.arrays:
            old = self.state.arrays["classes"].astype(np.int64)
            table[old], known[old] = self.state.arrays["features"], True
        answered = counts > 0
        table[answered] = sums[answered] / counts[answered, None]
        classes = np.flatnonzero(known | answered)
        self.state.arrays = {"classes": classes.astype(np.uint16), "features": table[classes]}
        return int(answered.sum())
