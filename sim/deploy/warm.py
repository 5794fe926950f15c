"""Warm clients for a node: from the fork server where it starts, else Flower's own way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sim.deploy.forkserver import shim_environment, start_forkserver, stop_forkserver
from sim.deploy.supervisor import claimed, make_private


@contextmanager
def warm_clients(
    folder: Path, environment: Mapping[str, str], *, stock: bool, echo: Callable[[str, str], None]
) -> Iterator[Mapping[str, str]]:
    """The environment in which a SuperExec gets its clients, while the fork server runs.

    Args:
        folder: of the fork server.
        environment: of the node's programs, added to this process's own.
        stock: whether to do without.
        echo: called with what there is to say.

    Raises:
        ValueError: another process has a fork server there.
    """
    if stock:
        yield environment
        return
    make_private(folder)
    # Before anything is started: a second fork server would take the socket away from the first.
    with claimed(folder):
        try:
            process = start_forkserver(folder, environment={**os.environ, **environment})
        except RuntimeError as error:
            echo("warm", f"WARNING no fork server ({error}); every client starts anew, Flower's own way")
            yield environment
            return
        try:
            yield {**environment, **shim_environment(folder)}
        finally:
            stop_forkserver(process)
