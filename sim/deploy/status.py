"""The status that ``softbeam deploy status`` shows: nodes and runs as the server knows them, and local programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sim.deploy.follow import describe_nodes
from sim.deploy.machine import STATE_FOLDER, ServerMachine, is_open
from sim.deploy.settings import (
    DEPLOYMENT_FILE,
    NODES_FOLDER,
    SERVER_FILE,
    SERVER_FOLDER,
    load_deployment,
    load_server,
    server_folder,
)
from sim.deploy.supervisor import HEALTH_FILE, running_pid


def deployment_status(folder: Path) -> dict[str, Any]:
    """The status of a deployment, as far as this machine knows it.

    Args:
        folder: the folder of a deployment, of its server or of a node.

    Returns:
        ``nodes`` and the ids of the unfinished ``runs``, as the server has them, both None if it does not run here;
        and ``machines``: name -> health, for the machines in the folder.
    """
    if (folder / DEPLOYMENT_FILE).is_file():
        machines = {"server": folder / SERVER_FOLDER}
        machines |= {node.name: folder / NODES_FOLDER / node.name for node in load_deployment(folder).nodes}
    else:
        machines = {folder.resolve().name: folder}
    found: dict[str, Any] = {"nodes": None, "runs": None}
    where = server_folder(folder)
    if (where / SERVER_FILE).is_file():
        server = ServerMachine(where.resolve(), load_server(where))
        if is_open(server.settings.superlink_port):
            found = {"nodes": describe_nodes(server), "runs": server.flower.unfinished_runs()}
    return {**found, "machines": {name: machine_health(machine) for name, machine in machines.items()}}


def machine_health(machine: Path) -> dict[str, Any]:
    """The health file of a machine; ``running`` says whether a supervisor still writes it."""
    state = machine / STATE_FOLDER
    try:
        health: dict[str, Any] = json.loads((state / HEALTH_FILE).read_text())
    except (OSError, ValueError):
        health = {}
    return {"running": running_pid(state) is not None, **health}


def show_status(status: dict[str, Any], console: Console) -> None:
    """Print a status as tables."""
    if status["nodes"] is None:
        console.print("the server does not run on this machine")
    else:
        table = Table("node", "modality", "client", "status", "since")
        for row in status["nodes"]:
            table.add_row(row["name"], row["modality"], row["client"], row["status"], row["since"])
        console.print(table)
        console.print(f"runs under way: {', '.join(map(str, status['runs'])) or 'none'}")
    table = Table("machine", "programs", "last message", "trouble")
    for name, health in status["machines"].items():
        if not health["running"]:
            table.add_row(name, "does not run here", "", "")
            continue
        programs = ", ".join(
            f"{program} {'up' if entry['running'] else 'down'}"
            + (f" ({entry['restarts']} restarts)" if entry["restarts"] else "")
            for program, entry in health.get("programs", {}).items()
        )
        programs = programs if health.get("ready") else f"starting: {programs}"
        client = health.get("client") or {}
        last = f"round {client['round']} at {client['time']}" if "round" in client else ""
        table.add_row(name, programs, last, client.get("error") or client.get("warning") or "")
    console.print(table)
