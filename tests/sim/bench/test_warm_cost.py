"""The benchmark of warm nodes: whose time is counted, and what real processes of Flower show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.bench.loopback import Loopback
from sim.bench.warm_cost import Way, cpu_seconds, message_costs
from sim.deploy.forkserver import shim_environment, start_forkserver, stop_forkserver

# Works for a while; then has a child that works and is waited for, and one that works and is not; says so and waits.
WORKER = """
import os, sys, time
def work(seconds):
    while time.process_time() < seconds: pass
work(0.4)
for seconds, waited in ((0.3, True), (0.5, False)):
    pid = os.fork()
    if pid == 0:
        begin = time.process_time()
        work(begin + seconds)
        os._exit(0)
    if waited: os.waitpid(pid, 0)
    else: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print("done", flush=True)
sys.stdin.read()
"""


def test_time_is_counted_of_a_process_of_what_it_has_started_and_of_its_helper() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, **pipes) as node, subprocess.Popen(command, **pipes) as helper:  # type: ignore[call-overload]
        for process in (node, helper):
            assert process.stdout.readline() == b"done\n"
        spent = cpu_seconds(node.pid, helper.pid)
        alone = cpu_seconds(node.pid, None)
        for process in (node, helper):
            process.stdin.close()
    assert spent.node == pytest.approx(0.4, abs=0.1)
    assert spent.started == pytest.approx(0.3 + 0.5, abs=0.1)
    assert spent.forked == pytest.approx(0.4 + 0.3 + 0.5, abs=0.2)
    assert spent.total == spent.node + spent.started + spent.forked
    assert (alone.node, alone.started, alone.forked) == (spent.node, spent.started, 0.0)


@pytest.mark.parametrize(
    ("apps", "num_messages", "reason"),
    [(["toch"], 1, "unknown app toch; known are torch"), (["torch"], 0, "at least one message")],
)
def test_nothing_is_started_for_a_wrong_question(
    tmp_path: Path, apps: list[str], num_messages: int, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        message_costs(Loopback(tmp_path), [Way("stock")], apps=apps, num_messages=num_messages)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.deployment
def test_a_real_node_forks_its_apps_below_a_second_and_goes_on_without_the_server(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    with Loopback(folder) as loopback:
        server = start_forkserver(folder / "fork", environment=loopback.environment("warm"))
        warm = Way("warm", shim_environment(folder / "fork"), server.pid)
        (cost,) = message_costs(loopback, [warm], apps=["softbeam"], num_messages=2)
        assert cost.cpu.forked > 0
        assert cost.cpu.started < 0.2, "more than a shim"
        assert cost.cpu_range_s[0] < 1.0
        log = folder / "warm.log"
        assert "starts cold" not in log.read_text()
        node = int(log.read_text().partition("SuperNode ID: ")[2].split()[0])
        os.kill(server.pid, signal.SIGKILL)
        stop_forkserver(server)
        with loopback.running("torch") as ask:
            assert ask(node) > 0
        assert "flwr-clientapp starts cold: fork server: [Errno 111] Connection refused" in log.read_text()
    time.sleep(0.5)
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if os.fsencode(folder) in _content(path)]
    assert left == []


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
