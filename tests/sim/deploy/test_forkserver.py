"""The fork server and its shim: a forked app cannot tell, a broken server is not missed, nothing is left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sim.deploy import fork_loop, shim
from sim.deploy.forkserver import PRELOADED, install_shim, shim_environment, start_forkserver, stop_forkserver

CHECKOUT = Path(__file__).resolve().parents[3]
ROOMS = {"configs", "strategies", "clients", "server", "sim"}
PROGRAM = "beam-app"
# Does what its first argument says; installed under the name of the program.
APP = """
import atexit, concurrent.futures, json, os, signal, sys, threading, time

def main():
    what, *rest = sys.argv[1:]
    if what == "tell":
        fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
        print(json.dumps({
            "pid": os.getpid(), "parent": os.getppid(), "argv": sys.argv, "folder": os.getcwd(), "fds": fds,
            "environment": dict(os.environ), "input": sys.stdin.read(), "modules": sorted(sys.modules),
            "int": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        }))
        print("a word on stderr", file=sys.stderr)
    elif what == "return":
        return int(rest[0])
    elif what == "raise":
        raise ValueError("as an app may")
    elif what == "tidy":
        atexit.register(print, "exit function")
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
        executor = concurrent.futures.ThreadPoolExecutor(1)
        executor.submit(print, "executor")
        sys.exit(rest[0] if rest[0] == "a reason" else int(rest[0]))
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "wait":
        def stop(number, frame):
            os.write(1, b"stopped by %d\\n" % number)
            sys.exit(7)
        signal.signal(int(rest[0]), stop)
        print(os.getpid(), flush=True)
        # A signal that comes between two lines does not end the sleep that follows.
        for _ in range(6000):
            time.sleep(0.01)
    elif what == "watch":
        def watch():
            while os.path.exists(rest[0]):
                time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)
        threading.Thread(target=watch, daemon=True).start()
        print(os.getpid(), flush=True)
        for _ in range(6000):
            time.sleep(0.01)
"""

# The shim as a busy machine runs it: the app has begun, and a signal comes before there is a handler for it.
SLOW_SHIM = """
import os, runpy, signal, sys, time
install = signal.signal

def install_late(number, handler):
    while not os.path.exists(sys.argv[-1]):
        time.sleep(0.01)
    if number == signal.SIGTERM:
        os.kill(os.getpid(), number)
    return install(number, handler)

signal.signal = install_late
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Place:
    """Where the tests' program is installed twice: as an entry point, and as a stock program that says it is cold."""

    site: Path
    stock: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**kept, "PYTHONPATH": str(self.site), "PATH": f"{self.stock}{os.pathsep}{os.environ['PATH']}"}

    @property
    def shim_environment(self) -> dict[str, str]:
        added = shim_environment(self.folder)
        own, _, rest = added["PATH"].partition(os.pathsep)
        return {**self.environment, **added, "PATH": os.pathsep.join([own, str(self.stock), rest])}

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        options = {"program": PROGRAM, "preloaded": ["json"], "environment": self.environment, **options}
        return start_forkserver(self.folder, **options)

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"env": self.shim_environment, "timeout": 30, "capture_output": True, **options}
        return subprocess.run([PROGRAM, *arguments], text=True, **options)

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        command = [str(self.folder / PROGRAM), *arguments]
        return subprocess.Popen(command, env=self.shim_environment, stdout=subprocess.PIPE, text=True)

    def set_version(self, version: str) -> None:
        (self.site / "beam_app-1.dist-info" / "METADATA").write_text(f"Name: beam-app\nVersion: {version}\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path / "site", tmp_path / "stock", tmp_path / "warm")
    (place.site / "beam_app-1.dist-info").mkdir(parents=True)
    place.set_version("1")
    (place.site / "beam_app-1.dist-info" / "entry_points.txt").write_text(
        f"[console_scripts]\n{PROGRAM} = beam_app:main"
    )
    (place.site / "beam_app.py").write_text(APP)
    place.stock.mkdir()
    (place.stock / PROGRAM).write_text('#!/bin/sh\necho "cold $@"\nexit 5\n')
    (place.stock / PROGRAM).chmod(0o755)
    return place


@pytest.fixture
def server(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    process = place.start()
    yield process
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
    stop_forkserver(process)


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, f"after 10 s not yet: {what}"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def assert_cold(result: subprocess.CompletedProcess[str], why: str) -> None:
    assert (result.returncode, result.stdout) == (5, "cold tell x y\n")
    assert f"{PROGRAM} starts cold: " in result.stderr
    assert why in result.stderr


def test_both_sides_speak_the_same_words() -> None:
    for name in ("SOCKET_NAME", "READY", "EXITED"):
        assert getattr(fork_loop, name) == getattr(shim, name)


def test_the_app_has_exactly_what_the_shim_was_started_with(
    place: Place, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    here = tmp_path / "a folder"
    here.mkdir()
    arguments = ["tell", "", "two words", "line\nbreak", "µ", "--token", "x"]
    environment = {**place.shim_environment, "BEAM": "a=b\nc", "EMPTY": "", "RAW": os.fsdecode(b"\xff")}
    result = place.run(*arguments, cwd=here, env=environment, input="soft labels")
    told = json.loads(result.stdout)
    assert told["argv"] == [str(place.folder / PROGRAM), *arguments]
    assert told["folder"] == str(here)
    assert {**told["environment"], "PWD": ""} == {**environment, "PWD": ""}
    assert (told["input"], result.stderr, result.returncode) == ("soft labels", "a word on stderr\n", 0)
    assert told["fds"] == [0, 1, 2]
    assert told["int"] and told["term"]
    assert told["parent"] == server.pid


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("return", "0"), 0), (("return", "3"), 3), (("raise",), 1), (("crash",), 128 + signal.SIGSEGV)],
)
def test_the_shim_ends_as_the_app_did(
    place: Place, server: subprocess.Popen[bytes], arguments: tuple[str, ...], code: int
) -> None:
    result = place.run(*arguments)
    assert result.returncode == code
    assert ("ValueError: as an app may" in result.stderr) == (arguments == ("raise",))
    assert place.run("return", "4").returncode == 4


