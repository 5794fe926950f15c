"""A run is sent once and in order, also where it is resumed or still under way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sim.track import follow as module
from sim.track.follow import follow, is_at_work, note_of, values_at_the_end
from sim.track.trackers import TrackedRun
from tests.run_folders import write_run


class Notes:
    """A tracker that notes what it is told."""

    def __init__(self) -> None:
        self.begun: list[TrackedRun] = []
        self.rounds: list[int] = []
        self.values: list[Mapping[str, float]] = []
        self.ends: list[bool] = []

    def begin(self, run: TrackedRun) -> str:
        self.begun.append(run)
        return run.id or "first"

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        self.rounds.append(round_number)
        self.values.append(values)

    def end(self, *, has_finished: bool) -> None:
        self.ends.append(has_finished)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)


def test_every_round_is_sent_once_in_order_with_its_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.2, 0.4], [0.3, None]], problems=["", "no reply"], state="stopped")
    tracker = Notes()
    assert follow(run, "notes", tracker) == 2
    (begun,) = tracker.begun
    assert (begun.experiment, begun.seed, begun.settings["task.name"]) == ("street", 4, "beams")
    assert tracker.rounds == [1, 2]
    first, second = tracker.values
    assert first["clients/top5"] == pytest.approx(0.3) and first["teacher/top5"] == pytest.approx(0.7)
    assert (first["bytes/uplink"], first["bytes/downlink"], first["seconds/clients"]) == (200, 2000, 2.0)
    assert second["clients/problems"] == 1 and "001-gps/top5" not in second
    assert tracker.ends == [False]
    assert follow(run, "notes", again := Notes()) == 0
    assert again.rounds == [] and again.begun[0].id == "first"


def test_a_run_that_was_sent_to_its_end_is_not_begun_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.2]], state="finished")
    summary = {"clients": [{"federated": {"top5": [0.2, 0.4]}, "local": None}], "teacher": {"before": {"top5": [0.5]}}}
    (run / "summary.json").write_text(json.dumps(summary))
    tracker = Notes()
    assert follow(run, "notes", tracker) == 1
    assert tracker.rounds == [1, 1] and tracker.ends == [True]  # the results stand with the last round
    assert tracker.values[1] == {"final/federated/top5": pytest.approx(0.3), "final/teacher_before/top5": 0.5}
    assert follow(run, "notes", again := Notes()) == 0
    assert again.begun == [] and again.ends == []
    note_of(run, "notes").unlink()
    assert follow(run, "notes", once_more := Notes()) == 1
    assert once_more.rounds == [1, 1]


def test_a_resumed_run_goes_on_where_it_was_and_one_under_way_is_followed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.2]], state="stopped")
    follow(run, "notes", Notes())
    looks = iter([[[0.2], [0.3]], [[0.2], [0.3], [0.4]], [[0.2], [0.3], [0.4], [0.5]]])

    def until() -> bool:
        scores = next(looks, None)
        if scores is not None:
            write_run(run, scores=scores, state="running")
        else:
            write_run(run, scores=[[0.2], [0.3], [0.4], [0.5]], state="finished")
        return scores is None

    tracker = Notes()
    assert follow(run, "notes", tracker, until=until) == 3
    assert tracker.begun[0].id == "first" and tracker.rounds == [2, 3, 4]


def test_a_run_that_never_became_one_is_not_begun(tmp_path: Path) -> None:
    tracker = Notes()
    assert follow(tmp_path, "notes", tracker) == 0
    assert tracker.begun == [] and tracker.ends == []


def test_a_run_is_at_work_while_its_process_lives(tmp_path: Path) -> None:
    assert is_at_work(write_run(tmp_path / "a", scores=[[0.1]]))
    assert not is_at_work(write_run(tmp_path / "b", scores=[[0.1]], pid=2**22 + 1))
    assert not is_at_work(write_run(tmp_path / "c", scores=[[0.1]], state="failed"))


def test_notes_of_trackers_with_like_names_are_files_of_the_folder(tmp_path: Path) -> None:
    assert note_of(tmp_path, "my_trackers:Log") == tmp_path / "track-my-trackers-Log.json"
    assert note_of(tmp_path, "../x").parent == tmp_path


def test_results_are_means_over_the_clients_that_have_them() -> None:
    clients = [{"federated": {"top5": [0.2]}, "local": {"top5": [0.1]}}, {"federated": {"top5": [0.4]}, "local": None}]
    found = values_at_the_end({"clients": clients, "teacher": {"before": None, "after": {"top5": [0.6]}}})
    assert found == {
        "final/federated/top5": pytest.approx(0.3),
        "final/local/top5": 0.1,
        "final/teacher_after/top5": 0.6,
    }
