"""The Pythons that are allowed but not those of CI, with the newest of everything: no constraints file pins a thing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

PYTHONS = ("3.12", "3.13")
# Both engines, the command line, every strategy's laws, and whatever else is quick.
TESTS = (
    "tests/configs",
    "tests/strategies",
    "tests/server",
    "tests/sim/test_launch.py",
    "tests/sim/test_experiments.py",
)
TIMEOUT_S = 3600.0


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_a_checkout_installs_and_runs_without_constraints(python: str, tmp_path: Path) -> None:
    found = shutil.which(f"python{python}")
    if found is None or subprocess.run([found, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"python{python} is not installed")
    if sys.version_info[:2] == tuple(map(int, python.split("."))):
        pytest.skip(f"all other tests run with Python {python}")
    subprocess.run([found, "-m", "venv", tmp_path / "venv"], check=True)
    own = tmp_path / "venv" / "bin" / "python"
    words = [
        own,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "--timeout",
        "60",
        "--editable",
        f"{CHECKOUT}[dev]",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if "from versions: none" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr[-3000:]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [own, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow and not deployment and not browser", *TESTS]
    done = subprocess.run(
        words, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
