"""What ``import softbeam`` does: settings given as Python values, and runs that are started from a script or a cell."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.loading import checked, put_value, to_values
from configs.progress import PhaseProgress, silent
from configs.schema import Experiment
from configs.yaml_files import EXTENDS, ConfigValues, find_config, merged, read_config
from sim.cli.terminal import ProgressBar, title_of
from sim.experiments import resume_experiment, run_experiment
from sim.notebook_progress import NotebookProgress, in_notebook
from sim.passed_classes import plain_values
from sim.results import Result
from sim.run_note import read_run

Config = str | Path | Mapping[str, Any] | Experiment
# A section that is named as a whole by a class, or by a word: the key in it that the class or word stands for.
NAMED_BY = {"task": "name", "strategy": "name", "strategy.aggregator": "name", "engine": "name"}


def experiment_from_python(
    config: Config, settings: Mapping[str, Any], *, out: Path
) -> tuple[Experiment, tuple[Path, ...]]:
    """An experiment, checked, and the folders in which a user's own modules are looked for.

    Args:
        config: a YAML file, the name of one in ``configs/``, its values, or a checked experiment.
        settings: dotted path -> value.
        out: the folder of the runs, which keeps classes that have no module.

    Raises:
        ValueError: a key, a type or a range is wrong; one line per mistake.
    """
    folders: list[Path] = []
    found = _values_of(config, out, folders)
    places = dict(found.places)
    for key, value in settings.items():
        plain = plain_values(value, out, folders)
        if isinstance(plain, str) and _is_model(key):
            plain = {"model": plain}
        path = f"{key}.{NAMED_BY[key]}" if key in NAMED_BY and isinstance(plain, str) else key
        before = _value_at(found.values, path)
        is_section = isinstance(plain, dict) and isinstance(before, dict)
        put_value(found.values, path, merged(before, plain) if is_section else plain, origin=key)
        places = {place: where for place, where in places.items() if place != path and not place.startswith(f"{path}.")}
        places[path] = "as given"
    if "parts" in found.values:
        raise ValueError(f"{config}: this is a study, not an experiment; use softbeam study")
    experiment = checked(Experiment, found.values, origin=_origin(config), places=places)
    return experiment, tuple(dict.fromkeys([*folders, *found.plugin_folders]))


def _is_model(key: str) -> bool:
    """Whether a dotted path is that of a student or the teacher as a whole."""
    section, _, modality = key.partition(".")
    return key == "teacher" or (section == "students" and bool(modality) and "." not in modality)


def _value_at(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _values_of(config: Config, out: Path, folders: list[Path]) -> ConfigValues:
    if isinstance(config, Experiment):
        return ConfigValues(to_values(config), (), {})
    if not isinstance(config, Mapping):
        return read_config(find_config(config))
    values = plain_values(config, out, folders)
    if EXTENDS not in values:
        return ConfigValues(values, (), {})
    base = read_config(find_config(values.pop(EXTENDS)))
    return ConfigValues(merged(base.values, values), base.files, base.places)


def _origin(config: Config) -> str:
    return str(config) if isinstance(config, (str, Path)) else "experiment"


def run_from_python(config: Config, settings: Mapping[str, Any], *, out: Path, shows_progress: bool) -> Result:
    """Run an experiment that is given as Python values, and return its result."""
    experiment, plugins = experiment_from_python(config, settings, out=out)
    with _progress(experiment, shows_progress) as progress, _as_if_alone():
        return Result(run_experiment(experiment, plugins=plugins, out=out, progress=progress))


def resume_from_python(folder: Path, *, shows_progress: bool) -> Result:
    """Go on with a run that was stopped, and return its result."""
    experiment, _ = read_run(folder)
    with _progress(experiment, shows_progress) as progress, _as_if_alone():
        return Result(resume_experiment(folder.resolve(), progress))


@contextmanager
def _progress(experiment: Experiment, is_shown: bool) -> Iterator[PhaseProgress]:
    if not is_shown:
        yield silent
    elif in_notebook():
        line = NotebookProgress(title_of(experiment))
        try:
            yield line
        finally:
            line.close()
    else:
        with ProgressBar(title_of(experiment), rounds=experiment.strategy.rounds) as bar:
            yield bar


@contextmanager
def _as_if_alone() -> Iterator[None]:
    """Leave this process as it was, and let no process that a run starts run the user's script again.

    A process that `multiprocessing` spawns runs the main module first, which is a script without a guard here. What
    such processes do for a run needs nothing of it.
    """
    import torch

    main, threads = sys.modules["__main__"], torch.get_num_threads()
    hidden: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    try:
        vars(main).pop("__file__", None)
        main.__spec__ = None
        yield
    finally:
        vars(main).update(hidden)
        torch.set_num_threads(threads)
