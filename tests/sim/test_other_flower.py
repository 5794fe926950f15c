"""The Flower that is allowed but not pinned: what depends on its insides runs with it, too."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

FLOWERS = ("1.41.0", "1.42.0")
# Both engines, `flwr run .`, real processes.
TESTS = (
    "tests/sim/test_launch.py",
    "tests/sim/test_experiments.py::test_ray_gives_the_same_bits_as_this_process",
    "tests/sim/test_native.py",
    "tests/sim/deploy/test_deployment.py::test_three_rounds_on_real_processes_equal_the_simulation_to_the_bit",
)
TIMEOUT_S = 1800.0


def install(flower: str, folder: Path) -> None:
    """Put one Flower into a folder; all that it needs is installed already.

    What else releases pin otherwise, certifi and uv, is for the network, which no test uses.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--retries", "1", "--timeout", "15", "--target", str(folder), f"flwr=={flower}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "from versions: none" in done.stderr or "No module named pip" in done.stderr:
        pytest.skip(f"flwr {flower} cannot be installed here: no package index can be reached, or there is no pip")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("flower", FLOWERS)
def test_federations_run_with_every_flower_that_is_allowed(flower: str, tmp_path: Path) -> None:
    if version("flwr") == flower:
        pytest.skip(f"flwr {flower} is the one that all other tests run with")
    install(flower, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = "import flwr, importlib.metadata; print(importlib.metadata.version('flwr'), flwr.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [flower, str(tmp_path / "flwr" / "__init__.py")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", *TESTS]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
