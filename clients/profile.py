"""The profile of a client: who it is and where its data is. Only here simulation and real machines differ."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from clients.models.encoders import encodes_vectors
from configs.data_facts import recordings_of_clients
from configs.files import is_plain_name
from configs.schema import Experiment


@dataclass(frozen=True)
class ClientProfile:
    """One client.

    Attributes:
        id: the name of the client, unique in the federation, such as ``000-camera``; it is also the name of a folder.
        modality: the modality that it senses.
        recording: the folder of its own labelled recording; None if it has none and only digests.
        public: the folder of the public set, with at least the client's modality.
        test: the folder of the common test set, with at least the client's modality; None if there is no test set.
        memory: the folder under which it keeps its memory of every run; None keeps the memory in the run's folder.
        is_virtual: whether a simulation made the client; its memory is then in the simulation's run folder.
    """

    id: str
    modality: str
    recording: Path | None
    public: Path
    test: Path | None
    memory: Path | None = None
    is_virtual: bool = True


AUTO_COHORT = 20
"""The size of the largest cohort that ``auto`` makes."""


def profiles_of(
    node_config: Mapping[str, object], federation: Path | None, experiment: Experiment | None = None
) -> tuple[ClientProfile, ...]:
    """The clients that live on a node: one on a real machine, a cohort in simulation.

    Args:
        node_config: the node config that Flower passes in. A real machine gives ``modality`` and ``public`` and, if it
            has them, ``client-id``, ``recording``, ``test`` and ``memory``; simulation gives ``partition-id``.
        federation: the folder of the federation; only simulation needs it.
        experiment: the experiment of a simulation, which says what a cohort is; None puts one client on each node.

    Raises:
        ValueError: a key is missing or wrong; the message says which one.
    """
    if "modality" in node_config:
        return (_real_client(node_config),)
    if "partition-id" not in node_config or federation is None:
        raise ValueError("node config: modality missing; name what this node senses, or run in simulation")
    cohorts, partition = cohorts_of(federation, experiment), int(str(node_config["partition-id"]))
    return tuple(
        ClientProfile(
            id=folder.name,
            modality=_modality_of(folder),
            recording=folder,
            public=federation / "public",
            test=federation / "test",
        )
        for folder in (cohorts[partition] if partition < len(cohorts) else ())
    )


def cohorts_of(federation: Path, experiment: Experiment | None = None) -> tuple[tuple[Path, ...], ...]:
    """The recordings of the clients that each node of a simulation carries, by ``engine.cohort``.

    A number puts that many successive clients on a node. ``auto`` puts clients together whose students can be stacked
    (`clients.models.stacked`), at most `AUTO_COHORT` of them and on an even number of nodes, so that two workers have
    equally much to do; all others have a node each. It does not ask how many cores there are, on which results would
    depend then.

    Args:
        federation: the folder of the federation.
        experiment: the experiment; None puts one client on each node.

    Raises:
        ValueError: the federation has no clients.
    """
    clients = federation / "clients"
    # A new or removed client changes the time of the folder.
    made_ns = clients.stat().st_mtime_ns if clients.is_dir() else 0
    if experiment is None or experiment.engine.cohort != "auto":
        return _cohorts_as_of(federation, made_ns, 1 if experiment is None else int(experiment.engine.cohort))
    stacked = frozenset(
        name for name in experiment.modalities if encodes_vectors(name) and experiment.student_size(name).model is None
    )
    return _stacks_as_of(federation, made_ns, stacked)


@lru_cache(maxsize=8)
def _cohorts_as_of(federation: Path, time_ns: int, size: int) -> tuple[tuple[Path, ...], ...]:
    """The cohorts; a process lists the clients once, since listing thousands takes longer than a message."""
    folders = client_folders(federation)
    return tuple(tuple(folders[first : first + size]) for first in range(0, len(folders), size))


@lru_cache(maxsize=8)
def _stacks_as_of(federation: Path, time_ns: int, stacked: frozenset[str]) -> tuple[tuple[Path, ...], ...]:
    """The cohorts of ``auto``: clients of each modality in ``stacked`` together, and all others alone."""
    together: dict[str, list[Path]] = {}
    for folder in client_folders(federation):
        modality = _modality_of(folder)
        together.setdefault(modality if modality in stacked else f"{modality} {folder.name}", []).append(folder)
    cohorts = [
        tuple(folders[part.start : part.stop]) for folders in together.values() for part in even_parts(len(folders))
    ]
    return tuple(sorted(cohorts))


def even_parts(count: int) -> list[range]:
    """So many clients, on an even number of nodes with at most `AUTO_COHORT` each; one node carries one alone.

    Example:
        >>> even_parts(45)
        [range(0, 11), range(11, 22), range(22, 34), range(34, 45)]
    """
    num_nodes = min(count, 2 * math.ceil(count / (2 * AUTO_COHORT)))
    ends = [round(count * number / num_nodes) for number in range(num_nodes + 1)]
    return [range(begin, end) for begin, end in pairwise(ends)]


def _modality_of(recording: Path) -> str:
    return str(json.loads((recording / "recording.json").read_text())["modalities"][0])


def _real_client(node_config: Mapping[str, object]) -> ClientProfile:
    if "public" not in node_config:
        raise ValueError("node config: public missing; give the folder of the public set")
    modality = str(node_config["modality"])
    client = str(node_config.get("client-id", modality))
    if not is_plain_name(client):
        raise ValueError(f"node config: client-id must be the name of one folder, got {client!r}")
    folders = {
        key: Path(str(node_config[key])) if key in node_config else None for key in ("recording", "test", "memory")
    }
    return ClientProfile(
        id=client, modality=modality, public=Path(str(node_config["public"])), is_virtual=False, **folders
    )


def client_folders(federation: Path) -> list[Path]:
    """The folders of the clients' recordings in a federation, in order of their numbers.

    Raises:
        ValueError: the federation has no clients.
    """
    folders = recordings_of_clients(federation)
    if not folders:
        raise ValueError(f"{federation}: there are no clients here; make the data first with `softbeam data make`")
    return folders
