"""Virtual clients that attack, for experiments on robust rules: who they are, and what they answer instead."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import open_recording
from clients.profile import client_folders
from configs.placement import Placement
from configs.seeding import seed_for
from strategies.attacks import ATTACKS, Attack, AttackerKnowledge


def attack_of(placement: Placement, client: str) -> Attack | None:
    """The attack that a client carries out; None if the client is honest.

    Raises:
        ValueError: there is no federation on this machine, so the largest clients are not known.
    """
    hostility = placement.experiment.hostility
    if hostility is None:
        return None
    if not (placement.federation / "clients").is_dir():
        raise ValueError("hostility: only virtual clients can attack; leave this key out of a deployment")
    task = placement.experiment.task
    largest = _by_size(placement.federation, task.num_frames, task.num_future)[: hostility.clients]
    return ATTACKS[hostility.attack] if client in largest else None


def poison(
    attack: Attack,
    placement: Placement,
    probs: NDArray[np.float32],
    sample_ids: NDArray[np.int64],
    first: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """What an attacking client answers instead of ``probs`` (N, H, B).

    ``first`` (N, H, B) holds its honest answers of its first round; None if it remembers none.
    """
    return attack.poison(probs, AttackerKnowledge(seed_for(placement.experiment.seed, "attack"), sample_ids, first))


@lru_cache(maxsize=8)
def _by_size(federation: Path, num_frames: int, num_future: int) -> tuple[str, ...]:
    """The client ids, sorted by decreasing number of labelled training windows."""
    sizes = {}
    for folder in client_folders(federation):
        recording = open_recording(folder)
        is_labelled = recording.is_labelled
        sizes[folder.name] = len(recording.window_starts(num_frames, num_future, "train")) if is_labelled else 0
    return tuple(sorted(sizes, key=lambda client: (-sizes[client], client)))
