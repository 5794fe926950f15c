"""Tasks of a user's own: a class in a file beside the YAML, which says what is to be decided and how it is scored.

    task: {name: "my_task:Digits", options: {...}}

The class inherits from `Classification` and says how many classes there are; all else has a default:

    class Digits(Classification):
        num_classes = 10
        title, noun = "digit recognition", "digit"                # what report and tables say
        metrics = {"accuracy": Metric("Accuracy")}                 # how scores are shown; the first one counts most

        def __init__(self, **options)                              # the options of the YAML
        def read(self, stored)              labels of a recording (F,) to classes (F,), whole numbers from 0
        def loss(self, logits, labels)      logits (N, C) and classes (N,) to a number with a gradient
        def scores(self, probs, labels)     probabilities (N, C) and classes (N,) to name -> number, of any N >= 1

``read`` gets what a federation holds: classes from ``labels.npy``, or the power of each beam (F, B) from ``power.npy``.
An item is one row, or a window of ``task.num_frames`` rows that is decided for its last one.

N items, F rows, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from clients.data.recording import Recording
from clients.learning.task import BEAM_TRACKING, LearningTask, Metric, TaskLoss, Wording
from configs.plugins import build_plugin, find_class
from configs.schema import Task

# A name that is a key of summary.json, the end of a metric on the wire and the name of a column.
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Ends of names that mean something else in what a client reports.
_TAKEN = ("validation", "passes")


@dataclass(frozen=True)
class ClassScores:
    """The scores of a task of a user's own, which has one horizon: name -> number."""

    values: Mapping[str, float]

    def to_dict(self) -> dict[str, list[float]]:
        """The scores by name, with one number for the one horizon."""
        return {name: [value] for name, value in self.values.items()}

    def mean(self, name: str) -> float:
        """One score."""
        return self.values[name]


