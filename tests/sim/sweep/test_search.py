"""A sweep from the command line: what it chooses by, what it leaves, and how it goes on after a kill."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.recorder import VALIDATION_FILE
from sim.cli.command_tree import run_command
from sim.cli.main import cli
from sim.sweep.search import TABLE, best_of
from sim.sweep.search import TrialRow as Row
from sim.sweep.trial_runs import PrunedError, TrialRuns, run_score
from tests.conftest import tiny_values
from tests.sim.cli.test_main import Answer, softbeam

pytest.importorskip("optuna", reason="the extra sweep is not installed")

OVER = ("--over", "training.learning_rate=log(1e-4,1e-1)", "--over", "strategy.aggregator.name=mean|entropy_mean")


def written(folder: Path, values: dict[str, Any] | None = None) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values or tiny_values(rounds=2)))
    return path


def sweep(config: Path, out: Path, *words: str, trials: int = 2) -> Answer:
    return softbeam("sweep", config, *(words or OVER), "--trials", str(trials), "--out", out, "--json")


def table(out: Path) -> list[dict[str, str]]:
    with (out / TABLE).open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, home: Path) -> tuple[Answer, Path]:
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        return sweep(written(folder), folder / "out"), folder / "out"


def test_a_trial_is_a_run_and_the_one_that_validates_best_is_named(finished: tuple[Answer, Path]) -> None:
    answer, out = finished
    found = json.loads(answer.out)
    rows = found["trials"]
    assert [row["state"] for row in rows] == ["complete"] * 2
    runs = [next((out / f"trial-{row['number']:03d}").glob("tiny-*")) for row in rows]
    assert [row["score"] for row in rows] == [run_score(run) for run in runs]
    best = max(rows, key=lambda row: row["score"])
    assert found["best"] == best["number"]
    for run, row in zip(runs, rows, strict=True):
        settings = yaml.safe_load((run / "experiment.yaml").read_text())
        assert settings["training"]["learning_rate"] == float(row["values"]["training.learning_rate"])
        assert settings["strategy"]["aggregator"]["name"] == row["values"]["strategy.aggregator.name"]
        assert settings["controls"] is False
    assert f"training.learning_rate={best['values']['training.learning_rate']}" in found["command"]
    assert "controls" not in found["command"] and "--seeds 3" in found["command"]
    assert [row["validation"] for row in table(out)] == [f"{row['score']:.6g}" for row in rows]


def test_scores_are_of_validation_and_tests_change_nothing(finished: tuple[Answer, Path], tmp_path: Path) -> None:
    _, out = finished
    (run,) = (out / "trial-000").glob("tiny-*")
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "summary.json").unlink()
    (copy / "passes.json").unlink()
    assert run_score(copy) == run_score(run)
    validation = json.loads((copy / VALIDATION_FILE).read_text())
    for client in validation["clients"].values():
        client["federated"] = None
    (copy / VALIDATION_FILE).write_text(json.dumps(validation))
    assert run_score(copy) is None


def test_more_trials_add_to_a_sweep_and_another_one_is_refused(finished: tuple[Answer, Path], tmp_path: Path) -> None:
    answer, out = finished
    again = Path(shutil.copytree(out, tmp_path / "again"))
    config = written(tmp_path)
    before = json.loads(answer.out)["trials"]
    same = sweep(config, again, trials=1)
    assert json.loads(same.out)["trials"] == before
    other = sweep(config, again, "--over", "strategy.temperature=1..8")
    assert other.code == 1
    assert "has another sweep, of other settings or of own modules that were edited since; give another" in other.err


def test_a_sweep_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    finished: tuple[Answer, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [
        sys.executable,
        "-m",
        "softbeam",
        "sweep",
        str(written(tmp_path)),
        *OVER,
        "--trials",
        "2",
        "--out",
        str(out),
    ]
    sign = "trial-001/*/rounds.jsonl"
    with subprocess.Popen(
        words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        end = time.monotonic() + 120
        while not list(out.glob(sign)) and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert list(out.glob(sign))
    sweep(tmp_path / "tiny.yaml", out)
    assert table(out) == table(finished[1])


def test_a_run_that_is_given_up_is_stopped_and_can_go_on(tmp_path: Path) -> None:
    runs = TrialRuns(str(written(tmp_path, tiny_values(rounds=1000))), ["controls=false"], [3], tmp_path / "trial-000")
    seen = []

    def watch(done: int, score: float) -> None:
        seen.append((done, score))
        raise PrunedError

    with pytest.raises(PrunedError):
        runs.score(watch)
    assert [done for done, _ in seen] == [1] and 0 < seen[0][1] <= 1
    (run,) = (tmp_path / "trial-000").glob("tiny-*")
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"


def test_a_trial_below_the_median_is_given_up_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.sweep.search.TRIALS_BEFORE_PRUNING", 2)
    rates = "1.0e-2|1.0e-12"

    class Scripted(TrialRuns):
        def score(self, watch: Callable[[int, float], None]) -> float:
            value = 0.1 if any(one.endswith("e-2") for one in self.overrides) else 0.01
            for done in (1, 2, 3):
                watch(done, value)
            return value

    monkeypatch.setattr("sim.sweep.search.TrialRuns", Scripted)
    answer = sweep(written(tmp_path), tmp_path / "out", "--over", f"training.learning_rate={rates}", trials=12)
    rows = json.loads(answer.out)["trials"]
    given_up = [row for row in rows if row["state"] == "pruned"]
    assert given_up and all(row["values"]["training.learning_rate"] == "1.0e-12" for row in given_up)
    assert all(row["score"] == 0.01 for row in given_up), "its last score is told"
    assert "given up at 0.0100; best 0.1000" in answer.err
    assert json.loads(answer.out)["command"].endswith("--set training.learning_rate=1.0e-2 --seeds 3")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--over", "strategy.temperatur=1..8"), "strategy.temperatur: unknown key"),
        (("--over", "strategy.temperature=-1..8"), "--over strategy.temperature: -1.0 cannot be:"),
        (("--over", "strategy.aggregator.name=mean|avarage"), "unknown name 'avarage'"),
        (("--over", "strategy.temperature=8"), "expected a range such as 1..8"),
        ((*OVER, "--seeds", "1,1"), "seed 1 stands there more than once"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_runs(
    words: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    answer = sweep(written(tmp_path), tmp_path / "out", *words)
    assert answer.code == 1
    assert told in answer.err and answer.err.count("\n") == 1
    assert not list(tmp_path.glob("out/trial-*"))


def test_without_validation_passes_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    values = tiny_values(rounds=1)
    values["data"]["passes"]["validation_share"] = 0.0
    answer = sweep(written(tmp_path, values), tmp_path / "out", "--over", "strategy.temperature=1..8", trials=1)
    assert answer.code == 1
    assert "no client has validation passes, by which a sweep chooses; set data.passes.validation_share" in answer.err


def test_the_earlier_of_equal_trials_is_best_and_one_that_was_given_up_is_not() -> None:
    rows = [
        Row(0, "pruned", 0.9, {}),
        Row(1, "complete", 0.5, {}),
        Row(2, "complete", 0.5, {}),
        Row(3, "failed", None, {}),
    ]
    assert best_of(rows) == rows[1]
    assert best_of(rows[:1]) is None


def test_the_command_says_what_it_judges_by() -> None:
    command = run_command(cli).commands["sweep"]  # type: ignore[attr-defined]
    assert "no trial is judged by its tests" in (command.help or "")
