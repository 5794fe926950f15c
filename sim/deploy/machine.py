"""The programs of the server's machine and of a node's machine, built from the settings in their folders.

The server has a SuperLink on loopback with a database, a SuperExec that starts ServerApps (apart from the SuperLink,
so that a run survives the death of the SuperLink) and nginx, which publishes the routes of the nodes and nothing else,
since the control routes of the SuperLink have no authentication. A node has a fork server with the modules of a
client, a SuperNode and a SuperExec that starts ClientApps. Each SuperExec identifies itself by a secret. Where the
settings say so, it also has a program that publishes its student in its store.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from configs.files import swap_in
from server.metrics import PORT_VARIABLE
from server.nodes import VARIABLE
from sim.deploy.credentials import (
    CA_CERTIFICATE,
    NODE_KEY,
    NODE_PUBLIC_KEY,
    SECRET,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    key_header,
)
from sim.deploy.flower import Flower, flower_environment, program, whole_program
from sim.deploy.programs import Program
from sim.deploy.registration import register_nodes
from sim.deploy.settings import Node, NodeSettings, ServerSettings
from sim.deploy.supervisor import make_private
from sim.deploy.templates import proxy

PROXY_CONFIG = "nginx.conf"
"""File in the state of the server; it is made from the settings at every start."""
KEYS_FOLDER = "keys"
NODE_LIST = "nodes.json"
"""The nodes that may take part, in the folder of the server; the same with keys and node ids, in its state."""
STATE_FOLDER = "state"

# Exit codes of flower-superlink and flower-supernode after which another start would fail too.
_FATAL = {
    105: "its database is from another version of Flower; move state/superlink.db away and register the nodes again",
    302: f"{NODE_KEY} is not a key that Flower accepts; make the node's folder again",
    600: "an address is not valid; correct it in the settings",
    603: f"{CA_CERTIFICATE} is not a certificate authority; copy the folder again",
    605: f"{SERVER_CERTIFICATE} and {SERVER_KEY} do not fit together; make the deployment again",
}

# The log lines of the polls of every node and SuperExec, which come every few seconds.
_ACCESS = r"uvicorn\.access.*\" 2\d\d$"


@dataclass(frozen=True)
class ServerMachine:
    """The machine of the server.

    Attributes:
        folder: the folder that ``softbeam deploy init`` made.
        settings: the settings in that folder.
    """

    folder: Path
    settings: ServerSettings

    @property
    def state(self) -> Path:
        """The folder of all files that change."""
        return self.folder / STATE_FOLDER

    @property
    def data(self) -> Path:
        """The folder of the server's recordings."""
        return (self.folder / self.settings.data).resolve()

    @property
    def flower(self) -> Flower:
        """The command line of Flower for this server."""
        return Flower(self.state / "flower")

    def environment(self) -> dict[str, str]:
        """The environment of all its programs."""
        metrics = self.settings.metrics_port
        return {
            **flower_environment(self.flower.home),
            "SOFTBEAM_HOME": str(self.state),
            VARIABLE: str(self.state / NODE_LIST),
            **({} if metrics is None else {PORT_VARIABLE: str(metrics)}),
        }

    def programs(self) -> list[Program]:
        """SuperLink, SuperExec and proxy, in this order; the files that they read are written again."""
        make_private(self.state)
        (self.state / PROXY_CONFIG).write_text(proxy(self.settings, self._key_headers()))
        self.flower.connect(port=self.settings.superlink_port, certificate=self.folder / CA_CERTIFICATE)
        address = f"127.0.0.1:{self.settings.superlink_port}"
        superlink = [
            program("flower-superlink"),
            *("--host", "127.0.0.1", "--port", str(self.settings.superlink_port)),
            *("--ssl-ca-certfile", str(self.folder / CA_CERTIFICATE)),
            *("--ssl-certfile", str(self.folder / SERVER_CERTIFICATE)),
            *("--ssl-keyfile", str(self.folder / SERVER_KEY)),
            "--enable-supernode-auth",
            *("--isolation", "process", "--database", str(self.state / "superlink.db")),
            *("--superexec-auth-secret-file", str(self.folder / SECRET)),
            "--disable-runtime-dependency-installation",
        ]
        superexec = _superexec(address, ["--root-certificates", str(self.folder / CA_CERTIFICATE)], self.folder)
        environment = self.environment()
        return [
            Program(
                "superlink",
                superlink,
                environment,
                fatal=_FATAL,
                ready=self._is_open_and_registered,
                noise=_ACCESS,
                port=self.settings.superlink_port,
            ),
            Program("superexec", superexec, environment, children_go_on=True),
            Program(
                "proxy", proxy_command(self.folder), environment, ready=self._proxy_is_open, port=self.settings.port
            ),
        ]

    def register_nodes(self) -> list[dict[str, str]]:
        """Let in the nodes of the list and no others, and note their keys and node ids.

        Returns:
            The entries with their ``public_key`` and ``node_id``.

        Raises:
            ValueError: a key is missing, or Flower does not accept it.
            RuntimeError: Flower does not answer as it should now; a later call may succeed.
        """
        return register_nodes(
            self.flower,
            read_nodes(self.folder / NODE_LIST),
            noted=read_nodes(self.state / NODE_LIST),
            keys=self.folder / KEYS_FOLDER,
            note=partial(write_nodes, self.state / NODE_LIST),
        )

    def revoke(self, name: str) -> None:
        """Refuse a node from now on; its key is no longer accepted.

        Raises:
            ValueError: there is no such node.
        """
        entries = read_nodes(self.state / NODE_LIST)
        found = [entry for entry in entries if entry["name"] == name]
        if not found:
            known = ", ".join(entry["name"] for entry in entries) or "none"
            raise ValueError(f"{name}: no registered node has this name; known are {known}")
        self.flower.unregister(int(found[0]["node_id"]))
        for path in (self.folder / NODE_LIST, self.state / NODE_LIST):
            write_nodes(path, [entry for entry in read_nodes(path) if entry["name"] != name])

    def _key_headers(self) -> dict[str, str]:
        """The name of each node that may take part -> its public key; those without one are told by registration."""
        keys = {
            entry["name"]: self.folder / KEYS_FOLDER / f"{entry['name']}.pub"
            for entry in read_nodes(self.folder / NODE_LIST)
        }
        return {name: key_header(path) for name, path in keys.items() if path.is_file()}

    def _is_open_and_registered(self) -> bool:
        if not is_open(self.settings.superlink_port):
            return False
        self.register_nodes()
        return True

    def _proxy_is_open(self) -> bool:
        bind = self.settings.bind
        return is_open(self.settings.port, "127.0.0.1" if bind == "0.0.0.0" else bind)


