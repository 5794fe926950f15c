"""The profile of a client: who it is and where its data is. Only here simulation and real machines differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.files import is_plain_name


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


def profiles_of(
    node_config: Mapping[str, object], federation: Path | None, *, clients_per_node: int = 1
) -> tuple[ClientProfile, ...]:
    """The clients that live on a node: one on a real machine, ``clients_per_node`` in simulation.

    Args:
        node_config: the node config that Flower passes in. A real machine gives ``modality`` and ``public`` and, if it
            has them, ``client-id``, ``recording``, ``test`` and ``memory``; simulation gives ``partition-id``.
        federation: the folder of the federation; only simulation needs it.
        clients_per_node: the size of a cohort.

    Raises:
        ValueError: a key is missing or wrong; the message says which one.
    """
    if "modality" in node_config:
        return (_real_client(node_config),)
    if "partition-id" not in node_config or federation is None:
        raise ValueError("node config: modality missing; name what this node senses, or run in simulation")
    first = int(str(node_config["partition-id"])) * clients_per_node
    folders = client_folders(federation)[first : first + clients_per_node]
    return tuple(
        ClientProfile(
            id=folder.name,
            modality=json.loads((folder / "recording.json").read_text())["modalities"][0],
            recording=folder,
            public=federation / "public",
            test=federation / "test",
        )
        for folder in folders
    )


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
    folders = sorted(path for path in (federation / "clients").glob("[!.]*") if (path / "recording.json").is_file())
    if not folders:
        raise ValueError(f"{federation}: there are no clients here; make the data first with `softbeam data make`")
    return folders
