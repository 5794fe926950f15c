"""Server and nodes in network namespaces of their own, with separate addresses: a real network between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from configs.placement import HOME_VARIABLE
from server.recorder import read_rounds
from tests.conftest import CHECKOUT
from tests.federations import assert_same_outcome
from tests.labs import Lab, give_data, make_lab

pytestmark = pytest.mark.deployment

SERVER_ADDRESS = "10.83.7.1"
SERVER = "softbeam-server"
NODES = ["gps:van-4", "lidar:pole-3"]
PATIENCE_S = 400.0
# Packets of a poor mobile link.
DELAY_AND_LOSS = ["delay", "60ms", "10ms", "loss", "2%"]


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


def inside(namespace: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *command]


def link_of(node: str) -> str:
    return f"sb-{node}"


@pytest.fixture(scope="module")
def network(has_nginx: None) -> Iterator[None]:
    """A namespace for the server and one for each node, joined by a cable each; gone at the end."""
    names = [node.split(":")[1] for node in NODES]
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    if os.geteuid() != 0 or ip("netns", "add", SERVER).returncode != 0:
        pytest.skip("this machine does not let us make network namespaces")
    with ExitStack() as stack:
        stack.callback(ip, "netns", "del", SERVER)
        subprocess.run(inside(SERVER, "ip", "link", "set", "lo", "up"), check=True)
        for number, name in enumerate(names):
            made = [ip("netns", "add", link_of(name))]
            stack.callback(ip, "netns", "del", link_of(name))
            there, here, address = link_of(name), f"v{number}", f"10.83.7.{10 + number}"
            made.append(ip("link", "add", here, "netns", SERVER, "type", "veth", "peer", "name", "up0", "netns", there))
            if any(one.returncode for one in made):
                pytest.skip(f"this machine does not let us join namespaces: {made[-1].stderr.strip()}")
            for namespace, device, mine, other in (
                (SERVER, here, SERVER_ADDRESS, address),
                (there, "up0", address, SERVER_ADDRESS),
            ):
                for command in (
                    ["ip", "address", "add", mine, "peer", other, "dev", device],
                    ["ip", "link", "set", device, "up"],
                    ["ip", "link", "set", "lo", "up"],
                ):
                    subprocess.run(inside(namespace, *command), check=True)
        yield


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, home: Path, network: None) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("network") / "lab"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        deployment = make_lab(folder, nodes=NODES, host=SERVER_ADDRESS, bind=SERVER_ADDRESS)
        give_data(folder, deployment)
    machines = [(SERVER, "server", folder / "server")]
    machines += [(link_of(node.name), "node", folder / "nodes" / node.name) for node in deployment.nodes]
    processes = []
    try:
        for namespace, role, machine in machines:
            command = inside(namespace, sys.executable, "-m", "sim.cli.main", "deploy", role, str(machine), "--quiet")
            processes.append(subprocess.Popen(command, cwd=CHECKOUT))
        end = time.monotonic() + PATIENCE_S
        while online(folder) < len(NODES):
            assert time.monotonic() < end, "the nodes did not come online"
            assert all(process.poll() is None for process in processes)
            time.sleep(1.0)
        yield Lab(folder, deployment)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=60)


def online(folder: Path) -> int:
    command = inside(SERVER, sys.executable, "-m", "sim.cli.main", "deploy", "status", str(folder), "--json")
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        return 0
    return sum(node["status"] == "online" for node in json.loads(done.stdout)["nodes"] or [])


def start_run(lab: Lab, out: Path, *overrides: str) -> subprocess.Popen[str]:
    """``softbeam run --on`` on the server's machine."""
    sets = [word for override in overrides for word in ("--set", override)]
    words = ["run", lab.deployment.config, "--on", str(lab.folder), "--out", str(out), "--json", *sets]
    command = inside(SERVER, sys.executable, "-m", "sim.cli.main", *words)
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(run: subprocess.Popen[str], out: Path) -> Path:
    _, said = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, said
    (folder,) = out.glob("*")
    return folder


def test_machines_with_addresses_of_their_own_equal_the_simulation(lab: Lab, tmp_path: Path) -> None:
    deployed = finish(start_run(lab, tmp_path / "runs"), tmp_path / "runs")
    assert_same_outcome(deployed, lab.simulate(tmp_path / "simulated"))


def test_the_server_opens_one_port_to_its_network(lab: Lab) -> None:
    listening = subprocess.run(inside(SERVER, "ss", "-Htln"), capture_output=True, text=True, check=True).stdout
    addresses = {line.split()[3] for line in listening.splitlines()}
    outside = {address for address in addresses if not address.startswith("127.0.0.1:")}
    assert outside == {f"{SERVER_ADDRESS}:{lab.deployment.port}"}


def test_delay_and_loss_change_nothing_but_the_time(lab: Lab, tmp_path: Path) -> None:
    for node in lab.deployment.nodes:
        shape = inside(link_of(node.name), "tc", "qdisc", "replace", "dev", "up0", "root", "netem", *DELAY_AND_LOSS)
        done = subprocess.run(shape, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this kernel has no netem: {done.stderr.strip()}")
    try:
        deployed = finish(start_run(lab, tmp_path / "runs"), tmp_path / "runs")
    finally:
        for node in lab.deployment.nodes:
            subprocess.run(inside(link_of(node.name), "tc", "qdisc", "del", "dev", "up0", "root"), check=False)
    assert_same_outcome(deployed, lab.simulate(tmp_path / "simulated"))


def test_a_slow_link_changes_nothing_but_the_time(lab: Lab, tmp_path: Path) -> None:
    shape = ["tbf", "rate", "2mbit", "burst", "32kbit", "latency", "400ms"]
    device = inside(link_of("van-4"), "tc", "qdisc", "replace", "dev", "up0", "root", *shape)
    done = subprocess.run(device, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel has no token bucket: {done.stderr.strip()}")
    try:
        deployed = finish(start_run(lab, tmp_path / "runs"), tmp_path / "runs")
    finally:
        subprocess.run(inside(link_of("van-4"), "tc", "qdisc", "del", "dev", "up0", "root"), check=False)
    assert_same_outcome(deployed, lab.simulate(tmp_path / "simulated"))


def test_a_node_behind_a_cut_link_is_missed_and_takes_part_again(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    run = start_run(lab, out, "strategy.rounds=8", "strategy.round_timeout_s=12")
    end = time.monotonic() + PATIENCE_S
    while not (records := list(out.glob("*/rounds.jsonl"))) or not read_rounds(records[0].parent):
        assert time.monotonic() < end
        time.sleep(0.1)
    cable = ["ip", "link", "set", "up0"]
    subprocess.run(inside(link_of("van-4"), *cable, "down"), check=True)
    while not any(line["clients"].get("000-gps", {}).get("problem") for line in read_rounds(records[0].parent)):
        assert time.monotonic() < end, "the cut link was not noticed"
        time.sleep(0.1)
    subprocess.run(inside(link_of("van-4"), *cable, "up"), check=True)
    rounds = read_rounds(finish(run, out))
    assert len(rounds) == 8
    assert not any(line["clients"]["001-lidar"]["problem"] for line in rounds)
    assert not rounds[-1]["clients"]["000-gps"]["problem"]
