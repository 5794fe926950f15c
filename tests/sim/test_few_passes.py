"""The benchmark of few passes runs whole federations, keeps them in its sheet and counts what clients lose."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from configs.loading import load_experiment
from sim.cli.main import cli
from sim.few_passes import FewCase, few_table, run_case, summaries
from sim.worksheet import SheetRow
from tests.sim.data.test_partition import write_scenario

TINY = (
    *("strategy.rounds=2", "training.first_round_steps=2", "training.steps_per_round=2", "teaching.pretrain_steps=2"),
    *("teaching.first_round_steps=1", "teaching.steps_per_round=1", "strategy.public_samples=10"),
)


def row(passes: int, seed: int, *differences: float, scenario: str = "here") -> SheetRow:
    clients = {
        f"{number:03d}-gps": {"local": 50.0, "offline_kd": 51.0, "federated": 50.0 + found, "nearest_position": 55.5}
        for number, found in enumerate(differences)
    }
    return {"scenario": scenario, "passes": passes, "seed": seed, "clients": clients}


def test_lost_points_are_counted_by_case_and_by_mean_over_seeds() -> None:
    rows = [row(1, 0, -4.0, 10.0), row(1, 1, 3.0, 10.0), row(2, 0, -1.5, 0.0), row(2, 1, -1.5, 0.0)]
    one, two, everything = summaries(rows)
    assert (one.passes, one.num, one.num_lost, one.worst) == (1, 4, 1, -4.0)
    assert (one.num_mean_lost, one.worst_mean) == (0, -0.5)
    assert (two.num_lost, two.num_mean_lost, two.worst_mean) == (0, 1, -1.5)
    assert everything.passes is None and everything.num == 8
    assert everything.means["federated"] == pytest.approx(50.0 + (16.0 + 3.0 - 3.0) / 8)


def test_an_arm_below_the_nearest_position_has_collapsed() -> None:
    (one, _) = summaries([row(1, 0, 10.0, 10.0), row(1, 0, -10.0, -10.0, scenario="there")])
    assert one.collapsed == {"local": 2, "offline_kd": 0, "federated": 1}


def test_a_client_that_failed_is_left_out() -> None:
    broken = row(1, 0, 1.0, 2.0)
    broken["clients"]["000-gps"]["federated"] = None
    found = summaries([broken])
    assert (found[0].num, found[0].num_failed) == (1, 1)
    table = few_table(found)
    assert list(table.columns[1].cells) == ["1, 1 failed"] * 2


def test_cases_without_any_result_are_told() -> None:
    broken = row(3, 0, 1.0)
    broken["clients"]["000-gps"]["federated"] = None
    with pytest.raises(ValueError, match="3 passes: no client has a result in every arm"):
        summaries([row(1, 0, 1.0), broken])


def test_two_scenarios_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [str(tmp_path / one / "scenario1") for one in ("mine", "theirs")]
    result = CliRunner().invoke(cli, ["bench", "few", *folders])
    assert "scenario1: two folders have this name" in str(result.exception)


def test_a_case_is_the_ready_experiment_with_its_passes() -> None:
    case = FewCase(Path("scenario7"), passes=3, seed=4, overrides=("strategy.rounds=2",))
    experiment, ready = case.experiment, load_experiment("deepsense", [])
    assert (experiment.data.passes.server, experiment.data.passes.client) == (3, 6)
    assert (experiment.seed, experiment.strategy.rounds) == (4, 2)
    assert experiment.strategy.keeps == ready.strategy.keeps == "mixture"
    assert experiment.training.perturbed_share == ready.training.perturbed_share > 0
    assert case.key != FewCase(Path("scenario7"), passes=3, seed=4).key


def test_a_case_runs_with_its_controls_and_its_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path / "home"))
    folder = write_scenario(tmp_path / "scenario", lengths=[20] * 14)
    found = run_case(FewCase(folder, passes=1, seed=0, overrides=TINY))
    assert sorted(found["clients"]) == ["000-gps", "001-gps"]
    for scores in (*found["clients"].values(), found["teacher"]):
        assert all(0.0 <= value <= 100.0 for value in scores.values())
    assert few_table(summaries([found])).row_count == 2
