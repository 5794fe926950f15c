"""Trackers beside a run: told while it lasts, and whatever they do, the run is the same, with one warning."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import softbeam
from configs.loading import build_experiment, experiment_digest
from sim.report.summaries import group_by_settings, load_summary, without_repeats
from sim.track import beside
from sim.track.follow import note_of
from tests.conftest import tiny_values
from tests.run_folders import write_run

MODULE = """
import json, sys, time
from pathlib import Path

class Told:
    def begin(self, run):
        self.path = run.folder / "told.jsonl"
        self.tell("begin")
        return "told"
    def log(self, round_number, values):
        self.tell("log", round_number)
    def end(self, *, has_finished):
        self.tell("end", has_finished)
    def tell(self, *what):
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\\n")

def fail(how):
    if how == "raises":
        raise RuntimeError("this tracker is broken")
    time.sleep(600) if how == "hangs" else sys.exit(3)
"""
BROKEN = """
class {name}(Told):
    def {method}(self, *args, **values):
        fail("{how}")
"""
WAYS, METHODS = ("raises", "hangs", "exits"), ("begin", "log", "end")


@pytest.fixture(autouse=True)
def _trackers_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [BROKEN.format(name=f"{how}_{method}", how=how, method=method) for how in WAYS for method in METHODS]
    (tmp_path / "trial_trackers.py").write_text(MODULE + "".join(classes))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "trial_trackers", raising=False)


def carried_out(track: list[str], out: Path) -> Path:
    return softbeam.run({**tiny_values(rounds=2), "controls": False, "track": track}, out=out, progress=False).folder


def results(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What came out of a run, without what differs between equal runs."""
    summary = json.loads((run / "summary.json").read_text())
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
        for entry in line["clients"].values():
            entry.pop("seconds")
    return {key: value for key, value in summary.items() if key != "seconds"}, lines


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, home: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The results of the run without trackers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        return results(carried_out([], tmp_path_factory.mktemp("plain")))


def test_a_tracker_is_told_of_every_round_and_leaves_no_messages(
    plain: tuple[dict[str, Any], list[dict[str, Any]]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = carried_out(["trial_trackers:Told"], tmp_path / "runs")
    told = [json.loads(line) for line in (run / "told.jsonl").read_text().splitlines()]
    assert told == [["begin"], ["log", 1], ["log", 2], ["log", 2], ["end", True]]
    assert results(run) == plain
    assert not note_of(run, "trial_trackers:Told").with_suffix(".log").exists()
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", WAYS)
def test_a_tracker_that_fails_or_hangs_at_any_call_costs_the_run_nothing_but_a_warning(
    how: str,
    method: str,
    plain: tuple[dict[str, Any], list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if how == "hangs":
        monkeypatch.setattr(beside, "GRACE_S", 0.5)
    run = carried_out([f"trial_trackers:{how}_{method}"], tmp_path / "runs")
    assert results(run) == plain
    (warning,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    reason = {"raises": "RuntimeError: this tracker is broken", "hangs": "did not end within", "exits": "ended with 3"}
    assert reason[how] in warning
    assert f"softbeam track {run} --to trial_trackers:{how}_{method}" in warning


def test_trackers_are_no_part_of_what_a_run_studies(tmp_path: Path) -> None:
    values = tiny_values(rounds=2)
    one, other = (build_experiment({**values, "track": track}, origin="test") for track in ([], ["tensorboard"]))
    assert experiment_digest(one) == experiment_digest(other)
    runs = [carried_out(track, tmp_path / name) for name, track in (("a", []), ("b", ["trial_trackers:Told"]))]
    assert len(group_by_settings([load_summary(run) for run in runs])) == 1
    assert len(without_repeats(runs)[0]) == 1


def test_an_unknown_tracker_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="track: unknown name 'tensorbord'"):
        carried_out(["tensorbord"], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError, match="track: each tracker once, got mlflow, mlflow"):
        carried_out(["mlflow", "mlflow"], tmp_path / "runs")


def waited_for(path: Path, text: str) -> str:
    """What a file says as soon as it has a text; what it says after half a minute if it never does."""
    end = time.monotonic() + 30
    while time.monotonic() < end and not (path.is_file() and text in path.read_text()):
        time.sleep(0.1)
    return path.read_text() if path.is_file() else ""


def test_trackers_of_a_run_elsewhere_go_on_when_the_command_that_follows_it_is_interrupted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.2]], state="running")
    with pytest.raises(KeyboardInterrupt), beside.tracked(run, ["trial_trackers:Told"], goes_on=True):
        waited_for(run / "told.jsonl", '["log", 1]')
        raise KeyboardInterrupt
    write_run(run, scores=[[0.2], [0.3]], state="running")
    assert '["log", 2]' in waited_for(run / "told.jsonl", '["log", 2]')
    write_run(run, scores=[[0.2], [0.3], [0.4]], state="finished")
    assert waited_for(run / "told.jsonl", "end").splitlines()[-2:] == ['["log", 3]', '["end", false]']


def test_trackers_of_a_run_that_is_interrupted_here_send_what_there_is_and_end(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.2]], state="running")
    with pytest.raises(KeyboardInterrupt), beside.tracked(run, ["trial_trackers:Told"]):
        write_run(run, scores=[[0.2], [0.3]], state="stopped")
        raise KeyboardInterrupt
    told = (run / "told.jsonl").read_text().splitlines()
    assert told == ['["begin"]', '["log", 1]', '["log", 2]', '["end", false]']
