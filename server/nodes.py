"""The register of nodes: which client was provisioned on which node, as the operator wrote it down."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from strategies.messages.records import RegisteredNode

VARIABLE = "SOFTBEAM_NODES"
_KEYS = ("node_id", "name", "client", "modality")


def registered_nodes() -> dict[int, RegisteredNode] | None:
    """Node id -> the client provisioned there, from the file that ``SOFTBEAM_NODES`` names; None if it names none.

    Raises:
        ValueError: the file is missing or is not a register.
    """
    path = os.environ.get(VARIABLE, "")
    return read_nodes(Path(path)) if path else None


def read_nodes(path: Path) -> dict[int, RegisteredNode]:
    """Read a register.

    The file holds
    ``{"nodes": [{"node_id": "123", "name": "roof-1", "client": "000-camera", "modality": "camera"}, ...]}``.
    Ids are texts, because not every JSON reader keeps numbers of 64 bits exact.

    Raises:
        ValueError: the file is not readable or has another form, or two entries share a node, a name or a client.
    """
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{VARIABLE}: {path}: not readable as JSON ({error})") from None
    entries = values.get("nodes") if isinstance(values, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{VARIABLE}: {path}: nodes: must be a list of at least one node")
    for index, entry in enumerate(entries):
        _check(entry, f"{VARIABLE}: {path}: nodes.{index}")
    for key in ("node_id", "name", "client"):
        value, count = Counter(entry[key] for entry in entries).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{VARIABLE}: {path}: nodes: {count} entries have the {key} {value!r}")
    return {
        int(entry["node_id"]): RegisteredNode(entry["name"], entry["client"], entry["modality"]) for entry in entries
    }


def _check(entry: Any, where: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must have {', '.join(_KEYS)}, got {entry!r}")
    for key in _KEYS:
        value = entry.get(key)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{where}.{key}: must be a text, got {value!r}")
    if not (entry["node_id"].isascii() and entry["node_id"].isdecimal()):
        raise ValueError(f"{where}.node_id: must be a whole number as text, got {entry['node_id']!r}")
