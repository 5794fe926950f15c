"""Submit a run to a deployment, and follow it as if it ran here.

The ServerApp runs on this machine (the SuperLink's control routes are on loopback), so its run folder is the record:
``status.json`` says how far it is. Flower itself is asked only from time to time, to notice a ServerApp that died
without a message.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from configs.files import modes_like, write_whole
from configs.loading import to_values
from configs.placement import Placement, plugin_folders
from configs.progress import PhaseProgress
from configs.schema import Experiment
from server.status import ENDED, FILE, is_alive, read_status
from sim.deploy.flower import Flower
from sim.deploy.machine import NODE_LIST, ServerMachine, is_open, read_nodes
from sim.deploy.settings import load_deployment, load_server, server_folder
from sim.deploy.supervisor import running_pid
from sim.experiments import Began, check_settings, check_source, new_run_folder, noted_code
from sim.launch import CHECKOUT
from sim.report.html import write_run_report
from sim.run_note import first_note, read_run
from sim.track.beside import tracked
from sim.track.trackers import check_trackers
from strategies.registry import find_plugins

LOOK_S, ASK_FLOWER_S = 0.3, 20.0


def run_on(
    deployment: Path,
    experiment: Experiment,
    *,
    plugins: tuple[Path, ...],
    out: Path | None,
    progress: PhaseProgress,
    began: Began = lambda folder: None,
) -> Path:
    """Run an experiment on a deployment, in a new folder.

    Args:
        deployment: the folder of the deployment, or of its server.
        experiment: the experiment to run; its nodes are those of the deployment.
        plugins: the folders in which a user's own modules are looked for.
        out: the folder of all runs, where the server's user may write; None means ``runs`` in the server's state.
        progress: is called with the phase, the work that is done and the whole work.
        began: is called with the run folder before the run is submitted; it goes on there if this command ends.

    Returns:
        The run folder.

    Raises:
        ValueError: the deployment does not exist or does not run, or the experiment is wrong.
        RuntimeError: the run failed; the message says why.
    """
    server = _server(deployment)
    find_plugins(Placement(experiment, Path(), Path(), plugins))
    check_trackers(experiment.track, plugins)
    folder = new_run_folder(server.state / "runs" if out is None else out, experiment.name)
    note = first_note(experiment, plugins, deployment=str(deployment.resolve()))
    write_whole(folder / "placement.json", json.dumps(note) + "\n")
    began(folder)
    run_id = _submit(server, experiment, folder, plugins, progress)
    with tracked(folder, experiment.track, goes_on=True):
        _follow_to_end(server, run_id, folder, progress)
    return folder


def resume_on(deployment: Path, folder: Path, progress: PhaseProgress) -> None:
    """Continue a run of a deployment from its last completed round; the arguments are those of :func:`run_on`.

    Raises:
        ValueError: as in :func:`run_on`, or the run has not stopped.
        RuntimeError: the run failed again.
    """
    experiment, note = read_run(folder)
    check_source(folder)
    check_settings(folder, experiment)
    note = noted_code(folder, experiment, note)
    status = read_status(folder)
    if status["state"] not in ENDED and "pid" in status and is_alive(int(status["pid"])):
        raise ValueError(f"{folder}: process {status['pid']} still works on it; end it with softbeam deploy stop")
    server, folder = _server(deployment), folder.resolve()
    run_id = _submit(server, experiment, folder, plugin_folders(note["plugins"]), progress)
    with tracked(folder, experiment.track, goes_on=True):
        _follow_to_end(server, run_id, folder, progress)


def overrides_of(deployment: Path) -> list[str]:
    """The overrides (as for ``--set``) that give an experiment the nodes of a deployment; none if they are unknown."""
    return [load_deployment(deployment).nodes_override] if (deployment / "deployment.yaml").is_file() else []


def _server(deployment: Path) -> ServerMachine:
    folder = server_folder(deployment).resolve()
    machine = ServerMachine(folder, load_server(folder))
    if not is_open(machine.settings.superlink_port):
        raise ValueError(
            f"{deployment}: its server does not run on this machine; start it with softbeam deploy server {folder}"
        )
    return machine


def _submit(
    server: ServerMachine, experiment: Experiment, folder: Path, plugins: tuple[Path, ...], progress: PhaseProgress
) -> int:
    (folder / FILE).unlink(missing_ok=True)
    progress("waiting for the server", 0, 1)
    run_id = server.flower.submit(
        CHECKOUT,
        {
            "experiment": json.dumps(to_values(experiment)),
            "run": str(folder),
            "federation": str(server.data),
            "plugins": json.dumps([str(one) for one in plugins]),
        },
    )
    with modes_like(folder):
        write_whole(folder / "flower.json", json.dumps({"run_id": str(run_id)}) + "\n")
    return run_id


def _follow_to_end(server: ServerMachine, run_id: int, folder: Path, progress: PhaseProgress) -> None:
    status = _follow(server, run_id, folder, progress)
    if status["state"] != "finished":
        raise RuntimeError(
            f"{folder}: {status.get('error') or 'the ServerApp ended without a message'}; softbeam resume goes on "
            f"from the last completed round (the log is in {server.state / 'log'})"
        )
    with modes_like(folder):
        write_run_report(folder)


def _follow(server: ServerMachine, run_id: int, folder: Path, progress: PhaseProgress) -> dict[str, Any]:
    asked = time.monotonic()
    seen: tuple[Any, ...] = ()
    while True:
        status = read_status(folder)
        now = (status["state"], status["phase"], status["done"], status["total"])
        if now != seen:
            seen, asked = now, time.monotonic()
            if not status["phase"]:
                progress("waiting for the server", 0, 1)
            else:
                progress("waiting for the server", 1, 1)
                progress(status["phase"], status["done"], status["total"])
        if status["state"] in ENDED:
            return status
        if "pid" in status and not is_alive(int(status["pid"])) and read_status(folder)["state"] not in ENDED:
            return {**status, "state": "failed", "error": "the ServerApp was killed"}
        if time.monotonic() - asked >= ASK_FLOWER_S:
            asked = time.monotonic()
            try:
                answer = server.flower.run_status(run_id)
            except RuntimeError:
                # The SuperLink does not answer now, but the ServerApp may still work unless the supervisor has ended.
                if running_pid(server.state) is None:
                    return {**read_status(folder), "state": "failed", "error": "the server was stopped"}
                continue
            if answer.startswith("finished") and read_status(folder)["state"] not in ENDED:
                return {**read_status(folder), "state": "failed", "error": f"Flower says that the run is {answer}"}
        time.sleep(LOOK_S)


def describe_nodes(server: ServerMachine, flower: Flower | None = None) -> list[dict[str, str]]:
    """One row per node that may take part: name, modality, client, status and the time since when it has it.

    Args:
        server: the machine of the server.
        flower: what asks its SuperLink; None asks with the patience of a command.
    """
    ids = {entry["name"]: int(entry["node_id"]) for entry in read_nodes(server.state / NODE_LIST)}
    known = {entry.id: entry for entry in (flower or server.flower).nodes()}
    rows = []
    for node in read_nodes(server.folder / NODE_LIST):
        entry = known.get(ids.get(node["name"], -1))
        status, since = ("not registered", "") if entry is None else (entry.status, entry.since)
        rows.append({**{key: node[key] for key in ("name", "modality", "client")}, "status": status, "since": since})
    return rows