@pytest.mark.parametrize(("end", "code"), [("0", 0), ("6", 6), ("300", 300 & 0xFF), ("a reason", 1)])
def test_an_app_ends_with_its_threads_and_exit_functions(
    place: Place, server: subprocess.Popen[bytes], end: str, code: int
) -> None:
    result = place.run("tidy", end)
    assert result.returncode == code
    assert sorted(result.stdout.splitlines()) == ["executor", "exit function", "thread"]
    assert result.stdout.endswith("exit function\n")
    assert result.stderr == ("a reason\n" if end == "a reason" else "")


def test_a_large_request_arrives(place: Place, server: subprocess.Popen[bytes]) -> None:
    arguments = ["tell", *(str(number) * 1000 for number in range(300))]
    environment = {**place.shim_environment, "LARGE": "x" * 100_000}
    told = json.loads(place.run(*arguments, env=environment, input="").stdout)
    assert told["argv"][1:] == arguments
    assert told["environment"]["LARGE"] == "x" * 100_000


@pytest.mark.parametrize("number", shim.PASSED_ON)
def test_a_signal_to_the_shim_reaches_the_app(place: Place, server: subprocess.Popen[bytes], number: int) -> None:
    with place.popen("wait", str(int(number))) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.stdout.readline() == f"stopped by {int(number)}\n"
        assert process.wait(10) == 7


