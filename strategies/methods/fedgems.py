"""The method FedGEMS: clients answer what the teacher gets wrong on a public set whose right classes the server knows.

Source: selective knowledge fusion, FedGEMS, arXiv 2110.11027: the teacher keeps its own answer where it is right, and
asks the clients about the samples that it gets wrong. The paper has one label a sample and also learns from it; here a
sample has one for each horizon, each horizon is decided by itself, and the labels serve this decision alone. N samples,
H horizons, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.labels import SoftLabels
from strategies.methods.base import RoundPlan
from strategies.methods.distillation import DistillationStrategy


class FedGemsStrategy(DistillationStrategy):
    """Asks about samples that the teacher gets wrong; where it is right, its own answer is the target.

    A YAML chooses it by ``publish: corrected``: the recipe ``fedgems`` does so, and any other method of public samples
    may (`strategies.registry.find_plugins` combines the two classes).

    Source: FedGEMS, arXiv 2110.11027, with the differences above. The arguments are those of `DistillationStrategy`.

    Raises:
        ValueError: the server does not know the right classes of the public set.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._classes = known_classes(self.teacher.public_classes())

    def prepare(self, round_number: int) -> RoundPlan:
        """Ask only for the drawn samples that the teacher gets wrong."""
        plan = super().prepare(round_number)
        taught = self.teacher.answer(plan.asked, self.settings.temperature)
        return replace(plan, asked=doubtful(taught, self._classes), taught=taught)

    def fuse(self, several: Sequence[SoftLabels]) -> list[SoftLabels]:
        """Leave corrected targets as they are: they already hold the teacher's answer from before it learned."""
        return list(several)

    def publish(self, ensemble: SoftLabels | None, own_targets: dict[str, SoftLabels], plan: RoundPlan) -> int:
        """Correct the ensemble and the targets of single clients, then publish them."""
        known = self._corrected(ensemble, plan)
        own = {client: self._corrected(labels, plan) for client, labels in own_targets.items()}
        return super().publish(known if len(known) else None, own, plan)

    def _corrected(self, labels: SoftLabels | None, plan: RoundPlan) -> SoftLabels:
        """The teacher's answer from before the round where it is right, else the labels."""
        if plan.taught is None:
            raise ValueError("a plan for FedGEMS must hold the teacher's answer; begin with super().prepare")
        nothing = self.down.decode(self.down.nothing, self.settings.temperature)
        return corrected(nothing if labels is None else labels, plan.taught, self._classes)


def is_right(taught: SoftLabels, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N, H) whether the teacher's most likely class is the right one.

    Args:
        taught: the teacher's answer.
        classes: (P, H) right classes of the whole public set.
    """
    right: NDArray[np.bool_] = taught.probs.argmax(axis=-1) == classes[taught.sample_ids]
    return right


def doubtful(taught: SoftLabels, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ids of the samples of which the teacher gets a horizon wrong; clients need not answer the others."""
    return taught.sample_ids[~is_right(taught, classes).all(axis=-1)]


def corrected(labels: SoftLabels, taught: SoftLabels, classes: NDArray[np.int64]) -> SoftLabels:
    """The teacher's rows where they name the right class, else those of ``labels``.

    Args:
        labels: soft labels of some of the samples of ``taught``, perhaps of none.
        taught: the teacher's answer.
        classes: (P, H) right classes of the whole public set.

    Returns:
        Soft labels of the samples in ``labels`` and of those that the teacher gets right at every horizon. There are
        none for a sample that the teacher gets wrong and nobody answered.
    """
    right = is_right(taught, classes)
    rows = np.searchsorted(taught.sample_ids, labels.sample_ids)
    probs = np.where(right[rows][..., None], taught.probs[rows], labels.probs)
    known = taught.take(taught.sample_ids[right.all(axis=-1)])
    return known.update(SoftLabels(labels.sample_ids, probs, labels.temperature))


def known_classes(classes: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """(P, H) right classes of the public set.

    Raises:
        ValueError: the server does not know them.
    """
    if classes is None:
        raise ValueError(
            "strategy.publish: corrected needs the classes of the public set, and the server has none; publish mix"
        )
    return classes
