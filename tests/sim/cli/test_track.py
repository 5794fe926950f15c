"""The track command as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run_folders import write_run
from tests.sim.cli.test_main import softbeam

OWN = """
class Told:
    def begin(self, run):
        return "told"
    def log(self, round_number, values):
        print("round", round_number)
    def end(self, *, has_finished):
        print("end", has_finished)
class Broken(Told):
    def log(self, round_number, values):
        raise KeyError("token")
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("told_trackers.py").write_text(OWN)
    return write_run(Path("run"), scores=[[0.2], [0.3]], state="stopped")


def test_a_run_is_sent_and_what_is_there_is_not_sent_again(run: Path) -> None:
    answer = softbeam("track", "run", "--to", "told_trackers:Told")
    assert answer.code == 0
    assert answer.out.splitlines() == ["round 1", "round 2", "end False", "run: 2 rounds sent to told_trackers:Told"]
    again = softbeam("track", "run", "--to", "told_trackers:Told")
    assert "run: 0 rounds sent to told_trackers:Told; nothing was new (run/track-told-trackers-Told.json" in again.out


def test_a_mistake_is_one_line(run: Path) -> None:
    for words, problem in (
        (("run", "--to", "told_trackers:Broken"), "error: run: told_trackers:Broken failed (KeyError: 'token')"),
        (("run", "--to", "nothing"), "error: --to: unknown name 'nothing'"),
        ((".", "--to", "told_trackers:Told"), "error: .: not the folder of a run"),
    ):
        answer = softbeam("track", *words)
        assert answer.code == 1
        (line,) = answer.err.splitlines()
        assert problem in line
