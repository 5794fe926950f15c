"""Make the data of an experiment, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from configs.files import make_once
from configs.placement import federation_folder
from configs.schema import Experiment


def ensure_federation(
    experiment: Experiment, *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, float]:
    """The folder of an experiment's federation, made if it is not there yet.

    Args:
        experiment: its data section, seed and task name the folder.
        workers: processes that make passes of the street.
        progress: called with passes made or converted and passes in all.

    Returns:
        The folder, and the seconds that making it took.

    Raises:
        ValueError: the source of the data is missing or broken.
    """
    folder = federation_folder(experiment)
    begin = time.monotonic()
    make_once(folder, lambda: _write(experiment, folder, workers, progress))
    return folder, time.monotonic() - begin


def _write(experiment: Experiment, folder: Path, workers: int, progress: Callable[[int, int], None] | None) -> None:
    # Imported here: a street needs no reader of real data, and the other way round.
    if experiment.data.source == "street":
        from sim.data.generate import write_street

        write_street(experiment.data, folder, seed=experiment.seed, workers=workers, progress=progress)
    else:
        from sim.data.partition import write_deepsense

        write_deepsense(experiment.data, folder, seed=experiment.seed, progress=progress)