@dataclass(frozen=True)
class NodeMachine:
    """The machine of a node.

    Attributes:
        folder: the folder that ``softbeam deploy init`` made.
        settings: the settings in that folder.
    """

    folder: Path
    settings: NodeSettings

    @property
    def state(self) -> Path:
        """The folder of all files that change; the memory of the client is in its subfolder ``runs``."""
        return self.folder / STATE_FOLDER

    def recordings(self) -> dict[str, Path]:
        """The folders of its recordings, by their role: ``recording``, ``public``, ``test``."""
        named = {"recording": self.settings.recording, "public": self.settings.public, "test": self.settings.test}
        return {name: (self.folder / path).resolve() for name, path in named.items() if path is not None}

    @property
    def models(self) -> Path:
        """The folder of the store with the versions of its student."""
        return (self.folder / self.settings.models).resolve()

    def facts(self) -> dict[str, str]:
        """The facts about the machine that the ClientApp is told."""
        return {
            "client-id": self.settings.client,
            "modality": self.settings.modality,
            **{name: str(path) for name, path in self.recordings().items()},
            "memory": str((self.state / "runs").resolve()),
        }

    def node_config(self) -> str:
        """The same facts in the form that Flower takes."""
        return " ".join(f"{name}={json.dumps(value)}" for name, value in self.facts().items())

    def environment(self) -> dict[str, str]:
        """The environment of its programs."""
        return {**flower_environment(self.state / "flower"), "SOFTBEAM_HOME": str(self.state)}

    def programs(self, superexec_environment: Mapping[str, str]) -> list[Program]:
        """SuperNode and SuperExec, in this order, and last what publishes the student where the settings ask for it.

        Args:
            superexec_environment: the environment in which clients are started.
        """
        address = f"127.0.0.1:{self.settings.runtime_port}"
        supernode = [
            *whole_program("flower-supernode"),
            *("--superlink", f"{self.settings.host}:{self.settings.port}"),
            *("--root-certificates", str(self.folder / CA_CERTIFICATE)),
            *("--auth-supernode-private-key", str(self.folder / NODE_KEY)),
            *("--host", "127.0.0.1", "--port", str(self.settings.runtime_port)),
            *("--isolation", "process"),
            *("--superexec-auth-secret-file", str(self.folder / SECRET)),
            *("--node-config", self.node_config()),
        ]
        found = [
            Program(
                "supernode",
                supernode,
                self.environment(),
                fatal=_FATAL,
                noise=_ACCESS,
                port=self.settings.runtime_port,
            ),
            Program(
                "superexec",
                _superexec(address, ["--insecure"], self.folder),
                superexec_environment,
                children_go_on=True,
            ),
        ]
        if self.settings.publish_every is not None:
            words = ["deploy", "publish", str(self.folder.resolve()), "--watch"]
            found.append(Program("publisher", [sys.executable, "-m", "sim.cli.main", *words], self.environment()))
        return found

    def health(self) -> dict[str, Any]:
        """Entries of the health file: ``node`` is its name, ``client`` what the client wrote after its last message."""
        return {"node": self.settings.name, "client": self._client_health()}

    def _client_health(self) -> dict[str, Any]:
        files = self.state.glob(f"runs/*/{self.settings.client}/health.json")
        try:
            # A file may disappear after it was found.
            newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
            health: dict[str, Any] = {} if newest is None else json.loads(newest.read_text())
        except (OSError, ValueError):
            return {}
        return health


