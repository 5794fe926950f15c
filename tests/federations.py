"""Runs a tiny federation in this process, and says when two runs came out the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from clients.app import build_app as build_client_app
from clients.profile import cohorts_of
from configs.placement import Placement
from configs.schema import Experiment
from server.app import build_app as build_server_app
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from server.session import Watch
from sim.data.federation import ensure_federation
from sim.inline import run_inline


def quiet(phase: str, done: int, total: int) -> None:
    """No progress."""


def place(experiment: Experiment, run: Path) -> Placement:
    run.mkdir(parents=True, exist_ok=True)
    federation, _ = ensure_federation(experiment)
    return Placement(experiment, federation, run, (run,))


def run_apps(placement: Placement, client_app: ClientApp | None = None, shuffle_seed: int | None = None) -> None:
    num_nodes = len(cohorts_of(placement.federation, placement.experiment))
    run_inline(
        build_server_app(placement, Watch(num_nodes=num_nodes)),
        client_app or build_client_app(placement),
        num_nodes=num_nodes,
        shuffle_seed=shuffle_seed,
    )


def outcome(run: Path) -> tuple[list[tuple[str, NDArray[Any]]], list[dict[str, Any]]]:
    """What must be equal to the bit: what was published, and every line of the record but its seconds."""
    checkpoint = load_checkpoint(run)
    assert checkpoint is not None
    federation = checkpoint.federation
    caches = {"": federation.cache, **federation.own_caches}
    published = [(name, cache.newest.payload) for name, cache in sorted(caches.items()) if cache is not None]
    published += sorted(federation.arrays.items())
    lines = read_rounds(run)
    for line in lines:
        del line["seconds"]
        for client in line["clients"].values():
            del client["seconds"]
    return published, lines


def assert_same_outcome(one: Path, other: Path) -> None:
    for (name, expected), (other_name, found) in zip(outcome(one)[0], outcome(other)[0], strict=True):
        assert name == other_name
        np.testing.assert_array_equal(expected, found)
    assert outcome(one)[1] == outcome(other)[1]
