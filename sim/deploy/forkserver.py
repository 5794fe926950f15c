"""Starts the fork server of a node, and installs the shim that its SuperExec finds instead of the program of Flower.

The server itself is `sim.deploy.fork_loop`, a script that imports nothing from this project; the shim is
`sim.deploy.shim`.
"""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sim.deploy import fork_loop, shim

PROGRAM = "flwr-clientapp"
# Modules that a client imports and the program does not, httpcore for its first request among them. Modules of this
# project are not among them: they come with the bundle that Flower sends.
PRELOADED = ("torch", "numpy", "pydantic", "yaml", "httpcore", "scipy.cluster.vq", "scipy.fft")
# Importing takes 3 s on an idle core.
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0


def start_forkserver(
    folder: Path,
    *,
    program: str = PROGRAM,
    preloaded: Sequence[str] = PRELOADED,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start the server and its shim; it ends with the calling process, at SIGTERM, or when its stdin is closed.

    Args:
        folder: the folder of its shim and socket; it is made if absent, and closed to other users.
        program: the name of a console script of an installed distribution.
        preloaded: the modules to import first; a module that is not installed is left out.
        environment: the environment of the node whose apps are to run; default: that of this process.

    Raises:
        RuntimeError: the server cannot serve; the message gives the reason.
    """
    install_shim(folder, program)
    process = subprocess.Popen(
        [sys.executable, "-P", fork_loop.__file__, str(folder.resolve()), program, *preloaded],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**(os.environ if environment is None else environment), **shim_environment(folder)},
        # A Ctrl-C in the terminal reaches apps through their shims; it must not come twice.
        start_new_session=True,
    )
    word = _first_word(process)
    if word != shim.READY:
        stop_forkserver(process)
        reason = os.fsdecode(word) or f"it ended with code {process.returncode}"
        raise RuntimeError(f"the fork server of {folder} did not start: {reason}")
    return process


def stop_forkserver(process: subprocess.Popen[bytes]) -> None:
    """End the server. Running apps go on, so that nothing they learned is lost; Flower ends them with the node."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def shim_environment(folder: Path) -> dict[str, str]:
    """The environment variables with which a SuperNode or SuperExec has its apps forked."""
    # The stock programs of this same installation come next.
    places = [str(folder.resolve()), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    # With more than one thread, numpy would start threads at import, and a process with threads cannot fork.
    return {"PATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}


def install_shim(folder: Path, program: str = PROGRAM) -> Path:
    """Write the program that asks the fork server of this folder; its mode is 0700, like that of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    # The first line calls sh, because the path of an interpreter may be too long for it; Python reads a string here.
    interpreter = f"#!/bin/sh\n'''exec' {shlex.quote(sys.executable)} -I -S \"$0\" \"$@\"\n' '''\n"
    # It has another name until it is complete, since a node may be running.
    whole = folder / f".{program}.{os.getpid()}"
    whole.write_text(interpreter + Path(shim.__file__).read_text())
    whole.chmod(0o700)
    return whole.replace(folder / program)


def _first_word(process: subprocess.Popen[bytes]) -> bytes:
    """The first line that the server prints, when it listens or cannot; empty if it ended before."""
    if process.stdout is None:
        return b""
    with process.stdout as stdout:
        # select.select takes no descriptor above 1023, and a process may have more files open, such as recordings.
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            is_told = selector.select(START_TIMEOUT_S)
        return stdout.readline().strip() if is_told else b"it said nothing for %d s" % START_TIMEOUT_S
