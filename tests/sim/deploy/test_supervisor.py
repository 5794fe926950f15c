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

from sim.deploy import programs, supervisor
from sim.deploy.processes import holders, members
from sim.deploy.programs import GivenUpError, Program
from sim.deploy.supervisor import Supervisor, claimed, keep_private, running_pid
from tests.conftest import CHECKOUT
from tests.ports import free_ports

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(supervisor, "LOOK_S", 0.02)
    monkeypatch.setattr(supervisor, "HEALTH_S", 0.05)


def python(name: str, code: str, **options: object) -> Program:
    return Program(name, [sys.executable, "-u", "-c", code], **options)  # type: ignore[arg-type]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def stopped_after(keeper: Supervisor, condition: Callable[[], object]) -> Iterator[None]:
    """Stop a supervisor, which has to run in this thread, once a condition holds."""
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            until(condition)
        except BaseException as error:
            failures.append(error)
        keeper.stop()

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
    keeper = Supervisor(tmp_path / "state", [python("sleeper", code)])

    def killed_and_back() -> bool:
        lines = pids.read_text().split() if pids.is_file() else []
        if len(lines) == 1:
            os.kill(int(lines[0]), signal.SIGKILL)
            until(lambda: len(pids.read_text().split()) == 2)
        programs = health(tmp_path / "state").get("programs")
        return bool(programs) and programs["sleeper"]["restarts"] == 1 and programs["sleeper"]["running"]

    with stopped_after(keeper, killed_and_back):
        keeper.run()
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
    keeper = Supervisor(tmp_path / "state", [python("parent", code)])
    with stopped_after(keeper, lambda: child.is_file() and child.read_text()):
        keeper.run()
    until(lambda: not Path(f"/proc/{child.read_text()}").exists() or "Z" in _state(int(child.read_text())))


LISTENER = (
    "import os, socket, sys, time\n"
    "one = socket.socket(); one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
    "one.bind(('127.0.0.1', int(sys.argv[1]))); one.listen()\n"
)
# As nginx: a worker has the port, too, and outlives its master.
MASTER = LISTENER + "os.fork() or (__import__('signal').signal(15, 1) if len(sys.argv) > 2 else 0)\ntime.sleep(60)"


@pytest.mark.parametrize("stubborn", [False, True], ids=["worker that obeys", "worker that does not"])
def test_a_master_that_is_killed_comes_back_although_its_worker_has_the_port(
    tmp_path: Path, stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "GRACE_S", 0.3)
    (port,) = free_ports(1)
    command = [sys.executable, "-u", "-c", MASTER, str(port), *(["stubborn"] if stubborn else [])]
    keeper = Supervisor(tmp_path / "state", [Program("master", command, port=port)])
    killed: list[int] = []

    def is_back() -> bool:
        found = health(tmp_path / "state")
        entry = found.get("programs", {}).get("master", {})
        if not killed and found.get("ready"):
            killed.append(entry["pid"])
            os.kill(entry["pid"], signal.SIGKILL)
        return bool(killed) and entry["restarts"] == 1 and found["ready"] and entry["pid"] != killed[0]

    with stopped_after(keeper, is_back):
        keeper.run()
    entry = health(tmp_path / "state")["programs"]["master"]
    assert entry["last_error"] == "ended with code -9"
    assert not members(killed[0])
    assert not holders(port)


def test_a_port_that_somebody_else_holds_is_no_readiness_and_its_holder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "READY_S", 1.5)
    (port,) = free_ports(1)
    with subprocess.Popen([sys.executable, "-c", LISTENER + "time.sleep(60)", str(port)]) as stranger:
        try:
            until(lambda: holders(port))
            program = Program("late", [sys.executable, "-c", LISTENER, str(port)], port=port)
            expected = rf"late: not ready within 1.5 s; (port {port} is held by .*process {stranger.pid}\)|ended with)"
            with pytest.raises(GivenUpError, match=expected):
                Supervisor(tmp_path / "state", [program]).run()
            log = (tmp_path / "state/log/late.jsonl").read_text()
        finally:
            stranger.kill()
    entry = health(tmp_path / "state")["programs"]["late"]
    assert "Address already in use" in entry["last_error"]
    assert f"port {port} is held by" in log and f"(process {stranger.pid})" in log