class Classification(LearningTask):
    """The base of tasks of a user's own: which of C classes an item belongs to.

    Attributes:
        num_classes: C, from 2 to 1024.
        title: the name of the task within a sentence, for the report.
        noun: what one class is called, for the report.
        metrics: name of a score -> how it is shown; the first one is what runs are compared by, a share from 0 to 1
            of which more is better.

    Example:
        >>> class Digits(Classification):
        ...     num_classes = 10
        >>> Digits().scores(np.eye(10)[[3, 1]], np.array([3, 7]))
        {'accuracy': 0.5}
    """

    num_classes: int = 0
    title: str = "classification"
    noun: str = "class"
    metrics: ClassVar[Mapping[str, Metric]] = {"accuracy": Metric("Accuracy")}

    def read(self, stored: NDArray[Any]) -> NDArray[np.integer]:
        """(F,) the class of each row, from 0.

        Args:
            stored: (F,) whole numbers of ``labels.npy``, which are taken as they are; or (F, B) power of ``power.npy``,
                of which the strongest beam is taken.
        """
        return stored if stored.ndim == 1 else stored.argmax(axis=-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats, a number with a gradient.

        Args:
            logits: (N, C).
            labels: (N,) int64 classes.
        """
        return functional.cross_entropy(logits, labels)

    def scores(self, probs: NDArray[np.float32], labels: NDArray[np.int64]) -> Mapping[str, float]:
        """Name of each score in `metrics` -> a finite number: here the share of items whose likeliest class is right.

        Args:
            probs: (N, C) calibrated probabilities, of at least one item.
            labels: (N,) classes; not every class need be among them.
        """
        return {"accuracy": float(np.mean(probs.argmax(axis=1) == labels))}

    @property
    def wording(self) -> Wording:
        """What the class says of itself."""
        return Wording(self.title, self.noun, dict(self.metrics), next(iter(self.metrics)))

    @property
    def own_loss(self) -> TaskLoss:
        """The loss for the one horizon."""
        return lambda logits, truth: self.loss(logits[:, 0], truth[:, 0])

    def truth(self, recording: Recording, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N, 1) classes."""
        if rows.size == 0:
            return np.empty(rows.shape, np.int64)
        found = np.asarray(self.read(recording.stored_labels(rows.ravel())))
        return found.reshape(rows.shape).astype(np.int64)

    def classes(self, truth: NDArray[np.int64]) -> NDArray[np.int64]:
        """The truth is the class."""
        return truth

    def decisions(self, logits: Tensor, temperature: float) -> NDArray[np.float32]:
        """(N, 1, C) calibrated probabilities."""
        found: NDArray[np.float32] = torch.softmax(logits / temperature, dim=-1).numpy()
        return found

    def evaluate(self, decisions: NDArray[np.float32], truth: NDArray[np.int64]) -> ClassScores:
        """The scores of the class.

        Raises:
            ValueError: a score that `metrics` names is missing or not finite.
        """
        found = dict(self.scores(decisions[:, 0], truth[:, 0]))
        if found.keys() != self.metrics.keys():
            raise ValueError(
                f"scores: gave {_listed(found)}, and metrics names {_listed(self.metrics)}; make them equal"
            )
        values = {name: float(found[name]) for name in self.metrics}
        if wrong := [name for name, value in values.items() if not np.isfinite(value)]:
            raise ValueError(
                f"scores: {wrong[0]} is {values[wrong[0]]} for {len(truth)} items; make it a finite number"
            )
        return ClassScores(values)


def task_of(section: Task, folders: Sequence[Path]) -> LearningTask:
    """The task that an experiment names.

    Args:
        section: the section ``task``.
        folders: the folders in which the module of a user's own may lie.

    Raises:
        ValueError: there is no such class, or it cannot be made; the message begins with the dotted path.
    """
    return BEAM_TRACKING if section.is_beam_tracking else _made(section.model_dump_json(), tuple(folders))


@lru_cache(maxsize=4)
def _made(section: str, folders: tuple[Path, ...]) -> Classification:
    task = Task.model_validate_json(section)
    found = find_class(task.name, {}, key="task.name", folders=folders)
    if not issubclass(found, Classification):
        raise ValueError(f"task.name: {found.__name__} does not inherit from softbeam.Classification; let it")
    made: Classification = build_plugin(found, task.options, key="task.options")
    try:
        _check_names(made)
    except ValueError as error:
        raise ValueError(f"task.name: {found.__name__}: {error}") from None
    if made.num_classes != task.num_classes:
        raise ValueError(
            f"task.name: {found.__name__} has {made.num_classes} classes, and the data has {task.num_classes}; make "
            "num_classes equal, or say task.num_classes where read makes other classes of the labels"
        )
    return made


def _check_names(made: Classification) -> None:
    """Refuse a class whose plain values could not be used or shown."""
    if type(made.num_classes) is not int or not 2 <= made.num_classes <= 1024:
        raise ValueError(f"num_classes: must be a whole number from 2 to 1024, got {made.num_classes!r}")
    for key in ("title", "noun"):
        if not isinstance(getattr(made, key), str) or not getattr(made, key).strip():
            raise ValueError(f"{key}: must be a text, got {getattr(made, key)!r}")
    metrics, plain = made.metrics, Metric("")
    if not isinstance(metrics, Mapping) or not metrics or not all(isinstance(one, Metric) for one in metrics.values()):
        raise ValueError('metrics: must be names with a Metric each, such as {"accuracy": softbeam.Metric("Accuracy")}')
    first, shown = next(iter(metrics.items()))
    if (shown.unit, shown.scale, shown.is_gain) != (plain.unit, plain.scale, plain.is_gain):
        raise ValueError(
            f"metrics: runs are compared by the first one, {first}; let it be a share from 0 to 1 of which more is "
            "better, and leave its unit, scale and is_gain out"
        )
    for name in metrics:
        if not _NAME.fullmatch(str(name)) or name in _TAKEN:
            raise ValueError(f"metrics: {name!r} must be small letters, digits and _, and none of {', '.join(_TAKEN)}")


def forget_tasks() -> None:
    """Read the classes of users anew from now on: their files may have changed."""
    _made.cache_clear()


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(map(str, names)) or "nothing"
