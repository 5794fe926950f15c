"""Who is in a session, who listens on a port, and that what is left of a session ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.deploy.processes import Holder, command_of, end_session, holders, leader_works, listens, members

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")

# Three processes of one session, of which the first ends at once.
FAMILY = (
    "import os, signal, time\n"
    "if os.fork():\n    time.sleep(0.2); os._exit(0)\n"
    "if os.fork() == 0:\n    os.setpgid(0, 0); signal.signal(15, signal.SIG_IGN)\n"
    "time.sleep(60)"
)


def test_what_a_leader_left_in_its_session_is_found_and_ended_also_in_another_group() -> None:
    process = subprocess.Popen([sys.executable, "-c", FAMILY], start_new_session=True)
    process.wait()
    end = time.monotonic() + 10.0
    while len(members(process.pid)) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.2)  # The second takes a moment to leave its group.
    assert len(end_session(process.pid, grace_s=0.3)) == 2
    assert members(process.pid) == []
    assert end_session(process.pid, grace_s=0.3) == []


@pytest.mark.parametrize("has_proc", [True, False], ids=["with /proc", "without /proc"])
def test_a_leader_works_until_it_ends_also_where_the_system_says_nothing_of_sessions(
    has_proc: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_proc:
        monkeypatch.setattr("sim.deploy.processes._PROC", tmp_path / "proc")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        assert leader_works(process.pid)
        process.kill()
    assert not leader_works(process.pid)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_the_holder_of_a_port_is_found_only_while_it_listens(family: socket.AddressFamily) -> None:
    one = socket.socket(family)
    try:
        one.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    except OSError:
        pytest.skip("there is no such address here")
    with one:
        port = one.getsockname()[1]
        assert holders(port) == []
        one.listen()
        (holder,) = holders(port)
        assert (holder.pid, holder.session) == (os.getpid(), os.getsid(0))
        assert str(holder).endswith(f"(process {os.getpid()})")
        assert listens(os.getsid(0), port)
        assert not listens(os.getsid(0) + 1, port)
    assert holders(port) == []


def test_a_process_says_its_command_and_one_that_is_gone_does_not() -> None:
    assert "python" in command_of(os.getpid()) or "pytest" in command_of(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert command_of(process.pid) == "a process that has ended"
    assert str(Holder(None, None, "a process of another user")) == "a process of another user"
