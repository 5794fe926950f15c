"""A federation has as many beams as its data: every kind of exchange, table and score works with any number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.data.recording import open_recording
from configs.loading import build_experiment
from configs.schema import Experiment
from server.recorder import read_rounds
from sim.data.inspection import inspect_folder, open_parts
from sim.report.contact_sheet import write_contact_sheet
from sim.report.html import write_run_report
from tests.conftest import tiny_values
from tests.federations import place, run_apps


def experiment(num_beams: int, **strategy: Any) -> Experiment:
    values = tiny_values(**{"rounds": 2, **strategy})
    values["data"]["world"] = {"num_beams": num_beams}
    return build_experiment({**values, "controls": num_beams == 16}, origin="test")


@pytest.mark.parametrize(
    ("num_beams", "strategy"),
    [
        (2, {}),
        (2, {"codec": "top8+zlib", "aggregator": {"name": "mean"}}),
        (16, {}),
        (100, {"name": "cfd"}),
        (100, {"name": "fd"}),
        (128, {}),
        (1024, {"codec": "top8"}),
        (1024, {"secure_sum": True, "aggregator": {"name": "mean"}}),
    ],
)
def test_a_federation_runs_with_any_number_of_beams(num_beams: int, strategy: dict[str, Any], tmp_path: Path) -> None:
    placement = place(experiment(num_beams, **strategy), tmp_path / "run")
    assert placement.experiment.task.num_beams == num_beams
    power = open_recording(placement.federation / "server").power
    assert power is not None and power.shape[1] == num_beams
    run_apps(placement)
    lines = read_rounds(placement.run)
    assert len(lines) == 2
    for line in lines:
        for client in line["clients"].values():
            assert client["problem"] == ""
            assert np.isfinite(client["common"]["power_loss_db"]).all()
    summary = json.loads((placement.run / "summary.json").read_text())
    assert all(0.0 <= share <= 1.0 for share in summary["teacher"]["after"]["dba"])
    if num_beams <= 5:
        assert summary["teacher"]["after"]["top5"] == [1.0] * placement.experiment.task.num_horizons
    write_run_report(placement.run)


@pytest.mark.parametrize("num_beams", [2, 100, 1024])
def test_data_of_any_number_of_beams_is_inspected(num_beams: int, tmp_path: Path) -> None:
    federation = place(experiment(num_beams), tmp_path / "run").federation
    rows = [row for row in inspect_folder(federation) if row["statistics"] is not None]
    assert {row["part"] for row in rows} >= {"server", "test"}
    for row in rows:
        assert row["statistics"]["entropy_bits"] <= np.log2(num_beams) + 1e-9
        assert (row["statistics"]["gap_5th_db"] is None) == (num_beams < 5)
    write_contact_sheet(open_parts(federation), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_the_number_of_beams_is_that_of_the_data() -> None:
    values = tiny_values()
    values["task"] = {"num_beams": 16}
    with pytest.raises(ValueError, match=r"task\.num_beams: data\.world\.num_beams says 64, got 16; leave it out"):
        build_experiment(values, origin="test")
