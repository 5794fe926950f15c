"""The server's memory on disk: the teacher, the targets, which client holds which targets, and the first findings.

The newest checkpoint and the one before it are kept. If the newest cannot be read, the run goes back one round. Clients
keep their states of the last three rounds, so the run ends as if nothing had happened.

The clients of a simulation keep theirs in the run folder and do not wait for the disk. So a checkpoint first waits
until the disk holds what they wrote since the one before: after a power cut, too, there is the round that it is of.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clients.learning.state import BROKEN, SUFFIX, as_arrays, as_tensors, pack_state, unpack_state
from configs.files import make_folder, remove_leftovers, sync, sync_all, temporary_beside, unwritable, write_durably
from strategies.cache import CachedLabels, TargetCache
from strategies.labels import SoftLabels
from strategies.messages.records import Member
from strategies.methods.base import FederationState

log = logging.getLogger(__name__)

FILE = f"checkpoint/newest{SUFFIX}"
PREVIOUS = f"checkpoint/previous{SUFFIX}"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the server needs to continue after a stop.

    Attributes:
        teacher: the state of the teacher's learner.
        federation: the state of the strategy.
        findings: plain values found before the first round, such as the scores of the controls.
        mishap: what was wrong with a newer checkpoint, which this one replaces; empty if this one is the newest.
    """

    teacher: dict[str, Any]
    federation: FederationState
    findings: dict[str, Any]
    mishap: str = ""


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and keep the previous one: after a crash at any point, the newest one on disk is complete.

    Raises:
        OSError: the disk is full or broken; the old checkpoints are unchanged.
    """
    path = run / FILE
    content = pack_state(_pack_checkpoint(checkpoint))
    next_one = temporary_beside(path)
    try:
        sync_all(_memories_since(path.stat().st_mtime_ns if path.exists() else 0, run))
        make_folder(path.parent)
        write_durably(next_one, content)
        if path.exists():
            os.replace(path, run / PREVIOUS)
        os.replace(next_one, path)
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def _memories_since(time_ns: int, run: Path) -> list[Path]:
    """The states in a run folder that clients wrote since a time; those of real clients are elsewhere."""
    found = []
    for path in (run / "clients").glob(f"*/[0-9]*{SUFFIX}"):
        with suppress(FileNotFoundError):  # a client has removed an old one meanwhile
            if path.stat().st_mtime_ns >= time_ns:
                found.append(path)
    return found


def load_checkpoint(run: Path) -> Checkpoint | None:
    """The newest readable checkpoint of a run; None if the run has no checkpoint yet.

    A newer one that cannot be read is set aside under the name ``*.broken``.

    Raises:
        ValueError: the run has checkpoints, but none of them can be read.
    """
    path, previous = run / FILE, run / PREVIOUS
    remove_leftovers(path.parent)
    problems: list[str] = []
    # A server that was killed between the two renamings leaves only the previous checkpoint; nothing is lost then.
    for candidate in (path, previous):
        if not candidate.exists():
            continue
        try:
            checkpoint = _unpack_checkpoint(candidate.read_bytes())
        except MemoryError:
            raise  # The file itself is not damaged.
        except Exception as error:
            # What is raised depends on which byte is broken.
            problems.append(f"{candidate}: not a readable checkpoint ({type(error).__name__}: {error})".splitlines()[0])
            continue
        if problems:
            os.replace(path, path.with_name(path.name + BROKEN))
            mishap = f"{problems[0]}; set aside as {path.name}{BROKEN}, went back to the one before it"
            log.warning("%s: round %d", mishap, checkpoint.federation.round)
            return replace(checkpoint, mishap=mishap)
        return checkpoint
    if problems:
        raise ValueError(
            f"{'; '.join(problems)}; there is no other checkpoint to go back to: delete {path.parent} and resume, "
            "which starts this run again from its first round"
        )
    return None


def readable_checkpoints(run: Path) -> list[Checkpoint]:
    """The checkpoints that a run keeps, newest first, without those that cannot be read; changes nothing on disk."""
    found = []
    for path in (run / FILE, run / PREVIOUS):
        try:
            found.append(_unpack_checkpoint(path.read_bytes()))
        except MemoryError:
            raise  # The file itself is not damaged.
        except Exception as error:
            if path.exists():
                log.warning("%s: not a readable checkpoint (%s); passed over", path, type(error).__name__)
    return found


def _pack_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    federation = checkpoint.federation
    return {
        "teacher": checkpoint.teacher,
        "round": federation.round,
        "cache": None if federation.cache is None else _pack_cache(federation.cache),
        "own_caches": {client: _pack_cache(cache) for client, cache in federation.own_caches.items()},
        "known_rounds": federation.known_rounds,
        "answers": {client: as_tensors(answers.arrays()) for client, answers in federation.answers.items()},
        "ensembles": _pack(federation.ensembles),
        "arrays": as_tensors(federation.arrays),
        "members": {
            client: {**asdict(member), "public_key": member.public_key.hex()}
            for client, member in federation.members.items()
        },
        "findings": checkpoint.findings,
    }


def _unpack_checkpoint(content: bytes) -> Checkpoint:
    state = unpack_state(content)
    federation = FederationState(
        round=state["round"],
        cache=None if state["cache"] is None else _unpack_cache(state["cache"]),
        own_caches={client: _unpack_cache(cache) for client, cache in state["own_caches"].items()},
        known_rounds=state["known_rounds"],
        answers={client: CachedLabels.from_arrays(as_arrays(answers)) for client, answers in state["answers"].items()},
        ensembles=_unpack(state["ensembles"]),
        arrays=as_arrays(state["arrays"]),
        members={
            client: Member(**{**member, "public_key": bytes.fromhex(member["public_key"])})
            for client, member in state["members"].items()
        },
    )
    return Checkpoint(state["teacher"], federation, state["findings"])


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
    return [as_tensors(cached.arrays()) for cached in (cache.base, *cache.recent)]


def _unpack_cache(state: list[dict[str, torch.Tensor]]) -> TargetCache:
    base, *recent = (CachedLabels.from_arrays(as_arrays(cached)) for cached in state)
    return TargetCache(base, tuple(recent))
