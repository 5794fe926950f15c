"""Softbeam from Python: run experiments, read their results, compare them.

    import softbeam

    result = softbeam.run("quickstart", **{"strategy.rounds": 3})
    result.teacher, result.clients, result.rounds
    softbeam.compare([result, softbeam.load("runs/quickstart-20261126-120000")])

This module is thin: it says where the tree lies and what one may call. The command line and Python run the same code,
so the same experiment gives the same bits. Rules, strategies and models may be classes that a notebook defines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.schema import Experiment
    from sim.results import ComparedRuns, Result

__all__ = ["ComparedRuns", "Result", "compare", "experiment", "load", "main", "resume", "run"]

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


def compare(runs: Sequence[Result | str | Path]) -> ComparedRuns:
    """Several runs side by side, mean and s.d. over seeds; folders of runs stand for the runs in them.

    Raises:
        ValueError: there is no finished run.
    """
    from sim.results import ComparedRuns

    return ComparedRuns.of(runs)


def main() -> None:
    """The command ``softbeam``."""
    from sim.cli.main import main as command

    command()


def __getattr__(name: str) -> Any:
    """Classes that are imported when they are asked for, so that ``import softbeam`` takes no time."""
    if name in ("Result", "ComparedRuns"):
        import sim.results

        return getattr(sim.results, name)
    raise AttributeError(f"module 'softbeam' has no attribute {name!r}")
