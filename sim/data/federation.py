"""Makes the data of an experiment, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from configs.files import make_once
from configs.home import hold, let_go
from configs.placement import federation_folder
from configs.schema import Experiment


def ensure_federation(
    experiment: Experiment, *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, float]:
    """The folder of an experiment's federation; it is made if it does not exist yet.

    Args:
        experiment: the experiment; its data section, seed and task determine the folder.
        workers: the number of processes that make passes of the street.
        progress: is called with the number of made or converted passes and of all passes.

    Returns:
        The folder, and the seconds that it took to make.

    Raises:
        ValueError: the source of the data is missing or broken.
    """
    folder = federation_folder(experiment)
    begin = time.monotonic()
    if experiment.data.source == "folder":
        # It is imported here, since other data was written by Softbeam itself.
        from sim.data.validation import require_valid

        require_valid(folder, experiment)
        return folder, time.monotonic() - begin
    hold(folder)
    try:
        make_once(folder, lambda: _write(experiment, folder, workers, progress))
    except BaseException:
        let_go(folder)
        raise
    return folder, time.monotonic() - begin


def _write(experiment: Experiment, folder: Path, workers: int, progress: Callable[[int, int], None] | None) -> None:
    # These are imported here, since a street needs no reader of real data, and real data needs no street.
    if experiment.data.source == "street":
        from sim.data.generate import write_street

        write_street(experiment.data, folder, seed=experiment.seed, workers=workers, progress=progress)
    elif experiment.data.source == "deepsense":
        from sim.data.sites import write_deepsense

        write_deepsense(experiment.data, folder, task=experiment.task, seed=experiment.seed, progress=progress)
