"""Writes for ``softbeam deploy init`` everything that the machines of a deployment need, a folder for each.

DIR/deployment.yaml      the deployment that was asked for
DIR/ca/                  the certificate authority; its key stays here
DIR/server/              for the server's machine: settings, certificate, list and keys of the nodes, units
DIR/nodes/NAME/          for a node's machine: settings, its key, the authority's certificate, units
DIR/compose.yaml         all of them in containers on one machine
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

from clients.data.recording import MANIFEST
from clients.profile import client_folders
from configs.loading import source_digest
from sim.deploy import templates
from sim.deploy.credentials import (
    CA_CERTIFICATE,
    SECRET,
    make_authority,
    make_node_key,
    make_secret,
    make_server_certificate,
)
from sim.deploy.machine import NODE_LIST, entry_of, install_node_key, write_nodes
from sim.deploy.settings import (
    DEPLOYMENT_FILE,
    NODE_FILE,
    NODES_FOLDER,
    SERVER_FILE,
    SERVER_FOLDER,
    Deployment,
    Node,
    NodeSettings,
    ServerSettings,
    save_settings,
)

FIRST_RUNTIME_PORT = 21100
"""The first loopback port of the nodes; each node has another, so that nodes can share a machine.

Like the SuperLink's, it lies below the ports that systems hand to outgoing connections (Linux from 32768, IANA from
49152): a connection of anybody can never hold it.
"""


def provision(
    folder: Path, deployment: Deployment, *, bind: str, metrics_port: int | None, publish_every: int | None = None
) -> None:
    """Write the folder of a deployment.

    Args:
        folder: the folder to make; it must be absent or empty.
        deployment: the deployment to write.
        bind: the address at which the proxy listens.
        metrics_port: the port of the server's metrics; None serves none.
        publish_every: after how many rounds nodes publish their student; None leaves that to whoever asks for it.

    Raises:
        ValueError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: not empty; give a new folder, or delete it and with it every key of its nodes")
    folder.mkdir(parents=True, exist_ok=True)
    _keep_out_of_git(folder)
    make_authority(folder / "ca", name=deployment.host)
    _write_server(folder, deployment, bind=bind, metrics_port=metrics_port)
    for number, node in enumerate(deployment.nodes):
        _write_node(folder, deployment, node, runtime_port=FIRST_RUNTIME_PORT + number, publish_every=publish_every)
    if templates.can_compose(deployment):
        (folder / "compose.yaml").write_text(templates.compose(deployment))
    save_settings(deployment, folder / DEPLOYMENT_FILE)


def hand_out(federation: Path, folder: Path, deployment: Deployment) -> None:
    """Give every machine of a deployment its part of a federation: a node gets its own modality only.

    Args:
        federation: a folder with as many clients of each modality as the deployment has nodes.
        folder: the folder of the deployment.
        deployment: the deployment in that folder.

    Raises:
        ValueError: the clients are not those of the deployment.
    """
    clients = {path.name: path for path in client_folders(federation)}
    wanted = {node.client for node in deployment.nodes}
    if set(clients) != wanted:
        raise ValueError(
            f"{federation}: it has clients {', '.join(sorted(clients))}, but needs {', '.join(sorted(wanted))}"
        )
    server = folder / SERVER_FOLDER / "data"
    for part in ("server", "public", "test"):
        _replace_tree(federation / part, server / part)
    for node in deployment.nodes:
        data = folder / NODES_FOLDER / node.name / "data"
        for source, name in ((clients[node.client], "recording"), (federation / "public", "public")):
            copy_modality(source, data / name, node.modality)
        copy_modality(federation / "test", data / "test", node.modality)


def copy_modality(source: Path, target: Path, modality: str) -> None:
    """Copy a recording with only one of its modalities.

    Raises:
        ValueError: the recording lacks that modality.
    """
    manifest = json.loads((source / MANIFEST).read_text())
    if modality not in manifest["modalities"]:
        raise ValueError(f"{source}: it has no {modality}, only {', '.join(manifest['modalities'])}")
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in ("pass_ids", *(["power"] if manifest["labelled"] else []), modality):
        shutil.copyfile(source / f"{name}.npy", draft / f"{name}.npy")
    (draft / MANIFEST).write_text(json.dumps({**manifest, "modalities": [modality]}, indent=1) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def same_frames(one: Path, other: Path) -> bool:
    """Whether two recordings have the same frames, with any sensors; then the same id means the same sample."""
    ids = [np.load(folder / "pass_ids.npy", allow_pickle=False) for folder in (one, other)]
    return bool(np.array_equal(ids[0], ids[1]))


def _write_server(folder: Path, deployment: Deployment, *, bind: str, metrics_port: int | None) -> None:
    server = folder / SERVER_FOLDER
    server.mkdir()
    _keep_out_of_git(server)
    make_server_certificate(folder / "ca", server, host=deployment.host)
    shutil.copyfile(folder / "ca" / CA_CERTIFICATE, server / CA_CERTIFICATE)
    make_secret(server / SECRET)
    write_nodes(server / NODE_LIST, [entry_of(node) for node in deployment.nodes])
    settings = ServerSettings(
        host=deployment.host,
        port=deployment.port,
        bind=bind,
        superlink_port=deployment.superlink_port,
        metrics_port=metrics_port,
        source=source_digest(),
        flower=version("flwr"),
    )
    save_settings(settings, server / SERVER_FILE)
    (server / "softbeam-server.service").write_text(templates.unit("server"))
    (server / "Containerfile").write_text(templates.containerfile("server"))


def _write_node(
    folder: Path, deployment: Deployment, node: Node, *, runtime_port: int, publish_every: int | None
) -> None:
    target = folder / NODES_FOLDER / node.name
    target.mkdir(parents=True)
    _keep_out_of_git(target)
    make_node_key(target)
    install_node_key(target, folder / SERVER_FOLDER, name=node.name)
    shutil.copyfile(folder / "ca" / CA_CERTIFICATE, target / CA_CERTIFICATE)
    make_secret(target / SECRET)
    settings = NodeSettings(
        name=node.name,
        modality=node.modality,
        client=node.client,
        host=deployment.host,
        port=deployment.port,
        runtime_port=runtime_port,
        recording="data/recording",
        test="data/test",
        publish_every=publish_every,
        source=source_digest(),
        flower=version("flwr"),
    )
    save_settings(settings, target / NODE_FILE)
    (target / "softbeam-node.service").write_text(templates.unit("node"))
    (target / "Containerfile").write_text(templates.containerfile("node"))
    (target / "softbeam-predict.service").write_text(templates.predict_unit())
    (target / "Containerfile.predict").write_text(templates.predict_containerfile())


def _keep_out_of_git(folder: Path) -> None:
    """Have git ignore a folder with private keys, in whatever checkout it lies or is copied to."""
    (folder / ".gitignore").write_text("# Private keys, secrets and recordings are here.\n*\n")


def _replace_tree(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
