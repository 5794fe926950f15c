"""One SuperLink and four SuperNodes, one per modality, as real processes on the loopback: TLS, node keys, proxy."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.learning.state import unpack_state
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from sim.deploy import credentials
from sim.deploy.check import check_folder
from sim.deploy.follow import describe_nodes, read_status, resume_on
from sim.deploy.machine import NodeMachine
from sim.deploy.status import deployment_status
from sim.deploy.templates import BODIES_PER_NODE, OBJECT_BYTES
from tests.conftest import CHECKOUT
from tests.federations import assert_same_outcome, quiet
from tests.labs import Lab
from tests.ports import free_ports

pytestmark = pytest.mark.deployment

# Only a failure takes this long: a machine may have much else to do.
PATIENCE_S = 300.0
# The account of a request of a node that was not let in: by the proxy, which knows no such key, or by the SuperLink.
REFUSED = re.compile(r"/v1/fleet/(?:register|activate)-node[^\"]*\\?\" [45]\d\d")


def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)


class Running:
    """A run in a thread of its own."""

    def __init__(self, start: Callable[[], Path]) -> None:
        self.folder: Path | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(start,), daemon=True)
        self._thread.start()

    def _run(self, start: Callable[[], Path]) -> None:
        try:
            self.folder = start()
        except BaseException as error:
            self.error = error

    def result(self, patience_s: float = 2 * PATIENCE_S) -> Path:
        self._thread.join(patience_s)
        assert not self._thread.is_alive(), "the run hangs"
        if self.error is not None:
            raise self.error
        assert self.folder is not None
        return self.folder


def teacher_of(run: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(run)
    assert checkpoint is not None
    return checkpoint.teacher


def assert_same_teacher(one: Any, other: Any, where: str = "teacher") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_teacher(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same_teacher(left, right, f"{where}.{number}")
    elif isinstance(one, torch.Tensor):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=where)
    else:
        assert one == other, where


def test_three_rounds_on_real_processes_equal_the_simulation_to_the_bit(lab: Lab, tmp_path: Path) -> None:
    deployed = lab.run(tmp_path / "runs")
    simulated = lab.simulate(tmp_path / "simulated")
    assert_same_outcome(deployed, simulated)
    assert_same_teacher(teacher_of(deployed), teacher_of(simulated))
    assert len(read_rounds(deployed)) == 3
    assert json.loads((deployed / "summary.json").read_text())["engine"] == "deployment"
    assert (deployed / "report.html").is_file()


@pytest.mark.parametrize("relations", ["{}", "{share: 1.0}"], ids=["beside soft labels", "instead of them"])
def test_relations_that_real_processes_are_told_equal_the_simulation_to_the_bit(
    relations: str, lab: Lab, tmp_path: Path
) -> None:
    told = f"strategy.relations={relations}"
    deployed = lab.run(tmp_path / "runs", told)
    assert_same_outcome(deployed, lab.simulate(tmp_path / "simulated", told))
    for client in read_rounds(deployed)[-1]["clients"].values():
        assert not client["problem"] and client["downlink_bytes"] > 16 * 20


def test_weights_and_frames_stay_on_the_nodes(lab: Lab) -> None:
    held = {path.relative_to(lab.folder).parts[1] for path in lab.folder.glob("nodes/*/state/runs/**/*.state")}
    assert held == {"roof-1", "gate-2", "pole-3", "van-4"}
    assert not list(lab.server.state.rglob("0*.state"))


def ask(lab: Lab, method: str, path: str) -> int:
    context = ssl.create_default_context(cafile=str(lab.folder / "server/ca.crt"))
    connection = http.client.HTTPSConnection("localhost", lab.deployment.port, context=context, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.putheader("Content-Type", "application/protobuf")
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/v1/control/list-nodes",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "//v1/control/list-nodes",
        "/v1//control/list-nodes",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet/%2e%2e/control/list-nodes",
        "/v1/fleet/%2e%2e%2fcontrol/list-nodes",
        "/v1/fleet/..%2fcontrol/list-nodes",
        "/v1/fleet/%252e%252e/control/list-nodes",
        "/v1/fleet/..;/control/list-nodes",
        "/v1/control/../fleet/../control/list-nodes",
        "/v1/control/list-nodes/../../fleet/pull-messages",
        "/v1/control/list-nodes?/v1/fleet/",
        "/V1/CONTROL/list-nodes",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_open_port_leads_to_no_other_route_than_the_nodes(lab: Lab, method: str, path: str) -> None:
    log = lab.server.state / "log/superlink.jsonl"
    before = log.read_text().count("ControlServicer")
    assert ask(lab, method, path) in (400, 401, 404, 405, 422)
    assert log.read_text().count("ControlServicer") == before


def test_a_node_without_a_key_is_not_let_in(lab: Lab) -> None:
    assert ask(lab, "POST", "/v1/fleet/register-node") in (401, 403, 422)
    assert ask(lab, "POST", "/v1/fleet/pull-messages") in (401, 403, 422)


def resident_mb(pid: int) -> float:
    """The memory that a process holds now."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def push_many(lab: Lab, *, key: str, num: int) -> list[int]:
    """The statuses of so many bodies of the greatest size that come at once; 0 where the connection was closed."""
    context = ssl.create_default_context(cafile=str(lab.folder / "server/ca.crt"))
    statuses: list[int] = []

    def push() -> None:
        connection = http.client.HTTPSConnection("localhost", lab.deployment.port, context=context, timeout=30)
        try:
            headers = {"flwr-public-key": key, "Content-Type": "application/protobuf"}
            connection.request("POST", "/v1/fleet/push-object", body=bytes(OBJECT_BYTES), headers=headers)
            statuses.append(connection.getresponse().status)
        except OSError:
            statuses.append(0)
        finally:
            connection.close()

    threads = [threading.Thread(target=push) for _ in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def test_many_bodies_at_once_cost_the_superlink_no_memory_without_a_key_and_little_with_one(lab: Lab) -> None:
    pid = lab.pid_of("server", "superlink")
    key = credentials.key_header(lab.folder / "server/keys/van-4.pub")
    grown = {}
    for who, shown in (("a stranger", "x"), ("who shows the key of a node and cannot sign", key)):
        before = resident_mb(pid)
        statuses = push_many(lab, key=shown, num=40)
        grown[who] = resident_mb(pid) - before
        print(
            f"40 bodies of {OBJECT_BYTES >> 20} MiB at once from {who}: SuperLink {before:.0f} MB + {grown[who]:.0f} MB"
        )
        assert not {status for status in statuses if 200 <= status < 300}
    assert grown["a stranger"] < 10
    # The SuperLink holds a body several times over while it reads it.
    assert grown["who shows the key of a node and cannot sign"] < 8 * BODIES_PER_NODE * (OBJECT_BYTES >> 20)
    assert {row["status"] for row in describe_nodes(lab.server)} == {"online"}


def said_by_node(lab: Lab, folder: Path, settings_of: str, *prefix: str) -> str:
    """What a SuperNode with the keys of a folder said before it gave up."""
    (port,) = free_ports(1)
    settings = lab.node(settings_of).settings.model_copy(update={"runtime_port": port})
    program = NodeMachine(folder, settings).programs({})[0]
    done = subprocess.run(
        [*prefix, *program.command, "--max-retries", "2"],
        env={**os.environ, **program.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.stdout + done.stderr


def assert_refused(lab: Lab, folder: Path, settings_of: str, *prefix: str) -> None:
    """A SuperNode with the keys of a folder reaches the server and is not let in."""
    log = lab.server.state / "log/proxy.jsonl"
    before = len(REFUSED.findall(log.read_text()))
    assert "SuperNode ID" not in said_by_node(lab, folder, settings_of, *prefix)
    assert len(REFUSED.findall(log.read_text())) > before


def test_an_unknown_key_is_refused(lab: Lab, tmp_path: Path) -> None:
    for name in ("ca.crt", "superexec.secret"):
        (tmp_path / name).write_bytes((lab.folder / "nodes/roof-1" / name).read_bytes())
    credentials.make_node_key(tmp_path)
    before = {row["name"]: row["status"] for row in describe_nodes(lab.server)}
    assert_refused(lab, tmp_path, "roof-1")
    assert {row["name"]: row["status"] for row in describe_nodes(lab.server)} == before


def answered_status(folder: Path) -> dict[str, Any]:
    """The status of a deployment whose server answers; where everybody works, one look may be too short for it."""
    looks: list[dict[str, Any]] = []

    def is_answered() -> bool:
        looks.append(deployment_status(folder))
        return not looks[-1]["trouble"]

    until(is_answered)
    return looks[-1]


def test_check_and_status_see_a_deployment_that_is_up(lab: Lab) -> None:
    findings = check_folder(lab.folder)
    assert [finding for finding in findings if finding.level != "ok"] == []
    assert sum("reached, trusted, clocks agree" in finding.text for finding in findings) == 4
    status = answered_status(lab.folder)
    assert status["runs"] == []
    assert answered_status(lab.folder / "server")["nodes"] == status["nodes"]
    assert {row["name"]: row["status"] for row in status["nodes"]} == dict.fromkeys(
        ["roof-1", "gate-2", "pole-3", "van-4"], "online"
    )
    for machine in status["machines"].values():
        assert machine["running"]
        assert all(program["running"] for program in machine["programs"].values())


def works_on_round(out: Path, number: int) -> Callable[[], bool]:
    """Whether the one run in a folder has this many rounds behind it, less one, and goes on."""

    def works() -> bool:
        records = list(out.glob("*/rounds.jsonl"))
        return bool(records) and len(read_rounds(records[0].parent)) >= number - 1

    return works


def test_a_node_killed_in_a_round_comes_back_with_what_it_had_learned(lab: Lab, tmp_path: Path) -> None:
    # Flower lets a key in again when two heartbeats have failed, about a minute later.
    run = Running(lambda: lab.run(tmp_path, "strategy.rounds=60", "strategy.round_timeout_s=30"))
    until(works_on_round(tmp_path, 2))
    (folder,) = tmp_path.glob("*")
    os.killpg(lab.pid_of("gate-2", "supernode"), signal.SIGKILL)

    def answers() -> list[bool]:
        return [not line["clients"].get("001-radar", {"problem": "absent"})["problem"] for line in read_rounds(folder)]

    until(lambda: False in answers() and answers()[-1])
    for run_id in lab.server.flower.unfinished_runs():
        lab.server.flower.stop(run_id)
    with pytest.raises(RuntimeError, match="softbeam resume goes on"):
        run.result()
    rounds = read_rounds(folder)
    others = [line["clients"][client]["problem"] for line in rounds for client in ("000-camera", "003-gps")]
    assert not any(others)
    memory = sorted((lab.node("gate-2").state / "runs" / folder.name / "001-radar").glob("0*.state"))
    held = unpack_state(memory[-1].read_bytes())
    # It counts every round that it learned in, those that it could not tell of in time among them: none is forgotten.
    assert held["learner"]["progress"]["round"] >= sum(answers()) > 1
    restarts = json.loads((lab.node("gate-2").state / "health.json").read_text())["programs"]["supernode"]["restarts"]
    assert restarts >= 1


def test_a_superlink_killed_in_a_round_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    run = Running(lambda: lab.run(tmp_path / "runs", "strategy.rounds=4"))
    until(works_on_round(tmp_path / "runs", 2))
    os.kill(lab.pid_of("server", "superlink"), signal.SIGKILL)
    deployed = run.result()
    assert_same_outcome(deployed, lab.simulate(tmp_path / "simulated", "strategy.rounds=4"))


def test_a_disk_of_the_server_that_stalls_leaves_no_node_away(lab: Lab, tmp_path: Path) -> None:
    def restarts() -> dict[str, int]:
        states = {node: lab.node(node).state / "health.json" for node in ("roof-1", "gate-2", "pole-3", "van-4")}
        return {
            node: json.loads(path.read_text())["programs"]["supernode"]["restarts"] for node, path in states.items()
        }

    before = restarts()
    # The database of Flower waits five seconds for its disk, then every request of a node ends with code 500.
    with closing(sqlite3.connect(lab.folder / "server/state/superlink.db", timeout=30, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        until(lambda: all(count > before[node] for node, count in restarts().items()))
        held.execute("COMMIT")
    # Flower lets a key in again when two heartbeats have failed; a run waits for all nodes that are registered.
    run = lab.run(tmp_path)
    assert all(not client["problem"] for line in read_rounds(run) for client in line["clients"].values())
    assert len(read_rounds(run)[0]["clients"]) == 4


def test_a_server_app_killed_in_a_round_is_told_and_resumed_to_the_bit(lab: Lab, tmp_path: Path) -> None:
    run = Running(lambda: lab.run(tmp_path / "runs", "strategy.rounds=4"))
    until(works_on_round(tmp_path / "runs", 3))
    (folder,) = (tmp_path / "runs").glob("*")
    os.kill(read_status(folder)["pid"], signal.SIGKILL)
    with pytest.raises(RuntimeError, match="softbeam resume goes on"):
        run.result()
    assert len(read_rounds(folder)) < 4
    resume_on(lab.folder, folder, quiet)
    assert_same_outcome(folder, lab.simulate(tmp_path / "simulated", "strategy.rounds=4"))


def test_a_straggler_holds_nobody_up_and_its_late_answer_counts(lab: Lab, tmp_path: Path) -> None:
    overrides = [
        "strategy.rounds=40",
        "strategy.patience=1.3",
        "strategy.quorum=0.75",
        "strategy.late_rounds=30",
        "strategy.public_samples=0",
        "strategy.aggregator.name=weighted",
        "strategy.round_timeout_s=300",
    ]
    run = Running(lambda: lab.run(tmp_path, *overrides))
    until(works_on_round(tmp_path, 2))
    (folder,) = tmp_path.glob("*")
    # Its clients cannot start, as on a machine that is busy with something else.
    straggler = lab.pid_of("pole-3", "superexec")
    os.kill(straggler, signal.SIGSTOP)
    try:
        behind = len(read_rounds(folder)) + 4
        until(lambda: len(read_rounds(folder)) >= behind)
    finally:
        os.kill(straggler, signal.SIGCONT)

    def late() -> list[int]:
        return [line["clients"]["002-lidar"].get("rounds_late", 0) for line in read_rounds(folder) if counts(line)]

    def counts(line: dict[str, Any]) -> bool:
        return "002-lidar" in line["clients"] and not line["clients"]["002-lidar"]["problem"]

    until(lambda: any(late()))
    for run_id in lab.server.flower.unfinished_runs():
        lab.server.flower.stop(run_id)
    with pytest.raises(RuntimeError, match="softbeam resume goes on"):
        run.result()
    assert max(late()) >= 2


def test_a_clock_that_is_ten_minutes_off_is_found_by_the_check_and_refused_by_the_server(lab: Lab) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    node = lab.folder / "nodes/van-4"
    command = ["faketime", "-f", "+600s", sys.executable, "-m", "sim.cli.main", "deploy", "check", str(node)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert re.search(r"error +localhost:\d+: this machine's clock is (599|60\d) s ahead", done.stdout)
    assert_refused(lab, node, "van-4", "faketime", "-f", "+600s")


def test_a_revoked_node_is_refused_and_the_others_go_on(lab: Lab, tmp_path: Path) -> None:
    lab.server.revoke("van-4")
    run = lab.run(tmp_path, "strategy.rounds=2", "strategy.round_timeout_s=20")
    answered = {
        client for round in read_rounds(run) for client, entry in round["clients"].items() if not entry["problem"]
    }
    assert answered == {"000-camera", "001-radar", "002-lidar"}
    assert_refused(lab, lab.node("van-4").folder, "van-4")
