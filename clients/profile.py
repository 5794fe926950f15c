"""Who a client is and where its data lies: the one place that knows simulation from a real machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClientProfile:
    """One client.

    Attributes:
        id: unique in the federation, e.g. ``000-camera``.
        modality: what it senses.
        recording: folder of its own labelled recording.
        public: folder of the public set, with at least its own modality.
        test: folder of the common test set, with at least its own modality; None where there is none.
    """

    id: str
    modality: str
    recording: Path
    public: Path
    test: Path | None


def profiles_of(
    node_config: Mapping[str, object], federation: Path | None, *, clients_per_node: int = 1
) -> tuple[ClientProfile, ...]:
    """The clients that live on a node: one on a real machine, ``clients_per_node`` in simulation.

    Args:
        node_config: of Flower. A real machine gives ``client-id``, ``modality``, ``recording``, ``public`` and, if it
            has one, ``test``; simulation gives ``partition-id``.
        federation: folder of the federation, for simulation.
        clients_per_node: size of a cohort.

    Raises:
        ValueError: a key is missing; the message says which.
    """
    if "modality" in node_config:
        missing = [key for key in ("recording", "public") if key not in node_config]
        if missing:
            raise ValueError(f"node config: {', '.join(missing)} missing; give the folder of each")
        modality = str(node_config["modality"])
        test = node_config.get("test")
        return (
            ClientProfile(
                id=str(node_config.get("client-id", modality)),
                modality=modality,
                recording=Path(str(node_config["recording"])),
                public=Path(str(node_config["public"])),
                test=None if test is None else Path(str(test)),
            ),
        )
    if "partition-id" not in node_config or federation is None:
        raise ValueError("node config: modality missing; say what this node senses, or run in simulation")
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


def client_folders(federation: Path) -> list[Path]:
    """The recordings of a federation's clients, in order of their number.

    Raises:
        ValueError: there is none.
    """
    folders = sorted(path for path in (federation / "clients").glob("*") if (path / "recording.json").is_file())
    if not folders:
        raise ValueError(f"{federation}: no clients here; make the data first with `softbeam data make`")
    return folders
