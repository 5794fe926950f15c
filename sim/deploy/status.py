"""The status that ``softbeam deploy status`` shows: nodes and runs as the server knows them, and local programs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.deploy.flower import Flower
from sim.deploy.follow import describe_nodes
from sim.deploy.machine import STATE_FOLDER, ServerMachine, is_open
from sim.deploy.processes import holders
from sim.deploy.settings import (
    DEPLOYMENT_FILE,
    NODE_FILE,
    NODES_FOLDER,
    SERVER_FILE,
    SERVER_FOLDER,
    load_deployment,
    load_node,
    load_server,
    server_folder,
)
from sim.deploy.supervisor import HEALTH_FILE, running_pid
from strategies.messages.records import one_line

ANSWER_S = 3.8
"""How long the SuperLink may take to answer; a status comes within five seconds, whatever hangs."""
OLD_S = 15.0
"""A supervisor writes its health every two seconds; one that did not for so long hangs."""


def deployment_status(folder: Path) -> dict[str, Any]:
    """The status of a deployment, as far as this machine knows it.

    Args:
        folder: the folder of a deployment, of its server or of a node.

    Returns:
        ``nodes`` and the ids of the unfinished ``runs``, as the server has them, both None if it does not run here or
        does not answer within :data:`ANSWER_S`; ``trouble``, why it does not; and ``machines``: name -> health, for
        the machines in the folder.

    Raises:
        ValueError: the folder is none of these.
    """
    if (folder / DEPLOYMENT_FILE).is_file():
        machines = {"server": folder / SERVER_FOLDER}
        machines |= {node.name: folder / NODES_FOLDER / node.name for node in load_deployment(folder).nodes}
    elif any((folder / name).is_file() for name in (SERVER_FILE, NODE_FILE)):
        machines = {folder.resolve().name: folder}
    else:
        what = "nothing of a deployment is in this folder" if folder.is_dir() else "there is no such folder"
        raise ValueError(f"{folder}: {what}; give the folder of a deployment, of its server or of a node")
    found: dict[str, Any] = {"nodes": None, "runs": None, "trouble": ""}
    where = server_folder(folder)
    if (where / SERVER_FILE).is_file():
        server = ServerMachine(where.resolve(), load_server(where))
        if is_open(server.settings.superlink_port):
            found = _asked(server)
    return {**found, "machines": {name: machine_health(machine) for name, machine in machines.items()}}


def _asked(server: ServerMachine) -> dict[str, Any]:
    """What the SuperLink says about nodes and runs; both questions are asked at once."""
    flower = Flower(server.flower.home, timeout_s=ANSWER_S)
    with ThreadPoolExecutor() as pool:
        nodes, runs = pool.submit(describe_nodes, server, flower), pool.submit(flower.unfinished_runs)
    try:
        return {"nodes": nodes.result(), "runs": runs.result(), "trouble": ""}
    except (RuntimeError, ValueError) as error:
        return {"nodes": None, "runs": None, "trouble": one_line(f"the SuperLink does not answer: {error}")}


def machine_health(machine: Path) -> dict[str, Any]:
    """The health file of a machine.

    ``running`` says whether a supervisor still writes it, and ``trouble`` what is wrong; it is empty if nothing is.
    """
    state = machine / STATE_FOLDER
    try:
        health: dict[str, Any] = json.loads((state / HEALTH_FILE).read_text())
    except (OSError, ValueError):
        health = {}
    is_running = running_pid(state) is not None
    trouble = _trouble(health) if is_running else left_behind(machine)
    return {"running": is_running, **health, "ready": is_running and bool(health.get("ready")), "trouble": trouble}


def ports_of(machine: Path) -> list[int]:
    """The ports on which the programs of a machine listen; empty if its settings cannot be read."""
    try:
        if (machine / SERVER_FILE).is_file():
            server = load_server(machine)
            return [server.port, server.superlink_port]
        return [load_node(machine).runtime_port]
    except ValueError:
        return []


def left_behind(machine: Path) -> str:
    """Who still listens on the ports of a machine of which no supervisor runs; empty if nobody does."""
    found = [f"port {port} is still held by {holder}" for port in ports_of(machine) for holder in holders(port)]
    return "; ".join(found)


def _trouble(health: dict[str, Any]) -> str:
    client, programs = health.get("client") or {}, health.get("programs", {})
    parts = {**programs, **{name: health.get(name) or {} for name in ("forkserver", "published")}}
    found = [f"{name}: {entry['trouble']}" for name, entry in parts.items() if entry.get("trouble")]
    found += [
        f"{name}: was started again ({entry['restarts']} in all), the last time because it {entry['last_error']}"
        for name, entry in programs.items()
        if entry.get("restarts") and entry.get("last_error") and not entry.get("trouble")
    ]
    try:
        age_s = (datetime.now(UTC) - datetime.fromisoformat(health["time"])).total_seconds()
        if age_s > OLD_S:
            found.insert(0, f"its supervisor hangs: it last wrote its health {age_s:.0f} s ago")
    except (KeyError, ValueError, TypeError):
        found.insert(0, "its health is not known yet")
    found += [one_line(str(client[key])) for key in ("error", "warning") if client.get(key)]
    return "; ".join(found)


def show_status(status: dict[str, Any], console: Console) -> None:
    """Print a status as tables."""
    if status["nodes"] is None:
        console.print(Text(status["trouble"] or "the server does not run on this machine"))
    else:
        table = Table("node", "modality", "client", "status", "since")
        for row in status["nodes"]:
            table.add_row(row["name"], row["modality"], row["client"], row["status"], row["since"])
        console.print(table)
        console.print(f"runs under way: {', '.join(map(str, status['runs'])) or 'none'}")
    table = Table("machine", "programs", "last message", "trouble")
    for name, health in status["machines"].items():
        if not health["running"]:
            table.add_row(name, "does not run here", "", Text(health["trouble"]))
            continue
        programs = ", ".join(
            f"{program} {'up' if entry['running'] and not entry.get('trouble') else 'down'}"
            + (f" ({entry['restarts']} restarts)" if entry["restarts"] else "")
            for program, entry in health.get("programs", {}).items()
        )
        programs = programs if health["ready"] else f"not ready: {programs}"
        client = health.get("client") or {}
        last = f"round {client['round']} at {client['time']}" if "round" in client else ""
        table.add_row(name, programs, last, Text(health["trouble"]))
    console.print(table)
