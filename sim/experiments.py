"""Runs an experiment from its config to a finished run folder: check, make the data, launch, report."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from clients.app import build_app as build_client_app
from clients.learning.contract import check_models
from clients.profile import client_folders
from configs.files import LOCK, waited_for, write_whole
from configs.home import hold
from configs.loading import build_experiment, experiment_digest, source_digest, to_values
from configs.placement import Placement, federation_folder, plugin_folders
from configs.progress import PhaseProgress
from configs.schema import Experiment
from server.app import build_app as build_server_app
from server.session import Watch
from sim.data.federation import ensure_federation
from sim.data.inspection import left_out_of
from sim.launch import check_engine, launch
from sim.report.html import write_run_report
from strategies.registry import find_plugins

log = logging.getLogger(__name__)

Began = Callable[[Path], None]
"""A callable that gets the folder of a run before anything else of it is done."""


def run_experiment(
    experiment: Experiment,
    *,
    plugins: tuple[Path, ...],
    out: Path,
    progress: PhaseProgress,
    began: Began = lambda folder: None,
) -> Path:
    """Run an experiment in a new folder.

    Args:
        experiment: the experiment to run.
        plugins: the folders in which a user's own modules are looked for.
        out: the folder that holds all runs.
        progress: is called with the phase, the work that is done and the whole work.
        began: is called with the run folder before anything else is done in it.

    Returns:
        The run folder.

    Raises:
        ValueError: the experiment or its data is wrong; no run folder is left behind then.
    """
    check_engine(experiment.engine)
    find_plugins(Placement(experiment, Path(), Path(), plugins))
    check_models(experiment, plugins)
    with _begun(out, experiment.name) as folder:
        # What a resumption needs is there before the data is made, which may take long.
        note: dict[str, Any] = {"plugins": [str(one) for one in plugins], "data_seconds": 0.0}
        write_whole(folder / "experiment.yaml", yaml.safe_dump(to_values(experiment), sort_keys=False))
        write_whole(folder / "placement.json", json.dumps(note) + "\n")
        began(folder)
        federation, seconds = make_data(experiment, progress)
        if left_out := left_out_of(federation):
            log.warning("%s: left out or unusual: %d, the first: %s", experiment.name, len(left_out), left_out[0])
        note |= {"data_seconds": seconds, "federation": str(federation)}
        write_whole(folder / "placement.json", json.dumps(note) + "\n")
    _launch(Placement(experiment, federation, folder, plugins), seconds, progress)
    return folder


@contextmanager
def _begun(out: Path, name: str) -> Iterator[Path]:
    """A new run folder; an error takes it away again, with what was made for it, while an interrupt leaves it."""
    missing = [path for path in (out, *out.parents) if not path.exists()]
    folder = new_run_folder(out, name)
    try:
        yield folder
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


def continue_experiment(
    experiment: Experiment,
    *,
    plugins: tuple[Path, ...],
    out: Path,
    progress: PhaseProgress,
    began: Began = lambda folder: None,
) -> Path:
    """Return the run of this same experiment in ``out``; resume it if it was stopped, or start it if there is none.

    The engine may differ: it makes no difference to what comes out. An unfinished run that another version of the
    source made is left as it is, and a new one takes its place.
    """
    with waited_for(out / f".{experiment.name}-{experiment_digest(experiment)}{LOCK}"):
        return _continue(experiment, plugins=plugins, out=out, progress=progress, began=began)


def _continue(
    experiment: Experiment, *, plugins: tuple[Path, ...], out: Path, progress: PhaseProgress, began: Began
) -> Path:
    federation = str(federation_folder(experiment))
    for folder in sorted(out.glob(f"{experiment.name}-*")):
        try:
            found, note = read_run(folder)
        except ValueError:
            continue
        # The same settings on other data, such as a release that was completed since, are another run.
        is_same_data = note.get("federation", federation) == federation
        if is_same_data and found.model_copy(update={"engine": experiment.engine}) == experiment:
            if (folder / "summary.json").is_file():
                return folder.resolve()
            if is_of_this_source(folder):
                began(folder.resolve())
                return resume_experiment(folder, progress)
    return run_experiment(experiment, plugins=plugins, out=out, progress=progress, began=began)


def resume_experiment(folder: Path, progress: PhaseProgress) -> Path:
    """Go on with a run that was stopped, from its last completed round; one that has finished is left as it is.

    Its data is where the run found it, in whatever folder the command is given.

    Raises:
        ValueError: the folder is not that of a run, another version of the source made it, or its engine cannot run
        here.
    """
    if (folder / "summary.json").is_file():
        return folder
    experiment, note = read_run(folder)
    check_source(folder)
    check_engine(experiment.engine)
    federation = Path(note.get("federation", ""))
    if not (federation / "clients").is_dir():
        federation, _ = make_data(experiment, progress)
    _launch(Placement(experiment, federation, folder, plugin_folders(note["plugins"])), note["data_seconds"], progress)
    return folder


def make_data(experiment: Experiment, progress: PhaseProgress) -> tuple[Path, float]:
    """Make the data of an experiment if it is missing; return its folder and the seconds that this took.

    What is scarce in it, such as a client without a pass to validate on, is said as a warning of the log.
    """
    workers = experiment.engine.workers or os.cpu_count() or 1
    made = ensure_federation(experiment, workers=workers, progress=lambda done, total: progress("data", done, total))
    for line in json.loads((made[0] / "federation.json").read_text()).get("warnings", []):
        log.warning("%s", line)
    return made


def read_run(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a run folder and the note (placement.json) that the launch left there.

    Raises:
        ValueError: the folder is not the folder of a run.
    """
    try:
        values = yaml.safe_load((folder / "experiment.yaml").read_text())
        note = json.loads((folder / "placement.json").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{folder}: not the folder of a run that can be resumed; name another ({error})") from None
    if not isinstance(note, dict) or not {"plugins", "data_seconds"} <= note.keys():
        raise ValueError(f"{folder / 'placement.json'}: plugins or data_seconds is missing; run the experiment again")
    return build_experiment(values, origin=str(folder / "experiment.yaml")), note


def is_of_this_source(folder: Path) -> bool:
    """Whether :func:`check_source` lets one go on with a run."""
    try:
        check_source(folder)
    except ValueError:
        return False
    return True


def check_source(folder: Path) -> None:
    """Refuse to go on with a run that another version of the source made: what it keeps would be read wrongly.

    Raises:
        ValueError: the digest of the source in ``environment.json`` is not that of this checkout.
    """
    try:
        environment = json.loads((folder / "environment.json").read_text())
    except (OSError, ValueError):
        return  # it was stopped before it began
    made_by = environment.get("source_digest")
    if made_by not in (None, source_digest()):
        commit = environment.get("commit")
        source = f"commit {commit}" if commit else "an older version that noted no commit"
        raise ValueError(
            f"{folder}: was made by other source ({made_by}, {source}) than this one ({source_digest()}); "
            "check that source out to go on with it, or run the experiment again"
        )


def new_run_folder(out: Path, name: str) -> Path:
    """Make ``<out>/<name>-<time>``; a second run in the same second gets a number."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        folder = out / (f"{name}-{stamp}" + (f"-{number}" if number else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder.resolve()
    raise ValueError(f"{out}: too many runs of {name} started in one second; start this one again")


def _launch(placement: Placement, data_seconds: float, progress: PhaseProgress) -> None:
    hold(placement.federation)
    watch = Watch(progress=progress, data_seconds=data_seconds, started=time.monotonic())
    launch(
        build_server_app(placement, watch),
        build_client_app(placement),
        num_nodes=len(client_folders(placement.federation)),
        engine=placement.experiment.engine,
    )
    write_run_report(placement.run)
