"""What is seen of a run from its folder, while it lasts and afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clients.learning.task import Metric, Wording
from sim.cli.watch import line_of
from sim.watch import view
from sim.watch.view import RunWatcher
from tests.labs import make_lab
from tests.run_folders import write_run


def test_a_run_under_way_is_seen_with_the_scores_bytes_and_problems_of_its_clients(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.5, None], [0.75, None]], problems=["", "it was late"], done=4)
    found = RunWatcher(run).look()
    assert (found.title, found.state, found.phase, found.done, found.total) == (
        "street, seed 4",
        "running",
        "federation",
        4,
        8,
    )
    assert (found.round, found.rounds, found.teacher) == (2, 4, (70.0, 70.0))
    first, second = found.clients
    assert (first.id, first.scores, first.score, first.last_round) == ("000-gps", (50.0, 75.0), 75.0, 2)
    assert (first.uplink_bytes, first.downlink_bytes, first.problem) == (200, 2000, "")
    assert (second.score, second.last_round, second.problem) == (None, 1, "it was late")
    assert found.nodes == () and not found.has_ended
    assert json.loads(json.dumps(found.to_dict()))["clients"][0]["scores"] == [50.0, 75.0]


def test_the_time_left_comes_from_the_last_rounds_and_then_from_the_pace_that_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(view.time, "monotonic", lambda: now)
    run = write_run(tmp_path / "run", scores=[[0.5]], done=2, seconds=3.0)
    watcher = RunWatcher(run)
    # Three of four rounds are left, of three seconds each.
    assert watcher.look().seconds_left == pytest.approx(9.0)
    write_run(run, scores=[[0.5]], done=4)
    now = 110.0
    # Two of eight took ten seconds, so the other four take twenty.
    assert watcher.look().seconds_left == pytest.approx(20.0)
    write_run(run, scores=[[0.5]], phase="teacher", done=0, total=1)
    assert watcher.look().seconds_left is None


def test_a_new_round_is_seen(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    watcher = RunWatcher(run)
    assert (watcher.look().round, watcher.look().clients) == (0, ())
    write_run(run, scores=[[0.25]])
    assert watcher.look().clients[0].scores == (25.0,)


def test_a_server_that_was_killed_is_told_from_one_that_works(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    run = write_run(tmp_path / "run", pid=int(ended.stdout))
    assert RunWatcher(run).look().state == "killed"
    write_run(run, pid=os.getpid())
    assert RunWatcher(run).look().state == "running"


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_that_has_ended_is_seen_as_it_ended(state: str, tmp_path: Path) -> None:
    found = RunWatcher(write_run(tmp_path / "run", state=state, error="no power")).look()
    assert (found.state, found.error, found.has_ended, found.seconds_left) == (state, "no power", True, None)


def test_of_a_folder_of_runs_the_newest_is_meant(tmp_path: Path) -> None:
    for name, begun in (("b", 10), ("a", 30), ("c", 20)):
        os.utime(write_run(tmp_path / name) / "experiment.yaml", (begun, begun))
    (tmp_path / "notes").mkdir()
    assert RunWatcher(tmp_path).look().run == str(tmp_path / "a")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no run in this folder"):
        RunWatcher(tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        RunWatcher(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="it is a file"):
        RunWatcher(tmp_path / "file")


def test_a_deployment_is_seen_with_its_machines_before_and_after_a_run_begins(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    make_lab(lab, nodes=["gps:van-4"])
    watcher = RunWatcher(lab)
    found = watcher.look()
    assert (found.state, found.run) == ("waiting", "")
    assert [(node.name, node.status) for node in found.nodes] == [
        ("server", "does not run here"),
        ("van-4", "does not run here"),
    ]
    run = write_run(lab / "server/state/runs/street-1", scores=[[0.5]])
    (run / "placement.json").write_text(json.dumps({"deployment": str(lab)}))
    assert (watcher.look().run, watcher.look().state) == (str(run), "running")
    # The run itself says where its machines are.
    assert [node.name for node in RunWatcher(run).look().nodes] == ["server", "van-4"]


def test_a_task_of_a_user_s_own_is_scored_by_its_own_main_metric(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.25]], task="digits:Digits", metric="balanced_accuracy")
    found = RunWatcher(run).look()
    assert (found.metric, found.teacher, found.clients[0].scores) == ("Balanced accuracy", (70.0,), (25.0,))
    assert "teacher Balanced accuracy 70.0 %; clients Balanced accuracy 25.0 %" in line_of(found)
    wording = Wording("digit recognition", "digit", {"balanced_accuracy": Metric("Mean recall")}, "balanced_accuracy")
    (run / "summary.json").write_text(json.dumps({"task": wording.to_dict()}))
    assert RunWatcher(run).look().metric == "Mean recall"
