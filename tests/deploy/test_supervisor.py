from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sim.deploy import supervisor as module
from sim.deploy.supervisor import GivenUpError, Program, Supervisor, claimed, running_pid
from tests.conftest import CHECKOUT

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FIRST_PAUSE_S", 0.05), ("LOOK_S", 0.02), ("HEALTH_S", 0.05)):
        monkeypatch.setattr(module, name, value)


def python(name: str, code: str, **options: object) -> Program:
    return Program(name, [sys.executable, "-u", "-c", code], **options)  # type: ignore[arg-type]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def stopped_after(supervisor: Supervisor, condition: Callable[[], object]) -> Iterator[None]:
    """Stop a supervisor, which has to run in this thread, once a condition holds."""
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            until(condition)
        except BaseException as error:
            failures.append(error)
        supervisor.stop()

    waiting = threading.Thread(target=wait)
    waiting.start()
    yield
    waiting.join()
    assert not failures


def health(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "health.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def test_a_program_that_is_killed_is_started_again_and_counted(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"import os, time; open({str(pids)!r}, 'a').write(str(os.getpid()) + '\\n'); time.sleep(60)"
    supervisor = Supervisor(tmp_path / "state", [python("sleeper", code)])

    def killed_and_back() -> bool:
        lines = pids.read_text().split() if pids.is_file() else []
        if len(lines) == 1:
            os.kill(int(lines[0]), signal.SIGKILL)
            until(lambda: len(pids.read_text().split()) == 2)
        programs = health(tmp_path / "state").get("programs")
        return bool(programs) and programs["sleeper"]["restarts"] == 1 and programs["sleeper"]["running"]

    with stopped_after(supervisor, killed_and_back):
        supervisor.run()
    for pid in map(int, pids.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_a_program_leaves_behind_in_its_group_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, 1); time.sleep(60)'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    supervisor = Supervisor(tmp_path / "state", [python("parent", code)])
    with stopped_after(supervisor, lambda: child.is_file() and child.read_text()):
        supervisor.run()
    until(lambda: not Path(f"/proc/{child.read_text()}").exists() or "Z" in _state(int(child.read_text())))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_a_fatal_exit_code_is_told_with_its_remedy_and_stops_the_others(tmp_path: Path) -> None:
    fine = python("fine", "import time; time.sleep(60)")
    broken = python("broken", "import sys; sys.exit(7)", fatal={7: "bring another key"})
    with pytest.raises(GivenUpError, match="broken: bring another key"):
        Supervisor(tmp_path / "state", [fine, broken]).run()
    programs = health(tmp_path / "state")["programs"]
    assert not programs["fine"]["running"]
    assert programs["broken"]["last_exit"] == 7


def test_programs_start_in_order_each_when_the_one_before_is_ready(tmp_path: Path) -> None:
    flag, seen = tmp_path / "flag", tmp_path / "seen"
    slow = python("slow", f"import time; time.sleep(0.4); open({str(flag)!r}, 'w'); time.sleep(60)", ready=flag.exists)
    look = f"import os, time; open({str(seen)!r}, 'w').write(str(os.path.exists({str(flag)!r}))); time.sleep(60)"
    supervisor = Supervisor(tmp_path / "state", [slow, python("next", look)])
    with stopped_after(supervisor, lambda: seen.is_file() and seen.read_text()):
        supervisor.run()
    assert seen.read_text() == "True"


def test_output_becomes_lines_of_json_without_colours_and_noise(tmp_path: Path) -> None:
    said = ["\x1b[92mINFO \x1b[0m:      hello", "poll 200", "WARNING :   careful"]
    code = f"import time; print(*{said!r}, sep='\\n'); time.sleep(60)"
    log = tmp_path / "state/log/talker.jsonl"
    supervisor = Supervisor(tmp_path / "state", [python("talker", code, noise=r"poll \d+$")])
    with stopped_after(supervisor, lambda: log.is_file() and "careful" in log.read_text()):
        supervisor.run()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    noted = [(entry["level"], entry["message"]) for entry in entries if "process" not in entry["message"]]
    assert noted[:2] == [("INFO", "hello"), ("WARNING", "careful")]
    assert {entry["program"] for entry in entries} == {"talker"}


def test_two_supervisors_do_not_share_a_folder(tmp_path: Path) -> None:
    with claimed(tmp_path):
        assert running_pid(tmp_path) == os.getpid()
        with pytest.raises(ValueError, match=f"process {os.getpid()} runs here already; stop it first"):
            Supervisor(tmp_path, []).run()
    assert running_pid(tmp_path) is None


def test_a_killed_supervisor_holds_nothing_any_more(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from sim.deploy.supervisor import claimed\n"
        "with claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert running_pid(tmp_path) == other.pid
        other.kill()
    assert running_pid(tmp_path) is None
