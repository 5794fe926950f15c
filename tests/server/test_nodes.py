"""The register of nodes: read as written, and refused with the place of the mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.nodes import read_nodes, registered_nodes
from strategies.messages.records import RegisteredNode

LARGEST = str(2**64 - 1)
ROOF = {"node_id": LARGEST, "name": "roof-1", "client": "000-camera", "modality": "camera"}
GATE = {"node_id": "7", "name": "gate-2", "client": "001-radar", "modality": "radar"}


def write(tmp_path: Path, values: Any) -> Path:
    path = tmp_path / "nodes.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def test_a_register_is_read_by_the_id_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTBEAM_NODES", str(write(tmp_path, {"nodes": [ROOF, GATE]})))
    assert registered_nodes() == {
        2**64 - 1: RegisteredNode("roof-1", "000-camera", "camera"),
        7: RegisteredNode("gate-2", "001-radar", "radar"),
    }


def test_without_the_variable_there_is_no_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTBEAM_NODES", raising=False)
    assert registered_nodes() is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ("not json", r"nodes\.json: not readable as JSON"),
        ([ROOF], r"nodes: must be a list of at least one node"),
        ({"nodes": []}, r"nodes: must be a list of at least one node"),
        ({"nodes": [ROOF, "gate"]}, r"nodes\.1: must have node_id, name, client, modality, got 'gate'"),
        ({"nodes": [{**ROOF, "node_id": 7}]}, r"nodes\.0\.node_id: must be a text, got 7"),
        ({"nodes": [{**ROOF, "node_id": "0x7"}]}, r"nodes\.0\.node_id: must be a whole number as text, got '0x7'"),
        ({"nodes": [{**ROOF, "client": ""}]}, r"nodes\.0\.client: must be a text, got ''"),
        ({"nodes": [ROOF, {**GATE, "node_id": LARGEST}]}, rf"2 entries have the node_id '{LARGEST}'"),
        ({"nodes": [ROOF, {**GATE, "client": "000-camera"}]}, r"2 entries have the client '000-camera'"),
        ({"nodes": [ROOF, {**GATE, "name": "roof-1"}]}, r"2 entries have the name 'roof-1'"),
    ],
)
def test_a_mistake_in_a_register_is_named_by_its_place(tmp_path: Path, values: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"^SOFTBEAM_NODES: .*{problem}"):
        read_nodes(write(tmp_path, values))


def test_a_register_that_is_not_there_is_an_error_and_not_an_open_door(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^SOFTBEAM_NODES: .*missing\.json: not readable"):
        read_nodes(tmp_path / "missing.json")
