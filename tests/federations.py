"""Runs a tiny federation in this process, and says when two runs came out the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from clients.app import build_app as build_client_app
from clients.profile import client_folders
from configs.placement import Placement
from configs.schema import Experiment
from server.app import build_app as build_server_app
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from sim.data.federation import ensure_federation
from sim.inline import run_inline


def quiet(phase: str, done: int, total: int) -> None:
    """No progress."""


def place(experiment: Experiment, run: Path) -> Placement:
    run.mkdir(parents=True, exist_ok=True)
    federation, _ = ensure_federation(experiment)
    return Placement(experiment, federation, run, run)


def run_apps(placement: Placement, client_app: ClientApp | None = None, shuffle_seed: int | None = None) -> None:
    run_inline(
        build_server_app(placement),
        client_app or build_client_app(placement),
        num_nodes=len(client_folders(placement.federation)),
        shuffle_seed=shuffle_seed,
    )


def outcome(run: Path) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """What must be equal to the bit: the targets, and every line of the record but its seconds."""
    checkpoint = load_checkpoint(run)
    assert checkpoint is not None and checkpoint.federation.cache.labels is not None
    lines = read_rounds(run)
    for line in lines:
        del line["seconds"]
        for client in line["clients"].values():
            del client["seconds"]
    return checkpoint.federation.cache.labels.probs, lines


def assert_same_outcome(one: Path, other: Path) -> None:
    np.testing.assert_array_equal(outcome(one)[0], outcome(other)[0])
    assert outcome(one)[1] == outcome(other)[1]
