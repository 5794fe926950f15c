"""The commands of ``softbeam deploy`` as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.placement import HOME_VARIABLE
from tests.sim.cli.test_main import softbeam


def test_what_init_writes_is_its_owners_alone(tmp_path: Path) -> None:
    done = softbeam("deploy", "init", str(tmp_path / "lab"), "--nodes", "gps:van-4", "lidar:pole-3")
    assert done.code == 0, done.err
    modes = {path: path.stat().st_mode & 0o077 for path in (tmp_path / "lab").rglob("*")}
    assert modes
    assert not any(modes.values())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--nodes", "gps:van-4", "--config", "nope"], "error: nope: no such config"),
        (["--nodes", "sonar:a"], "error: --nodes sonar:a: modality: must be"),
        (["--nodes", "gps:a", "gps:a"], "error: deploy init: nodes: every name must be used once"),
        (["--nodes", "gps:a", "--host", "x y"], "error: deploy init: host:"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(words: list[str], problem: str, tmp_path: Path) -> None:
    done = softbeam("deploy", "init", str(tmp_path / "lab"), *words)
    assert done.code == 1
    assert done.err.startswith(problem), done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "lab").exists()


def test_a_run_on_a_server_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    assert softbeam("deploy", "init", str(tmp_path / "lab"), "--nodes", "gps:van-4").code == 0
    done = softbeam("run", "quickstart", "--on", str(tmp_path / "lab"))
    assert done.code == 1
    assert "its server does not run on this machine" in done.err
    assert not (tmp_path / "lab/server/state/runs").exists()


def test_a_simulation_cannot_ask_for_real_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    done = softbeam("run", "quickstart", "--engine", "deployment", "--out", str(tmp_path / "runs"))
    assert done.code == 1
    assert "use softbeam run CONFIG --on DIR" in done.err
    assert list(tmp_path.iterdir()) == []
