"""Runs an experiment from its config to a finished run folder: check, make the data, launch, report."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from clients.app import build_app as build_client_app
from clients.learning.contract import check_models
from clients.learning.task_contract import check_labels, check_task
from clients.models.own_sensors import add_sensors
from clients.models.tracker import count_parameters
from clients.profile import client_folders, cohorts_of, profiles_of
from clients.training import make_student
from configs.files import EXPERIMENT, LOCK, waited_for, write_whole
from configs.home import hold
from configs.loading import experiment_digest, source_digest, to_values
from configs.placement import Placement, contents_digest, federation_folder, plugin_folders
from configs.progress import PhaseProgress
from configs.schema import Experiment
from configs.signals import is_asked_to_end
from server.app import build_app as build_server_app
from server.session import Watch
from sim.data.federation import ensure_federation
from sim.data.inspection import left_out_of, warnings_of
from sim.launch import check_engine, launch
from sim.report.html import write_run_report
from sim.run_note import first_note, read_run, with_code_of_now
from sim.track.beside import tracked
from sim.track.trackers import check_trackers
from strategies.messages.records import Member
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
    add_sensors(experiment.data.sensors, plugins)
    check_models(experiment, plugins)
    check_task(experiment, plugins)
    check_trackers(experiment.track, plugins)
    with _begun(out, experiment.name) as folder:
        # What a resumption needs is there before the data is made, which may take long.
        note = first_note(experiment, plugins)
        write_whole(folder / EXPERIMENT, yaml.safe_dump(to_values(experiment), sort_keys=False))
        write_whole(folder / "placement.json", json.dumps(note) + "\n")
        began(folder)
        federation, seconds = make_data(experiment, progress)
        check_labels(experiment, federation, plugins)
        if left_out := left_out_of(federation):
            log.warning("%s: left out or unusual: %d, the first: %s", experiment.name, len(left_out), left_out[0])
        note |= {"data_seconds": seconds, "federation": str(federation), "contents": contents_digest(experiment)}
        write_whole(folder / "placement.json", json.dumps(note) + "\n")
    hold(federation)
    _launch(Placement(experiment, federation, folder, plugins), seconds, progress)
    return folder


@contextmanager
def _begun(out: Path, name: str) -> Iterator[Path]:
    """A new run folder; an error takes it away again, with what was made for it, while an interrupt leaves it.

    So does what an interrupt breaks, such as a pool whose workers it ended: libraries tell it as an error.
    """
    missing = [path for path in (out, *out.parents) if not path.exists()]
    folder = new_run_folder(out, name)
    try:
        yield folder
    except Exception:
        if not is_asked_to_end():
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

    Engine and trackers may differ: they make no difference to what comes out. Files of the user's own may not. An
    unfinished run that another version of the source made is left as it is, and a new one takes its place.
    """
    with waited_for(out / f".{experiment.name}-{experiment_digest(experiment)}{LOCK}"):
        return _continue(experiment, plugins=plugins, out=out, progress=progress, began=began)


def _continue(
    experiment: Experiment, *, plugins: tuple[Path, ...], out: Path, progress: PhaseProgress, began: Began
) -> Path:
    federation, contents = str(federation_folder(experiment)), contents_digest(experiment)
    own_code = first_note(experiment, plugins)["own_code"]
    for folder in sorted(out.glob(f"{experiment.name}-*")):
        try:
            found, note = read_run(folder)
        except ValueError:
            continue
        # The same settings on other data, such as a release that was completed since, are another run.
        is_same_data = note.get("federation", federation) == federation and note.get("contents", contents) == contents
        is_same_data = is_same_data and note.get("own_code", own_code) == own_code
        is_whole = not note.get("without")
        if is_same_data and is_whole and experiment_digest(found) == experiment_digest(experiment):
            if (folder / "summary.json").is_file():
                return folder.resolve()
            if is_of_this_source(folder):
                began(folder.resolve())
                return resume_experiment(folder, progress)
    return run_experiment(experiment, plugins=plugins, out=out, progress=progress, began=began)


