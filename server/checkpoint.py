"""The server's memory on disk: teacher, targets, who holds what, and what was found before the first round."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from strategies.caching import TargetCache
from strategies.distillation import FederationState
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
        "known_rounds": federation.known_rounds,
        "targets": _pack(federation.cache.labels),
        "published": None if federation.cache.published is None else torch.from_numpy(federation.cache.published),
        "ensembles": _pack(federation.ensembles),
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
        cache = TargetCache(
            _unpack(state["targets"]), None if state["published"] is None else state["published"].numpy()
        )
        federation = FederationState(state["round"], cache, state["known_rounds"], _unpack(state["ensembles"]))
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
