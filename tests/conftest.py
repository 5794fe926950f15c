"""A federation small enough to run in a second: two GPS nodes and a LiDAR node on a few passes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from clients.data.modalities import MODALITIES, SHIPPED
from clients.models.own_sensors import known_sensors
from configs.home import CACHE_VARIABLE, HOME_VARIABLE
from configs.loading import build_experiment
from configs.schema import Experiment
from sim.cli.command_tree import run_command
from sim.report.evidence import Evidence, gather_evidence
from sim.report.figures import draw_all
from sim.report.gains import read_passes

CHECKOUT = Path(__file__).resolve().parents[1]
FOREIGN = ("nginx", "ip", "tc", "faketime", "git", "systemd-analyze")
"""Programs that pip does not bring: only tests of deployments may start them."""

LONG = (
    *("sim/study/test_run.py", "sim/sweep/test_search.py", "sim/test_live_clients.py", "sim/test_strategy_laws.py"),
    *("sim/test_field.py", "test_readme.py", "test_sensor_tutorial.py", "test_task_tutorial.py"),
    *("sim/take_home/test_device_cost.py", "sim/test_guarded_federations.py"),
)
"""Files, below tests/, that take longest after those of Ray."""

RAY = """
import ray, sys
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def tiny_values(**strategy: Any) -> dict[str, Any]:
    """The values of a tiny experiment; keywords go to its strategy section."""
    small = {"width": 2, "features": 8, "hidden": 8}
    return {
        "name": "tiny",
        "seed": 3,
        "data": {
            "source": "street",
            "passes": {"server": 2, "public": 2, "test": 1, "client": 3, "client_test": 1, "validation_share": 0.3},
            "nodes": [{"modality": "gps", "count": 2}, {"modality": "lidar", "count": 1}],
        },
        "students": {"gps": small, "lidar": small},
        "teacher": small,
        "training": {"first_round_steps": 4, "steps_per_round": 3, "batch_size": 8},
        "teaching": {"pretrain_steps": 8, "first_round_steps": 3, "steps_per_round": 3, "batch_size": 8},
        "strategy": {"rounds": 3, "public_samples": 24, "round_timeout_s": 120, **strategy},
        "engine": {"name": "inline"},
    }


def tiny_experiment(**strategy: Any) -> Experiment:
    """A tiny experiment; keywords go to its strategy section."""
    return build_experiment(tiny_values(**strategy), origin="test")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of generated data for the whole session: equal data is made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session", autouse=True)
def _the_users_own_cache_is_out_of_reach(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Also for tests that unset `HOME_VARIABLE`, and for fixtures of modules, which run before those of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _data_stays_out_of_the_checkout(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(home))


def path_without_foreign(path: str, scratch: Path) -> str:
    """A PATH without the foreign programs: a folder that holds any is replaced by links to all else in it.

    Args:
        path: the folders of the PATH.
        scratch: an empty folder for the links.
    """
    folders = [Path(folder) for folder in path.split(os.pathsep)]
    for index, folder in enumerate(folders):
        if any((folder / name).exists() for name in FOREIGN):
            folders[index] = scratch / str(index)
            folders[index].mkdir()
            for program in folder.iterdir():
                if program.name not in FOREIGN:
                    (folders[index] / program.name).symlink_to(program)
    return os.pathsep.join(map(str, folders))


@pytest.fixture(scope="session")
def bare_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PATH of tests that are not of deployments."""
    return path_without_foreign(os.environ["PATH"], tmp_path_factory.mktemp("programs"))


@pytest.fixture(autouse=True)
def _only_deployments_find_foreign_programs(
    request: pytest.FixtureRequest, bare_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("deployment") is None:
        monkeypatch.setenv("PATH", bare_path)


@pytest.fixture(scope="session", autouse=True)
def _pages_have_no_figures() -> Iterator[None]:
    """Drawing takes five times as long as a tiny run; whoever tests figures asks for the fixture ``figures``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.report.html.draw_all", lambda runs: {})
        patch.setattr("sim.report.html.gather_evidence", lambda runs, _: Evidence([read_passes(run) for run in runs]))
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_are_built_once() -> Iterator[None]:
    """Every process of a user's builds the tree of commands once; these tests answer hundreds of commands in one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.cli.main.run_command", cache(run_command))
        yield


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with their figures, as users get them."""
    monkeypatch.setattr("sim.report.html.draw_all", draw_all)
    monkeypatch.setattr("sim.report.html.gather_evidence", gather_evidence)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Where a Ray with two cores listens that is started once and ends with this process."""
    from sim.launch import offline_environment

    environment = {**os.environ, **offline_environment()}
    command = [sys.executable, "-c", RAY]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as head:
        assert head.stdin is not None and head.stdout is not None
        yield head.stdout.readline().strip()
        head.stdin.close()


@pytest.fixture
def running_ray(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to a Ray that is there already: starting one takes longer than a tiny run."""
    monkeypatch.setenv("RAY_ADDRESS", ray_address)


@pytest.fixture(autouse=True)
def _a_command_that_was_interrupted_silences_itself_alone() -> Iterator[None]:
    """A command that a signal ends logs nothing more; in these tests its process goes on."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _nobody_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process writes is there for the next one without it; only a power cut would tell, and tests make none."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module", autouse=True)
def _own_sensors_leave_with_their_module() -> Iterator[None]:
    """Runs in this process add theirs to the table; other modules ask of every modality there that it is Softbeam's."""
    yield
    for name in [name for name in MODALITIES if name not in SHIPPED]:
        del MODALITIES[name]
    known_sensors({}, ())


@cache
def starts_ray(path: Path) -> bool:
    """Whether a file has tests of Ray."""
    return "pytest.mark.ray" in path.read_text()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under xdist the files of Ray come first, and then the other long ones: they would hold up the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        long = {CHECKOUT / "tests" / file for file in LONG}
        items.sort(key=lambda item: (not starts_ray(item.path), item.path not in long))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Schedule as ``--dist loadfile`` does, with the files of Ray in one piece: there is one Ray, with two cores."""
    from xdist.scheduler import LoadFileScheduling

    class OneRay(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "ray" if starts_ray(config.rootpath / file) else file

    return OneRay(config, log) if config.getoption("dist") == "loadfile" else None
