"""What learners say about the common test set: as the run scored them, stored once, and told where it is not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from sim.report import predictions
from sim.report.predictions import FILE, MAX_PER_KIND, Predictions, open_test_set, predictions_of
from sim.report.summaries import load_summary
from tests.conftest import CHECKOUT


@pytest.fixture
def run(sensed_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that nothing was stored with."""
    copy = tmp_path / "run"
    shutil.copytree(sensed_run, copy)
    (copy / FILE).unlink(missing_ok=True)
    return copy


def test_they_score_as_the_summary_says(run: Path) -> None:
    summary = load_summary(run)
    found = predictions_of(run, summary)
    recorded = {client["id"]: client["federated"] for client in summary["clients"]}
    recorded["teacher"] = summary["teacher"]["after"]
    assert [one.name for one in found.learners] == ["000-camera", "001-radar", "002-lidar", "003-gps", "teacher"]
    for one in found.learners:
        top1 = np.mean(one.first == found.best, axis=0)
        np.testing.assert_allclose(top1, recorded[one.name]["top1"], atol=1e-9)
        np.testing.assert_allclose(one.loss_db.mean(axis=0), recorded[one.name]["power_loss_db"], rtol=1e-3)
        assert one.is_typical
        np.testing.assert_allclose(one.probs.sum(axis=1), 1.0, atol=0.05)
        np.testing.assert_array_equal(one.probs.argmax(axis=1), one.first[found.shown, 0])


def test_what_is_stored_is_what_was_asked(run: Path) -> None:
    summary = load_summary(run)
    asked, stored = predictions_of(run, summary), predictions_of(run, summary)
    for name in ("best", "starts", "shown"):
        np.testing.assert_array_equal(getattr(asked, name), getattr(stored, name))
    assert stored.asked == asked.asked == dict.fromkeys(("camera", "radar", "lidar", "gps"), (1, 1))
    assert asked.ensemble is not None and stored.ensemble is not None
    assert stored.ensemble.names == asked.ensemble.names
    np.testing.assert_array_equal(stored.ensemble.table, asked.ensemble.table)
    for one, other in zip(asked.learners, stored.learners, strict=True):
        for part in fields(one):
            mine, theirs = getattr(one, part.name), getattr(other, part.name)
            np.testing.assert_array_equal(theirs, mine, err_msg=part.name)


def test_a_run_that_has_them_stored_needs_no_pytorch(run: Path) -> None:
    predictions_of(run, load_summary(run))
    code = (
        "import sys\nfrom pathlib import Path\nfrom sim.report.html import write_report\n"
        f"write_report([Path({str(run)!r})], Path({str(run)!r}) / 'page.html')\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'id="viewer-data"' in (run / "page.html").read_text()


@pytest.mark.parametrize("damage", ["cut short", "of another summary"])
def test_a_stored_file_that_does_not_fit_is_made_again(damage: str, run: Path) -> None:
    summary = load_summary(run)
    before = predictions_of(run, summary)
    if damage == "cut short":
        (run / FILE).write_bytes((run / FILE).read_bytes()[:200])
    else:
        (run / "summary.json").write_text((run / "summary.json").read_text() + "\n")
    again = predictions_of(run, summary)
    np.testing.assert_array_equal(again.best, before.best)
    stored, is_whole = predictions._unpack((run / FILE).read_bytes(), predictions._digest(run))
    assert isinstance(stored, Predictions) and is_whole


def test_of_many_clients_a_few_are_asked_evenly_over_their_ranking_and_the_middle_one_is_typical() -> None:
    clients = [
        {"id": f"{i:03d}-gps", "modality": "gps", "parameters": 9, "federated": {"top5": [(7 * i % 25) / 25]}}
        for i in range(25)
    ]
    asked = predictions._asked({"clients": clients}, ["teacher"])
    scores = [next(one["federated"]["top5"][0] for one in clients if one["id"] == name) for name in list(asked)[:-1]]
    assert scores == sorted(scores) and scores[0] == 0.0 and scores[-1] == 24 / 25
    assert MAX_PER_KIND <= len(scores) <= MAX_PER_KIND + 1
    assert [value for value, who in zip(scores, asked.values(), strict=False) if who[2]] == [12 / 25]
    assert list(asked)[-1] == "teacher"


def test_a_run_without_its_models_or_without_its_data_says_so(run: Path) -> None:
    summary = load_summary(run)
    shutil.rmtree(run / "clients")
    found = predictions_of(run, summary)
    assert [one.name for one in found.learners] == ["teacher"]  # as of a run on real nodes
    (run / FILE).unlink()
    shutil.rmtree(run / "checkpoint")
    with pytest.raises(ValueError, match="the weights of its models are not in the run folder"):
        predictions_of(run, summary)
    note = json.loads((run / "placement.json").read_text())
    (run / "placement.json").write_text(json.dumps({**note, "federation": str(run / "gone")}))
    with pytest.raises(ValueError, match=r"its data are no longer in .*gone"):
        open_test_set(run)
    (run / "placement.json").unlink()
    with pytest.raises(ValueError, match="does not say where its data are"):
        predictions_of(run, summary)


def of_an_older_version(run: Path) -> None:
    """Let the stored file be one that has no ensemble."""
    with np.load(run / FILE) as arrays:
        values = {name: arrays[name] for name in arrays if name != "ensemble"}
    about = json.loads(values["about"].tobytes())
    del about["ensemble"]
    values["about"] = np.frombuffer(json.dumps({**about, "format": predictions.WITHOUT_ENSEMBLE}).encode(), np.uint8)
    np.savez_compressed(run / FILE, **values)


def test_an_older_file_is_made_again_where_the_models_can_be_asked_and_used_where_not(run: Path) -> None:
    summary = load_summary(run)
    whole = predictions_of(run, summary)
    of_an_older_version(run)
    again = predictions_of(run, summary)
    assert again.ensemble is not None and whole.ensemble is not None
    of_an_older_version(run)
    note = json.loads((run / "placement.json").read_text())
    (run / "placement.json").write_text(json.dumps({**note, "federation": str(run / "gone")}))
    kept = predictions_of(run, summary)
    assert kept.ensemble is None
    np.testing.assert_array_equal(kept.best, whole.best)


def test_the_members_of_the_ensemble_are_those_that_vote_in_a_round(run: Path) -> None:
    ensemble = predictions_of(run, load_summary(run)).ensemble
    assert ensemble is not None
    assert ensemble.rule == "entropy_mean"
    assert list(ensemble.without_kind) == ["camera", "radar", "lidar", "gps", "teacher"]
    assert list(ensemble.without_member) == ["000-camera", "001-radar", "002-lidar", "003-gps", "teacher"]
    (run / FILE).unlink()
    text = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(text.replace("teacher_votes: true", "teacher_votes: false"))
    ensemble = predictions_of(run, load_summary(run)).ensemble
    assert ensemble is not None and "teacher" not in ensemble.without_member


def test_a_strategy_without_soft_labels_of_public_samples_has_no_ensemble(run: Path) -> None:
    values = yaml.safe_load((run / "experiment.yaml").read_text())
    (run / "experiment.yaml").write_text(yaml.safe_dump({**values, "strategy": {"name": "fedavg", "rounds": 2}}))
    assert predictions_of(run, load_summary(run)).ensemble is None
