from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import softbeam
from clients.data.recording import open_recording
from clients.learning.beam_sets import RankedBeams
from clients.learning.metrics import BeamMetrics
from clients.learning.risk_curve import ALPHAS
from sim.beam_sets.adaptive import adaptive_rows
from sim.beam_sets.arms import ARMS, ENSEMBLE, Arm, SweptPasses, arm_sources, local_decider
from sim.beam_sets.coverage import beams_of_top_k, splits, sweep_rows
from sim.beam_sets.drift import drift_rows
from sim.beam_sets.report import SweepReport
from sim.take_home.run_models import RunModels
from sim.take_home.verification import torch_logits
from tests.conftest import tiny_values
from tests.sim.cli.test_main import softbeam as softbeam_command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A tiny run with its controls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        return softbeam.run(tiny_values(rounds=2), out=tmp_path_factory.mktemp("swept"), progress=False).folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """The same run where clients keep their local selves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        values = {**tiny_values(rounds=2, keeps="mixture"), "controls": False}
        return softbeam.run(values, out=tmp_path_factory.mktemp("mixed"), progress=False).folder


def silent(phase: str, done: int, total: int) -> None:
    """No progress."""


def made_passes(
    seed: int, *, num_passes: int = 40, is_sharper_than_true: float = 1.0, arm: str = "federated"
) -> SweptPasses:
    """Windows of which half are easy, with the probabilities that they were drawn from, or sharper ones."""
    rng = np.random.default_rng(seed)
    place = np.repeat(np.arange(num_passes), 10)
    spread = np.where(rng.random(len(place)) < 0.5, 0.5, 6.0)
    centre = rng.integers(8, 24, len(place))
    logits = -(((np.arange(32) - centre[:, None]) / spread[:, None]) ** 2)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    best = (probs.cumsum(axis=1) < rng.random(len(place))[:, None]).sum(axis=1).clip(max=31)
    power = np.full((len(place), 1, 32), 1e-3, np.float32)
    power[np.arange(len(place)), 0, best] = 1.0
    said = probs**is_sharper_than_true
    ranked = RankedBeams.by_probability(said / said.sum(axis=1, keepdims=True))
    return SweptPasses(power, place, num_passes, (Arm(arm, "000-gps", (ranked,)),))


def test_the_local_student_is_the_control_of_the_run_though_no_run_keeps_it(run: Path) -> None:
    models = RunModels(run)
    common = open_recording(models.federation / "test")
    starts = common.window_starts(8, 3)
    for client in models.summary["clients"]:
        assert models.local_self(client["id"]) is None
        logits = torch_logits(local_decider(models, client["id"]), common, starts)
        found = BeamMetrics.of(logits, common.powers(starts, 8, 3)).to_dict()
        for metric, values in client["local"].items():
            np.testing.assert_allclose(found[metric], values, atol=1e-6)


def test_a_local_self_that_a_run_kept_is_taken_and_says_what_training_again_would(run: Path, mixed: Path) -> None:
    models = RunModels(mixed)
    common = open_recording(models.federation / "test")
    starts = common.window_starts(8, 3)
    for name in ("000-gps", "002-lidar"):
        assert models.local_self(name) is not None
        kept, again = (torch_logits(local_decider(one, name), common, starts) for one in (models, RunModels(run)))
        np.testing.assert_allclose(kept, again, atol=1e-5)


def test_over_splits_the_realised_coverage_is_what_was_wanted_and_sets_are_smaller_than_top_k() -> None:
    rows = sweep_rows(made_passes(0), progress=lambda done, total: None)
    assert [(row.within_db, row.alpha) for row in rows] == [(1.0, 0.1), (1.0, 0.05), (3.0, 0.1), (3.0, 0.05)]
    for row in rows:
        assert row.num_calibration == 20 and row.is_possible and row.is_in_band
        assert 1 - row.alpha - 3 * row.error <= row.coverage <= 1 - row.alpha + 2 / 21
        assert row.beams < row.top_k - 0.5
        assert row.saved == pytest.approx(1 - row.beams / 32)


def test_an_overconfident_tracker_has_larger_sets_and_the_same_coverage() -> None:
    true, sharp = (
        sweep_rows(made_passes(1, is_sharper_than_true=power), progress=lambda done, total: None)[0]
        for power in (1.0, 4.0)
    )
    assert sharp.is_in_band and true.is_in_band
    assert sharp.beams >= true.beams - 0.1


def test_with_too_few_passes_every_set_holds_all_beams_and_the_row_says_so() -> None:
    for row in sweep_rows(made_passes(2, num_passes=8), progress=lambda done, total: None):
        assert (row.is_possible, row.beams, row.coverage, row.saved) == (False, 32.0, 1.0, 0.0)


def test_splits_leave_a_pass_on_either_side_and_differ() -> None:
    for share in (0.0, 0.5, 1.0):
        masks = list(splits(4, share, num_splits=20))
        assert all(0 < mask.sum() < 4 for mask in masks)
        assert len({tuple(mask.tolist()) for mask in masks}) > 1
    with pytest.raises(ValueError, match="1 passes cannot be split"):
        next(splits(1, 0.5))


def test_top_k_between_two_integers_has_the_coverage_between_theirs() -> None:
    curve = np.array([0.5, 0.9, 0.9, 1.0])
    wanted = (0.3, 0.5, 0.7, 0.9, 0.95, 1.0)
    assert [beams_of_top_k(curve, one) for one in wanted] == pytest.approx([1.0, 1.0, 1.5, 2.0, 3.5, 4.0])


def test_the_monitor_speaks_after_a_change_and_seldom_before_it() -> None:
    before = made_passes(3, num_passes=60)
    same, other = made_passes(4, num_passes=60), made_passes(5, num_passes=60, is_sharper_than_true=1.0)
    broken = SweptPasses(np.roll(other.power, 6, axis=2), other.pass_of_window, 60, other.arms)
    (quiet,), (loud,) = drift_rows(before, same, num_splits=40), drift_rows(before, broken, num_splits=40)
    assert loud.loss_after > 0.4 > 2 * loud.loss_before
    assert loud.alarms == 1.0 and loud.passes is not None and loud.passes <= 30
    assert quiet.false_alarms == loud.false_alarms <= 0.05
    assert quiet.alarms <= 0.1 and quiet.passes is None


def test_an_ensemble_says_the_mean_of_its_students(run: Path) -> None:
    models = RunModels(run)
    common = open_recording(models.federation / "test")
    starts = common.window_starts(8, 3)
    clients = ["000-gps", "002-lidar"]
    *_, ensemble = arm_sources(models, clients, ("federated", ENSEMBLE))
    assert (ensemble.name, ensemble.owner) == (ENSEMBLE, ENSEMBLE)
    probs = [np.exp(torch_logits(models.decider(client), common, starts).astype(np.float64)) for client in clients]
    mean = np.mean([one / one.sum(axis=-1, keepdims=True) for one in probs], axis=0)
    for horizon, ranked in enumerate(ensemble.decide(common, starts)[0]):
        np.testing.assert_allclose(ranked.levels, RankedBeams.by_probability(mean[:, horizon]).levels, atol=1e-6)


def test_sets_that_shrink_hold_what_was_wanted_too() -> None:
    rows = adaptive_rows(made_passes(0), num_splits=60)
    assert [(row.within_db, row.alpha) for row in rows] == [(1.0, 0.1), (1.0, 0.05), (3.0, 0.1), (3.0, 0.05)]
    for row in rows:
        assert row.is_possible and min(row.coverage, row.fixed_coverage) >= 1 - row.alpha - 0.02
        assert 0 < row.confirmed < 1 and row.beams < 32


def test_shrinking_sets_and_the_ensemble_are_measured_where_they_are_asked_for(run: Path) -> None:
    words = ("bench", "sets", run, "--passes", "6", "--splits", "3", "--adaptive")
    done = softbeam_command(*words, "--arm", "federated", "--arm", "ensemble", "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)
    assert {row["arm"] for row in found["sets"]} == {"federated", "ensemble"}
    assert [row["arm"] for row in found["adaptive"]] == ["federated", "ensemble"] * 4
    page = softbeam_command(*words, "--arm", "teacher", "--markdown").out
    assert "sets that shrink after a confirmed slot" in page and "| shrinking: coverage | beams | confirmed |" in page


def test_the_command_measures_every_arm_of_a_run(run: Path) -> None:
    done = softbeam_command("bench", "sets", run, "--passes", "6", "--splits", "3", "--drift", "night", "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)
    assert (found["num_passes"], found["num_splits"], found["drift"]) == (6, 3, "night")
    assert [row["arm"] for row in found["sets"][: len(ARMS)]] == list(ARMS)
    assert {row["alpha"] for row in found["sets"]} == set(ALPHAS)
    # Three passes calibrate, so nothing below 25 % can be guaranteed.
    assert all(row["beams"] == 64 and not row["is_possible"] for row in found["sets"])
    assert {(row["arm"], row["owner"]) for row in found["monitor"]} >= {("local", "002-lidar"), ("teacher", "teacher")}


def test_the_command_prints_the_tables_of_the_docs(run: Path) -> None:
    options = (
        "--client",
        "000-gps",
        "--arm",
        "federated",
        "--arm",
        "beam history",
        "--passes",
        "6",
        "--splits",
        "2",
        "--markdown",
    )
    done = softbeam_command("bench", "sets", run, *options)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].endswith("6 passes, 3 calibrate, mean of 2 splits; at best 75.0 % can be guaranteed")
    assert sum(line.startswith("|") for line in lines) == 10 and "local" not in done.out
    assert lines[4].split(" | ")[:4] == ["| 1 dB", "90 %, all beams", "federated", "100.0 %"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--arm", "oracle"], "there is no such arm; use federated, local, teacher"),
        (["--client", "000-gsp"], "there is no such client; there are 000-gps"),
        (["--set", "seed=1"], "which is measured as it is; leave --set out"),
        (["--passes", "6", "--drift", "fog"], "'fog' is unknown"),
        ([], "1 passes cannot be split"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(run: Path, options: list[str], complaint: str) -> None:
    done = softbeam_command("bench", "sets", run, *options)
    assert done.code != 0
    assert complaint in " ".join(done.err.split())


def test_a_measured_scenario_is_run_and_cannot_be_asked_for_other_passes(tmp_path: Path) -> None:
    folder = tmp_path / "scenario77"
    assert (
        softbeam_command("data", "export", folder, "--passes", "12", "--preset", "s9", "--modalities", "gps").code == 0
    )
    small = ("strategy.rounds=1", "training.first_round_steps=3", "teaching.pretrain_steps=3", "data.passes.test=4")
    options = [word for one in small for word in ("--set", one)]
    done = softbeam_command("bench", "sets", folder, *options, "--splits", "2", "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)
    assert (found["title"], found["num_passes"]) == ("scenario77", 4)
    assert {row["arm"] for row in found["sets"]} == set(ARMS)
    done = softbeam_command("bench", "sets", folder, *options, "--passes", "9")
    assert done.code != 0 and "this was measured" in done.err


def test_a_page_and_a_terminal_show_the_same_cells() -> None:
    found = made_passes(0)
    rows = sweep_rows(found, num_splits=4, progress=lambda done, total: None)
    watched = drift_rows(found, made_passes(1), num_splits=4)
    report = SweepReport("made", found.num_passes, 4, tuple(rows), "night", tuple(watched))
    page = [line.strip("| ").split(" | ") for line in report.markdown().splitlines() if line.startswith("|")]
    shown = [
        list(row) for table in report.tables() for row in zip(*(column.cells for column in table.columns), strict=True)
    ]
    assert [cells for cells in page if cells[0] not in ("within", "arm", "---")] == shown
    assert report.to_dict()["sets"][0]["arm"] == "federated"
