"""Warm clients for a node: the fork server starts them if it can, else Flower starts them as usual."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sim.deploy.forkserver import shim_environment, start_forkserver, stop_forkserver
from sim.deploy.processes import leader_works
from sim.deploy.supervisor import claimed, make_private

_PID_FILE = "forkserver.pid"


@contextmanager
def warm_clients(
    folder: Path, environment: Mapping[str, str], *, stock: bool, echo: Callable[[str, str], None]
) -> Iterator[Mapping[str, str]]:
    """The environment in which a SuperExec starts its clients, while the fork server runs.

    Args:
        folder: the folder of the fork server.
        environment: the variables of the node's programs, which are added to the environment of this process.
        stock: whether to work without a fork server.
        echo: is called with a name and a message.

    Raises:
        ValueError: another process has a fork server in that folder.
    """
    if stock:
        yield environment
        return
    make_private(folder)
    # The folder is locked before anything starts: a second fork server would take the socket away from the first.
    with claimed(folder):
        try:
            process = start_forkserver(folder, environment={**os.environ, **environment})
        except RuntimeError as error:
            echo("warm", f"WARNING no fork server ({error}); Flower starts a new process for every message")
            yield environment
            return
        note = folder / _PID_FILE
        note.write_text(f"{process.pid}\n")
        try:
            yield {**environment, **shim_environment(folder)}
        finally:
            note.unlink(missing_ok=True)
            stop_forkserver(process)


def warm_health(folder: Path) -> dict[str, dict[str, object]]:
    """The entry ``forkserver`` of a node's health file; there is none if the node has no fork server."""
    try:
        pid = int((folder / _PID_FILE).read_text())
    except (OSError, ValueError):
        return {}
    is_running = leader_works(pid)
    text = "the fork server has ended: every message starts a new process until the node is started again"
    return {"forkserver": {"running": is_running, "pid": pid, "trouble": "" if is_running else text}}
