"""From the federation that calibrated to the node that sweeps: the beams are those whose coverage the summary gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import softbeam
from clients.data.recording import open_recording
from clients.learning.beam_sets import RankedBeams
from clients.learning.stand_ins import alone, checksum, to_text
from clients.serving.sweeping import Guarantee, beams_to_sweep, guarantee_of, guarantees_of
from sim.take_home.run_models import RunModels
from sim.take_home.writer import export_model
from tests.conftest import tiny_values
from tests.sim.cli.test_main import softbeam as command
from tests.sim.take_home.test_serving import on_a_node


@pytest.fixture(scope="module")
def swept_run(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A run whose clients have four passes each to calibrate by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        values = {**tiny_values(rounds=2), "controls": False}
        values["data"]["passes"]["client_test"] = 4
        return softbeam.run(values, out=tmp_path_factory.mktemp("swept"), progress=False).folder


@pytest.fixture(scope="module")
def exported(swept_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    for name in ("000-gps", "teacher"):
        export_model(RunModels(swept_run), name, out)
    return out


def test_an_exported_student_sweeps_the_sets_whose_coverage_and_size_the_summary_gives(
    swept_run: Path, exported: Path
) -> None:
    model = softbeam.load_model(exported / "000-gps")
    summary = json.loads((swept_run / "summary.json").read_text())["beam_sets"]
    common = open_recording(RunModels(swept_run).federation / "test")
    starts = common.window_starts(8, 3)
    probs = model.predict({"gps": np.asarray(common.sensors["gps"][starts[:, None] + np.arange(8)])})
    power, passes = common.powers(starts, 8, 3), common.pass_ids[starts]
    for row in (one for one in summary["rows"] if one["is_possible"]):
        guarantee = guarantee_of(model.manifest, within_db=row["within_db"], wanted=1 - row["alpha"])
        assert list(guarantee.thresholds) == row["thresholds"]
        found: dict[str, list[float]] = {"held": [], "beams": []}
        for number in np.unique(passes):
            for window in np.flatnonzero(passes == number):
                for horizon, beams in enumerate(beams_to_sweep(probs[window], guarantee)):
                    lost = 10 * np.log10(power[window, horizon].max() / power[window, horizon, beams].max())
                    found["held"].append(lost <= row["within_db"] + 1e-6)
                    found["beams"].append(len(beams))
        expected = row["by_client"]["000-gps"]  # the test set of this run has one pass, so windows count alike
        assert np.mean(found["held"]) == pytest.approx(expected["coverage"], abs=1e-5)
        assert np.mean(found["beams"]) == pytest.approx(expected["beams"], abs=1e-3)


def test_predict_tells_the_beams_to_sweep_also_on_a_node(swept_run: Path, exported: Path) -> None:
    test = RunModels(swept_run).federation / "test"
    words = ("predict", exported / "000-gps", test, "--within", "3", "--wanted", "90")
    rows = [json.loads(line) for line in command(*words, "--json").out.splitlines()]
    node = [json.loads(line) for line in on_a_node(*words, "--json").stdout.splitlines()]
    assert rows and [row["sweep"] for row in rows] == [row["sweep"] for row in node]
    swept, best = ([beams for row in rows for beams in row[name]] for name in ("sweep", "beams"))
    assert all(len(set(beams)) == len(beams) for beams in swept)
    # Neighbours stand in for one another, so sets are not just the most probable beams.
    assert any(beams[:5] != one[: len(beams)] for beams, one in zip(swept, best, strict=True))
    assert "  sweep +0 " in command(*words).out
    assert "sweep" not in json.loads(command(*words[:3], "--json").out.splitlines()[0])


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("000-gps", ["--within", "2"], "no thresholds for this; there are 1 dB at 90 %, 3 dB at 90 %"),
        ("000-gps", ["--within", "3", "--wanted", "95"], "--within 3 --wanted 95: 000-gps has no thresholds"),
        ("teacher", ["--within", "3"], "there are none: its run has no beam sets, or too few passes"),
    ],
)
def test_what_is_not_guaranteed_is_refused(
    model: str, options: list[str], message: str, swept_run: Path, exported: Path
) -> None:
    done = command("predict", exported / model, RunModels(swept_run).federation / "test", *options)
    assert done.code == 1 and message in " ".join(done.err.split())


def test_the_card_lists_the_thresholds(exported: Path) -> None:
    assert "## Which beams to sweep" in (exported / "000-gps" / "README.md").read_text()
    assert "## Which beams to sweep" not in (exported / "teacher" / "README.md").read_text()


def test_a_client_that_told_nothing_and_a_run_without_sets_have_no_thresholds() -> None:
    row: dict[str, Any] = {"within_db": 1.0, "alpha": 0.1, "thresholds": [0.5], "is_possible": True, "coverage": 0.9}
    rows = [row, {**row, "alpha": 0.05, "is_possible": False}]
    table = {1.0: alone(3)}
    sets = {"clients": ["000-gps"], "rows": rows, "tables": {"000-gps": float(checksum(alone(3)[None]))}}
    (found,) = guarantees_of(sets, "000-gps", table)
    assert found == {"within_db": 1.0, "alpha": 0.1, "thresholds": [0.5], "stand_ins": to_text(alone(3))}
    assert guarantees_of(sets, "001-gps", table) == () == guarantees_of(None, "000-gps", table)
    assert guarantees_of(sets, "000-gps", {}) == ()


def test_thresholds_go_with_the_tables_that_calibrated_them(caplog: pytest.LogCaptureFixture) -> None:
    row: dict[str, Any] = {"within_db": 1.0, "alpha": 0.1, "thresholds": [0.5], "is_possible": True}
    older: dict[str, Any] = {"clients": ["000-gps"], "rows": [row]}
    (found,) = guarantees_of(older, "000-gps", {1.0: alone(3)})
    assert "stand_ins" not in found  # the most probable beams were calibrated then, and are swept
    other = {**older, "tables": {"000-gps": float(checksum(alone(3)[None]) ^ 1)}}
    assert guarantees_of(other, "000-gps", {1.0: alone(3)}) == ()
    assert "000-gps: its labels are not those of the run any more" in caplog.text


def test_a_model_from_before_there_were_tables_sweeps_the_most_probable_beams(exported: Path) -> None:
    manifest = softbeam.load_model(exported / "000-gps").manifest
    older = replace(
        manifest, sets=tuple({name: row[name] for name in row if name != "stand_ins"} for row in manifest.sets)
    )
    found = guarantee_of(older, within_db=1.0, wanted=0.9)
    assert np.array_equal(found.stand_ins, alone(64))
    assert not np.array_equal(guarantee_of(manifest, within_db=1.0, wanted=0.9).stand_ins, alone(64))


def test_without_a_threshold_every_beam_is_swept() -> None:
    probs = np.array([[0.2, 0.5, 0.3]])
    assert beams_to_sweep(probs, None) == [[1, 2, 0]]
    assert beams_to_sweep(probs, Guarantee((0.5,), alone(3))) == [
        RankedBeams.by_probability(probs).members(0.5)[0].tolist()
    ]
