"""Where a run reads and writes on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.contents import FolderContents
from configs.home import HOME_VARIABLE, hold, softbeam_home
from configs.loading import build_experiment, data_digest, load_experiment
from configs.paths import expanded
from configs.schema import Experiment
from configs.yaml_files import checkout_folder, find_config, read_config

__all__ = [
    "HOME_VARIABLE",
    "Placement",
    "contents_digest",
    "federation_folder",
    "native_placement",
    "release_contents",
    "resolved_folder",
]


@dataclass(frozen=True)
class Placement:
    """An experiment and the folders that go with it.

    Attributes:
        experiment: the experiment that runs.
        federation: the folder of the recordings.
        run: the folder of the results; clients of a simulation keep their memory in it.
        plugins: the folders in which a user's own modules may lie: those of the YAML and of what it extends, then the
            one in which the run was started.
    """

    experiment: Experiment
    federation: Path
    run: Path
    plugins: tuple[Path, ...]


def federation_folder(experiment: Experiment) -> Path:
    """Where an experiment's federation lies, or is to be made; the same data is made once.

    The name holds what the data depends on: the data section, the seed, the code that makes it and, for measurements,
    what the folder of the release holds now, whatever its name is. A release that was completed meanwhile is other
    data. A ready federation lies where it lies.
    """
    if experiment.data.source == "folder":
        return Path(experiment.data.folder)
    digest = data_digest(experiment)
    if experiment.data.source == "deepsense":
        folders = [site.folder for site in experiment.data.sites] or [experiment.data.folder]
        contents = " ".join(release_contents(resolved_folder(folder)).digest() for folder in folders)
        digest = hashlib.sha256(f"{digest} {contents}".encode()).hexdigest()[:16]
    return softbeam_home() / "data" / f"{experiment.name}-{digest}"


def contents_digest(experiment: Experiment) -> str | None:
    """The digest of what a ready federation holds now; None for data that Softbeam made, which never changes."""
    return release_contents(Path(experiment.data.folder)).digest() if experiment.data.source == "folder" else None


def release_contents(folder: Path) -> FolderContents:
    """What the files of a release hold; what was found is kept in the folder for generated data."""
    folder = Path(os.path.realpath(folder))
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return FolderContents(folder, softbeam_home() / "digests" / f"{folder.name}-{name}.json")


def resolved_folder(folder: str | Path) -> Path:
    """The folder of measurements that a YAML names: ``~`` is the user's home, and it is relative to the checkout.

    Where Softbeam was installed as a wheel there is no checkout, and it is relative to the current folder.
    """
    return (checkout_folder() or Path.cwd()) / expanded(folder)


def native_placement(run_config: Mapping[str, object], run_id: int) -> Placement:
    """The placement of a run that Flower started, the same on the server and on its clients.

    Args:
        run_config: ``config`` (a name or file) and ``overrides`` (as for ``--set``, separated by spaces), as ``flwr
            run`` takes them; or ``experiment`` (all of it, as JSON) with the server's folders ``run``, ``federation``
            and ``plugins`` (a list, as JSON), as ``softbeam run --on`` gives them. Clients on other
            machines have no use for the folders.
        run_id: the id that Flower gave the run.

    Raises:
        ValueError: the experiment is not valid.
    """
    whole = str(run_config.get("experiment", ""))
    source = str(run_config.get("config", "quickstart"))
    if whole:
        experiment = build_experiment(_parse(whole), origin="the run config's experiment")
    else:
        experiment = load_experiment(source, shlex.split(str(run_config.get("overrides", ""))))
    run, federation, plugins = (str(run_config.get(name, "")) for name in ("run", "federation", "plugins"))
    if plugins:
        folders = plugin_folders(_parse(plugins))
    else:
        folders = () if whole else read_config(find_config(source)).plugin_folders
    here = Path(federation) if federation else federation_folder(experiment)
    if here.is_dir():
        hold(here)
    return Placement(
        experiment=experiment,
        federation=here,
        run=Path(run) if run else softbeam_home() / "runs" / f"{experiment.name}-{run_id}",
        plugins=folders,
    )


def plugin_folders(value: object) -> tuple[Path, ...]:
    """The folders of plug-ins as a note or a run config holds them: a list, or one alone as earlier versions wrote it.

    Raises:
        ValueError: it is neither.
    """
    folders = [value] if isinstance(value, str) else value
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise ValueError(f"plugins: must be a list of folders, got {value!r}")
    return tuple(Path(folder) for folder in folders)


def _parse(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the run config: not valid JSON ({error})") from None
    return value
