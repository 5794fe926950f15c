"""Ctrl-C and SIGTERM in every phase: one line that says how to go on, the exit code of the signal, nobody left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from configs.loading import load_experiment
from configs.placement import HOME_VARIABLE
from configs.signals import ask_to_end
from sim.cli.interruption import WayOn
from sim.experiments import run_experiment
from tests.conftest import CHECKOUT, tiny_values
from tests.federations import quiet

CODES = {signal.SIGINT: ("Ctrl-C", 130), signal.SIGTERM: ("SIGTERM", 143), signal.SIGHUP: ("SIGHUP", 129)}


@pytest.fixture
def long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A YAML whose phases each take longer than a test waits, in a home without data."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    values = {**tiny_values(rounds=1000), "controls": False}
    values["engine"]["workers"] = 2
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "long.yaml"


def require_heard(number: int) -> None:
    """Skip the test where a signal is ignored, as under nohup, and so by every program that is started here."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{signal.Signals(number).name} is ignored here")


def interrupted(
    words: list[str], number: int, *, after: str | Callable[[], bool], group: bool = False
) -> tuple[int, list[str]]:
    """Send a signal after a text has come or something is true; the exit code, and the lines that come after it."""
    require_heard(number)
    command = [sys.executable, "-m", "sim.cli.main", *words]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        if isinstance(after, str):
            for line in process.stderr:
                lines.append(line.rstrip("\n"))
                if after in line:
                    break
            assert lines and after in lines[-1], lines
        else:
            while process.poll() is None and not after():
                time.sleep(0.02)
        (os.killpg if group else os.kill)(process.pid, number)
        killer = threading.Timer(60, process.kill)
        killer.start()
        left = process.stderr.read().splitlines()
        code = process.wait()
        killer.cancel()
    assert not alive_in_session(process.pid)
    return code, left


def alive_in_session(session: int) -> list[str]:
    """The processes of a session that still work, a moment after it ended."""
    for _ in range(50):
        if not (found := alive_now(session)):
            break
        time.sleep(0.1)
    return found


def alive_now(session: int) -> list[str]:
    """The processes of a session that work now."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, owner = stat.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(owner) == session and state != "Z":
            found.append(stat.parent.name)
    return found


EARLY = """
import os, sys
import softbeam

class Watcher:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), int(sys.argv.pop()))

sys.meta_path.insert(0, Watcher())
softbeam.main()
"""


HELD_UP = """
import atexit, os, threading
import sim.cli.interruption
from sim.cli.interruption import interruptible

sim.cli.interruption.TIDYING_S = 0.5
atexit.register(threading.Event().wait)
with interruptible() as interrupts:
    try:
        os.kill(os.getpid(), 15)
    except KeyboardInterrupt:
        interrupts.end()
