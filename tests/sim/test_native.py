"""`flwr run .` on a clean copy of the checkout, against the same experiment in this process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from configs.loading import load_experiment
from configs.placement import HOME_VARIABLE
from sim.experiments import make_data, run_experiment
from sim.launch import offline_environment
from tests.conftest import CHECKOUT, tiny_values
from tests.federations import assert_same_outcome, quiet
from tests.ports import free_port

FLWR = Path(sys.executable).with_name("flwr")
TRACKED = ("configs", "strategies", "clients", "server", "sim", "tests", "pyproject.toml", "README.md")
FEDERATION = "num-supernodes=3 client-resources-num-cpus=1 init-args-num-cpus=2 init-args-log-to-driver=false"

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.ray,
    pytest.mark.skipif(not FLWR.is_file(), reason=f"no flwr beside {sys.executable}"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc to find Flower's daemons in"),
]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Variables for Flower's processes; those that outlive their command are ended."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    own = {
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        # `flwr run` starts the SuperLink by its name.
        "PATH": f"{FLWR.parent}{os.pathsep}{os.environ['PATH']}",
    }
    yield {**os.environ, **offline_environment(), "RAY_ADDRESS": "local", **own}
    end_processes(f"FLWR_HOME={own['FLWR_HOME']}")


def processes_with(variable: str) -> list[int]:
    """Ids of the processes whose environment holds ``NAME=value``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not ours
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def end_processes(variable: str) -> None:
    """End the SuperLink that `flwr run` leaves behind, and its children."""
    for last_word, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + patience_s
        while (left := processes_with(variable)) and time.monotonic() < deadline:
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, last_word)
            time.sleep(0.5)
    assert not processes_with(variable)


def flwr(*words: str, cwd: Path, environment: dict[str, str]) -> str:
    """What a command of Flower prints; it must succeed."""
    done = subprocess.run(
        [str(FLWR), *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_flwr_run_on_a_clean_copy_gives_the_same_bits_as_this_process(
    environment: dict[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "softbeam"  # Flower refuses the name of a folder with `_` in it
    copy.mkdir()
    for name in TRACKED:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, copy / name)
    config = tmp_path / "tiny.yaml"
    values = tiny_values()
    values["engine"]["workers"] = 1
    config.write_text(yaml.safe_dump(values))
    experiment = load_experiment(config)
    make_data(experiment, quiet)

    run_config = f"config='{config}'"
    flwr(
        *("run", ".", "--stream", "-c", run_config, "--federation-config", FEDERATION),
        cwd=copy,
        environment=environment,
    )

    listed = json.loads(flwr("ls", "--format", "json", cwd=copy, environment=environment))
    assert [run["status"] for run in listed["runs"]] == ["finished:completed"]
    (native,) = (tmp_path / "home" / "runs").iterdir()
    assert native.name == f"tiny-{listed['runs'][0]['run-id']}"
    inline = run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert_same_outcome(native, inline)
    one, other = (json.loads((run / "summary.json").read_text()) for run in (native, inline))
    for part in ("clients", "teacher", "break_even_samples", "rounds"):
        assert one[part] == other[part], part
