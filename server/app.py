"""The ServerApp: Flower enters a run here; `server.session` says what happens in it.

A run continues from the checkpoint in its run folder, so a killed run is resumed by starting it again.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from clients.learning.classification import task_of
from configs.files import held_alone, modes_like
from configs.placement import Placement, native_placement
from server.metrics import Metrics
from server.session import Watch, run_session
from server.status import Status


def build_app(placement: Placement | None = None, watch: Watch | None = None) -> ServerApp:
    """Build the ServerApp.

    Args:
        placement: the placement that `sim.launch` chose for the run; None reads it from Flower's run config.
        watch: how the launcher follows the run; None if there is no launcher.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid, placement or native_placement(context.run_config, context.run_id), watch or Watch())

    return server_app


def run(grid: Grid, placement: Placement, watch: Watch) -> dict[str, Any]:
    """Carry out one experiment, from its start or its last checkpoint to the summary, and keep its status up to date.

    Returns:
        The summary.
    """
    torch.set_num_threads(1)
    with ExitStack() as stack:
        stack.enter_context(held_alone(placement.run))
        stack.enter_context(modes_like(placement.run))
        status = stack.enter_context(Status(placement.run, num_rounds=placement.experiment.strategy.rounds))
        metrics = Metrics(task_of(placement.experiment.task, placement.plugins).wording)
        stack.callback(metrics.serve())
        watch = replace(watch, progress=status.following(watch.progress))
        return run_session(grid, placement, watch, status, metrics)


app = build_app()
