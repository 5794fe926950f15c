"""The commands of ``softbeam deploy`` as a user types them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT


def softbeam(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim.cli.main", *words]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)


def test_what_init_writes_is_its_owners_alone(tmp_path: Path) -> None:
    done = softbeam("deploy", "init", str(tmp_path / "lab"), "--nodes", "gps:van-4", "lidar:pole-3")
    assert done.returncode == 0, done.stderr
    modes = {path: path.stat().st_mode & 0o077 for path in (tmp_path / "lab").rglob("*")}
    assert modes
    assert not any(modes.values())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--nodes", "gps:van-4", "--config", "nope"], "error: nope: no such config"),
        (["--nodes", "sonar:a"], "error: --nodes sonar:a: modality: must be"),
        (["--nodes", "gps:a", "gps:a"], "error: deploy init: nodes: every name once"),
        (["--nodes", "gps:a", "--host", "x y"], "error: deploy init: host:"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(words: list[str], problem: str, tmp_path: Path) -> None:
    done = softbeam("deploy", "init", str(tmp_path / "lab"), *words)
    assert done.returncode == 1
    assert done.stderr.startswith(problem), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "lab").exists()


def test_a_run_on_a_server_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    assert softbeam("deploy", "init", str(tmp_path / "lab"), "--nodes", "gps:van-4").returncode == 0
    done = softbeam("run", "quickstart", "--on", str(tmp_path / "lab"))
    assert done.returncode == 1
    assert "its server does not run on this machine; softbeam deploy server" in done.stderr
    assert not (tmp_path / "lab/server/state/runs").exists()


def test_a_simulation_cannot_ask_for_real_machines(tmp_path: Path) -> None:
    done = softbeam("run", "quickstart", "--engine", "deployment", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "use softbeam run CONFIG --on DIR" in done.stderr
