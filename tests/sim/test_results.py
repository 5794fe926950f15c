from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import softbeam
from clients.data.recording import open_recording
from clients.models.tracker import predict
from sim.results import ComparedRuns, Result
from tests.conftest import tiny_values


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        return softbeam.run(tiny_values(rounds=2), out=tmp_path_factory.mktemp("runs"), progress=False)


def test_a_student_is_the_one_whose_scores_the_result_shows(result: Result) -> None:
    note = (result.folder / "placement.json").read_text()
    federation = Path(note.split('"federation": "')[1].split('"')[0])
    common = open_recording(federation / "test")
    starts = common.window_starts(8, 3)
    beams = common.beams(starts, 8, 3)
    assert list(result.students) == [client["id"] for client in result.clients]
    for client in result.clients:
        student = result.students[client["id"]]
        assert sum(weight.numel() for weight in student.parameters() if weight.requires_grad) == client["parameters"]
        top1 = (predict(student, common, starts).argmax(-1).numpy() == beams).mean(axis=0)  # type: ignore[arg-type]
        np.testing.assert_allclose(top1, client["federated"]["top1"])


def test_a_client_that_is_not_there_is_named(result: Result) -> None:
    with pytest.raises(KeyError, match=r"000-gsp: no such client; there are 000-gps.*did you mean 000-gps\?"):
        result.students["000-gsp"]


def test_what_a_result_shows_is_what_the_folder_holds(result: Result) -> None:
    assert softbeam.load(result.folder).summary == result.summary
    assert [line["round"] for line in result.rounds] == [1, 2]
    assert result.experiment.strategy.rounds == 2
    assert result.report().is_file()
    assert "000-gps" in repr(result) and "<pre" in result._repr_html_()
    assert "without learning, last beam" in repr(result)
    with pytest.raises(ValueError, match=r"summary\.json: not found"):
        softbeam.load(result.folder.parent)


def test_the_same_run_counts_once_and_a_folder_of_runs_is_searched(result: Result) -> None:
    both = ComparedRuns.of([result, result.folder.parent])
    assert len(both.summaries) == 1
    assert "the same folder" in both.notes[0] and both.notes[0] in repr(both)
    with pytest.raises(ValueError, match="there is no run"):
        softbeam.compare([])


def test_a_finished_run_is_resumed_to_itself(result: Result) -> None:
    assert softbeam.resume(result.folder, progress=False).summary == result.summary
