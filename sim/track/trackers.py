"""The trackers that a run can be sent to, each behind one small interface.

An adapter sends to the place that its tracker knows from its own settings and environment variables, such as
``MLFLOW_TRACKING_URI`` or ``WANDB_MODE``; TensorBoard's files lie in the folder of the run. Its package is imported
when the tracking begins, in a process that does nothing else (`sim.track.beside`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from configs.plugins import find_class

# What trackers call the project, or the experiment, that all runs belong to.
PROJECT = "softbeam"


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins.

    Attributes:
        folder: the folder of the run.
        experiment: the name of the experiment.
        seed: its seed.
        settings: dotted key -> value of every setting, as a number or a short text.
        id: what :meth:`RunTracker.begin` returned when this run was sent before; empty the first time.
    """

    folder: Path
    experiment: str
    seed: int
    settings: Mapping[str, str | int | float | bool]
    id: str = ""


class RunTracker(Protocol):
    """Takes the numbers of one run; whatever it raises ends the tracking, and never the run."""

    def begin(self, run: TrackedRun) -> str:
        """Begin a run, or go on with the one that ``run.id`` names; the id under which it can be found again."""

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a round, by name; rounds come in order."""

    def end(self, *, has_finished: bool) -> None:
        """End the run, and send what has not been sent."""


class TensorBoard:
    """Event files in ``tensorboard/`` of the run folder, for ``tensorboard --logdir runs``.

    Source: tensorboardX, https://tensorboardx.readthedocs.io.
    """

    def begin(self, run: TrackedRun) -> str:
        """Open an event file; one of an earlier part of the run is kept, and TensorBoard joins them."""
        from tensorboardX import SummaryWriter

        self._writer: Any = SummaryWriter(str(run.folder / "tensorboard"))
        if not run.id:
            lines = [f"| {key} | {value} |" for key, value in run.settings.items()]
            self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *lines]))
        return "tensorboard"

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each number, and write them out."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, round_number)
        self._writer.flush()

    def end(self, *, has_finished: bool) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run of the MLflow experiment ``softbeam``.

    Source: https://mlflow.org/docs/latest/ml/tracking.
    """

    def begin(self, run: TrackedRun) -> str:
        """Start a run with the settings as parameters, or take up the one with this id."""
        import mlflow

        self._mlflow: Any = mlflow
        mlflow.set_experiment(PROJECT)
        tags = {"experiment": run.experiment, "seed": str(run.seed), "folder": str(run.folder)}
        name = None if run.id else run.folder.name
        started = mlflow.start_run(run_id=run.id or None, run_name=name, tags=tags)
        if not run.id:
            mlflow.log_params(dict(run.settings))
        return str(started.info.run_id)

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Log the numbers with the round as their step."""
        self._mlflow.log_metrics(dict(values), step=round_number)

    def end(self, *, has_finished: bool) -> None:
        """End the run as finished or failed."""
        self._mlflow.end_run("FINISHED" if has_finished else "FAILED")


class WandB:
    """A run of the project ``softbeam`` of Weights & Biases, grouped by experiment.

    Source: https://docs.wandb.ai/ref/python.
    """

    def begin(self, run: TrackedRun) -> str:
        """Start a run with the settings as its config, or take up the one with this id."""
        import wandb

        self._run: Any = wandb.init(
            project=PROJECT,
            name=run.folder.name,
            group=run.experiment,
            config=dict(run.settings),
            dir=str(run.folder),
            id=run.id or None,
            resume="allow",
        )
        return str(self._run.id)

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Log the numbers with the round as their step."""
        self._run.log(dict(values), step=round_number)

    def end(self, *, has_finished: bool) -> None:
        """Finish the run, as failed where it did not finish."""
        self._run.finish(exit_code=0 if has_finished else 1)


class Trackio:
    """A run of the local project ``softbeam`` of Trackio, grouped by experiment.

    Source: https://huggingface.co/docs/trackio.
    """

    def begin(self, run: TrackedRun) -> str:
        """Start a run with the settings as its config, or take up the one of this name."""
        import trackio

        name = run.id or run.folder.name
        self._trackio: Any = trackio
        trackio.init(
            project=PROJECT,
            name=name,
            group=run.experiment,
            config=dict(run.settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Log the numbers with the round as their step."""
        self._trackio.log(dict(values), step=round_number)

    def end(self, *, has_finished: bool) -> None:
        """Finish the run."""
        self._trackio.finish()


# Name in a YAML -> its adapter; the package that it needs, and how that is installed.
TRACKERS = {
    name: f"{__name__}:{kind}"
    for name, kind in (("tensorboard", "TensorBoard"), ("mlflow", "MLflow"), ("wandb", "WandB"), ("trackio", "Trackio"))
}
PACKAGES = {
    "tensorboard": ("tensorboardX", "pip install 'softbeam[track]'"),
    "mlflow": ("mlflow", "pip install mlflow"),
    "wandb": ("wandb", "pip install wandb"),
    "trackio": ("trackio", "pip install trackio"),
}


def make_tracker(name: str, plugins: Sequence[Path], *, key: str = "track") -> RunTracker:
    """The adapter of a tracker by its name, or a class of a user's own by ``"module:Class"``; nothing is begun.

    Args:
        name: the name.
        plugins: the folders in which a user's own modules are looked for.
        key: where the name was given, for the error.

    Raises:
        ValueError: there is no such tracker, its package is not installed, or the class lacks a method.
    """
    kind = find_class(name, TRACKERS, key=key, folders=plugins)
    package, how = PACKAGES.get(name, ("", ""))
    if package and find_spec(package) is None:
        raise ValueError(f"{key}: {name} needs {package}, which is not installed here; install it: {how}")
    methods = ("begin", "log", "end")
    lacking = [method for method in methods if not callable(getattr(kind, method, None))]
    if lacking:
        raise ValueError(f"{key}: {name} has no method {lacking[0]}; write one (docs/trackers.md)")
    tracker: RunTracker = kind()
    return tracker


def check_trackers(names: Sequence[str], plugins: Sequence[Path]) -> None:
    """Refuse trackers that could not be told of a run, before it begins; the errors are those of `make_tracker`."""
    for name in names:
        make_tracker(name, plugins)
