"""The server's memory on disk: teacher, targets, who holds what, and what was found before the first round."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strategies.caching import Holding, TargetCache
from strategies.choreography import FederationState
from strategies.labels import SoftLabels

FILE = "checkpoint/state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """All that the server needs to go on after a stop.

    Attributes:
        teacher: state of the teacher's learner.
        federation: of the strategy.
        findings: plain values found before the first round, such as the scores of the controls.
    """

    teacher: dict[str, Any]
    federation: FederationState
    findings: dict[str, Any]


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write it atomically: after a crash the old one or the new one is there, whole."""
    path = run / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    federation = checkpoint.federation
    state = {
        "teacher": checkpoint.teacher,
        "round": federation.round,
        "cache": None if federation.cache is None else _pack_cache(federation.cache),
        "own_caches": {client: _pack_cache(cache) for client, cache in federation.own_caches.items()},
        "known_rounds": federation.known_rounds,
        "answers": {client: _pack_holding(answers) for client, answers in federation.answers.items()},
        "ensembles": _pack(federation.ensembles),
        "arrays": {name: torch.from_numpy(np.array(array)) for name, array in federation.arrays.items()},
        "findings": checkpoint.findings,
    }
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(run: Path) -> Checkpoint | None:
    """The checkpoint of a run; None if it has none yet.

    Raises:
        ValueError: it cannot be read.
    """
    path = run / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
        federation = FederationState(
            round=state["round"],
            cache=None if state["cache"] is None else _unpack_cache(state["cache"]),
            own_caches={client: _unpack_cache(cache) for client, cache in state["own_caches"].items()},
            known_rounds=state["known_rounds"],
            answers={client: _unpack_holding(answers) for client, answers in state["answers"].items()},
            ensembles=_unpack(state["ensembles"]),
            arrays={name: array.numpy() for name, array in state["arrays"].items()},
        )
        return Checkpoint(state["teacher"], federation, state["findings"])
    except Exception as error:
        # torch.load raises whatever the broken byte happened to hit.
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}); start a new run") from error


def _pack(labels: SoftLabels | None) -> dict[str, Any] | None:
    if labels is None:
        return None
    return {
        "sample_ids": torch.from_numpy(labels.sample_ids),
        "probs": torch.from_numpy(labels.probs),
        "temperature": labels.temperature,
    }


def _unpack(state: dict[str, Any] | None) -> SoftLabels | None:
    if state is None:
        return None
    return SoftLabels(state["sample_ids"].numpy(), state["probs"].numpy(), state["temperature"])


def _pack_cache(cache: TargetCache) -> list[dict[str, torch.Tensor]]:
    return [_pack_holding(holding) for holding in (cache.base, *cache.recent)]


def _unpack_cache(state: list[dict[str, torch.Tensor]]) -> TargetCache:
    base, *recent = (_unpack_holding(holding) for holding in state)
    return TargetCache(base, tuple(recent))


def _pack_holding(holding: Holding) -> dict[str, torch.Tensor]:
    arrays = {"sample_ids": holding.sample_ids, "payload": holding.payload, "rounds": holding.rounds}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _unpack_holding(state: dict[str, torch.Tensor]) -> Holding:
    return Holding(state["sample_ids"].numpy(), state["payload"].numpy(), state["rounds"].numpy())
