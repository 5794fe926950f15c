"""Which runs a path stands for, and what is said of those that are left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.report.run_folders import find_runs
from tests.sim.report.test_html import write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with two finished runs, a failed, a stopped and a broken one, and things that are none."""
    folder = tmp_path / "runs"
    for name in ("b", "a"):
        write_run(folder / name)
    for name, status in (
        ("failed", {"state": "failed", "error": "out of luck"}),
        ("stopped", {"state": "stopped"}),
        ("torn", {"state": "running"}),
    ):
        (folder / name).mkdir()
        (folder / name / "experiment.yaml").write_text("name: street\n")
        (folder / name / "status.json").write_text(json.dumps({"round": 2, "rounds": 7, "error": "", **status}))
    write_run(folder / "broken")
    (folder / "broken" / "summary.json").write_text("{")
    (folder / "notes").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "report.html").touch()
    return folder


def test_a_folder_stands_for_its_finished_runs_and_says_of_the_others_why_not(runs: Path) -> None:
    found, notes = find_runs([runs])
    assert found == [runs / "a", runs / "b"]
    broken, failed, plain, stopped, torn = notes
    assert "summary.json: not readable as JSON" in broken
    assert "failed: left out, the run failed (out of luck); softbeam resume" in failed
    assert plain.endswith("notes: left out, it is not the folder of a run")
    assert "stopped: left out, the run was stopped (round 2 of 7): softbeam resume" in stopped
    assert "torn: left out, the run is not finished (round 2 of 7): softbeam resume" in torn


def test_run_folders_and_folders_of_runs_are_taken_in_their_order(runs: Path, tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone")
    assert find_runs([alone, runs])[0] == [alone, runs / "a", runs / "b"]
    # What was named by itself is not skipped: whoever names it wants it.
    assert find_runs([runs / "stopped"]) == ([runs / "stopped"], [])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere", "nowhere: not found; give the folder of a run, or a folder of runs"),
        ("runs/report.html", "report.html: it is a file; give the folder"),
        ("runs/notes", "notes: there is no finished run in this folder"),
        ("unfinished", "no finished run in this folder; the first of 1 left out is .*the run is not finished"),
    ],
)
def test_a_path_without_a_run_is_refused_and_named(name: str, problem: str, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "unfinished" / "one" / "checkpoint").mkdir(parents=True)
    with pytest.raises(ValueError, match=problem):
        find_runs([tmp_path / name])
