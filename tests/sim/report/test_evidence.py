"""What a page shows of data and models, and that it says why where it shows nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sim.report.evidence import gather_evidence
from sim.report.html import write_report
from sim.report.predictions import FILE
from sim.report.summaries import load_summary

STEMS = {"gains", "gain-by-horizon", "map", "beams-held", "leave-one-out", "confusion", "errors", "reliability"}


@pytest.fixture
def run(sensed_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(sensed_run, tmp_path / "run")
    return tmp_path / "run"


def moved(run: Path, **note: object) -> None:
    """Change the note of where the data are."""
    path = run / "placement.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **note}))


def test_a_run_with_data_and_models_has_every_figure_with_a_caption(run: Path) -> None:
    found = gather_evidence([run], [load_summary(run)])
    assert (set(found.figures), set(found.captions), found.missing) == (STEMS, STEMS | {"viewer"}, {})
    assert found.viewer


def test_several_runs_are_taken_together(run: Path) -> None:
    one = gather_evidence([run], [load_summary(run)])
    two = gather_evidence([run, run], 2 * [load_summary(run)])
    assert set(two.figures) == STEMS
    assert two.captions["errors"] == one.captions["errors"]  # shares of the same guesses, twice
    assert "and the runs" in two.captions["gains"]


@pytest.mark.usefixtures("figures")
def test_a_run_whose_data_are_gone_keeps_its_stored_predictions_and_says_what_is_missing(run: Path) -> None:
    gather_evidence([run], [load_summary(run)])
    assert (run / FILE).is_file()
    moved(run, federation=str(run / "gone"))
    found = gather_evidence([run], [load_summary(run)])
    assert set(found.figures) == STEMS - {"map", "beams-held"}
    assert set(found.missing) == {"map", "beams-held", "viewer"}
    write_report([run], run / "page.html")
    text = (run / "page.html").read_text()
    assert "There is no map from above of this run: " in text
    assert "There is no pass to step through of this run: its data are no longer in" in text


@pytest.mark.usefixtures("figures")
def test_a_run_on_real_nodes_has_a_page_without_data_and_students(run: Path) -> None:
    shutil.rmtree(run / "clients")
    (run / FILE).unlink(missing_ok=True)
    note = json.loads((run / "placement.json").read_text())
    (run / "placement.json").write_text(json.dumps({"plugins": note["plugins"], "data_seconds": 0.0}))
    write_report([run], run / "page.html")
    text = (run / "page.html").read_text()
    for what in ("map from above", "figure of confused beams", "pass to step through"):
        assert f"There is no {what} of this run: the run does not say where its data are." in text


def test_other_data_leave_out_what_they_lack(run: Path, tmp_path: Path) -> None:
    federation = tmp_path / "federation"
    shutil.copytree(json.loads((run / "placement.json").read_text())["federation"], federation)
    for manifest in federation.rglob("recording.json"):
        facts = json.loads(manifest.read_text())
        facts["modalities"] = [name for name in facts["modalities"] if name not in ("gps", "camera")]
        manifest.write_text(json.dumps(facts))
    moved(run, federation=str(federation))
    found = gather_evidence([run], [load_summary(run)])
    assert found.missing == {"map": "These data hold no positions by GPS, so there is no map."}
    assert "Camera" not in found.viewer and "Radar" in found.viewer
    power = np.load(federation / "test" / "power.npy")
    (federation / "test" / "power.npy").unlink()
    facts = json.loads((federation / "test" / "recording.json").read_text())
    (federation / "test" / "recording.json").write_text(json.dumps({**facts, "labelled": False}))
    shutil.copytree(federation, tmp_path / "unlabelled")  # a recording is opened once
    moved(run, federation=str(tmp_path / "unlabelled"))
    assert len(power)
    found = gather_evidence([run], [load_summary(run)])
    assert found.missing["viewer"].endswith("its common test set has no power of beams.")
