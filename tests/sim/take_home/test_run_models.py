from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.data.recording import Recording, open_recording
from clients.learning.metrics import BeamMetrics
from clients.models.decider import Decider
from clients.models.tracker import count_parameters, read_windows
from sim.take_home.run_models import RunModels


def decided(decider: Decider, recording: Recording) -> tuple[Tensor, np.ndarray]:
    """The logits of a decider on all windows of a recording, and their starts."""
    starts = recording.window_starts(decider.task.num_frames, decider.task.num_future)
    with torch.no_grad():
        return decider(read_windows(recording, starts, modalities=decider.modalities, num_frames=8)), starts


@pytest.mark.parametrize("run", ["finished_run", "mixed_run"])
def test_every_model_decides_as_the_summary_says(run: str, request: pytest.FixtureRequest) -> None:
    models = RunModels(request.getfixturevalue(run))
    common = open_recording(models.federation / "test")
    assert models.names == ["000-gps", "001-gps", "002-lidar", "teacher"]
    for name in models.names:
        logits, starts = decided(models.decider(name), common)
        found = BeamMetrics.of(logits.numpy(), common.powers(starts, 8, 3)).to_dict()
        assert models.scores(name) is not None
        for metric, values in (models.scores(name) or {}).items():
            np.testing.assert_allclose(found[metric], values, atol=1e-6)


def test_a_row_says_what_there_is_of_a_model(finished_run: Path) -> None:
    models = RunModels(finished_run)
    rows = {row.name: row for row in models.rows()}
    for name, row in rows.items():
        tracker = models.tracker(name)
        assert row.parameters == count_parameters(tracker)
        assert row.bytes == 4 * sum(value.numel() for value in tracker.state_dict().values())
        assert (row.kind, row.round, row.is_here) == ("teacher" if name == "teacher" else "student", 2, True)
    assert rows["teacher"].modality == "gps+lidar"
    validation = json.loads((finished_run / "validation.json").read_text())
    assert rows["000-gps"].validation == validation["clients"]["000-gps"]["federated"]
    assert rows["teacher"].validation == validation["teacher"]["after"]


def test_a_mixture_counts_both_its_trackers_and_has_the_share_that_the_client_reported(mixed_run: Path) -> None:
    models = RunModels(mixed_run)
    last = [json.loads(line) for line in (mixed_run / "rounds.jsonl").read_text().splitlines()][-1]
    row, decider = models.row("002-lidar"), models.decider("002-lidar")
    assert row.kind == "mixture"
    assert row.parameters == sum(map(count_parameters, decider.members))
    assert row.validation == last["clients"]["002-lidar"]["validation"]
    assert decider.shares[0] == last["clients"]["002-lidar"]["federated_share"]
    assert sum(decider.shares) == pytest.approx(1.0)
    latest = models.decider("002-lidar", state="latest")
    assert latest.shares == (1.0,)


def test_a_mixture_whose_share_was_withheld_is_refused_and_its_student_is_not(mixed_run: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "withheld"
    shutil.copytree(mixed_run, run)
    text = (run / "rounds.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line["clients"]["000-gps"]["federated_share"] = None
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    models = RunModels(run)
    with pytest.raises(ValueError, match=r"weights were not recorded.*--state latest"):
        models.decider("000-gps")
    assert models.decider("000-gps", state="latest").shares == (1.0,)


def test_a_model_that_is_not_there_is_named(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"000-gsp: there is no such model in .*did you mean 000-gps\?"):
        RunModels(finished_run).decider("000-gsp")
    with pytest.raises(ValueError, match=r"summary\.json: not found"):
        RunModels(tmp_path)


def test_a_student_whose_memory_is_on_its_node_is_listed_and_not_loaded(finished_run: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "elsewhere"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "clients" / "001-gps")
    models = RunModels(run)
    row = models.row("001-gps")
    assert (row.is_here, row.round, row.bytes) == (False, None, None)
    with pytest.raises(ValueError, match="001-gps: its weights are not in"):
        models.tracker("001-gps")


def test_weights_that_a_class_no_longer_takes_are_refused_with_the_class_and_its_file(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = RunModels(finished_run)
    fresh = models.fresh("002-lidar")
    monkeypatch.setattr(models, "fresh", lambda name: fresh)
    with pytest.raises(ValueError) as caught:
        models.tracker("000-gps")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("000-gps: BeamTracker in ")
    assert "clients/models/tracker.py has changed since the run, whose weights no longer fit it (" in str(caught.value)


@pytest.mark.parametrize("content", ['{"name": "x"', "{}"])
def test_a_summary_that_is_not_whole_says_what_writes_it_again(
    content: str, finished_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=f"; remove this file, and softbeam resume {run} writes it again$"):
        RunModels(run)


def test_a_run_without_its_experiment_says_what_is_missing(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "experiment.yaml").unlink()
    with pytest.raises(ValueError, match=r"not the folder of a run, which has experiment\.yaml and placement\.json"):
        RunModels(run)
