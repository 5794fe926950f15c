"""What a deployment is, and what each of its machines needs to know; written by ``softbeam deploy init``.

Three files: ``deployment.yaml`` stays where the deployment was made; ``server/server.yaml`` and
``nodes/NAME/node.yaml`` go to their machines with the folder that they lie in. Paths are relative to that folder, so
it can be put anywhere.
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

# A node's name is a folder, a file name of its key and a label of metrics; a host is what a certificate may name.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")

Settings = TypeVar("Settings", bound=Section)


class Node(Section):
    """A node as it was asked for, ``modality:name``.

    Attributes:
        name: of its machine; lower-case letters, digits and hyphens.
        modality: what it senses.
        client: its id in the federation, the same as in a simulation of the same nodes.
    """

    name: str
    modality: ModalityName
    client: str

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"lower-case letters, digits and hyphens only, 41 at most; got {name!r}")
        return name


class Deployment(Section):
    """A federation of real machines.

    Attributes:
        host: name or address under which the nodes reach the server.
        port: on which the proxy listens there.
        superlink_port: on the server's loopback; the SuperLink listens on it.
        config: the experiment that its data was made for, a name or a YAML file.
        nodes: grouped by modality, numbered as in a simulation.
    """

    host: str
    port: int = Field(default=8443, ge=1, le=65535)
    superlink_port: int = Field(default=46000, ge=1, le=65535)
    config: str = "quickstart"
    nodes: tuple[Node, ...] = Field(min_length=1)

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str) -> str:
        if not _HOST.fullmatch(host):
            raise ValueError(f"a host name or an IPv4 address without port; got {host!r}")
        return host

    @model_validator(mode="after")
    def _fits(self) -> Deployment:
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise ValueError(f"nodes: every name once, got {', '.join(names)}")
        if self.port == self.superlink_port:
            raise ValueError(f"superlink_port: {self.port} is the proxy's; give another")
        return self

    @property
    def nodes_override(self) -> str:
        """What makes an experiment one about these nodes: for ``--set``."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.modality] = counts.get(node.modality, 0) + 1
        entries = ", ".join(f"{{modality: {modality}, count: {count}}}" for modality, count in counts.items())
        return f"data.nodes=[{entries}]"


class ServerSettings(Section):
    """Of the server's machine.

    Attributes:
        host: under which nodes reach it; its certificate names it.
        port: on which the proxy listens.
        bind: address on which the proxy listens; ``0.0.0.0`` for all.
        superlink_port: on loopback.
        data: folder of ``server/``, ``public/`` and ``test/`` recordings.
        metrics_port: on loopback, where Prometheus metrics are served during a run; None serves none.
        source: digest of the source that made these settings.
        flower: version of Flower that made these settings.
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
    """Of a node's machine.

    Attributes:
        name: of the machine.
        modality: what it senses.
        client: its id in the federation.
        host: of the server.
        port: of the server's proxy.
        runtime_port: on the node's loopback; distinct for each node where several share a machine.
        recording: folder of its own recording; left out on a node that has no labels.
        public: folder of the public set.
        test: folder of the common test set; left out where there is none.
        source: digest of the source that made these settings.
        flower: version of Flower that made these settings.
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
    source: str
    flower: str


def parse_nodes(texts: list[str]) -> tuple[Node, ...]:
    """Nodes from ``modality:name`` texts, grouped by modality in order of first appearance, and numbered.

    Raises:
        ValueError: one of them has another form.
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
    """A deployment from plain values.

    Raises:
        ValueError: one line per mistake, with its key.
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
    """The server's folder: of a deployment, or given itself."""
    return folder if (folder / SERVER_FILE).is_file() else folder / SERVER_FOLDER


def node_folder(folder: Path, name: str | None) -> Path:
    """A node's folder: of a deployment by name, or given itself.

    Raises:
        ValueError: there is no such node, or it has to be named.
    """
    if name is None:
        if (folder / NODE_FILE).is_file():
            return folder
        raise ValueError(f"{folder}: not the folder of a node; give its name, or the folder with its {NODE_FILE}")
    found = folder / NODES_FOLDER / name
    if not (found / NODE_FILE).is_file():
        known = sorted(path.parent.name for path in folder.glob(f"{NODES_FOLDER}/*/{NODE_FILE}"))
        raise ValueError(f"{folder}: no node {name}; known are {', '.join(known) or 'none'}")
    return found


def _load(kind: type[Settings], path: Path) -> Settings:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: not there; `softbeam deploy init` makes it") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable ({' '.join(str(error).split())})") from None
    return _build(kind, values, origin=str(path))


def _build(kind: type[Settings], values: object, *, origin: str) -> Settings:
    try:
        # Not strict: YAML knows lists where a setting is a tuple.
        return kind.model_validate(values, strict=False)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            path = ".".join(str(part) for part in item["loc"])
            text = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
            lines.append(f"{path}: {text}" if path else text)
        raise ValueError(f"{origin}: " + "; ".join(lines)) from None
