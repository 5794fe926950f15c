"""The programs of Flower: their command lines, and their answers.

Everything goes through documented commands and their JSON, never through Flower's modules, so that only this file
has to change when Flower changes them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.deploy import whole
from strategies.messages.records import printable

CONNECTION = "softbeam"
"""Name of the connection in the config of Flower."""
TASK_POLL_S = "0.2"
"""How often a SuperExec asks for work."""
COMMAND_TIMEOUT_S = 120.0


def program(name: str) -> str:
    """The path of a program of Flower, in the Python environment of this process.

    Raises:
        ValueError: the program is not installed there.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise ValueError(f"{path}: does not exist; install Softbeam with its constraints file, as the README says")
    return str(path)


def whole_program(name: str) -> list[str]:
    """The command for a program of Flower that is to end when one of its threads does (:mod:`sim.deploy.whole`).

    Raises:
        ValueError: the program is not installed in the Python environment of this process.
    """
    program(name)
    # The folder of the script is left out of the path: no module of this project may come before one that is installed.
    return [sys.executable, "-P", whole.__file__, name]


def flower_environment(home: Path) -> dict[str, str]:
    """Environment variables for every program of Flower: no telemetry, no installation, one thread per process."""
    folder = Path(sys.executable).parent
    return {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": TASK_POLL_S,
        "OMP_NUM_THREADS": "1",
        # Flower starts some of its programs by name.
        "PATH": os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)]),
    }


@dataclass(frozen=True)
class NodeEntry:
    """A node as the SuperLink knows it.

    Attributes:
        id: the node id that Flower has bound to the key.
        status: ``registered``, ``online``, ``offline`` or ``unregistered``.
        since: when it came online or went offline; ``N/A`` if never.
    """

    id: int
    status: str
    since: str


class Flower:
    """The command line of Flower, for one SuperLink.

    Args:
        home: the folder of Flower, in which its connections are written.
        timeout_s: the seconds that an answer may take.
    """

    def __init__(self, home: Path, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self.home, self.timeout_s = home, timeout_s

    def connect(self, *, port: int, certificate: Path) -> None:
        """Write the connection to a SuperLink on this machine's loopback."""
        self.home.mkdir(parents=True, exist_ok=True)
        lines = [
            "[superlink]",
            f'default = "{CONNECTION}"',
            f"[superlink.{CONNECTION}]",
            f'address = "127.0.0.1:{port}"',
            f"root-certificates = {json.dumps(str(certificate.resolve()))}",
        ]
        (self.home / "config.toml").write_text("\n".join(lines) + "\n")

    def register(self, public_key: Path, *, name: str) -> int:
        """Let a node in, and return the node id that Flower has bound to the key."""
        return int(self._ask("supernode", "register", str(public_key), CONNECTION, "--name", name)["node-id"])

    def unregister(self, node_id: int) -> None:
        """Refuse a node from now on."""
        self._ask("supernode", "unregister", str(node_id), CONNECTION)

    def nodes(self) -> list[NodeEntry]:
        """Every node that the SuperLink knows, also those that were unregistered."""
        answer = self._ask("supernode", "list", CONNECTION, "--verbose")
        return [
            NodeEntry(
                int(entry["node-id"]),
                str(entry["status"]),
                str(entry["online-at" if entry["status"] == "online" else "offline-at"]),
            )
            for entry in answer.get("nodes", [])
        ]

    def submit(self, app: Path, run_config: Mapping[str, str]) -> int:
        """Start a run, and return its id."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.toml"
            path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in run_config.items()))
            answer = self._ask("run", str(app), CONNECTION, "--run-config", str(path))
        return int(answer["run-id"])

    def run_status(self, run_id: int) -> str:
        """``pending``, ``starting``, ``running``, ``finished:completed``, ``finished:failed``, ``finished:stopped``."""
        runs = self._ask("ls", CONNECTION, "--run-id", str(run_id)).get("runs", [])
        if not runs:
            raise RuntimeError(f"flwr ls: the SuperLink knows no run {run_id}")
        return str(runs[0]["status"])

    def unfinished_runs(self) -> list[int]:
        """Ids of the runs that have not finished."""
        runs = self._ask("ls", CONNECTION).get("runs", [])
        return [int(run["run-id"]) for run in runs if not str(run["status"]).startswith("finished")]

    def stop(self, run_id: int) -> None:
        """End a run."""
        self._ask("stop", str(run_id), CONNECTION)

    def _ask(self, *arguments: str) -> dict[str, Any]:
        command = [program("flwr"), *arguments, "--format", "json"]
        environment = {**os.environ, **flower_environment(self.home)}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"flwr {arguments[0]}: no answer within {self.timeout_s:g} s") from None
        answer = _last_json(done.stdout)
        if answer is None or not answer.get("success", done.returncode == 0):
            reason = (answer or {}).get("error-message") or done.stderr or done.stdout or f"exit code {done.returncode}"
            raise RuntimeError(f"flwr {' '.join(arguments[:2])}: {printable(' '.join(str(reason).split()))[-500:]}")
        return answer


def _last_json(text: str) -> dict[str, Any] | None:
    """The JSON object at the end of what a command printed; None if there is none."""
    for start in range(len(text)):
        if text[start] == "{":
            try:
                value = json.loads(text[start:])
            except ValueError:
                continue
            return value if isinstance(value, dict) else None
    return None