def test_a_program_that_loses_its_port_while_it_runs_is_not_ready_any_more(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    flag = tmp_path / "flag"
    code = f"{LISTENER}while not os.path.exists({str(flag)!r}): time.sleep(0.02)\none.close(); time.sleep(60)"
    keeper = Supervisor(tmp_path / "state", [Program("closer", [sys.executable, "-c", code, str(port)], port=port)])

    def seen() -> bool:
        found = health(tmp_path / "state")
        if found.get("ready"):
            flag.touch()
        trouble = found.get("programs", {}).get("closer", {}).get("trouble", "")
        return flag.exists() and not found["ready"] and trouble == f"it does not listen on port {port}"

    with stopped_after(keeper, seen):
        keeper.run()


def test_what_a_program_started_goes_on_where_its_work_would_be_lost_and_ends_with_the_supervisor(
    tmp_path: Path,
) -> None:
    child = tmp_path / "child"
    code = (
        "import os, subprocess, sys, time\n"
        f"if not os.path.exists({str(child)!r}):\n"
        "    p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"    open({str(child)!r}, 'w').write(str(p.pid))\n"
        "    time.sleep(0.2); os._exit(3)\n"
        "time.sleep(60)"
    )
    keeper = Supervisor(tmp_path / "state", [python("parent", code, children_go_on=True)])
    alive: list[str] = []

    def restarted() -> bool:
        entry = health(tmp_path / "state").get("programs", {}).get("parent", {})
        if entry.get("restarts") and entry["running"]:
            alive.append(_state(int(child.read_text())))
        return bool(alive)

    with stopped_after(keeper, restarted):
        keeper.run()
    assert alive[0] in "SR"
    assert _state(int(child.read_text())) == "Z"


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
    keeper = Supervisor(tmp_path / "state", [slow, python("next", look)])
    with stopped_after(keeper, lambda: seen.is_file() and seen.read_text()):
        keeper.run()
    assert seen.read_text() == "True"


def test_output_becomes_lines_of_json_without_colours_and_noise(tmp_path: Path) -> None:
    said = ["\x1b[92mINFO \x1b[0m:      hello", "poll 200", "WARNING :   careful"]
    code = f"import time; print(*{said!r}, sep='\\n'); time.sleep(60)"
    log = tmp_path / "state/log/talker.jsonl"
    keeper = Supervisor(tmp_path / "state", [python("talker", code, noise=r"poll \d+$")])
    with stopped_after(keeper, lambda: log.is_file() and "careful" in log.read_text()):
        keeper.run()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    noted = [(entry["level"], entry["message"]) for entry in entries if "process" not in entry["message"]]
    assert noted[:2] == [("INFO", "hello"), ("WARNING", "careful")]
    assert {entry["program"] for entry in entries} == {"talker"}


def test_what_a_terminal_would_obey_in_a_program_s_output_is_shown_as_what_it_is(tmp_path: Path) -> None:
    said = "from a stranger: \x1b]0;title\x07\x9b2J\u202e\u200b"
    write = f"sys.stdout.buffer.write({said!r}.encode() + b'\\xff\\n'); sys.stdout.flush()"
    code = f"import sys, time; {write}; time.sleep(60)"
    log, echoed = tmp_path / "state/log/talker.jsonl", list[str]()
    keeper = Supervisor(tmp_path / "state", [python("talker", code)], echo=lambda name, line: echoed.append(line))
    with stopped_after(keeper, lambda: log.is_file() and "stranger" in log.read_text()):
        keeper.run()
    assert any("\\x1b]0;title\\x07\\x9b2J\\u202e\\u200b" in line for line in echoed)
    assert all(line.isprintable() for line in echoed)
    assert all(json.loads(line)["message"].isprintable() for line in log.read_text().splitlines())


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


def test_a_disk_that_takes_no_health_costs_the_programs_nothing_and_is_told_once(tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    code = f"import time\nwhile True: open({str(ticks)!r}, 'a').write('x'); time.sleep(0.02)"
    said: list[tuple[str, str]] = []
    keeper = Supervisor(tmp_path / "state", [python("ticker", code)], echo=lambda name, line: said.append((name, line)))
    # A folder where the health file should be: it cannot be written.
    (tmp_path / "state/health.json").mkdir()
    with stopped_after(keeper, lambda: ticks.is_file() and len(ticks.read_text()) > 20):
        keeper.run()
    assert [line for name, line in said if name == "ticker" and "ended" in line] == []
    assert len([line for name, line in said if name == "health" and "the programs go on" in line]) == 1


def test_a_log_that_cannot_be_written_does_not_hold_its_program_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = tmp_path / "done"
    # More than a pipe holds: it halts unless someone goes on reading.
    code = f"import time; [print('y' * 99) for _ in range(3000)]; open({str(done)!r}, 'w'); time.sleep(60)"

    def echo(name: str, line: str) -> None:
        raise OSError(28, "No space left on device")

    keeper = Supervisor(tmp_path / "state", [python("talker", code)], echo=echo)
    (tmp_path / "state/log/talker.jsonl").symlink_to("/dev/full")
    with stopped_after(keeper, done.exists):
        keeper.run()
    assert capfd.readouterr().err == ""


def test_a_program_that_is_not_ready_in_time_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "READY_S", 0.2)

    def is_ready() -> bool:
        raise RuntimeError("flwr supernode: no answer")

    for ready, reason in ((is_ready, "flwr supernode: no answer"), (lambda: False, "see .*log/slow.jsonl")):
        slow = python("slow", "import time; time.sleep(60)", ready=ready)
        with pytest.raises(GivenUpError, match=f"slow: not ready within 0.2 s; {reason}"):
            Supervisor(tmp_path / "state", [slow]).run()
        assert not health(tmp_path / "state")["programs"]["slow"]["running"]


def test_a_stumble_on_the_way_to_readiness_is_asked_again(tmp_path: Path) -> None:
    answers = iter([RuntimeError("not now"), False, RuntimeError("nor now"), True])

    def is_ready() -> bool:
        answer = next(answers)
        if isinstance(answer, RuntimeError):
            raise answer
        return bool(answer)

    started = threading.Event()
    keeper = Supervisor(tmp_path / "state", [python("slow", "import time; time.sleep(60)", ready=is_ready)])
    with stopped_after(keeper, started.is_set):
        keeper.run(started=started.set)
    assert next(answers, None) is None


def test_health_is_written_from_the_start_and_says_when_all_are_ready(tmp_path: Path) -> None:
    flag, seen = tmp_path / "flag", []

    def both_seen() -> bool:
        if "ready" in (found := health(tmp_path / "state")):
            seen.append(found["ready"])
            flag.touch()
        return True in seen

    keeper = Supervisor(tmp_path / "state", [python("slow", "import time; time.sleep(60)", ready=flag.exists)])
    with stopped_after(keeper, both_seen):
        keeper.run()
    assert seen[0] is False
    assert health(tmp_path / "state")["ready"] is False


def test_what_is_written_is_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Supervisor(tmp_path / "site/state", [])
        keep_private()
        (tmp_path / "written").touch()
    finally:
        os.umask(before)
    assert {
        (tmp_path / name).stat().st_mode & 0o077 for name in ("site", "site/state", "site/state/log", "written")
    } == {0}
