"""Whether a task of a user's own keeps its contract, tried on made-up decisions and on its data before a round starts.

`clients.learning.classification` says what the contract is. N items, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clients.data.recording import PUBLIC_LABELS, PUBLIC_POWER, open_recording
from clients.learning.classification import Classification, forget_tasks, task_of
from configs.data_facts import recordings_of_clients
from configs.schema import Experiment
from configs.seeding import rng_for

# Numbers of items of the trials: several, and one alone, as in a client that tests itself on a single item.
NUM_ITEMS = (5, 1)


def check_task(experiment: Experiment, folders: Sequence[Path]) -> None:
    """Build the task that an experiment names, and try it if it is a user's own.

    Args:
        experiment: the experiment.
        folders: the folders in which a user's own module may be a file.

    Raises:
        ValueError: the task is missing or does not keep its contract; the message begins with its dotted path.
    """
    forget_tasks()
    task = task_of(experiment.task, folders)
    if isinstance(task, Classification):
        with _told_of(task):
            for num_items in NUM_ITEMS:
                _try(task, num_items)


def check_labels(experiment: Experiment, federation: Path, folders: Sequence[Path]) -> None:
    """Read the labels of every recording of a federation as classes of the task, if it is a user's own.

    Args:
        experiment: the experiment.
        federation: the folder of the federation.
        folders: the folders in which a user's own module may be a file.

    Raises:
        ValueError: a label is not a class.
    """
    task = task_of(experiment.task, folders)
    if not isinstance(task, Classification):
        return
    with _told_of(task):
        for folder in (federation / "server", federation / "test", *recordings_of_clients(federation)):
            if (recording := open_recording(folder)).is_labelled and len(recording.pass_ids):
                stored = recording.stored_labels(np.arange(len(recording.pass_ids)))
                _check_classes(task, task.read(stored), len(stored), str(folder))
        for name in (PUBLIC_POWER, PUBLIC_LABELS):
            if (path := federation / name).is_file():
                stored = np.load(path, allow_pickle=False)
                _check_classes(task, task.read(stored), len(stored), str(path))


@contextmanager
def _told_of(task: Classification) -> Iterator[None]:
    """Turn whatever goes wrong in a task into one line."""
    try:
        yield
    except Exception as error:  # a class of a user's own may fail in any way
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        raise ValueError(f"task.name: {type(task).__name__}: {reason}") from error


def _try(task: Classification, num_items: int) -> None:
    """Compute loss, gradient and scores for made-up items.

    Raises:
        ValueError: one of them is not what the contract asks for.
    """
    rng = rng_for(0, "task contract", num_items)
    logits = torch.from_numpy(rng.normal(size=(num_items, task.num_classes)).astype(np.float32)).requires_grad_()
    labels = rng.integers(task.num_classes, size=num_items)
    loss = task.loss(logits, torch.from_numpy(labels))
    if not isinstance(loss, Tensor) or loss.ndim:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss: expected a tensor with one number and no axis, got {shape}")
    if not torch.isfinite(loss):
        raise ValueError(f"loss: {loss.item()} for ordinary logits; make it a finite number")
    if not loss.requires_grad:
        raise ValueError("loss: has no gradient; compute it with torch, without no_grad or detach")
    loss.backward()  # type: ignore[no-untyped-call]
    if logits.grad is None or not torch.isfinite(logits.grad).all() or not logits.grad.abs().sum() > 0:
        raise ValueError("loss: its gradient by the logits is zero or not finite, so nothing would be learned")
    probs = torch.softmax(logits.detach(), dim=-1).numpy()
    main = task.evaluate(probs[:, None], labels[:, None]).mean(task.wording.main)
    if not 0.0 <= main <= 1.0:
        raise ValueError(
            f"scores: {task.wording.main} is {main:g}; runs are compared by it, so make it a share, 0 to 1"
        )


def _check_classes(task: Classification, found: object, num_rows: int, where: str) -> None:
    classes = np.asarray(found)
    if classes.shape != (num_rows,) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"read: expected ({num_rows},) whole numbers for the rows of {where}, got {classes.dtype} {classes.shape}"
        )
    wrong = np.flatnonzero((classes < 0) | (classes >= task.num_classes))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"read: row {row} of {where} is {classes[row]}, and classes are 0 to {task.num_classes - 1}; mend read, "
            "num_classes or the data"
        )
