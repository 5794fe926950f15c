"""The command ``softbeam watch``: what it prints, when it ends, and with which code."""

from __future__ import annotations

import io
import json
import os
import socket
from pathlib import Path

import pytest
from rich.console import Console

from sim.cli import watch
from sim.watch.view import RunWatcher
from tests.run_folders import write_run
from tests.sim.cli.test_main import softbeam


def test_a_finished_run_is_one_line_and_a_success(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.5, 0.25]] * 4, state="finished", done=8)
    answer = softbeam("watch", run)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == (
        "street, seed 4: finished; federation 8 of 8; round 4 of 4; teacher Top-5 70.0 %; "
        "clients Top-5 37.5 %, lowest 25.0 %\n"
    )


@pytest.mark.parametrize(
    ("state", "pid"),
    [("failed", os.getpid()), ("stopped", os.getpid()), ("running", 2**22 + 1)],
    ids=["failed", "stopped", "killed"],
)
def test_a_run_that_did_not_finish_is_an_error_that_says_how_to_go_on(state: str, pid: int, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", state=state, error="no power", pid=pid)
    answer = softbeam("watch", run)
    told = "killed" if state == "running" else state
    assert answer.code == 1
    assert f"{run}: the run is {told} (no power); softbeam resume {run} goes on with it" in answer.err


def test_a_run_is_followed_from_round_to_round_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, rounds = write_run(tmp_path / "run"), iter(range(1, 5))

    def goes_on(seconds: float) -> None:
        number = next(rounds)
        state = "finished" if number == 4 else "running"
        write_run(run, scores=[[0.5]] * number, state=state, done=2 * number)

    monkeypatch.setattr("sim.cli.watch.time.sleep", goes_on)
    answer = softbeam("watch", run)
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert [line.partition("; teacher")[0].rpartition("; ")[2] for line in lines] == [
        "round 0 of 4",
        "round 1 of 4",
        "round 2 of 4",
        "round 3 of 4",
        "round 4 of 4",
    ]


def test_json_is_what_can_be_seen_now_and_no_verdict(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.5]], state="failed")
    answer = softbeam("watch", run, "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == json.loads(json.dumps(RunWatcher(run).look().to_dict()))


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = softbeam("watch", run, "--serve", "--port", str(port))
    assert answer.code == 1
    assert f"--port {port}: " in answer.err and "name another, or 0 for a free one" in answer.err


def test_a_terminal_shows_a_row_for_each_client_and_only_the_worst_of_many(tmp_path: Path) -> None:
    few = write_run(tmp_path / "few", scores=[[0.5, None]], problems=["", "[red]late[/red]"])
    many = write_run(tmp_path / "many", scores=[[number / 100 for number in range(50)]])
    shown = {}
    for run in (few, many):
        stream = io.StringIO()
        Console(file=stream, width=200).print(watch.picture_of(RunWatcher(run).look()))
        shown[run] = stream.getvalue()
    assert "50.0" in shown[few] and "[red]late[/red]" in shown[few]
    assert "019-gps" in shown[many] and "020-gps" not in shown[many]
    assert "the 20 of 50 clients that do worst" in shown[many]
