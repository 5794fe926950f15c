"""What ``softbeam deploy status`` and ``down`` say about machines that are not well."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sim.deploy import flower, status, trial
from sim.deploy.machine import ServerMachine
from sim.deploy.settings import load_server
from sim.deploy.status import deployment_status, machine_health, show_status
from sim.deploy.supervisor import claimed
from sim.deploy.trial import bring_up, take_down
from tests.conftest import CHECKOUT
from tests.labs import make_lab

FINE = {"running": True, "pid": 7, "restarts": 0, "seconds": 5.0, "last_exit": None, "last_error": "", "trouble": ""}
AGAIN = {**FINE, "restarts": 3, "last_error": "ended with code -9"}
NASTY = "no space [/red] [link=x] \x1b[2J\u202e"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Path]:
    """A deployment whose machines are claimed by this process, as if their supervisors were here."""
    make_lab(tmp_path / "lab", nodes=["gps:van-4"])
    states = [tmp_path / "lab" / name / "state" for name in ("server", "nodes/van-4")]
    for state in states:
        state.mkdir()
    with claimed(states[0]), claimed(states[1]):
        yield tmp_path / "lab"


def write_health(machine: Path, *, age_s: float = 0.0, **entries: Any) -> None:
    written = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="seconds")
    health = {"time": written, "ready": True, "programs": {"proxy": FINE}, **entries}
    (machine / "state/health.json").write_text(json.dumps(health))


def shown(found: dict[str, Any]) -> str:
    stream = io.StringIO()
    show_status(found, Console(file=stream, width=400))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, ""),
        ({"programs": {"proxy": {**FINE, "trouble": "it does not listen on port 1"}}}, "proxy: it does not listen"),
        (
            {"programs": {"proxy": AGAIN}},
            "proxy: was started again (3 in all), the last time because it ended with code -9",
        ),
        ({"forkserver": {"running": False, "pid": 3, "trouble": "the fork server has ended"}}, "forkserver: the fork"),
        ({"client": {"error": NASTY, "round": 1, "time": "now"}}, "no space [/red] [link=x] \\x1b[2J\\u202e"),
        ({"client": {"warning": NASTY, "round": 1, "time": "now"}}, "no space [/red] [link=x] \\x1b[2J\\u202e"),
        ({"age_s": 60.0}, "its supervisor hangs: it last wrote its health 6"),
        ({"time": "soon"}, "its health is not known yet"),
    ],
)
def test_the_trouble_of_a_machine_is_told_and_shown(entries: dict[str, Any], expected: str, lab: Path) -> None:
    write_health(lab / "nodes/van-4", **entries)
    health = machine_health(lab / "nodes/van-4")
    assert health["trouble"].startswith(expected) if expected else health["trouble"] == ""
    text = shown(deployment_status(lab))
    assert expected in text
    assert "\x1b" not in text and "\u202e" not in text


def test_a_machine_that_does_not_run_says_who_still_holds_its_ports(tmp_path: Path) -> None:
    make_lab(tmp_path / "lab", nodes=["gps:van-4"])
    server = tmp_path / "lab/server"
    (server / "state").mkdir()
    write_health(server)
    with socket.create_server(("127.0.0.1", load_server(server).port)):
        health = machine_health(server)
        assert not health["ready"]
        assert "is still held by" in health["trouble"]
        assert f"(process {os.getpid()})" in health["trouble"]
        assert f"(process {os.getpid()})" in shown(deployment_status(tmp_path / "lab"))
    assert machine_health(server)["trouble"] == ""


def test_a_superlink_that_hangs_costs_the_status_its_nodes_and_nothing_else(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status.ANSWER_S + 1.0 < 5.0, "one second goes to the look for an open port"
    monkeypatch.setattr(status, "ANSWER_S", 0.3)
    hangs = tmp_path / "flwr"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(flower, "program", lambda name: str(hangs))
    write_health(lab / "server")
    server = ServerMachine(lab / "server", load_server(lab / "server"))
    with socket.create_server(("127.0.0.1", server.settings.superlink_port)):
        begin = time.monotonic()
        found = deployment_status(lab)
        assert time.monotonic() - begin < 30.0, "it waited for the answer"
    assert (found["nodes"], found["runs"]) == (None, None)
    assert "the SuperLink does not answer: flwr" in shown(found)
    assert "no answer within 0.3 s" in found["trouble"]
    assert set(found["machines"]) == {"server", "van-4"}


def test_what_is_still_there_after_the_machines_stopped_is_named_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "CLOSED_S", 0.3)
    make_lab(tmp_path / "lab", nodes=["gps:van-4"])
    port = load_server(tmp_path / "lab/server").port
    code = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(1, flush=True)"
    command = [sys.executable, "-c", code + "; time.sleep(60)", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None and worker.stdout.readline()
        with pytest.raises(RuntimeError, match=rf"server: port {port} is still held by .*\(process {worker.pid}\)"):
            take_down(tmp_path / "lab")
        worker.kill()
    assert take_down(tmp_path / "lab") == 0


def test_a_machine_that_cannot_start_says_why_once(tmp_path: Path) -> None:
    make_lab(tmp_path / "lab", nodes=["gps:van-4"])
    settings = tmp_path / "lab/server/server.yaml"
    settings.write_text(settings.read_text() + "colour: red\n")
    with pytest.raises(RuntimeError) as caught:
        bring_up(tmp_path / "lab", timeout_s=60.0, progress=lambda *words: None)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/lab/server: ") and "colour" in text
    assert "error:" not in text


def test_a_process_of_a_machine_that_outlives_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "CLOSED_S", 0.3)
    make_lab(tmp_path / "lab", nodes=["gps:van-4"])
    state = tmp_path / "lab/nodes/van-4/state"
    state.mkdir()
    code = (
        "import sys, time; from pathlib import Path; from sim.deploy.supervisor import claimed\n"
        "with claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as child,
        subprocess.Popen([sys.executable, "-c", code, str(state)], cwd=CHECKOUT, stdout=subprocess.PIPE) as supervisor,
    ):
        assert supervisor.stdout is not None and supervisor.stdout.readline() == b"held\n"
        write_health(state.parent, programs={"supernode": {**FINE, "pid": child.pid}})
        with pytest.raises(RuntimeError, match=rf"van-4: sleep 60 \(process {child.pid}\) still works"):
            take_down(tmp_path / "lab")
        child.kill()