"""


def test_a_library_that_waits_at_the_end_for_what_a_signal_ended_holds_nothing_up() -> None:
    done = subprocess.run([sys.executable, "-c", HELD_UP], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143
    assert "stopped by SIGTERM; go on with " in done.stderr


@pytest.mark.parametrize("is_asked", [False, True])
def test_what_a_signal_breaks_is_no_error_that_takes_the_run_folder_away(
    is_asked: bool, long_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        ask_to_end(is_asked)
        raise RuntimeError("the workers of a pool were ended")

    monkeypatch.setattr("sim.experiments.make_data", broken)
    runs = long_run.parent / "runs"
    try:
        with pytest.raises(RuntimeError, match="workers"):
            run_experiment(load_experiment(long_run), plugins=(), out=runs, progress=quiet)
    finally:
        ask_to_end(False)
    assert runs.exists() == is_asked


@pytest.mark.parametrize("number", CODES)
def test_a_signal_before_the_command_line_is_imported_is_one_line(number: signal.Signals) -> None:
    cause, expected = CODES[number]
    require_heard(number)
    words = [sys.executable, "-c", EARLY, "data", "list", str(int(number))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (expected, "")
    assert done.stderr == f"stopped by {cause}; go on with softbeam data list\n"


@pytest.mark.parametrize(
    ("number", "after"),
    [
        (signal.SIGINT, "run folder: "),
        (signal.SIGTERM, "tiny, seed 3: teacher"),
        (signal.SIGINT, "federation: round 2 of 1000"),
        (signal.SIGHUP, "federation: round 2 of 1000"),
    ],
)
def test_a_signal_in_any_phase_of_a_run_is_one_line_that_says_how_to_go_on(
    number: signal.Signals, after: str, long_run: Path
) -> None:
    cause, expected = CODES[number]
    code, lines = interrupted(["run", str(long_run)], number, after=after, group=number is signal.SIGINT)
    (folder,) = (long_run.parent / "runs").iterdir()
    assert code == expected
    assert lines[-1] == f"{folder}: stopped by {cause}; go on with softbeam resume {folder}"
    # Lines of progress may still have been on their way.
    assert all(line.startswith("tiny, seed 3: ") for line in lines[:-1]), lines
    if "federation" in after:
        assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert (folder / "experiment.yaml").is_file() and (folder / "placement.json").is_file()
    assert not list(folder.rglob("*.tmp")) and not list((long_run.parent / "home").rglob(".tiny*[0-9]"))


@pytest.mark.ray
@pytest.mark.usefixtures("running_ray")
def test_a_signal_to_a_run_on_ray_brings_no_stack_of_ray_or_flower(long_run: Path) -> None:
    words = ["run", str(long_run), "--engine", "ray"]
    code, lines = interrupted(words, signal.SIGTERM, after="federation: round 2 of 1000")
    (folder,) = (long_run.parent / "runs").iterdir()
    assert code == 143
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert lines[-1] == f"{folder}: stopped by SIGTERM; go on with softbeam resume {folder}"
    assert all(line.startswith("tiny, seed 3: ") for line in lines[:-1]), lines


def test_several_runs_go_on_with_the_same_command(long_run: Path) -> None:
    words = ["run", str(long_run), "--seeds", "3,4"]
    code, lines = interrupted(words, signal.SIGTERM, after="run folder: ")
    (folder,) = (long_run.parent / "runs").iterdir()
    assert code == 143
    assert lines[-1].startswith(f"{folder}: stopped by SIGTERM; go on with ")
    assert lines[-1].endswith(f"run {long_run} --seeds 3,4 --continue")


def test_data_that_is_stopped_is_made_by_the_same_command_and_leaves_nothing_half_made(long_run: Path) -> None:
    words = ["data", "make", str(long_run), "--set", "data.passes.client=2000"]
    data = long_run.parent / "home" / "data"
    code, lines = interrupted(words, signal.SIGINT, after=lambda: any(data.glob(".tiny-*.[0-9]*")), group=True)
    assert code == 130
    assert lines == lines[-1:] and lines[-1].startswith(str(data / "tiny-"))
    assert lines[-1].endswith(f": stopped by Ctrl-C; go on with softbeam data make {long_run} {' '.join(words[3:])}")
    assert [path for path in data.iterdir() if path.is_dir()] == []


def test_workers_end_with_a_command_that_is_killed(long_run: Path) -> None:
    words = ["data", "make", str(long_run), "--set", "data.passes.client=2000"]
    data = long_run.parent / "home" / "data"
    command = [sys.executable, "-m", "sim.cli.main", *words]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while process.poll() is None and len(alive_now(process.pid)) < 3:  # itself, and two workers or their tracker
            time.sleep(0.02)
        time.sleep(1.0)
        process.kill()
    assert any(data.glob(".tiny-*"))
    assert not alive_in_session(process.pid)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    script = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from sim.cli.interruption import interruptible\n"
        "with interruptible():\n"
        "    signal.raise_signal(signal.SIGHUP); print('goes on')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"


def test_the_line_quotes_what_a_shell_would_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["softbeam", "data", "make", "my street.yaml"])
    way = WayOn()
    assert way.line(signal.SIGINT) == "stopped by Ctrl-C; go on with softbeam data make 'my street.yaml'"
    way.place, way.note = Path("/data/x"), "nothing is lost"
    assert way.line(signal.SIGTERM).startswith("/data/x: stopped by SIGTERM; nothing is lost; go on with softbeam ")
