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
from sim.cli.terminal import ProgressBar
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


def test_a_run_on_real_machines_is_told_round_by_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(follow, "LOOK_S", 0.01)
    monkeypatch.setattr("server.status.INTERVAL_SECONDS", 0.0)
    seen: list[int] = []
    shown = ProgressBar("tiny", rounds=3)

    def progress(phase: str, done: int, total: int) -> None:
        shown(phase, done, total)
        seen.extend([done] if phase == "federation" and done not in seen else [])

    def until_told(number: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while number not in seen:
            assert time.monotonic() < end
            time.sleep(0.01)

    def works() -> None:
        with Status(tmp_path, num_rounds=3) as status:
            following = status.following(lambda phase, done, total: None)
            for number in (0, 1, 2, 3):
                following("federation", number, 3)
                status.complete(number)
                until_told(number)

    server: Any = SimpleNamespace(flower=None)
    working = threading.Thread(target=works)
    working.start()
    ended = follow._follow(server, 1, tmp_path, progress)
    working.join()
    assert ended["state"] == "finished"
    told = [line for line in capsys.readouterr().err.splitlines() if "federation" in line]
    assert [line.split(", ")[0] for line in told] == [f"tiny: federation: round {number} of 3" for number in (1, 2, 3)]
