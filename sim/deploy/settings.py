"""The settings of a deployment and of each of its machines; ``softbeam deploy init`` writes them.

There are three kinds of file: ``deployment.yaml`` stays where the deployment was made; ``server/server.yaml`` and
``nodes/NAME/node.yaml`` go to their machines with their folders. Paths are relative to that folder, so that it can be
put anywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from configs.data import ModalityName
from configs.section import Section

DEPLOYMENT_FILE, SERVER_FILE, NODE_FILE = "deployment.yaml", "server.yaml", "node.yaml"
SERVER_FOLDER, NODES_FOLDER = "server", "nodes"

# The name of a node is also a folder, the file name of its key and a label of metrics; a certificate names the host.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")

Settings = TypeVar("Settings", bound=Section)


class Node(Section):
    """A node as the user asked for it, ``modality:name``.

    Attributes:
        name: the name of its machine; lower-case letters, digits and hyphens.
        modality: the modality of its sensor.
        client: the id of its client in the federation, the same as in a simulation of the same nodes.
    """

    name: str
    modality: ModalityName
    client: str

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"must have lower-case letters, digits and hyphens only, 41 at most; got {name!r}")
        return name


class Deployment(Section):
    """A federation of real machines.

    Attributes:
        host: the name or address at which the nodes reach the server.
        port: the port at which the proxy listens there.
        superlink_port: the port on the server's loopback at which the SuperLink listens.
        config: the experiment for which its data was made: a name or a YAML file.
        nodes: the nodes, grouped by modality and numbered as in a simulation.
    """

    host: str
    port: int = Field(default=8443, ge=1, le=65535)
    superlink_port: int = Field(default=21000, ge=1, le=65535)
    config: str = "quickstart"
    nodes: tuple[Node, ...] = Field(min_length=1)

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str) -> str:
        if not _HOST.fullmatch(host):
            raise ValueError(f"must be a host name or an IPv4 address without port; got {host!r}")
        return host

    @model_validator(mode="after")
    def _fits(self) -> Deployment:
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise ValueError(f"nodes: every name must be used once, got {', '.join(names)}")
        if self.port == self.superlink_port:
            raise ValueError(f"superlink_port: {self.port} is the port of the proxy; choose another")
        return self

    @property
    def nodes_override(self) -> str:
        """The override (as for ``--set``) that gives an experiment these nodes."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.modality] = counts.get(node.modality, 0) + 1
        entries = ", ".join(f"{{modality: {modality}, count: {count}}}" for modality, count in counts.items())
        return f"data.nodes=[{entries}]"


class ServerSettings(Section):
    """The settings of the server's machine.

    Attributes:
        host: the name or address at which nodes reach the server; its certificate names it.
        port: the port at which the proxy listens.
        bind: the address at which the proxy listens; ``0.0.0.0`` for all.
        superlink_port: the port of the SuperLink on loopback.
        data: the folder of the recordings ``server/``, ``public/`` and ``test/``.
        metrics_port: the port on loopback that serves Prometheus metrics during a run; None serves none.
        source: the digest of the Softbeam source that made these settings.
        flower: the version of Flower with which these settings were made.
    """

    host: str
    port: int
    bind: str = "0.0.0.0"
    superlink_port: int
    data: str = "data"
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    source: str
    flower: str


class NodeSettings(Section):
    """The settings of a node's machine.

    Attributes:
        name: the name of the machine.
        modality: the modality of its sensor.
        client: the id of its client in the federation.
        host: the name or address of the server.
        port: the port of the server's proxy.
        runtime_port: a port on the node's loopback; nodes that share a machine need different ports.
        recording: the folder of its own recording; left out on a node that has no labels.
        public: the folder of the public set.
        test: the folder of the common test set; left out if there is none.
        models: the folder of the store that its student is published in.
        publish_every: after how many rounds its student is published there, at the earliest, and again when no round
            has come for a minute; left out, only ``softbeam deploy publish`` does.
        source: the digest of the Softbeam source that made these settings.
        flower: the version of Flower with which these settings were made.
    """

    name: str
    modality: ModalityName
    client: str
    host: str
    port: int
    runtime_port: int
    recording: str | None = None
    public: str = "data/public"
    test: str | None = None
    models: str = "models"
    publish_every: int | None = Field(default=None, ge=1)
    source: str
    flower: str


def parse_nodes(texts: list[str]) -> tuple[Node, ...]:
    """Read nodes from ``modality:name`` texts; group them by modality in order of first appearance, and number them.

    Raises:
        ValueError: a text has another form; the message names it.
    """
    pairs = [text.partition(":") for text in texts]
    for text, (modality, colon, name) in zip(texts, pairs, strict=True):
        if not (modality and colon and name):
            raise ValueError(f"--nodes {text}: expected modality:name, such as camera:roof-1")
    order = list(dict.fromkeys(modality for modality, _, _ in pairs))
    grouped = sorted(pairs, key=lambda pair: order.index(pair[0]))
    nodes = []
    for number, (modality, _, name) in enumerate(grouped):
        values = {"name": name, "modality": modality, "client": f"{number:03d}-{modality}"}
        nodes.append(_build(Node, values, origin=f"--nodes {modality}:{name}"))
    return tuple(nodes)


def build_deployment(**values: object) -> Deployment:
    """Build a deployment from plain values.

    Raises:
        ValueError: a value is wrong; the message gives every mistake with its key.
    """
    return _build(Deployment, values, origin="deploy init")


def load_deployment(folder: Path) -> Deployment:
    """The deployment of a folder that ``softbeam deploy init`` made."""
    return _load(Deployment, folder / DEPLOYMENT_FILE)


def load_server(folder: Path) -> ServerSettings:
    """The settings of a server's folder."""
    return _load(ServerSettings, folder / SERVER_FILE)


def load_node(folder: Path) -> NodeSettings:
    """The settings of a node's folder."""
    return _load(NodeSettings, folder / NODE_FILE)


def save_settings(settings: Section, path: Path) -> None:
    """Write settings as YAML, in the order of their definition."""
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def server_folder(folder: Path) -> Path:
    """The folder of the server, if ``folder`` is that of a deployment or that of the server itself."""
    return folder if (folder / SERVER_FILE).is_file() else folder / SERVER_FOLDER


def node_folder(folder: Path, name: str | None) -> Path:
    """The folder of a node, if ``folder`` is that of a deployment with a node ``name`` or that of the node itself.

    Raises:
        ValueError: there is no such node, or ``name`` is needed.
    """
    if name is None:
        if (folder / NODE_FILE).is_file():
            return folder
        raise ValueError(f"{folder}: not the folder of a node; name the node, or give the folder with its {NODE_FILE}")
    found = folder / NODES_FOLDER / name
    if not (found / NODE_FILE).is_file():
        known = sorted(path.parent.name for path in folder.glob(f"{NODES_FOLDER}/*/{NODE_FILE}"))
        raise ValueError(f"{folder}: there is no node {name}; known are {', '.join(known) or 'none'}")
    return found


def _load(kind: type[Settings], path: Path) -> Settings:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: does not exist; `softbeam deploy init` makes it") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable ({' '.join(str(error).split())}); copy the folder again") from None
    return _build(kind, values, origin=str(path))


def _build(kind: type[Settings], values: object, *, origin: str) -> Settings:
    try:
        # Validation is not strict, since YAML has lists where a setting is a tuple.
        return kind.model_validate(values, strict=False)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            path = ".".join(str(part) for part in item["loc"])
            text = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
            lines.append(f"{path}: {text}" if path else text)
        raise ValueError(f"{origin}: " + "; ".join(lines)) from None
