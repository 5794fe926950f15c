"""The adapters: what each tracker gets, and what is said where its package or its name is missing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sim.track import trackers
from sim.track.trackers import PACKAGES, TRACKERS, TrackedRun, check_trackers, make_tracker

SETTINGS = {"strategy.rounds": 2, "strategy.codec": "uint8"}


def run(folder: Path, id_: str = "") -> TrackedRun:
    return TrackedRun(folder, "street", 3, SETTINGS, id_)


class Calls(ModuleType):
    """A package that notes how its functions are called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return SimpleNamespace(id="new", info=SimpleNamespace(run_id="new"), log=self.log, finish=self.finish)

        return call


@pytest.fixture
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls(request.param)
    monkeypatch.setitem(sys.modules, request.param, made)
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    return made


def told(name: str, folder: Path, id_: str = "") -> str:
    """Send two rounds to a tracker; the id that it gives."""
    tracker = make_tracker(name, ())
    found = tracker.begin(run(folder, id_))
    tracker.log(1, {"clients/top5": 0.5})
    tracker.log(2, {"clients/top5": 0.6})
    tracker.end(has_finished=not id_)
    return found


@pytest.mark.parametrize("package", ["mlflow"], indirect=True)
def test_mlflow_gets_parameters_metrics_by_round_and_the_end(package: Calls, tmp_path: Path) -> None:
    assert told("mlflow", tmp_path) == "new"
    names = [name for name, _, _ in package.calls]
    assert names == ["set_experiment", "start_run", "log_params", "log_metrics", "log_metrics", "end_run"]
    assert package.calls[1][2]["run_name"] == tmp_path.name and package.calls[1][2]["run_id"] is None
    assert package.calls[2][1] == (SETTINGS,)
    assert package.calls[4][1:] == (({"clients/top5": 0.6},), {"step": 2})
    assert package.calls[5][1] == ("FINISHED",)
    package.calls.clear()
    told("mlflow", tmp_path, "old")
    assert package.calls[1][2]["run_id"] == "old" and "log_params" not in [name for name, _, _ in package.calls]
    assert package.calls[-1][1] == ("FAILED",)


@pytest.mark.parametrize("package", ["wandb"], indirect=True)
def test_wandb_gets_a_config_rounds_as_steps_and_an_exit_code(package: Calls, tmp_path: Path) -> None:
    assert told("wandb", tmp_path) == "new"
    begun, *_, ended = package.calls
    assert begun[2]["group"] == "street" and begun[2]["config"] == SETTINGS and begun[2]["id"] is None
    assert package.calls[2] == ("log", ({"clients/top5": 0.6},), {"step": 2})
    assert ended == ("finish", (), {"exit_code": 0})
    told("wandb", tmp_path, "old")
    assert package.calls[-1] == ("finish", (), {"exit_code": 1})


@pytest.mark.parametrize("package", ["trackio"], indirect=True)
def test_trackio_gets_a_config_and_rounds_as_steps_and_goes_on_by_name(package: Calls, tmp_path: Path) -> None:
    assert told("trackio", tmp_path) == tmp_path.name
    assert package.calls[0][2]["resume"] == "allow" and package.calls[0][2]["config"] == SETTINGS
    assert package.calls[2] == ("log", ({"clients/top5": 0.6},), {"step": 2})
    assert package.calls[-1][0] == "finish"
    assert told("trackio", tmp_path, "old") == "old"


def test_tensorboard_has_event_files_with_every_round_and_the_settings(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: pip install 'softbeam[track]'")
    from tensorboardX.proto.event_pb2 import Event

    told("tensorboard", tmp_path)
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = [(event.step, value) for event in events_of(path, Event) for value in event.summary.value]
    scalars = [
        (step, value.tag, round(value.simple_value, 3)) for step, value in found if value.tag != "settings/text_summary"
    ]
    assert scalars == [(1, "clients/top5", 0.5), (2, "clients/top5", 0.6)]
    text = next(value for _, value in found if value.tag == "settings/text_summary")
    assert b"| strategy.codec | uint8 |" in text.tensor.string_val[0]


def events_of(path: Path, kind: Any) -> list[Any]:
    """The records of an event file: length, checksum, content, checksum."""
    content, place, found = path.read_bytes(), 0, []
    while place < len(content):
        size = int.from_bytes(content[place : place + 8], "little")
        found.append(kind.FromString(content[place + 12 : place + 12 + size]))
        place += 16 + size
    return found


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_whose_package_is_missing_says_how_it_is_installed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    package, how = PACKAGES[name]
    with pytest.raises(
        ValueError, match=f"track: {name} needs {package}, which is not installed here; install it: "
    ) as error:
        check_trackers([name], ())
    assert how in str(error.value)


def test_a_class_of_ones_own_is_a_tracker_if_it_has_the_methods(tmp_path: Path) -> None:
    (tmp_path / "own_trackers.py").write_text(
        "class Half:\n    def begin(self, run): ...\n"
        "class Whole(Half):\n    def log(self, number, values): ...\n    def end(self, *, has_finished): ...\n"
    )
    assert type(make_tracker("own_trackers:Whole", (tmp_path,))).__name__ == "Whole"
    with pytest.raises(ValueError, match="track: own_trackers:Half has no method log"):
        make_tracker("own_trackers:Half", (tmp_path,))
    with pytest.raises(ValueError, match=r"unknown name 'tensorbord'.*did you mean tensorboard"):
        check_trackers(["tensorbord"], ())


def test_every_tracker_has_a_package_and_an_adapter() -> None:
    assert TRACKERS.keys() == PACKAGES.keys()
    kinds: Mapping[str, str] = TRACKERS
    assert all(hasattr(trackers, target.partition(":")[2]) for target in kinds.values())