def resume_experiment(
    folder: Path, progress: PhaseProgress, *, controls: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """Go on with a run that was stopped, from its last completed round; one that has finished is left as it is.

    Its data is where the run found it, in whatever folder the command is given.

    Args:
        folder: the folder of the run.
        progress: is called with the phase, the work that is done and the whole work.
        controls: client -> the metrics of its controls, where another run has trained the same; None trains them.

    Raises:
        ValueError: the folder is not that of a run, another version of the source made it, or its engine cannot run
        here.
    """
    if (folder / "summary.json").is_file():
        return folder
    experiment, note = read_run(folder)
    check_source(folder)
    check_settings(folder, experiment)
    check_engine(experiment.engine)
    if note.get("contents") not in (None, contents_digest(experiment)):
        raise ValueError(
            f"{note['federation']}: holds other data than when {folder.name} began; put back what was there, "
            "or run the experiment again"
        )
    note = noted_code(folder, experiment, note)
    add_sensors(experiment.data.sensors, plugin_folders(note["plugins"]))
    check_task(experiment, plugin_folders(note["plugins"]))
    federation = Path(note.get("federation", ""))
    if not (federation / "clients").is_dir():
        federation, _ = make_data(experiment, progress)
    hold(federation)
    with federation_without(federation, note.get("without", ()), folder) as present:
        placement = Placement(experiment, present, folder, plugin_folders(note["plugins"]))
        _launch(placement, note["data_seconds"], progress, controls=controls)
    return folder


@contextmanager
def federation_without(federation: Path, clients: Sequence[str], run: Path) -> Iterator[Path]:
    """The folder of a federation in which some clients are not: links to all else of it, while a run lasts.

    Args:
        federation: the folder of the whole federation.
        clients: the ids of the clients that are not to be there; with none, the folder itself is given.
        run: the folder of the run, in which the links are made.
    """
    if not clients:
        yield federation
        return
    present = run / "federation"
    shutil.rmtree(present, ignore_errors=True)
    (present / "clients").mkdir(parents=True)
    try:
        for path in federation.iterdir():
            if path.name != "clients":
                (present / path.name).symlink_to(path.resolve())
        for path in client_folders(federation):
            if path.name not in clients:
                (present / "clients" / path.name).symlink_to(path.resolve())
        yield present
    finally:
        shutil.rmtree(present, ignore_errors=True)


def make_data(experiment: Experiment, progress: PhaseProgress) -> tuple[Path, float]:
    """Make the data of an experiment if it is missing; return its folder and the seconds that this took.

    What is scarce in it, such as a client without a pass to validate on, is said as a warning of the log.
    """
    workers = experiment.engine.workers or os.cpu_count() or 1
    made = ensure_federation(experiment, workers=workers, progress=lambda done, total: progress("data", done, total))
    for line in warnings_of(made[0]):
        log.warning("%s", line)
    return made


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


def check_settings(folder: Path, experiment: Experiment) -> None:
    """Refuse to go on with a run whose settings were changed since it began: its rounds so far are of others.

    Raises:
        ValueError: the digest of the experiment in ``environment.json`` is another one.
    """
    try:
        began_with = json.loads((folder / "environment.json").read_text()).get("experiment_digest")
    except (OSError, ValueError):
        return  # it was stopped before it began
    if began_with not in (None, experiment_digest(experiment)):
        raise ValueError(
            f"{folder / EXPERIMENT}: was changed since the run began; put back what was there, or run it as an "
            f"experiment of its own: softbeam run {folder / EXPERIMENT}"
        )


def noted_code(folder: Path, experiment: Experiment, note: Mapping[str, Any]) -> dict[str, Any]:
    """The note of a run that goes on; if the user's own modules were edited since, the note and a warning say so."""
    now = with_code_of_now(experiment, note)
    if now != note:
        log.warning("%s: own modules were changed since it began; its rounds from here on are of the new ones", folder)
        write_whole(folder / "placement.json", json.dumps(now) + "\n")
    return now


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


def expected_clients(placement: Placement) -> list[Member]:
    """The clients of a simulated federation, as far as they are known before they introduce themselves."""
    experiment, plugins = placement.experiment, placement.plugins
    members = []
    for number in range(len(client_folders(placement.federation))):
        with suppress(ValueError, KeyError, IndexError, OSError):  # whose manifest is damaged is told as its node fails
            (profile,) = profiles_of({"partition-id": number}, placement.federation)
            student = make_student(experiment, client=profile.id, modality=profile.modality, plugins=plugins)
            members.append(Member(profile.id, profile.modality, count_parameters(student), 0, 0))
    return members


def _launch(
    placement: Placement,
    data_seconds: float,
    progress: PhaseProgress,
    *,
    controls: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    started, expected = time.monotonic(), expected_clients(placement)
    num_nodes = len(cohorts_of(placement.federation, placement.experiment))
    watch = Watch(
        progress,
        data_seconds=data_seconds,
        started=started,
        expected=expected,
        num_nodes=num_nodes,
        controls=controls,
    )
    with tracked(placement.run, placement.experiment.track):
        launch(
            build_server_app(placement, watch),
            build_client_app(placement),
            num_nodes=num_nodes,
            engine=placement.experiment.engine,
        )
    write_run_report(placement.run)
