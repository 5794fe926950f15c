"""Every arm does the same work: Softbeam, stock Flower and plain loops give the same soft labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from sim.cli.main import cli
from sim.inline import InlineGrid
from sim.speed.arms import NUM_PROCESSES, run_bare, run_null, run_ours, run_reference, take_turn
from sim.speed.conductor import EXACT, Family, Size, check_equal, script_of
from sim.speed.conductor import take_turn as turn_of
from sim.speed.plain_flower import plain_app, run_rounds
from sim.speed.work import LABELS, ROUNDS, Script, read_targets

TINY = (
    *("students.gps={width: 2, features: 8, hidden: 8}", "teacher={width: 2, features: 8, hidden: 8}"),
    *("data.passes.server=1", "training.batch_size=8", "teaching.batch_size=8"),
)
INLINE = "engine.name=inline"


def family(*arms: str, clients: int = 3, overrides: tuple[str, ...] = (EXACT, INLINE)) -> Family:
    return Family("gps", "gps", Size(clients, 2, 2, 3, 3), arms, (*TINY, *overrides))


@pytest.fixture
def script(tmp_path: Path) -> Script:
    found = script_of(family("ours"))
    found.write(tmp_path)
    return found


@pytest.fixture
def wanted(script: Script, tmp_path: Path) -> NDArray[np.float32]:
    return np.array(run_reference(script, tmp_path, lambda number: None))


def test_the_reference_keeps_the_targets_of_each_round_and_its_students_differ(
    script: Script, wanted: NDArray[np.float32], tmp_path: Path
) -> None:
    targets = read_targets(tmp_path, script.experiment.strategy.temperature)
    assert sorted(targets) == [1, 2, 3]
    assert all(len(one) == wanted.shape[1] for one in targets.values())
    assert not np.array_equal(targets[1].probs, targets[2].probs)
    assert not np.allclose(wanted[0], wanted[1], atol=1e-3)


def test_two_plain_processes_ours_and_a_plain_flower_app_give_the_soft_labels_of_the_reference(
    script: Script, wanted: NDArray[np.float32], tmp_path: Path
) -> None:
    assert script.num_clients > NUM_PROCESSES
    numbers: dict[str, list[int]] = {"bare": [], "ours": [], "flower": []}
    grid = InlineGrid(plain_app(tmp_path, is_tuned=True), num_nodes=script.num_clients, shuffle_seed=1)
    found = {
        "bare": run_bare(script, tmp_path, numbers["bare"].append),
        "ours": run_ours(script, tmp_path, numbers["ours"].append),
        "flower": run_rounds(grid, script, tmp_path, numbers["flower"].append),
    }
    for arm, labels in found.items():
        # Our clients learn as a cohort, which adds numbers in another order.
        np.testing.assert_allclose(labels, wanted, atol=1e-6 if arm == "ours" else 0, rtol=0, err_msg=arm)
        assert sorted(set(numbers[arm])) == [0, 1, 2, 3]


def test_an_arm_that_learns_less_is_told_from_the_reference(
    script: Script, wanted: NDArray[np.float32], tmp_path: Path
) -> None:
    training = script.experiment.training.model_copy(update={"steps_per_round": 2})
    lazy = replace(script, experiment=script.experiment.model_copy(update={"training": training}))
    lazy.write(tmp_path)
    with pytest.raises(ValueError, match="its soft labels are up to"):
        check_equal("lazy", np.array(run_reference(lazy, tmp_path, lambda number: None)), wanted)


def test_a_client_that_fails_in_plain_flower_ends_the_arm(script: Script, tmp_path: Path) -> None:
    run_reference(script, tmp_path, lambda number: None)
    grid = InlineGrid(plain_app(tmp_path / "nowhere", is_tuned=True), num_nodes=script.num_clients)
    with pytest.raises(RuntimeError, match="a client of plain Flower failed"):
        run_rounds(grid, script, tmp_path, lambda number: None)


def test_clients_of_no_work_need_the_recordings_of_one_and_take_part_in_all_rounds(tmp_path: Path) -> None:
    script = script_of(family("null", clients=5, overrides=(INLINE,)))
    assert len(list((script.federation / "clients").iterdir())) == 1
    numbers: list[int] = []
    assert run_null(script, tmp_path, numbers.append) == []
    assert sorted(set(numbers)) == [0, 1, 2, 3]


def test_a_turn_writes_the_seconds_and_cpu_seconds_of_each_round(
    script: Script, wanted: NDArray[np.float32], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    take_turn("ours", tmp_path, out)
    rounds = json.loads((out / ROUNDS).read_text())
    assert len(rounds) == 3 and all(seconds > 0 and cpu_s >= 0 for seconds, cpu_s in rounds)
    np.testing.assert_allclose(np.load(out / LABELS), wanted, atol=1e-6, rtol=0)


def test_a_turn_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the arm ours failed: FileNotFoundError: .*script\.json"):
        turn_of("ours", tmp_path)


@pytest.mark.ray
def test_stock_flower_on_ray_gives_the_soft_labels_of_the_reference(
    script: Script, wanted: NDArray[np.float32], tmp_path: Path
) -> None:
    turn, labels = turn_of("flower-tuned", tmp_path)
    check_equal("flower-tuned", labels, wanted)
    assert 0 < turn.seconds < turn.total_s and turn.cpu_s > 0


def test_an_unknown_ratio_is_refused_before_anything_runs() -> None:
    result = CliRunner().invoke(cli, ["bench", "speed", "--ratio", "taxes"])
    assert isinstance(result.exception, ValueError)
    assert "--ratio taxes: there is no such ratio; did you mean tax?" in str(result.exception)
