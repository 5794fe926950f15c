"""Four nodes as real processes publish what they learn; one of them serves beams meanwhile, without torch."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.data.recording import open_recording
from clients.learning.state import pack_state, unpack_state
from clients.serving.loading import load_model
from clients.serving.model_store import ModelStore
from configs.files import write_durably
from sim.deploy.machine import NodeMachine
from sim.deploy.status import deployment_status
from tests.conftest import CHECKOUT
from tests.labs import Lab, online_lab
from tests.sim.take_home.test_serving import HIDDEN, NODE, on_a_node

pytestmark = pytest.mark.deployment

PATIENCE_S = 400.0
SLOT_S = 0.05


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, home: Path, has_nginx: None) -> Iterator[Lab]:
    """A server and four nodes that publish their student after every second round."""
    with online_lab(tmp_path_factory.mktemp("publishing") / "lab", home, publish_every=2) as lab:
        yield lab


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.2)


class Server:
    """``softbeam predict STORE incoming --watch`` in a process without torch, and a sensor that writes every slot."""

    def __init__(self, store: Path, incoming: Path, positions: np.ndarray) -> None:
        incoming.mkdir()
        self._file, self._positions = incoming / "live.jsonl", positions
        self._file.touch()
        code = NODE.format(hidden=HIDDEN)
        words = ["predict", str(store), str(incoming), "--watch", "--json"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.rows: list[dict[str, Any]] = []
        self.num_sent = 0
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._read, self._sense)]
        for thread in self._threads:
            thread.start()

    @property
    def version(self) -> str:
        """The version that answered last."""
        return str(self.rows[-1]["version"]) if self.rows else ""

    def end(self) -> None:
        """End the sensor, wait for the last answer, and end the process."""
        self._ends.set()
        self._threads[1].join()
        with contextlib.suppress(AssertionError):
            until(lambda: len(self.rows) == self.num_sent - 7, "the last answer")
        self._process.terminate()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.rows.append(json.loads(line))

    def _sense(self) -> None:
        with self._file.open("a") as file:
            while not self._ends.wait(SLOT_S):
                position = self._positions[self.num_sent % len(self._positions)]
                file.write(json.dumps({"gps": position.tolist(), "slot": self.num_sent}) + "\n")
                file.flush()
                self.num_sent += 1


def store_of(machine: NodeMachine) -> ModelStore:
    return ModelStore(machine.models)


def run_of(machine: NodeMachine) -> str:
    """The run whose student is served."""
    store = store_of(machine)
    return "" if store.state().current is None else str(load_model(store.folder).manifest.provenance["run"])


def learn_nonsense(machine: NodeMachine, run: str) -> int:
    """Let the memory of a node hold a round two later, in which its student has mixed up its beams; its number."""
    memory = machine.state / "runs" / run / machine.settings.client
    newest = sorted(memory.glob("0*.state"))[-1]
    state = unpack_state(newest.read_bytes())
    with torch.no_grad():
        for name in ("head.weight", "head.bias"):
            values = state["learner"]["best_model"][name]
            state["learner"]["best_model"][name] = values.view(4, 64, -1).roll(32, dims=1).reshape(values.shape)
    number = int(newest.stem) + 2
    write_durably(memory / f"{number:06d}.state", pack_state(state))
    return number


def test_new_students_are_pushed_a_bad_one_is_refused_and_a_rollback_is_served(lab: Lab, tmp_path: Path) -> None:
    nodes = {name: lab.node(name) for name in ("roof-1", "gate-2", "pole-3", "van-4")}
    van = nodes["van-4"]

    # Every node publishes its student by itself, while the run goes on and after it.
    first = lab.run(tmp_path / "first", "strategy.rounds=2").name
    until(lambda: all(run_of(one) == first for one in nodes.values()), "a first version on every node")
    positions = np.asarray(open_recording(van.recordings()["test"]).sensors["gps"])[:30]
    server = Server(van.models, tmp_path / "incoming", positions)
    try:
        until(lambda: server.rows, "a first answer")

        # One that has learned more takes its place, and whoever serves follows.
        more = ("strategy.rounds=2", "training.first_round_steps=150")
        second = lab.run(tmp_path / "second", *more).name
        until(lambda: run_of(van) == second, "a better student")
        good = store_of(van).state().current
        until(lambda: server.version == good, "the better student answers")
        evidence = store_of(van).canary(str(good))
        assert evidence is not None and evidence["taken"] and evidence["passes"]

        # One that has mixed up its beams is refused on the node's own passes, and the node says so.
        number = learn_nonsense(van, second)
        until(lambda: json.loads((van.state / "published.json").read_text())["round"] == number, "a verdict")
        decision = json.loads((van.state / "published.json").read_text())["decision"]
        assert not decision["is_current"] and "is worse: Top-5 -" in decision["reason"]
        refused = store_of(van).canary(decision["version"])
        assert refused is not None and not refused["taken"] and refused["against"] == good
        assert store_of(van).state().current == good
        until(
            lambda: "is not served: is worse" in deployment_status(lab.folder)["machines"]["van-4"]["trouble"],
            "the status of the lab",
        )

        # An operator goes back all the same; it is served, and what was current does not come back.
        back = on_a_node("store", "rollback", van.models, "--why", "a drill")
        assert back.returncode == 0, back.stderr
        before = store_of(van).state().current
        assert back.stdout == f"{before} is current again; {good} never comes back\n"
        until(lambda: server.version == before, "the version before answers")
    finally:
        server.end()

    # Not one slot was lost at any switch, and none answered twice.
    assert [row["slot"] for row in server.rows] == list(range(7, server.num_sent))
    versions = [row["version"] for row in server.rows]
    assert versions[-1] == before and good in versions
    assert all(not row["held"] and not row["absent"] for row in server.rows)
