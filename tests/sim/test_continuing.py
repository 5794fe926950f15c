"""Several strategies in one command, and a command that goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from configs.loading import commit_of_source, source_digest
from sim.cli.main import cli
from sim.experiments import continue_experiment, resume_experiment, run_experiment
from sim.forget import forget_client
from sim.report.summaries import group_by_settings, load_summary, without_repeats
from sim.run_note import is_of_code_of_now, read_run
from tests.conftest import tiny_experiment, tiny_values
from tests.federations import quiet


def test_a_finished_run_of_the_same_experiment_is_taken_as_it_is(tmp_path: Path) -> None:
    experiment = tiny_experiment(rounds=1)
    first = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    written = (first / "summary.json").stat().st_mtime_ns
    again = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert again == first
    assert (first / "summary.json").stat().st_mtime_ns == written
    other = continue_experiment(tiny_experiment(rounds=2), plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert other != first


def test_an_unfinished_run_of_the_same_experiment_is_resumed(tmp_path: Path) -> None:
    experiment = tiny_experiment(rounds=1)
    first = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    (first / "summary.json").unlink()
    again = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert again == first
    assert (first / "summary.json").is_file()


@pytest.mark.parametrize(
    ("commit", "named"),
    [("0a1b2c3", "commit 0a1b2c3"), (None, "an older version that noted no commit")],
    ids=["with a commit", "without"],
)
def test_a_run_of_other_source_is_not_resumed_but_named_and_made_anew(
    commit: str | None, named: str, tmp_path: Path
) -> None:
    experiment = tiny_experiment(rounds=1)
    first = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    (first / "summary.json").unlink()
    environment = json.loads((first / "environment.json").read_text())
    assert environment["source_digest"] == source_digest()
    assert environment["commit"] == commit_of_source()
    (first / "environment.json").write_text(json.dumps({**environment, "source_digest": "f00", "commit": commit}))
    before = sorted(path.name for path in first.iterdir())
    with pytest.raises(ValueError) as caught:
        resume_experiment(first, quiet)
    assert str(caught.value).startswith(f"{first}: was made by other source (f00, {named}) than this one (")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in first.iterdir()) == before
    again = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert again != first
    assert (again / "summary.json").is_file()


RULE = """
from strategies.aggregation import align, weighted_mean
import numpy as np

class Even:
    def aggregate(self, contributions):
        return weighted_mean(align(contributions), np.ones((1, 1, 1)))
"""


def test_a_rule_that_was_edited_is_run_again_and_compared_beside_the_old_one(tmp_path: Path) -> None:
    experiment = tiny_experiment(rounds=1, aggregator={"name": "my_even:Even"}, codec="float16")
    (tmp_path / "my_even.py").write_text(RULE)
    first = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    (tmp_path / "my_even.py").write_text(RULE + "\n# another thought\n")
    second = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert second != first
    assert continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet) == second
    kept, notes = without_repeats([first, second])
    assert kept == [first, second] and notes == []
    labels = list(group_by_settings([load_summary(run) for run in kept]))
    assert all("own_code=" in label for label in labels) and len(set(labels)) == 2


def test_a_run_that_goes_on_with_an_edited_rule_is_of_neither_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = tiny_experiment(rounds=1, aggregator={"name": "my_even:Even"}, codec="float16")
    (tmp_path / "my_even.py").write_text(RULE)
    first = run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    before = read_run(first)[1]["own_code"]
    (tmp_path / "my_even.py").write_text(RULE + "\n# another thought\n")
    for _ in range(2):
        (first / "summary.json").unlink()
        caplog.clear()
        assert not is_of_code_of_now(*read_run(first))
        resume_experiment(first, quiet)
        noted = read_run(first)[1]["own_code"]
        assert noted.startswith(f"{before}+") and noted.count("+") == 1
    assert "own modules were changed" not in caplog.text  # the second time they were those of the first resumption
    assert load_summary(first)["settings"]["own_code"] == noted
    again = continue_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert again != first
    with pytest.raises(ValueError, match="own modules were changed since it ran; put back what was there"):
        forget_client(first, "000-gps")


@pytest.mark.parametrize("key", ["seed", "training.learning_rate", "strategy.rounds"])
def test_a_run_whose_settings_were_edited_is_not_resumed(key: str, tmp_path: Path) -> None:
    first = run_experiment(tiny_experiment(rounds=2), plugins=(), out=tmp_path / "runs", progress=quiet)
    (first / "summary.json").unlink()
    values = yaml.safe_load((first / "experiment.yaml").read_text())
    *sections, last = key.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[last] *= 3
    place[last] += 1
    (first / "experiment.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"experiment\.yaml: was changed since the run began; put back what was there"):
        resume_experiment(first, quiet)


@pytest.mark.parametrize(
    ("names", "with_controls"),
    [
        ("local,distillation,fedavg", "distillation"),
        ("fedavg,local", "local"),
        ("distillation,scarlet", "distillation"),
        ("scarlet,distillation", "distillation"),
        ("local,fedavg,scarlet", "scarlet"),
    ],
)
def test_controls_are_trained_with_a_strategy_for_which_nothing_of_the_file_is_left_out(
    names: str, with_controls: str
) -> None:
    answer = CliRunner().invoke(cli, ["run", "deepsense-sites", "--strategies", names, "--dry-run", "--json"])
    assert answer.exit_code == 0, answer.output
    previews = json.loads(answer.stdout)
    experiments = [one["experiment"] for one in (previews if isinstance(previews, list) else [previews])]
    assert [one["strategy"]["name"] for one in experiments] == names.split(",")
    assert [one["strategy"]["name"] for one in experiments if one["controls"]] == [with_controls]
    told = [line for line in answer.stderr.splitlines() if "of deepsense-sites left out: the method" in line]
    assert [line.partition(":")[0] for line in told] == [name for name in names.split(",") if name != "distillation"]
    for line in told:
        if line.startswith("scarlet:"):
            assert "strategy.sharpness of" in line and line.endswith("says it itself")
        else:
            assert "strategy.keeps" in line and line.endswith("has no use for it")


def test_strategies_run_one_by_one_and_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny_values(rounds=1)))
    answer = CliRunner().invoke(cli, ["run", "tiny.yaml", "--strategies", "local,fedmd,fd", "--json"])
    assert answer.exit_code == 0, answer.output
    runs = sorted(str(path) for path in Path("runs").iterdir())
    assert len(runs) == 3
    compared = CliRunner().invoke(cli, ["compare", *runs, "--json", "--figure", "front.png"])
    assert compared.exit_code == 0, compared.output
    overview = {group["overview"]["label"]: group["overview"] for group in json.loads(compared.stdout).values()}
    assert set(overview) == {"local", "fedmd", "fd"}
    assert overview["local"]["bytes_per_client"] == 0
    assert overview["fedmd"]["bytes_per_client"] > 0
    assert all(one["worst_gain"] is not None for one in overview.values())
    assert Path("front.png").stat().st_size > 10_000
    shown = CliRunner().invoke(cli, ["compare", *runs])
    assert "Strategies" in shown.stdout
    for label in overview:
        assert label in shown.stdout
