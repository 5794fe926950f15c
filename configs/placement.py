"""Where a run reads and writes on this machine."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.loading import build_experiment, data_digest, find_config, load_experiment
from configs.schema import Experiment

# Generated data and the memory of native runs lie here unless the environment says otherwise.
HOME_VARIABLE = "SOFTBEAM_HOME"
DEFAULT_HOME = ".softbeam"


@dataclass(frozen=True)
class Placement:
    """An experiment and the folders that go with it.

    Attributes:
        experiment: what runs.
        federation: folder of the recordings.
        run: folder of the results; clients of a simulation keep their memory in it.
        plugins: folder in which a user's own modules may lie: that of the YAML.
    """

    experiment: Experiment
    federation: Path
    run: Path
    plugins: Path


def softbeam_home() -> Path:
    """The folder for generated data: ``$SOFTBEAM_HOME``, or ``.softbeam`` in the working directory."""
    return Path(os.environ.get(HOME_VARIABLE, DEFAULT_HOME)).resolve()


def federation_folder(experiment: Experiment) -> Path:
    """Where an experiment's federation lies, or is to be made; the same data is made once."""
    return softbeam_home() / "data" / f"{experiment.name}-{data_digest(experiment)}"


def native_placement(run_config: Mapping[str, object], run_id: int) -> Placement:
    """The placement of a run that Flower started, the same on the server and on its clients.

    Args:
        run_config: ``config`` (a name or file) and ``overrides`` (as for ``--set``, separated by spaces), as ``flwr
            run`` takes them; or ``experiment`` (all of it, as JSON) with the server's folders ``run``, ``federation``
            and ``plugins``, as ``softbeam run --on`` gives them. Clients on other machines have no use for the folders.
        run_id: of Flower.

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
    return Placement(
        experiment=experiment,
        federation=Path(federation) if federation else federation_folder(experiment),
        run=Path(run) if run else softbeam_home() / "runs" / f"{experiment.name}-{run_id}",
        plugins=Path(plugins) if plugins else Path() if whole else find_config(source).resolve().parent,
    )


def _parse(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the run config's experiment: not valid JSON ({error})") from None
    return value
