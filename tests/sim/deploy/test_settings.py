from __future__ import annotations

from pathlib import Path

import pytest

from sim.deploy.machine import NodeMachine
from sim.deploy.settings import build_deployment, load_node, node_folder, parse_nodes


def test_nodes_are_grouped_by_modality_and_numbered_as_in_a_simulation() -> None:
    nodes = parse_nodes(["radar:gate-2", "camera:roof-1", "radar:gate-7"])
    assert [(node.name, node.client) for node in nodes] == [
        ("gate-2", "000-radar"),
        ("gate-7", "001-radar"),
        ("roof-1", "002-camera"),
    ]


def test_a_deployment_makes_an_experiment_one_about_its_nodes() -> None:
    nodes = [node.model_dump() for node in parse_nodes(["radar:a", "camera:b", "radar:c"])]
    deployment = build_deployment(host="localhost", nodes=nodes)
    assert deployment.nodes_override == "data.nodes=[{modality: radar, count: 2}, {modality: camera, count: 1}]"


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["camera"], "--nodes camera: expected modality:name"),
        (["camera:"], "--nodes camera:: expected modality:name"),
        (["sonar:a"], "--nodes sonar:a: modality: must be"),
        (["camera:Roof 1"], "lower-case letters, digits and hyphens"),
        (["camera:../x"], "lower-case letters, digits and hyphens"),
    ],
)
def test_a_wrong_node_is_refused_with_its_text(texts: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_nodes(texts)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"host": "bad host"}, "host: must be a host name or an IPv4 address"),
        ({"host": "x:8443"}, "host: must be a host name or an IPv4 address"),
        ({"port": 0}, "port: must be greater than or equal to 1"),
        ({"port": 21000}, "superlink_port: 21000 is the port of the proxy"),
        ({"names": ["a", "a"]}, "nodes: every name must be used once, got a, a"),
    ],
)
def test_a_wrong_deployment_is_refused_with_its_key(values: dict[str, object], problem: str) -> None:
    names = values.pop("names", ["a"])
    assert isinstance(names, list)
    nodes = [{"name": name, "modality": "gps", "client": f"{i:03d}-gps"} for i, name in enumerate(names)]
    with pytest.raises(ValueError, match=problem):
        build_deployment(**{"host": "localhost", "nodes": nodes, **values})


def test_a_node_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "nodes" / "roof-1").mkdir(parents=True)
    (tmp_path / "nodes" / "roof-1" / "node.yaml").write_text("")
    with pytest.raises(ValueError, match="there is no node roof-2; known are roof-1"):
        node_folder(tmp_path, "roof-2")
    assert node_folder(tmp_path, "roof-1") == tmp_path / "nodes" / "roof-1"
    assert node_folder(tmp_path / "nodes" / "roof-1", None) == tmp_path / "nodes" / "roof-1"


def test_a_node_without_labels_leaves_the_key_of_its_recording_out(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(
        "name: a\nmodality: gps\nclient: 000-gps\nhost: h\nport: 1\nruntime_port: 2\nsource: s\nflower: f\n"
    )
    machine = NodeMachine(tmp_path, load_node(tmp_path))
    assert set(machine.recordings()) == {"public"}
    assert "recording=" not in machine.node_config()


def test_settings_that_are_broken_say_which_file_and_which_key(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    with pytest.raises(ValueError, match=r"node\.yaml: does not exist; `softbeam deploy init` makes it"):
        load_node(tmp_path)
    path.write_text("name: [")
    with pytest.raises(ValueError, match=r"node\.yaml: not readable"):
        load_node(tmp_path)
    path.write_text(
        "name: a\nmodality: gps\nclient: 000-gps\nhost: h\nport: x\nruntime_port: 1\nsource: s\nflower: f\n"
    )
    with pytest.raises(ValueError, match=r"node\.yaml: port: must be a valid integer"):
        load_node(tmp_path)
