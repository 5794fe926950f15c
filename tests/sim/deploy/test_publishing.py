from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clients.learning import state
from sim.deploy import publishing
from sim.deploy.machine import NodeMachine
from sim.deploy.publishing import Learned, is_due, newest_learned, note, published_health, watch
from sim.deploy.settings import load_node
from sim.deploy.status import machine_health
from tests.labs import make_lab


@pytest.fixture
def machine(tmp_path: Path) -> NodeMachine:
    make_lab(tmp_path / "lab", nodes=["gps:van-4"])
    folder = tmp_path / "lab/nodes/van-4"
    (folder / "state").mkdir()
    settings = load_node(folder).model_copy(update={"publish_every": 2})
    return NodeMachine(folder, settings)


def learn(machine: NodeMachine, run: str, number: int, time: float) -> None:
    path = machine.state / f"runs/{run}/000-gps/{number:06d}{state.SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time, time))


def test_the_newest_state_of_the_newest_run_counts(machine: NodeMachine) -> None:
    assert newest_learned(machine) is None
    learn(machine, "old", 30, 100.0)
    learn(machine, "new", 2, 200.0)
    learn(machine, "new", 3, 210.0)
    assert newest_learned(machine) == Learned("new", 3, 210.0)
    assert newest_learned(machine, "old") == Learned("old", 30, 100.0)
    assert publishing.SUFFIX == state.SUFFIX


@pytest.mark.parametrize(
    ("learned", "tried", "due"),
    [
        (None, None, False),
        (Learned("a", 1, 100.0), None, False),  # one round of two
        (Learned("a", 2, 100.0), None, True),
        (Learned("a", 1, 30.0), None, True),  # a minute without a round
        (Learned("a", 4, 100.0), Learned("a", 2), True),
        (Learned("a", 3, 100.0), Learned("a", 2), False),
        (Learned("a", 3, 30.0), Learned("a", 2), True),
        (Learned("a", 2, 0.0), Learned("a", 2), False),  # the same student is not tried twice
        (Learned("b", 1, 100.0), Learned("a", 9), False),
        (Learned("b", 2, 100.0), Learned("a", 9), True),
        (Learned("a", 3, 30.0), Learned("a", 4), True),  # the server went back a round
    ],
)
def test_a_student_is_due_after_its_rounds_or_when_none_come(
    learned: Learned | None, tried: Learned | None, due: bool
) -> None:
    assert is_due(learned, tried, every=2, now=100.0) is due


def test_a_watch_publishes_each_student_once_also_after_it_failed_or_was_started_again(
    machine: NodeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "LOOK_S", 0.0)
    learn(machine, "run", 2, 10.0)
    published: list[int] = []

    def publish() -> None:
        published.append(newest_learned(machine).round)  # type: ignore[union-attr]

    looks = iter([*range(3), "learn", *range(3), "end"])

    def goes_on() -> bool:
        found = next(looks)
        if found == "learn":
            learn(machine, "run", 3, 11.0)
        return found != "end"

    watch(machine, publish, goes_on=goes_on)
    assert published == [2, 3]
    note(machine, Learned("run", 3), error="the disk is full")
    looks = iter([0, "end"])
    watch(machine, publish, goes_on=goes_on)
    assert published == [2, 3]


def test_health_and_status_say_what_became_of_a_student(machine: NodeMachine) -> None:
    assert published_health(machine) == {}
    note(machine, Learned("run", 3), decision={"version": "0002", "is_current": False, "reason": "is worse"})
    assert published_health(machine)["published"]["trouble"] == "the student of round 3 is not served: is worse"
    note(machine, Learned("run", 4), decision={"version": "0003", "is_current": True, "reason": "is taken"})
    assert published_health(machine)["published"]["trouble"] == ""
    note(machine, Learned("run", 5), error="the disk is full")
    assert published_health(machine)["published"]["trouble"] == "the disk is full"
    assert machine_health(machine.folder)["running"] is False


def test_only_a_node_that_is_told_to_has_a_publisher(machine: NodeMachine) -> None:
    names = [program.name for program in machine.programs({})]
    assert names == ["supernode", "superexec", "publisher"]
    without = NodeMachine(machine.folder, machine.settings.model_copy(update={"publish_every": None}))
    assert [program.name for program in without.programs({})] == ["supernode", "superexec"]


def test_what_waits_for_hours_holds_no_torch(machine: NodeMachine) -> None:
    code = (
        "import sys, sim.cli.main, sim.deploy.publishing as publishing\n"
        "def look(*given): print('torch' in sys.modules, 'flwr' in sys.modules); raise SystemExit\n"
        "publishing.watch = look\n"
        "sim.cli.main.cli(['deploy', 'publish', sys.argv[1], '--watch'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(machine.folder)], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr
