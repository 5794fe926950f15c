"""What models cost on a machine, measured in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.data.recording import open_recording
from sim.take_home.device_cost import PUBLISHED, DeviceCost, device_costs, device_table, ratio_lines
from sim.take_home.device_probe import joules_between, joules_used, measure, peak_bytes
from sim.take_home.run_models import RunModels
from sim.take_home.writer import export_model
from tests.sim.cli.test_main import softbeam as command


def test_every_runtime_is_measured_on_every_window_of_the_test_set(finished_run: Path) -> None:
    models = RunModels(finished_run)
    costs = list(device_costs(models, ["000-gps"]))
    assert [(cost.runtime, cost.is_stream) for cost in costs] == [
        (runtime, is_stream) for runtime in ("torch", "onnxruntime", "onnxruntime int8") for is_stream in (False, True)
    ]
    task = models.experiment.task
    # A node answers in every slot that has a whole window behind it, also in those that have no future to be scored on.
    pass_ids = open_recording(models.federation / "test").pass_ids
    expected = sum(count - task.num_frames + 1 for count in np.unique(pass_ids, return_counts=True)[1].tolist())
    assert {cost.windows for cost in costs} == {expected}
    for cost in costs:
        assert 0 < cost.p50_ms <= cost.p95_ms <= cost.p99_ms <= cost.worst_ms
    by = {(cost.runtime, cost.is_stream): cost for cost in costs}
    assert by["torch", True].macs < by["torch", False].macs
    # torch alone takes more than numpy and onnxruntime together.
    assert by["torch", True].peak_bytes > by["onnxruntime", True].peak_bytes > 20e6
    assert "onnxruntime int8" in device_table(costs).columns[1]._cells


@pytest.fixture(scope="module")
def measured(finished_run: Path, home: Path) -> list[dict[str, Any]]:
    """What the command tells of a student of the run and of the published ones: each takes seconds to measure."""
    words = ("bench", "devices", finished_run, "--client", "002-lidar", "--windows", "3", "--published", "--json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        answer = command(*words)
    assert answer.code == 0, answer.err
    rows: list[dict[str, Any]] = json.loads(answer.out)
    return rows


def test_the_command_takes_no_more_windows_than_it_is_told(finished_run: Path, measured: list[dict[str, Any]]) -> None:
    rows = [row for row in measured if row["model"] not in PUBLISHED]
    assert {(row["model"], row["windows"]) for row in rows} == {("002-lidar", 3)}
    assert command("bench", "devices", finished_run, "--client", "moon").code == 1


def zone(powercap: Path, name: str, used: int, limit: int = 1_000_000_000) -> None:
    (powercap / name).mkdir(parents=True, exist_ok=True)
    (powercap / name / "energy_uj").write_text(f"{used}\n")
    (powercap / name / "max_energy_range_uj").write_text(f"{limit}\n")


def test_joules_are_those_of_whole_processors_also_where_the_counter_begins_again(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", 4_000_000)
    zone(tmp_path, "intel-rapl:1", 999_000_000)
    before = joules_used(tmp_path)
    assert before == {"intel-rapl:0": (5.0, 1000.0), "intel-rapl:1": (999.0, 1000.0)}
    zone(tmp_path, "intel-rapl:0", 7_000_000)
    zone(tmp_path, "intel-rapl:1", 500_000)
    assert joules_between(before, joules_used(tmp_path)) == pytest.approx(2.0 + 1.5)
    assert joules_between({}, {}) is None
    assert joules_used(tmp_path / "none") == {}


def test_energy_is_left_out_where_the_machine_does_not_tell_it(finished_run: Path, tmp_path: Path) -> None:
    models = RunModels(finished_run)
    folder = export_model(models, "000-gps", tmp_path).folder
    wanted = {"precision": "float32", "stream": True, "windows": 2}
    assert measure(folder, models.federation / "test", **wanted, powercap=tmp_path / "none")["joules"] is None
    zone(tmp_path / "cap", "intel-rapl:0", 5_000_000)
    assert measure(folder, models.federation / "test", **wanted, powercap=tmp_path / "cap")["joules"] == 0.0


def test_the_peak_of_memory_is_read_where_linux_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmPeak:\t900 kB\nVmHWM:\t   250 kB\n")
    assert peak_bytes(tmp_path / "status") == 256_000
    assert peak_bytes(tmp_path / "none") > 1_000_000


def test_published_students_are_measured_beside_those_of_the_run(measured: list[dict[str, Any]]) -> None:
    theirs = [row for row in measured if row["model"] in PUBLISHED]
    assert PUBLISHED == ("image-student", "fusion-student", "long-term-student")
    assert [row["model"] for row in theirs] == list(PUBLISHED)
    for row in theirs:
        assert row["runtime"] == "torch" and not row["is_stream"] and row["windows"] == 3
        assert 0 < row["p50_ms"] <= row["worst_ms"] and row["macs"] > 1e6 and row["file_bytes"] > 1e5


def test_the_slowest_student_is_compared_with_each_published_one() -> None:
    def cost(model: str, runtime: str, p50_ms: float, *, is_stream: bool = False) -> DeviceCost:
        return DeviceCost(model, runtime, is_stream, 1, p50_ms, 9.0, 9.0, 9.0, 1, 1, 1, None)  # type: ignore[arg-type]

    costs = [
        *(cost("a", "torch", 1.0), cost("b", "torch", 2.0), cost("b", "torch", 0.1, is_stream=True)),
        *(cost("a", "onnxruntime", 0.5), cost("b", "onnxruntime", 0.4), cost("image-student", "torch", 6.0)),
    ]
    assert ratio_lines(costs) == [
        "whole windows of b, the slowest, in torch are 3.0 times as fast as image-student in torch",
        "whole windows of a, the slowest, in onnxruntime are 12.0 times as fast as image-student in torch",
    ]
    assert ratio_lines(costs[:5]) == []
