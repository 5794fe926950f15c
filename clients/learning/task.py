"""What a learner learns to decide: where its labels are, how decisions are scored, and what the scores are called.

Beam tracking is the task that ships (`BeamTracking`); `clients.learning.classification` is for tasks of a user's own.

N items (windows), H horizons, C classes, B beams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import Recording
from clients.learning.baselines import baseline_scores
from clients.learning.metrics import BeamMetrics, top5_by_pass
from configs.schema import Task

if TYPE_CHECKING:
    # Whoever reads scores only, such as a report, need not wait for PyTorch.
    from torch import Tensor

TaskLoss = Callable[["Tensor", "Tensor"], "Tensor"]
"""A loss of logits (N, H, C) and of what `LearningTask.truth` gives for the same items."""


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        title: the title of its column.
        unit: the unit of the shown value.
        scale: the factor from the stored to the shown value.
        decimals: the number of decimals that are shown.
        is_gain: whether larger is better.
    """

    title: str
    unit: str = "%"
    scale: float = 100.0
    decimals: int = 1
    is_gain: bool = True


@dataclass(frozen=True)
class Wording:
    """What tables, reports and captions call a task and its scores.

    Attributes:
        title: the name of the task within a sentence, such as ``beam tracking``.
        noun: what one class is called, such as ``beam``.
        metrics: name of a metric -> how it is shown, in the order of the columns.
        main: the metric that runs are compared by: a share in [0, 1], of which more is better, shown in %.
    """

    title: str
    noun: str
    metrics: Mapping[str, Metric]
    main: str

    @property
    def main_metric(self) -> Metric:
        """How the metric is shown that runs are compared by."""
        return self.metrics[self.main]

    @property
    def nouns(self) -> str:
        """What several classes are called."""
        if self.noun.endswith("y") and self.noun[-2:-1] not in "aeiou":
            return f"{self.noun[:-1]}ies"
        return f"{self.noun}es" if self.noun.endswith("s") else f"{self.noun}s"

    @property
    def is_of_beams(self) -> bool:
        """Whether it is that of beam tracking."""
        return self == BEAM_WORDING

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :meth:`from_dict` takes back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Wording:
        """The inverse of :meth:`to_dict`.

        Raises:
            TypeError, KeyError: a value is missing.
        """
        metrics = {str(name): Metric(**one) for name, one in values["metrics"].items()}
        return cls(**{**values, "metrics": metrics})


BEAM_WORDING = Wording(
    title="beam tracking",
    noun="beam",
    metrics={
        "top1": Metric("Top-1"),
        "top3": Metric("Top-3"),
        "top5": Metric("Top-5"),
        "dba": Metric("DBA"),
        "dba_k3": Metric("DBA (K=3)"),
        "power_loss_db": Metric("Power loss", unit="dB", scale=1.0, decimals=2, is_gain=False),
    },
    main="top5",
)


class Scores(Protocol):
    """The scores of a learner on some items: name of a metric -> a number for each horizon."""

    def to_dict(self) -> dict[str, list[float]]:
        """The scores by name."""

    def mean(self, name: str) -> float:
        """One score, averaged over the horizons."""


class LearningTask(ABC):
    """What learners, server and recorder ask about the task; they know nothing else of it."""

    @property
    @abstractmethod
    def wording(self) -> Wording:
        """What the task and its scores are called."""

    @property
    def own_loss(self) -> TaskLoss | None:
        """The loss on own labels; None leaves it to the settings (``training.task_loss``)."""
        return None

    @abstractmethod
    def truth(self, recording: Recording, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(N, H, ...) what loss and scores compare with, for the rows (N, H) of a labelled recording."""

    @abstractmethod
    def classes(self, truth: NDArray[Any]) -> NDArray[np.int64]:
        """(N, H) the right classes, from what :meth:`truth` gave."""

    @abstractmethod
    def decisions(self, logits: Tensor, temperature: float) -> NDArray[np.float32]:
        """(N, H, C) what :meth:`evaluate` scores, from logits (N, H, C) and the temperature that calibrates them."""

    @abstractmethod
    def evaluate(self, decisions: NDArray[np.float32], truth: NDArray[Any]) -> Scores:
        """Score decisions (N, H, C), of at least one item, against the truth."""

    def evaluate_by_pass(
        self, decisions: NDArray[np.float32], truth: NDArray[Any], pass_of_item: NDArray[np.integer]
    ) -> list[float] | None:
        """The main score of the items of each pass, in the order of the passes' ids; None if that says nothing."""
        return None

    def baselines(
        self, own: Recording, train: NDArray[np.int64], recording: Recording, starts: NDArray[np.int64], section: Task
    ) -> dict[str, NDArray[np.floating]]:
        """Name -> decisions (N, H, C) of what needs no training; the arguments are those of `baseline_scores`."""
        return {}

    def truth_of(self, recording: Recording, starts: NDArray[np.int64], section: Task) -> NDArray[Any]:
        """(N, H, ...) the truth of windows: of their last frame, and of the slots ahead.

        Args:
            recording: a labelled recording.
            starts: (N,) the first frame of each window.
            section: the lengths of windows.
        """
        return self.truth(recording, starts[:, None] + section.num_frames - 1 + np.arange(section.num_horizons))

    def classes_of(self, recording: Recording, starts: NDArray[np.int64], section: Task) -> NDArray[np.int64]:
        """(N, H) the right classes of windows; the arguments are those of :meth:`truth_of`."""
        return self.classes(self.truth_of(recording, starts, section))


class BeamTracking(LearningTask):
    """Which of B beams is the best, now and in the next slots; the truth is the measured power (N, H, B)."""

    @property
    def wording(self) -> Wording:
        """The metrics of beam tracking; runs are compared by Top-5."""
        return BEAM_WORDING

    def truth(self, recording: Recording, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, H, B) linear receive power."""
        return recording.power_at(rows)

    def classes(self, truth: NDArray[np.float32]) -> NDArray[np.int64]:
        """(N, H) the beams with the largest power."""
        best: NDArray[np.int64] = truth.argmax(axis=-1).astype(np.int64)
        return best

    def decisions(self, logits: Tensor, temperature: float) -> NDArray[np.float32]:
        """(N, H, B) the logits: a ranking of beams needs no calibration."""
        found: NDArray[np.float32] = logits.numpy()
        return found

    def evaluate(self, decisions: NDArray[np.float32], truth: NDArray[np.float32]) -> BeamMetrics:
        """The metrics of a ranking."""
        return BeamMetrics.of(decisions, truth)

    def evaluate_by_pass(
        self, decisions: NDArray[np.float32], truth: NDArray[np.float32], pass_of_item: NDArray[np.integer]
    ) -> list[float]:
        """Top-5 of each pass."""
        return top5_by_pass(decisions, truth, pass_of_item)

    def baselines(
        self, own: Recording, train: NDArray[np.int64], recording: Recording, starts: NDArray[np.int64], section: Task
    ) -> dict[str, NDArray[np.floating]]:
        """The last beam, the history of beams, the nearest position."""
        return baseline_scores(own, train, recording, starts, section)


BEAM_TRACKING = BeamTracking()
