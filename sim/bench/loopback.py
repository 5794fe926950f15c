"""A real SuperLink and real SuperNodes on the loopback of this machine, for the time of a measurement.

They use plain HTTP without keys, since neither the proxy nor TLS is measured. No process outlives the measurement,
even after an error.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

PATIENCE_S = 180.0
CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = ("configs", "strategies", "clients", "server", "sim")
ENVIRONMENT: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "OMP_NUM_THREADS": "1",
}
SERVER_APP = """
import socket, time
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    bench = socket.socket(socket.AF_UNIX)
    bench.connect(context.run_config["bench"])
    lines = bench.makefile("rw")
    while line := lines.readline():
        begin = time.monotonic()
        sent = grid.push_messages([Message(RecordDict(), dst_node_id=int(line), message_type="query.hello")])
        while not list(grid.pull_messages(sent)):
            time.sleep(0.05)
        print(time.monotonic() - begin, file=lines, flush=True)
"""
TORCH_APP = """
import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query("hello")
def hello(message, context):
    return Message(RecordDict(), reply_to=message)
"""
# Building an optimizer imports a large part of torch.
OPTIMIZER_APP = f"{TORCH_APP}\ntorch.optim.Adam(torch.nn.Linear(1, 1).parameters())\n"
# The file client_app.py of a bundle. The ClientApp of Softbeam answers an empty message with an error.
CLIENT_APPS: Mapping[str, str] = {
    "torch": TORCH_APP,
    "optimizer": OPTIMIZER_APP,
    "softbeam": "from clients.app import build_app\n\napp = build_app()",
}
PROJECT = """
[project]
name = "probe"
version = "1.0.0"
[tool.flwr.app]
publisher = "softbeam"
[tool.flwr.app.components]
serverapp = "server_app:app"
clientapp = "client_app:app"
[tool.flwr.app.config]
bench = ""
"""

Ask = Callable[[int], float]


class Loopback:
    """A SuperLink and the nodes that are connected to it.

    Args:
        folder: a new folder for logs, apps and the homes of Flower; its path should be short.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = _free_port()
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Loopback:
        self._folder.mkdir(parents=True, exist_ok=True)
        home = self._folder / "superlink"
        home.mkdir()
        (home / "config.toml").write_text(f'[superlink.bench]\naddress = "127.0.0.1:{self._port}"\ninsecure = true\n')
        try:
            self._start("superlink", ["flower-superlink", "--insecure", "--port", str(self._port)], {})
            _wait_for(lambda: _is_open(self._port), home.with_suffix(".log"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        # Every process that was started here has the folder in its environment, even if its parent has ended.
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 10
            while (left := _processes_of(self._folder)) and time.monotonic() < deadline:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(0.2)
        for process in self._children:
            process.wait()

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a node; a fork server for it has to be started with the same."""
        # With PYTHONDONTWRITEBYTECODE every message would compile the bundle again.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        return {**kept, **ENVIRONMENT, "FLWR_HOME": str(self._folder / name), "PATH": os.pathsep.join(places)}

    def start_node(self, name: str, environment: Mapping[str, str]) -> tuple[int, int]:
        """Start a SuperNode with its SuperExec; return its node id and the process."""
        (self._folder / name).mkdir()
        command = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self._port}"]
        command += ["--port", str(_free_port()), "--node-config", f'name="{name}"']
        process = self._start(name, command, environment)
        log = self._folder / f"{name}.log"
        pattern = re.compile(r"SuperNode ID: (\d+)")
        _wait_for(lambda: pattern.search(log.read_text()) is not None, log)
        found = pattern.search(log.read_text())
        return int(found[1]) if found else 0, process.pid

    @contextmanager
    def running(self, app: str) -> Iterator[Ask]:
        """Run an app; yield a function that sends a message to a node and returns the seconds until the answer.

        Args:
            app: a key of `CLIENT_APPS`.

        Raises:
            RuntimeError: the app did not start or answer in time.
        """
        project, address = self._folder / app, self._folder / f"{app}.sock"
        _write_app(project, app)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen()
            listener.settimeout(PATIENCE_S)
            run = ["flwr", "run", str(project), "bench", "--run-config", f'bench="{address}"']
            try:
                if self._start("superlink", run, {}, log=f"{app}.run").wait(PATIENCE_S):
                    said = (self._folder / f"{app}.run.log").read_text()
                    raise RuntimeError(f"flwr run refuses the app {app}: {said}")
                connection, _ = listener.accept()
            except (TimeoutError, subprocess.TimeoutExpired):
                said = (self._folder / "superlink.log").read_text()[-1000:]
                raise RuntimeError(f"the app {app} did not start: {said}") from None
        connection.settimeout(PATIENCE_S)
        with connection, connection.makefile("rw") as lines:
            yield lambda node: _ask(lines, node)

    def _start(
        self, name: str, command: list[str], environment: Mapping[str, str], log: str | None = None
    ) -> subprocess.Popen[bytes]:
        with (self._folder / f"{log or name}.log").open("wb") as output:
            process = subprocess.Popen(
                [str(Path(sys.executable).parent / command[0]), *command[1:]],
                env={**self.environment(name), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C ends the measurement, and that ends the processes.
                start_new_session=True,
            )
        self._children.append(process)
        return process


def _write_app(project: Path, app: str) -> None:
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "server_app.py").write_text(SERVER_APP)
    (project / "client_app.py").write_text(CLIENT_APPS[app])
    if app == "softbeam":
        for room in ROOMS:
            shutil.copytree(CHECKOUT / room, project / room, ignore=shutil.ignore_patterns("__pycache__"))


def _ask(lines: TextIO, node: int) -> float:
    try:
        print(node, file=lines, flush=True)
        return float(lines.readline())
    except (OSError, ValueError) as error:
        raise RuntimeError(f"node {node} did not answer: {error}") from None


def _processes_of(folder: Path) -> list[int]:
    """The ids of the processes that have a folder in their environment, except this process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if os.fsencode(folder) in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def _wait_for(is_so: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the {log.stem} is not ready after {PATIENCE_S:.0f} s: {log.read_text()[-1000:]}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
