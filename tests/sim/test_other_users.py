"""A user who is not root, keeps files private, has no home and may not write into the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from tests.conftest import CHECKOUT, tiny_values

NOBODY = 65534


def as_nobody(words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """A command as user and group nobody, whose new files nobody else may read."""
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=300, user=NOBODY, group=NOBODY, extra_groups=[],
        umask=0o077, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def python() -> list[str]:
    """An interpreter of this version that nobody may start, with the packages of this one."""
    if os.geteuid() != 0:
        pytest.skip("only root may start a program as another user")
    packages = str(Path(numpy.__file__).parents[1])
    names = [sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"]
    for name in names:
        code = f"import sys; sys.path[:0] = [{packages!r}, {str(CHECKOUT)!r}]; from sim.cli.main import main; main()"
        if os.path.exists(name):
            try:
                if as_nobody([name, "-B", "-c", code, "strategies"], cwd="/").returncode == 0:
                    return [name, "-B", "-c", code]
            except PermissionError:
                continue
    pytest.skip(f"nobody may start neither of {', '.join(names)} with {packages} and {CHECKOUT}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of nobody's; pytest's own lie where only root may look."""
    path = Path(tempfile.mkdtemp(prefix="softbeam-nobody-", dir="/tmp"))
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def test_a_user_without_a_home_is_told_which_variable_names_another(python: list[str], folder: Path) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_values()))
    done = as_nobody([*python, "data", "make", "tiny.yaml"], cwd=folder, env={"HOME": "/nonexistent"})
    wanted = "error: SOFTBEAM_HOME: /nonexistent/.cache/softbeam cannot be written to; set the variable to a folder"
    assert done.returncode == 1
    assert wanted in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray])])
def test_a_user_without_rights_or_home_runs_an_experiment(engine: str, python: list[str], folder: Path) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**tiny_values(rounds=1), "controls": False}))
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    environment["SOFTBEAM_HOME"] = str(folder / "cache")
    if engine == "ray":
        del environment["TMPDIR"]  # its sockets need short paths
        environment["PYTHONPATH"] = f"{CHECKOUT}:{Path(numpy.__file__).parents[1]}"
    words = [*python, "run", "tiny.yaml", "--engine", engine, "--out", "runs", "--json"]
    done = as_nobody(words, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["clients"]) == 3
    (run,) = (path for path in (folder / "runs").iterdir() if path.is_dir())
    assert (run / "report.html").is_file()
    mine = [path for path in (folder / "runs").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in mine} == {0o600}
    assert {path.stat().st_uid for path in mine} == {NOBODY}
