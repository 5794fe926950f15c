from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.status import Status
from sim.cli.main import _telling
from sim.deploy import follow
from sim.deploy.follow import is_alive

PATIENCE_S = 20.0


def test_a_process_that_ended_and_was_not_buried_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert is_alive(child.pid)
        child.kill()
        end = time.monotonic() + PATIENCE_S
        while is_alive(child.pid):
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(child.pid, 0)  # It is still there, as a zombie: nobody has waited for it.
    assert not is_alive(child.pid)
    assert is_alive(os.getpid())


def test_a_run_on_real_machines_is_told_round_by_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_S", 0.01)
    monkeypatch.setattr("server.status.INTERVAL_SECONDS", 0.0)
    lines: list[str] = []

    def until_told(number: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while len(lines) < number:
            assert time.monotonic() < end
            time.sleep(0.01)

    def works() -> None:
        with Status(tmp_path, num_rounds=3) as status:
            following = status.following(lambda phase, done, total: None)
            for number in (1, 2, 3):
                following("federation", number, 3)
                status.complete(number)
                until_told(number)

    server: Any = SimpleNamespace(flower=None)
    working = threading.Thread(target=works)
    working.start()
    ended = follow._follow(server, 1, tmp_path, lambda phase, done, total: None, lines.append)
    working.join()
    assert ended["state"] == "finished"
    assert lines == [f"round {number} of 3 is over" for number in (1, 2, 3)]


@pytest.mark.parametrize("quiet", [False, True])
def test_the_lines_go_to_a_file_and_not_beside_json(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    _telling("tiny, seed 0", quiet=quiet)("round 1 of 3 is over")
    assert capsys.readouterr().err == ("" if quiet else "tiny, seed 0: round 1 of 3 is over\n")
