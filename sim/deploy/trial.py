"""Runs a whole deployment on one machine, in the background: for a trial, a demonstration or a test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sim.deploy.follow import describe_nodes
from sim.deploy.machine import STATE_FOLDER, ServerMachine
from sim.deploy.processes import command_of, members
from sim.deploy.settings import (
    DEPLOYMENT_FILE,
    NODES_FOLDER,
    SERVER_FOLDER,
    load_deployment,
    load_server,
    node_folder,
)
from sim.deploy.status import left_behind, machine_health
from sim.deploy.supervisor import HEALTH_FILE, make_private, running_pid

LOOK_S, ASK_S = 0.3, 2.0
# A machine gives each of its programs ten seconds to stop, one after the other.
STOP_S = 45.0
# What a machine has ended may take so long to be gone.
CLOSED_S = 5.0


def machine_folders(folder: Path) -> list[Path]:
    """The folders of a deployment's machines; that of the server comes first."""
    deployment = load_deployment(folder)
    return [folder / SERVER_FOLDER, *(folder / NODES_FOLDER / node.name for node in deployment.nodes)]


def node_folders(folder: Path, name: str | None) -> list[Path]:
    """The folder of a node: that of its name in a deployment, or the folder itself; without a name, those of all nodes.

    Raises:
        ValueError: there is no such node.
    """
    if name is None and (folder / DEPLOYMENT_FILE).is_file():
        return machine_folders(folder)[1:]
    return [node_folder(folder, name)]


def bring_up(folder: Path, *, timeout_s: float, progress: Callable[[str, int, int], None]) -> None:
    """Start the server and every node, and wait until all nodes are online.

    Raises:
        RuntimeError: a machine ended, or not all were online in time; the machines that were started go on.
    """
    folders = machine_folders(folder)
    end = time.monotonic() + timeout_s
    progress("server", 0, 1)
    started = {folders[0]: start_machine(folders[0], "server")}
    _wait(started, lambda: _is_ready(folders[0]), end)
    progress("server", 1, 1)
    started |= {node: start_machine(node, "node") for node in folders[1:]}
    server = ServerMachine(folders[0].resolve(), load_server(folders[0]))
    online = 0
    progress("nodes online", 0, len(folders) - 1)

    def all_online() -> bool:
        nonlocal online
        time.sleep(ASK_S)
        online = sum(row["status"] == "online" for row in describe_nodes(server))
        progress("nodes online", online, len(folders) - 1)
        return online == len(folders) - 1

    _wait(started, all_online, end)


def take_down(folder: Path) -> int:
    """Stop every machine of a deployment that runs here, see that nothing is left of them, and return their number.

    Raises:
        RuntimeError: a machine still runs, and is not killed, since it may be writing what it has learned; or a
            process of theirs still works or holds one of their ports. The message names it.
    """
    machines = machine_folders(folder)
    states = [machine / STATE_FOLDER for machine in machines]
    sessions = {machine.name: _sessions(machine) for machine in machines}
    running = {state: pid for state in states if (pid := running_pid(state)) is not None}
    for pid in reversed(running.values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_S
    while left := [
        f"{state.parent.name} (process {pid})" for state, pid in running.items() if running_pid(state) == pid
    ]:
        if time.monotonic() > end:
            text = f"still running after {STOP_S:g} s, and not killed: {', '.join(left)}"
            raise RuntimeError(f"{folder}: {text}; wait, or kill these processes")
        time.sleep(LOOK_S)
    end = time.monotonic() + CLOSED_S
    while remains := _remains(machines, sessions):
        if time.monotonic() > end:
            raise RuntimeError(f"{folder}: {len(running)} machines stopped, but {'; '.join(remains)}; end it by hand")
        time.sleep(LOOK_S)
    return len(running)


def _sessions(machine: Path) -> list[int]:
    """The sessions of the programs of a machine, as its health file has them, if a supervisor wrote it just now."""
    health = machine_health(machine)
    if not health["running"]:
        return []
    entries = [*health.get("programs", {}).values(), health.get("forkserver") or {}]
    return [int(entry["pid"]) for entry in entries if entry.get("pid")]


def _remains(machines: Sequence[Path], sessions: Mapping[str, Sequence[int]]) -> list[str]:
    """What is left of machines whose supervisors have ended: processes, and holders of their ports."""
    found = []
    for machine in machines:
        left = [pid for session in sessions[machine.name] for pid in members(session)]
        found += [f"{machine.name}: {command_of(pid)} (process {pid}) still works" for pid in left]
        if text := left_behind(machine):
            found.append(f"{machine.name}: {text}")
    return found


def start_machine(machine: Path, role: str) -> subprocess.Popen[bytes] | None:
    """Start ``softbeam deploy ROLE`` in the background unless it runs already; its output goes to the state folder."""
    state = machine / STATE_FOLDER
    if running_pid(state) is not None:
        return None
    make_private(state)
    (state / HEALTH_FILE).unlink(missing_ok=True)
    with (state / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "sim.cli.main", "deploy", role, str(machine.resolve())],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _is_ready(machine: Path) -> bool:
    try:
        return bool(json.loads((machine / STATE_FOLDER / HEALTH_FILE).read_text())["ready"])
    except (OSError, ValueError, KeyError):
        return False


def _wait(started: Mapping[Path, subprocess.Popen[bytes] | None], is_there: Callable[[], bool], end: float) -> None:
    while not is_there():
        if time.monotonic() > end:
            raise RuntimeError("not all machines started in time; softbeam deploy status says what is missing")
        for machine, process in started.items():
            if process is not None and process.poll() is not None:
                text = (machine / STATE_FOLDER / "output.txt").read_text().strip().splitlines()
                reason = text[-1].removeprefix("error: ") if text else "it ended without a message"
                raise RuntimeError(f"{machine}: {reason}")
        time.sleep(LOOK_S)
