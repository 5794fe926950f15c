"""``softbeam deploy check``: what is wrong with a deployment or a machine, before anything starts.

Every check gives findings, never an exception: one broken file must not hide the next.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException, HTTPSConnection
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from clients.data.recording import Recording, open_recording
from configs.loading import source_digest
from sim.deploy.credentials import CA_CERTIFICATE, NODE_KEY, SECRET, SERVER_KEY
from sim.deploy.flower import program
from sim.deploy.key_checks import (
    Finding,
    check_authority,
    check_expiry,
    check_node_key,
    check_private,
    check_registered_key,
    check_server_certificate,
)
from sim.deploy.machine import (
    KEYS_FOLDER,
    NODE_LIST,
    NodeMachine,
    ServerMachine,
    proxy_command,
    read_nodes,
)
from sim.deploy.processes import holders
from sim.deploy.provision import same_frames
from sim.deploy.settings import (
    DEPLOYMENT_FILE,
    NODE_FILE,
    NODES_FOLDER,
    SERVER_FILE,
    SERVER_FOLDER,
    NodeSettings,
    ServerSettings,
    load_deployment,
    load_node,
    load_server,
)
from sim.deploy.supervisor import running_pid

# Flower refuses a node whose signed time is more than 300 s off; a warning has to come long before.
CLOCK_ERROR_S, CLOCK_WARNING_S = 290.0, 60.0
FREE_BYTES = 500_000_000
CONNECT_S = 5.0

Check = Callable[[], Iterator[Finding]]


def check_folder(folder: Path) -> list[Finding]:
    """Check a deployment, or a machine's folder by itself.

    Raises:
        ValueError: the folder is neither of them.
    """
    if (folder / SERVER_FILE).is_file():
        return check_server(folder)
    if (folder / NODE_FILE).is_file():
        return check_node(folder)
    deployment = load_deployment(folder)
    nodes = [folder / NODES_FOLDER / node.name for node in deployment.nodes]
    findings = check_server(folder / SERVER_FOLDER)
    for node in nodes:
        findings += check_node(node)
    findings = _told_once(findings)
    together = [partial(check_authority, folder / "ca"), partial(_check_runtime_ports, nodes)]
    together += [partial(_check_same_public_set, folder / SERVER_FOLDER, node) for node in nodes]
    together += [partial(check_registered_key, folder / SERVER_FOLDER, node) for node in nodes]
    return findings + _run(together, where=str(folder / DEPLOYMENT_FILE))


def _told_once(findings: list[Finding]) -> list[Finding]:
    """The findings without warnings that were given already, such as that of a server which no node reaches."""
    first = {finding: number for number, finding in reversed(list(enumerate(findings)))}
    return [one for number, one in enumerate(findings) if one.level != "warning" or first[one] == number]


def check_server(folder: Path) -> list[Finding]:
    """Check the folder of a server on its machine."""
    try:
        settings = load_server(folder)
    except ValueError as error:
        return [Finding("error", str(folder / SERVER_FILE), str(error))]
    machine = ServerMachine(folder, settings)
    runs = running_pid(machine.state) is not None
    return _run(
        [
            partial(_check_versions, folder / SERVER_FILE, settings),
            partial(check_private, [folder / SERVER_KEY, folder / SECRET]),
            partial(check_server_certificate, folder, settings),
            partial(_check_programs, ["flower-superlink", "flower-superexec", "flwr", "flwr-serverapp"]),
            partial(_check_proxy, folder),
            partial(_check_ports, [settings.superlink_port, settings.port], runs=runs),
            partial(_check_node_list, folder),
            partial(_check_disk, folder),
            *(partial(_check_recording, machine.data / part, None) for part in ("server", "public", "test")),
        ],
        where=str(folder),
    )


def check_node(folder: Path) -> list[Finding]:
    """Check the folder of a node on its machine; the server is checked too if it can be reached."""
    try:
        settings = load_node(folder)
    except ValueError as error:
        return [Finding("error", str(folder / NODE_FILE), str(error))]
    machine = NodeMachine(folder, settings)
    runs = running_pid(machine.state) is not None
    return _run(
        [
            partial(_check_versions, folder / NODE_FILE, settings),
            partial(check_private, [folder / NODE_KEY, folder / SECRET]),
            partial(check_node_key, folder),
            partial(check_expiry, folder / CA_CERTIFICATE),
            partial(_check_programs, ["flower-supernode", "flower-superexec", "flwr-clientapp"]),
            partial(_check_ports, [settings.runtime_port], runs=runs),
            partial(_check_disk, folder),
            *(partial(_check_recording, path, settings.modality) for path in machine.recordings().values()),
            partial(_check_publishing, folder / NODE_FILE, settings),
            partial(_check_server_from_here, folder, settings),
        ],
        where=str(folder),
    )


def require_no_errors(findings: list[Finding]) -> None:
    """Raise one error for all errors among the findings.

    Raises:
        ValueError: there is an error; the message has all of them in one line.
    """
    errors = [f"{finding.where}: {finding.text}" for finding in findings if finding.level == "error"]
    if errors:
        raise ValueError("; ".join(errors))


def _run(checks: Sequence[Check], *, where: str) -> list[Finding]:
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        # Every exception is caught: a file may be broken in any way, and the next check has to run.
        except Exception as error:
            text = str(error) if isinstance(error, ValueError | OSError) else repr(error)
            findings.append(Finding("error", where, " ".join(text.split())))
    return findings


def _check_versions(path: Path, settings: ServerSettings | NodeSettings) -> Iterator[Finding]:
    for what, made_with, here in (
        ("Softbeam source", settings.source, source_digest()),
        ("Flower", settings.flower, version("flwr")),
    ):
        if made_with != here:
            text = f"{what} is {here} here, {made_with} where it was made; install the same on every machine"
            yield Finding("error", str(path), text)
            return
    yield Finding("ok", str(path), f"Softbeam source {settings.source}, Flower {settings.flower}")


def _check_programs(names: list[str]) -> Iterator[Finding]:
    for name in names:
        program(name)
    yield from ()


def _check_proxy(folder: Path) -> Iterator[Finding]:
    yield Finding("ok", proxy_command(folder)[0], "installed")


def _check_ports(ports: list[int], *, runs: bool) -> Iterator[Finding]:
    for port in ports if not runs else []:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                who = ", ".join(map(str, holders(port))) or "it"
                yield Finding("error", f"port {port}", f"{error.strerror}: stop {who}, or change the settings")


def _check_runtime_ports(nodes: list[Path]) -> Iterator[Finding]:
    ports = [load_node(node).runtime_port for node in nodes]
    for port in sorted({port for port in ports if ports.count(port) > 1}):
        yield Finding("warning", f"port {port}", "several nodes use it; they cannot share a machine")


def _check_node_list(folder: Path) -> Iterator[Finding]:
    entries = read_nodes(folder / NODE_LIST)
    if not entries:
        yield Finding("error", str(folder / NODE_LIST), "names no node; copy the machine's folder again")
    for entry in entries:
        if not (folder / KEYS_FOLDER / f"{entry['name']}.pub").is_file():
            yield Finding("error", str(folder / KEYS_FOLDER), f"no key of {entry['name']}; copy its node.pub there")


def _check_disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        yield Finding("warning", str(folder), f"only {free / 1e6:.0f} MB are free on its disk; a node needs 500")


def _check_publishing(path: Path, settings: NodeSettings) -> Iterator[Finding]:
    """Whether a node that is to publish its student can write it as graphs."""
    if settings.publish_every is None:
        return
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        text = f"publish_every needs {' and '.join(missing)}; pip install 'softbeam[export]', or leave it out"
        yield Finding("error", str(path), text)


def _check_recording(path: Path, modality: str | None) -> Iterator[Finding]:
    recording: Recording = open_recording(path)
    if modality is not None and modality not in recording.sensors:
        found = ", ".join(recording.sensors) or "nothing"
        yield Finding("error", str(path), f"it has no {modality}, only {found}; name another folder in {NODE_FILE}")
        return
    passes = len(set(recording.pass_ids.tolist()))
    yield Finding("ok", str(path), f"{passes} passes, {len(recording.pass_ids)} frames")


def _check_same_public_set(server: Path, node: Path) -> Iterator[Finding]:
    theirs = ServerMachine(server, load_server(server)).data / "public"
    ours = NodeMachine(node, load_node(node)).recordings()["public"]
    if not same_frames(theirs, ours):
        yield Finding("error", str(ours), f"its frames differ from those of {theirs}; copy the public set again")


def _check_server_from_here(folder: Path, settings: NodeSettings) -> Iterator[Finding]:
    """Reach the server as a node does, and check name, certificate and clock; an unreached server is only a warning."""
    where = f"{settings.host}:{settings.port}"
    context = ssl.create_default_context(cafile=str(folder / CA_CERTIFICATE))
    connection = HTTPSConnection(settings.host, settings.port, timeout=CONNECT_S, context=context)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        date = response.getheader("Date")
        yield from _check_clock(where, date, now=time.time())
    except ssl.SSLCertVerificationError as error:
        yield Finding(
            "error", where, f"its certificate is not trusted ({error.verify_message}); mend name, authority or clock"
        )
    except socket.gaierror as error:
        yield Finding("error", where, f"{error.strerror}; mend the name in {NODE_FILE} or in DNS")
    except (OSError, HTTPException) as error:
        yield Finding("warning", where, f"not reached ({error}); is the server up, and does a firewall let it through?")
    finally:
        connection.close()


def _check_clock(where: str, date: str | None, *, now: float) -> Iterator[Finding]:
    if date is None:
        return
    skew = now - parsedate_to_datetime(date).timestamp()
    text = f"this machine's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) >= CLOCK_ERROR_S:
        yield Finding("error", where, f"{text}; the server refuses more than 300 s: set up NTP on both")
    elif abs(skew) >= CLOCK_WARNING_S:
        yield Finding("warning", where, f"{text}; set up NTP on both")
    else:
        yield Finding("ok", where, "reached, trusted, clocks agree")