def proxy_command(folder: Path) -> list[str]:
    """The command for nginx in the foreground, with the configuration in the state of a server's folder.

    Raises:
        ValueError: nginx is not installed.
    """
    path = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if path is None:
        raise ValueError("nginx: not installed; install it from the distribution (Debian: apt install nginx-light)")
    return [
        path,
        "-p",
        str(folder.resolve()),
        "-c",
        str(folder.resolve() / STATE_FOLDER / PROXY_CONFIG),
        "-e",
        "stderr",
    ]


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens on a port."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def read_nodes(path: Path) -> list[dict[str, str]]:
    """The entries of a list of nodes; empty if the file does not exist.

    Raises:
        ValueError: the file is not readable, or an entry lacks its name, client or modality.
    """
    try:
        entries: list[dict[str, str]] = json.loads(path.read_text())["nodes"]
        for index, entry in enumerate(entries):
            lacking = [key for key in ("name", "client", "modality") if not isinstance(entry[key], str)]
            if lacking:
                raise ValueError(f"nodes.{index}.{lacking[0]}: must be a text, got {entry[lacking[0]]!r}")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a readable list of nodes ({error!r}); copy the folder again") from None
    return entries


def write_nodes(path: Path, entries: list[dict[str, str]]) -> None:
    """Write a list of nodes in one step, so that a reader sees the old list or the new one."""
    swap_in(path, json.dumps({"nodes": entries}, indent=1) + "\n")


def entry_of(node: Node) -> dict[str, str]:
    """The entry of a node in the list."""
    return {"name": node.name, "client": node.client, "modality": node.modality}


def install_node_key(node: Path, server: Path, *, name: str) -> None:
    """Put a node's public key where the server looks for it."""
    (server / KEYS_FOLDER).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(node / NODE_PUBLIC_KEY, server / KEYS_FOLDER / f"{name}.pub")


def _superexec(address: str, tls: list[str], folder: Path) -> list[str]:
    secret = ["--superexec-auth-secret-file", str(folder / SECRET)]
    return [*whole_program("flower-superexec"), *tls, "--runtime-api-address", address, *secret]
