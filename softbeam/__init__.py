"""Softbeam from Python: run experiments, read their results, compare them.

    import softbeam

    result = softbeam.run("quickstart", **{"strategy.rounds": 3})
    result.teacher, result.clients, result.rounds
    softbeam.compare([result, softbeam.load("runs/quickstart-20261126-120000")])

This module is thin: it says where the tree lies and what one may call. The command line and Python run the same code,
so the same experiment gives the same bits. Rules, strategies, models and tasks may be classes that a notebook defines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients.data.modalities import Modality
    from clients.learning.classification import Classification
    from clients.learning.task import Metric
    from clients.models.encoders import Encoder
    from clients.serving.beam_model import BeamModel
    from configs.schema import Experiment
    from sim.data.federation_writer import FederationWriter, SensorTable
    from sim.data.splitting import By, Dirichlet, Even
    from sim.results import ComparedRuns, Result

__all__ = [
    "By",
    "Classification",
    "ComparedRuns",
    "Dirichlet",
    "Encoder",
    "Even",
    "FederationWriter",
    "Metric",
    "Modality",
    "Result",
    "SensorTable",
    "add_sensor",
    "compare",
    "experiment",
    "load",
    "load_model",
    "main",
    "resume",
    "run",
]

# Classes that are imported when they are asked for, so that ``import softbeam`` takes no time.
_LAZY = {
    "By": "sim.data.splitting",
    "Classification": "clients.learning.classification",
    "ComparedRuns": "sim.results",
    "Dirichlet": "sim.data.splitting",
    "Encoder": "clients.models.encoders",
    "Even": "sim.data.splitting",
    "FederationWriter": "sim.data.federation_writer",
    "Metric": "clients.learning.task",
    "Modality": "clients.data.modalities",
    "Result": "sim.results",
    "SensorTable": "sim.data.federation_writer",
}

# A wheel keeps the tree beside this file; in a checkout this file lies in the tree.
_WHEEL = Path(__file__).resolve().parent / "tree"
TREE = _WHEEL if _WHEEL.is_dir() else Path(__file__).resolve().parents[1]
ROOMS = ("configs", "strategies", "clients", "server", "sim")


def _claim_names() -> None:
    """Make the names of the rooms mean the folders of this tree, whatever lies beside a script.

    Raises:
        ImportError: one of these names was imported from elsewhere before.
    """
    for room in ROOMS:
        module = sys.modules.get(room)
        folders = list(getattr(module, "__path__", ()))
        if module is not None and TREE / room not in [Path(folder).resolve() for folder in folders]:
            where = getattr(module, "__file__", None) or folders
            raise ImportError(
                f"softbeam: another {room!r} is imported already, from {where}, and Softbeam's own package has that "
                "name; rename yours, or use Softbeam in a process that does not import it"
            )
    # It stays in front: processes that are started later search in the same order.
    sys.path[:] = [str(TREE), *(path for path in sys.path if path != str(TREE))]
    for room in ROOMS:
        __import__(room)


_claim_names()
# One thread per process, as on the command line: on shared cores more threads only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def run(
    config: str | Path | Mapping[str, Any] | Experiment = "quickstart",
    *,
    out: str | Path = "runs",
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Run an experiment, and return its result.

    Args:
        config: a YAML file, the name of one in ``configs/``, its values, or what :func:`experiment` returns.
        out: the folder that holds all runs.
        progress: whether to show how far the run is.
        settings: what differs: dotted path -> value, such as ``seed=1`` or ``**{"strategy.rounds": 3}``; a mapping
            changes the keys that it names. A class stands for its name, wherever a YAML names one.

    Raises:
        ValueError: the experiment or its data is wrong; no run folder is left behind then.
    """
    from sim.python_runs import run_from_python

    return run_from_python(config, settings, out=Path(out), shows_progress=progress)


def experiment(
    config: str | Path | Mapping[str, Any] | Experiment = "quickstart", *, out: str | Path = "runs", **settings: Any
) -> Experiment:
    """The whole checked experiment, with every key; the arguments are those of :func:`run`.

    Raises:
        ValueError: a key, a type or a range is wrong; one line per mistake.
    """
    from sim.python_runs import experiment_from_python

    return experiment_from_python(config, settings, out=Path(out))[0]


def resume(folder: str | Path, *, progress: bool = True) -> Result:
    """Go on with a run that was stopped, from its last completed round, and return its result.

    Raises:
        ValueError: the folder is not that of a run, or another version of the source made it.
    """
    from sim.python_runs import resume_from_python

    return resume_from_python(Path(folder), shows_progress=progress)


def load(folder: str | Path) -> Result:
    """The result of a run that has finished.

    Raises:
        ValueError: the folder is not that of a finished run.
    """
    from sim.results import Result

    return Result(Path(folder))


def load_model(folder: str | Path, *, precision: str = "float32") -> BeamModel:
    """The exported model in a folder, which ``softbeam export`` wrote: graphs in onnxruntime, weights in torch.

    Args:
        folder: the folder of the model, or of a store of versions, whose current one it is.
        precision: ``float32``, or ``int8`` where it was exported with it.

    Raises:
        ValueError: the folder holds no exported model, or what it needs is not installed.
    """
    from clients.serving.loading import load_model as load_exported

    return load_exported(Path(folder), precision=precision)


def compare(runs: Sequence[Result | str | Path]) -> ComparedRuns:
    """Several runs side by side, mean and s.d. over seeds; folders of runs stand for the runs in them.

    Raises:
        ValueError: there is no finished run.
    """
    from sim.results import ComparedRuns

    return ComparedRuns.of(runs)


def main() -> None:
    """The command ``softbeam``; on a node that has onnxruntime and numpy only, it is ``predict`` and ``store``."""
    from sim.cli.interruption import leave_on_signals

    leave_on_signals()  # the imports that follow take a moment, and a signal may come then
    try:
        from sim.cli.main import main as command
    except ModuleNotFoundError as error:
        if error.name not in ("click", "typer", "rich"):
            raise
        command = _node_command
    command()


def _node_command() -> None:
    words = sys.argv[1:]
    if words[:1] == ["predict"]:
        from clients.serving.predict import main as predict

        sys.exit(predict(words[1:]))
    if words[:1] == ["store"]:
        from clients.serving.store_command import main as store

        sys.exit(store(words[1:]))
    sys.exit(
        "error: only softbeam predict and softbeam store work here; the other commands need what pip install softbeam "
        "brings"
    )


def add_sensor(row: Modality) -> None:
    """Make a sensor of your own known to this process, so that `FederationWriter` can write its frames.

    An experiment names its sensors itself, in ``data.sensors``, and needs no call.

    Args:
        row: what a frame is and how it is encoded.

    Raises:
        ValueError: it cannot work.
    """
    from clients.models.own_sensors import add_row

    add_row(row)


def __getattr__(name: str) -> Any:
    """The classes of `_LAZY`."""
    module = _LAZY.get(name)
    if module is not None:
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'softbeam' has no attribute {name!r}")
