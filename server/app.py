"""The ServerApp: Flower's entry to a run; what happens in it is `server.session`'s.

A run goes on where the checkpoint in its run folder ends, so a killed run is resumed by starting it again.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from configs.files import held_alone
from configs.placement import Placement, native_placement
from server.metrics import Metrics
from server.session import Watch, run_session
from server.status import Status


def build_app(placement: Placement | None = None, watch: Watch | None = None) -> ServerApp:
    """The ServerApp.

    Args:
        placement: of a run by `sim.launch`; None reads it from Flower's run config.
        watch: of the launcher.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid, placement or native_placement(context.run_config, context.run_id), watch or Watch())

    return server_app


def run(grid: Grid, placement: Placement, watch: Watch) -> dict[str, Any]:
    """One experiment, from the first or from its last checkpoint to the summary; its status is told throughout."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        stack.enter_context(held_alone(placement.run))
        status = stack.enter_context(Status(placement.run, num_rounds=placement.experiment.strategy.rounds))
        metrics = Metrics()
        stack.callback(metrics.serve())
        watch = replace(watch, progress=status.following(watch.progress))
        return run_session(grid, placement, watch, status, metrics)


app = build_app()
