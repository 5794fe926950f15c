from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import softbeam
from clients import handlers
from clients.learning.risk_curve import GRID, curves_of, to_numbers
from clients.told_sets import told_sets
from server.recorder import read_rounds
from server.set_scores import set_summary, told_by
from sim.report.beam_sets import set_rows
from sim.report.summaries import load_summary
from tests.clients.learning.test_risk_curve import BEAMS, HORIZONS, STAND_INS, windows_of
from tests.conftest import tiny_values
from tests.sim.cli.test_main import softbeam as command


def told(seed: int, passes: int) -> dict[str, Any]:
    curve, scores = curves_of(*windows_of(seed, passes), STAND_INS)
    return told_by(
        {
            "set_passes": float(passes),
            "sets.missed": to_numbers(curve.missed),
            "sets.common_missed": to_numbers(scores.missed),
            "sets.common_sizes": to_numbers(scores.sizes),
        }
    )


def test_clients_that_can_guarantee_nothing_alone_can_together() -> None:
    lines = {f"00{number}-gps": told(number, passes=5) for number in range(6)}
    found = set_summary(lines, HORIZONS, BEAMS)
    assert found is not None and found["passes"] == 30 and found["clients"] == sorted(lines)
    for row in found["rows"]:
        assert row["is_possible"] and row["beams_alone"] == BEAMS  # five passes cannot guarantee 90 %
        assert row["beams"] < BEAMS and row["saved"] == pytest.approx(1 - row["beams"] / BEAMS)
        assert row["coverage"] == pytest.approx(np.mean([one["coverage"] for one in row["by_client"].values()]))
        assert len(row["thresholds"]) == HORIZONS and set(row["thresholds"]) <= set(GRID.tolist())
    wide, narrow = found["rows"][0], found["rows"][2]
    assert (wide["within_db"], narrow["within_db"]) == (1.0, 3.0) and narrow["beams"] <= wide["beams"]


def test_too_few_passes_are_said_so() -> None:
    found = set_summary({"000-gps": told(1, passes=12)}, HORIZONS, BEAMS)
    assert found is not None
    assert [row["is_possible"] for row in found["rows"]] == [True, False, True, False]
    assert [row["beams"] for row in found["rows"]][1] == BEAMS


def test_a_client_that_tells_nonsense_is_left_out_and_the_others_count() -> None:
    good, bad = told(1, passes=5), told(2, passes=5)
    bad["sets"]["missed"] = bad["sets"]["missed"][:-1]
    found = set_summary({"000-gps": good, "001-gps": bad, "002-gps": {"common": None}}, HORIZONS, BEAMS)
    assert found is not None and found["clients"] == ["000-gps"] and found["passes"] == 5
    assert set_summary({"001-gps": bad}, HORIZONS, BEAMS) is None


def run(tmp_path: Path, home: Path, **strategy: Any) -> Path:
    values = {**tiny_values(rounds=2, **strategy), "controls": False}
    values["data"]["passes"]["client_test"] = 4
    return softbeam.run(values, out=tmp_path, progress=False).folder


def test_a_run_says_how_many_beams_are_swept_for_a_guaranteed_loss(tmp_path: Path, home: Path) -> None:
    folder = run(tmp_path, home)
    found = json.loads((folder / "summary.json").read_text())["beam_sets"]
    rows = set_rows([load_summary(folder)])
    assert [row.beams.mean for row in rows] == [row["beams"] for row in found["rows"]]
    assert found["passes"] == 12 and found["clients"] == ["000-gps", "001-gps", "002-lidar"]
    lines = read_rounds(folder)
    assert all("sets" not in line for line in lines[0]["clients"].values())
    assert all("sets" in line for line in lines[1]["clients"].values())
    shown = command("compare", folder).out
    assert "beam sets, calibrated by 12 passes of all clients: within 1 dB at 90 % " in " ".join(shown.split())
    assert "within 1 dB at 95 %" not in shown  # twelve passes cannot guarantee it
    compared = json.loads(command("compare", folder, folder, "--json").out)
    assert "beam_sets" in json.dumps(compared)
    page = (folder / "report.html").read_text()
    assert "Which beams to sweep" in page and "95 %, all beams" in page


@pytest.mark.parametrize(
    "strategy",
    [
        {"privacy": {"clip": 1.0, "noise_multiplier": 1.0}},
        {"privacy": {"window_share": 0.5}},
        {"secure_sum": True, "aggregator": {"name": "mean"}},
    ],
    ids=["noise", "windows", "sums"],
)
def test_who_is_to_tell_less_tells_nothing_of_its_sets(
    strategy: dict[str, Any], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def spy(kept: Any, context: Any) -> dict[str, Any]:
        asked.append(told_sets(kept, context))
        return asked[-1]

    monkeypatch.setattr(handlers, "told_sets", spy)
    folder = run(tmp_path, home, **strategy)
    assert asked == [{}, {}, {}]  # each of the clients, once
    assert "beam_sets" not in json.loads((folder / "summary.json").read_text())
    assert "Which beams to sweep" not in (folder / "report.html").read_text()
