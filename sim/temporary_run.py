"""A run in this process whose folder is gone afterwards, for benchmarks that keep a few numbers of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from clients.app import build_app as build_client_app
from clients.profile import cohorts_of
from configs.placement import Placement
from configs.schema import Experiment
from server.app import build_app as build_server_app
from server.session import Watch
from sim.data.federation import ensure_federation
from sim.inline import run_inline


@contextmanager
def temporary_run(experiment: Experiment) -> Iterator[Placement]:
    """Run an experiment on one thread; the folder of the run is there inside the ``with`` block only.

    Raises:
        ValueError: the data cannot be made or read.
    """
    torch.set_num_threads(1)
    federation, _ = ensure_federation(experiment)
    with tempfile.TemporaryDirectory() as name:
        placement = Placement(experiment, federation, Path(name), ())
        num_nodes = len(cohorts_of(federation, experiment))
        server_app = build_server_app(placement, Watch(num_nodes=num_nodes))
        run_inline(server_app, build_client_app(placement), num_nodes=num_nodes)
        yield placement
