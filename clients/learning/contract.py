"""Whether a student or teacher of a user's own keeps its contract, tried on made-up frames before anything starts.

`clients.models.own` says what the contract is. N windows, H horizons, B beams, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clients.data.modalities import MODALITIES
from clients.data.recording import Recording
from clients.learning.state import pack_state, unpack_state
from clients.models.own import OwnTracker, build_tracker
from clients.models.seeding import torch_seeded
from clients.models.tracker import Tracker, count_parameters, read_windows
from configs.models import Model
from configs.recipes import RECIPES
from configs.schema import Experiment, Task
from configs.seeding import rng_for

# Windows of a trial: more than one, so that an axis that is mixed up with another one shows.
NUM_WINDOWS = 3


@dataclass(frozen=True)
class ModelCost:
    """What a tracker costs.

    Attributes:
        key: the dotted path of the tracker in the YAML.
        model: its name; empty for our tracker.
        parameters: the number of learned parameters.
        macs: the multiply-accumulates of matrix products and convolutions for one window.
    """

    key: str
    model: str
    parameters: int
    macs: int

    def to_dict(self) -> dict[str, str | int]:
        """The values by name."""
        return asdict(self)


def check_models(experiment: Experiment, folders: Sequence[Path]) -> None:
    """Build the students and the teacher that an experiment names, and try those that are a user's own.

    Args:
        experiment: the experiment.
        folders: the folders in which a user's own modules may be files.

    Raises:
        ValueError: a model is missing or does not keep its contract; the message begins with its dotted path.
    """
    for key, (size, modalities) in _models_of(experiment).items():
        if size.model is None:
            continue
        if key.startswith("data.nodes") and experiment.engine.name == "deployment":
            raise ValueError(f"{key}: machines have names of their own, so a node cannot be told; use students")
        tracker = _built(key, size, modalities, experiment.task, folders)
        if isinstance(tracker, OwnTracker):
            _try(key, tracker, partial(_built, key, size, modalities, experiment.task, folders))
        if key != "teacher":
            _check_averaging(key, tracker, experiment)


def model_costs(experiment: Experiment, folders: Sequence[Path]) -> list[ModelCost]:
    """What each student and the teacher cost, in the order of the nodes, then the teacher.

    The arguments and errors are those of :func:`check_models`.
    """
    from clients.models.complexity import macs_of  # it takes long to import

    found, task = [], experiment.task
    for key, (size, modalities) in _models_of(experiment).items():
        tracker = _built(key, size, modalities, task, folders)
        recording = _made_up(modalities, task)
        windows = read_windows(recording, np.arange(1), modalities=modalities, num_frames=task.num_frames)
        macs = macs_of(tracker, partial(tracker, windows))
        found.append(ModelCost(key, size.model or "", count_parameters(tracker), macs))
    return found


def _models_of(experiment: Experiment) -> dict[str, tuple[Model, tuple[str, ...]]]:
    """Dotted path -> the model there and the modalities that it senses."""
    found: dict[str, tuple[Model, tuple[str, ...]]] = {}
    for number, nodes in enumerate(experiment.data.nodes):
        key = f"students.{nodes.modality}" if nodes.student is None else f"data.nodes.{number}.student"
        found[key] = (nodes.student or experiment.student_size(nodes.modality), (nodes.modality,))
    return {**found, "teacher": (experiment.teacher, experiment.data.server_modalities)}


def _built(key: str, size: Model, modalities: tuple[str, ...], task: Task, folders: Sequence[Path]) -> Tracker:
    with torch_seeded(1):
        return build_tracker(size, modalities, task, key=key, folders=folders)


def _check_averaging(key: str, tracker: Tracker, experiment: Experiment) -> None:
    """Weights can only be averaged where all are numbers with a point."""
    recipe = RECIPES.get(experiment.strategy.name)
    if recipe is None or recipe.traits.exchange != "weights":
        return
    counted = [name for name, value in tracker.state_dict().items() if value.dtype != torch.float32]
    if counted:
        raise ValueError(
            f"{key}.model: {experiment.strategy.name} averages weights, and {counted[0]} of this tracker is no float32 "
            "number; choose another strategy, which needs no equal weights, or another tracker"
        )


def _try(key: str, tracker: OwnTracker, build: Callable[[], Tracker]) -> None:
    try:
        _check(tracker, build, _made_up(tracker.modalities, tracker.task))
    except Exception as error:  # a model of a user's own may fail in any way
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        raise ValueError(f"{key}.model: {type(tracker.model).__name__}: {reason}") from error


def _made_up(modalities: Sequence[str], task: Task) -> Recording:
    """One pass of random frames, with `NUM_WINDOWS` windows."""
    num_frames = task.num_frames + task.num_future + NUM_WINDOWS
    sensors = {}
    for name in modalities:
        rng, row = rng_for(0, "contract", name), MODALITIES[name]
        shape = (num_frames, *row.frame_shape)
        is_whole = np.issubdtype(row.dtype, np.integer)
        sensors[name] = (rng.integers(0, 256, shape) if is_whole else 10.0 * rng.random(shape)).astype(row.dtype)
    return Recording(Path(), np.zeros(num_frames, np.int32), sensors, None, {})


def _check(tracker: OwnTracker, build: Callable[[], Tracker], recording: Recording) -> None:
    task, starts = tracker.task, np.arange(NUM_WINDOWS)
    windows = read_windows(recording, starts, modalities=tracker.modalities, num_frames=task.num_frames)
    _check_same_start(tracker, build())
    tracker.fit_scale(recording, starts)
    tracker.train()
    with torch_seeded(2):
        features = tracker.features(windows)
        _check_features(features)
        raw = tracker.model.classify(features)  # type: ignore[operator]
    _check_logits(raw, task)
    _check_gradient(tracker, raw)
    with torch.no_grad():
        for parameter in tracker.parameters():
            if parameter.grad is not None:
                parameter.sub_(1e-3 * parameter.grad)
    tracker.eval()
    with torch.no_grad():
        now = tracker(windows)
        if not torch.equal(now, tracker(windows)):
            raise ValueError("answers the same frames differently in evaluation mode; draw nothing there")
        alone = read_windows(recording, starts[:1], modalities=tracker.modalities, num_frames=task.num_frames)
        if not torch.allclose(now[:1], tracker(alone), rtol=1e-3, atol=1e-4):
            raise ValueError("answers a window differently beside other ones in evaluation mode; use no batch there")
        other = _restored(tracker, build()).eval()
        # What it measures of the first frames that it sees would be another one after it was loaded.
        other(read_windows(recording, starts[-1:], modalities=tracker.modalities, num_frames=task.num_frames))
        if not torch.allclose(now, other(windows), rtol=1e-4, atol=1e-5):
            raise ValueError(
                "answers differently after its state was saved and loaded; register what it measures or learns as "
                "parameters or buffers (register_buffer)"
            )


def _check_same_start(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    if mine.keys() != theirs.keys() or not all(torch.equal(mine[name], theirs[name]) for name in mine):
        raise ValueError("has other weights each time it is built; draw them with torch, whose seed is set")


def _check_features(features: object) -> None:
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != NUM_WINDOWS or not features.shape[1]:
        raise ValueError(f"features: expected a tensor (N, D), here ({NUM_WINDOWS}, D), got {_shape(features)}")
    if not torch.isfinite(features).all():
        raise ValueError("features: not finite (NaN or infinite) for ordinary frames; scale the inputs")


def _check_logits(logits: object, task: Task) -> None:
    expected = (NUM_WINDOWS, task.num_horizons, task.num_classes)
    flat = (NUM_WINDOWS, task.num_horizons * task.num_classes)
    if not isinstance(logits, Tensor) or tuple(logits.shape) not in (expected, flat):
        raise ValueError(f"classify: expected logits (N, H, B), here {expected}, got {_shape(logits)}")
    if not torch.isfinite(logits).all():
        raise ValueError("classify: logits are not finite (NaN or infinite) for ordinary frames; scale the inputs")


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _check_gradient(tracker: Tracker, logits: Tensor) -> None:
    trained = [parameter for parameter in tracker.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("has no parameter that requires a gradient, so there is nothing to train")
    if not logits.requires_grad:
        raise ValueError("its logits have no gradient; compute them with torch, without no_grad or detach")
    weights = torch.linspace(-1.0, 1.0, logits.numel()).view(logits.shape)
    (logits * weights).sum().backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in trained if parameter.grad is not None]
    if not any(gradient.abs().sum() > 0 for gradient in found):
        raise ValueError("no parameter gets a gradient from its logits, so it would never learn")
    if not all(torch.isfinite(gradient).all() for gradient in found):
        raise ValueError("has a gradient that is not finite (NaN or infinite) for ordinary frames")


def _restored(tracker: Tracker, fresh: Tracker) -> Tracker:
    try:
        state = unpack_state(pack_state({"model": tracker.state_dict()}))
        fresh.load_state_dict(state["model"])
    except Exception as error:  # torch has many kinds of errors for this
        raise ValueError(f"its state cannot be saved and loaded ({type(error).__name__}: {error})") from None
    return fresh