def test_a_signal_that_comes_as_soon_as_the_app_runs_reaches_it(
    place: Place, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    has_begun = tmp_path / "begun"
    command = [sys.executable, "-c", SLOW_SHIM, str(place.folder / PROGRAM), "wait", "15", str(has_begun)]
    with subprocess.Popen(command, env=place.shim_environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        has_begun.touch()
        assert process.stdout.readline() == "stopped by 15\n"
        assert process.wait(10) == 7


def test_killing_the_shim_kills_the_app(place: Place, server: subprocess.Popen[bytes]) -> None:
    with place.popen("wait", "15") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the app is gone")
    assert place.run("return", "4").returncode == 4


def test_an_app_that_watches_something_from_a_thread_is_interrupted_by_it(
    place: Place, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    watched.touch()
    with place.popen("watch", str(watched)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        watched.unlink()
        # The way of Flower's --parent-pid. Python ends a program by the signal itself when nobody handles Ctrl-C.
        assert process.wait(10) == 128 + signal.SIGINT


def test_fifty_apps_one_after_the_other_and_eight_at_once_leave_neither_zombies_nor_descriptors(
    place: Place, server: subprocess.Popen[bytes]
) -> None:
    def num_descriptors() -> int:
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    place.run("return", "0")
    before = num_descriptors()
    for number in range(50):
        assert place.run("return", str(number)).returncode == number
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda number: place.run("return", str(number)).returncode, range(8)))
    assert codes == list(range(8))
    assert children_of(server.pid) == []
    # Those of the first may not have been closed yet when they were counted.
    wait_until(lambda: num_descriptors() <= before, "all descriptors are closed")


def test_apps_run_side_by_side(place: Place, server: subprocess.Popen[bytes]) -> None:
    processes = [place.popen("wait", "15") for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    assert len(children_of(server.pid)) == 8
    for process in processes:
        process.terminate()
    assert [process.wait(10) for process in processes] == [7] * 8
    for process in processes:
        process.communicate()


def test_without_a_server_the_stock_program_runs(place: Place) -> None:
    install_shim(place.folder, PROGRAM)
    assert_cold(place.run("tell", "x", "y"), "No such file")


def test_after_a_killed_server_the_stock_program_runs_and_a_new_server_takes_the_place(place: Place) -> None:
    with place.start() as process:
        process.kill()
    assert (place.folder / shim.SOCKET_NAME).exists()
    assert_cold(place.run("tell", "x", "y"), "Connection refused")
    process = place.start()
    assert place.run("return", "3").returncode == 3
    stop_forkserver(process)


def test_with_a_server_that_hangs_the_stock_program_runs_and_the_app_never_twice(
    place: Place, server: subprocess.Popen[bytes]
) -> None:
    server.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert_cold(place.run("tell", "x", "y"), "timed out")
    assert time.monotonic() - begin < shim.PATIENCE_S + 5
    server.send_signal(signal.SIGCONT)
    assert place.run("return", "3").returncode == 3
    assert children_of(server.pid) == []


@pytest.mark.parametrize("version", ["2", None])
def test_when_another_version_has_been_installed_the_stock_program_runs(
    place: Place, server: subprocess.Popen[bytes], version: str | None
) -> None:
    if version is None:
        (place.site / "beam_app-1.dist-info").rename(place.site / "gone")
    else:
        place.set_version(version)
    assert_cold(place.run("tell", "x", "y"), f"the fork server has beam-app 1, but {version or 'none'} is installed")
    assert server.poll() is None


def test_when_a_variable_differs_that_is_read_at_import_the_stock_program_runs(
    place: Place, server: subprocess.Popen[bytes]
) -> None:
    environment = {**place.shim_environment, "FLWR_TELEMETRY_ENABLED": "perhaps", "OMP_NUM_THREADS": "2"}
    result = place.run("tell", "x", "y", env=environment)
    assert_cold(result, "started with other values of FLWR_TELEMETRY_ENABLED, OMP_NUM_THREADS")


def test_without_streams_the_stock_program_runs(place: Place, server: subprocess.Popen[bytes]) -> None:
    script = f"exec {PROGRAM} tell x y <&-"
    result = subprocess.run(
        ["sh", "-c", script], env=place.shim_environment, capture_output=True, text=True, timeout=30
    )
    assert_cold(result, "Bad file descriptor")


def test_two_shims_on_one_path_do_not_call_one_another_for_ever(place: Place, tmp_path: Path) -> None:
    install_shim(place.folder, PROGRAM)
    install_shim(tmp_path / "second", PROGRAM)
    environment = place.shim_environment
    environment["PATH"] = f"{tmp_path / 'second'}{os.pathsep}{environment['PATH']}"
    result = place.run("tell", "x", "y", env=environment)
    assert_cold(result, "No such file")
    assert result.stderr.count("starts cold") == 2


def test_without_any_program_the_shim_says_so(place: Place) -> None:
    install_shim(place.folder, PROGRAM)
    (place.stock / PROGRAM).unlink()
    result = place.run("tell", "x", "y")
    assert result.returncode == 1
    assert f"no {PROGRAM} on PATH after {place.folder}" in result.stderr


def test_half_a_request_starts_nothing_and_harms_nobody(place: Place, server: subprocess.Popen[bytes]) -> None:
    address = str(place.folder / shim.SOCKET_NAME)
    for text in (b"", b"\0\0", b"\0\0\0\x09/tmp", b"\0\0\0\x05\0x\0y\0"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(address)
            assert client.recv(100) == shim.READY
            if text:
                socket.send_fds(client, [text], [0, 1, 2])
    assert place.run("return", "3").returncode == 3
    assert children_of(server.pid) == []


def test_folder_socket_and_shim_are_the_users_own(place: Place, server: subprocess.Popen[bytes]) -> None:
    socket_mode = (place.folder / shim.SOCKET_NAME).stat().st_mode
    assert stat.S_ISSOCK(socket_mode)
    modes = [path.stat().st_mode & 0o777 for path in (place.folder, place.folder / shim.SOCKET_NAME)]
    assert modes == [0o700, 0o600]
    assert (place.folder / PROGRAM).stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_when_the_folder_is_open(place: Place, server: subprocess.Popen[bytes]) -> None:
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(100))"
    command = [sys.executable, "-c", code, str(place.folder / shim.SOCKET_NAME)]
    command[0] = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else command[0]
    for path in (place.folder, *place.folder.parents[:4]):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    (place.folder / shim.SOCKET_NAME).chmod(0o666)
    result = subprocess.run(command, user=65534, cwd="/", capture_output=True, text=True, timeout=30)
    assert "user 65534 is not the user of the fork server" in result.stdout, result.stderr
    assert place.run("return", "3").returncode == 3


def test_a_server_told_to_end_removes_its_socket_and_lets_apps_finish(place: Place) -> None:
    process = place.start()
    with place.popen("wait", "15") as app:
        assert app.stdout is not None
        pid = int(app.stdout.readline())
        stop_forkserver(process)
        assert process.returncode == 0
        assert not (place.folder / shim.SOCKET_NAME).exists()
        assert app.wait(10) == 1
        os.kill(pid, signal.SIGTERM)
        assert app.stdout.readline() == "stopped by 15\n"


def test_a_server_that_hangs_is_stopped_all_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.deploy.forkserver.STOP_TIMEOUT_S", 0.2)
    process = place.start()
    process.send_signal(signal.SIGSTOP)
    stop_forkserver(process)
    assert process.returncode == -signal.SIGKILL


def test_a_server_ends_when_the_process_that_started_it_is_killed(place: Place) -> None:
    code = (
        "import os, sys; from pathlib import Path; from sim.deploy.forkserver import start_forkserver\n"
        f"server = start_forkserver(Path(sys.argv[1]), program={PROGRAM!r}, preloaded=())\n"
        "print(server.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    environment = {**place.environment, "PYTHONPATH": f"{place.site}{os.pathsep}{CHECKOUT}"}
    command = [sys.executable, "-c", code, str(place.folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    pid = int(result.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), "the server is gone")
    assert not (place.folder / shim.SOCKET_NAME).exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"program": "no-such-app"}, "no installed distribution has a program no-such-app"),
        ({"preloaded": ["threaded"]}, "run 2 threads"),
        ({"preloaded": ["broken"]}, "OSError: no such device"),
        ({"preloaded": ["dying"]}, "ended with code 9"),
    ],
)
def test_a_server_that_cannot_serve_says_why_and_leaves_nothing(
    place: Place, options: dict[str, Any], reason: str
) -> None:
    threaded = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    (place.site / "threaded.py").write_text(threaded)
    (place.site / "broken.py").write_text("raise OSError('no such device')")
    (place.site / "dying.py").write_text("import os; os._exit(9)")
    with pytest.raises(RuntimeError, match=reason):
        place.start(**options)
    assert not (place.folder / shim.SOCKET_NAME).exists()


def test_what_is_not_installed_is_not_preloaded(place: Place) -> None:
    process = place.start(preloaded=["no_such_package", "decimal"])
    told = json.loads(place.run("tell", input="").stdout)
    stop_forkserver(process)
    assert "decimal" in told["modules"]


def test_a_server_with_flower_and_torch_has_one_thread_and_nothing_of_ours(place: Place) -> None:
    process = place.start(preloaded=["flwr.supernode.cli", *PRELOADED])
    told = json.loads(place.run("tell", input="").stdout)
    num_threads = len(os.listdir(f"/proc/{process.pid}/task"))
    stop_forkserver(process)
    packages = {name.partition(".")[0] for name in told["modules"]}
    assert {"flwr", "torch", "scipy"} <= packages
    assert not ROOMS & packages
    assert num_threads == 1


def test_the_real_program_is_found_and_prints_its_help(tmp_path: Path) -> None:
    process = start_forkserver(tmp_path, preloaded=())
    environment = {**os.environ, **shim_environment(tmp_path)}
    warm = subprocess.run(["flwr-clientapp", "--help"], env=environment, capture_output=True, text=True, timeout=60)
    children = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    stop_forkserver(process)
    assert (warm.returncode, warm.stderr) == (0, "")
    assert "--runtime-api-address" in warm.stdout
    assert int(children[7]) > 0, "no page fault of a forked child: the stock program ran"


@pytest.mark.deployment
def test_the_real_program_ends_with_the_process_that_it_watches(tmp_path: Path) -> None:
    process = start_forkserver(tmp_path, preloaded=())
    with subprocess.Popen(["sleep", "300"]) as superexec:
        # Nobody listens there, so Flower tries again and again.
        arguments = ["--insecure", "--runtime-api-address", "127.0.0.1:1", "--token", "x"]
        command = [str(tmp_path / "flwr-clientapp"), *arguments, "--parent-pid", str(superexec.pid)]
        environment = {**os.environ, **shim_environment(tmp_path)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as app:
            wait_until(lambda: children_of(process.pid) != [], "the app is forked")
            time.sleep(1.0)
            assert app.poll() is None
            superexec.kill()
            superexec.wait()
            assert app.wait(30) == 0, "Flower calls this end a graceful one"
    assert children_of(process.pid) == []
    stop_forkserver(process)


def test_a_process_with_a_thousand_open_files_starts_a_server_too(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2048)), hard))
    held = []
    try:
        while not held or held[-1] < 1100:
            held.append(os.open(os.devnull, os.O_RDONLY))
        process = start_forkserver(tmp_path / "server", preloaded=())
        stop_forkserver(process)
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
