"""How a run is made again: the command in its report is one that works, wherever it is typed."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from pathlib import Path

import pytest
import yaml

from configs.loading import load_experiment
from sim.report.html import write_report
from sim.report.reproduction import reproduction_command
from sim.report.summaries import load_summary
from tests.conftest import tiny_values
from tests.sim.cli.test_main import softbeam
from tests.sim.report.test_html import write_run

RULE = """
from strategies.rules.weighted import Mean


class Own(Mean):
    pass
"""


def test_the_command_of_the_report_makes_a_run_with_a_user_s_own_rule_again_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, empty = tmp_path / "my folder", tmp_path / "empty"
    for folder in (home, empty):
        folder.mkdir()
    (home / "own_rules.py").write_text(RULE)
    values = tiny_values(rounds=1, aggregator={"name": "own_rules:Own"})
    (home / "mine.yaml").write_text(yaml.safe_dump({**values, "controls": False}))
    monkeypatch.chdir(tmp_path)
    first = softbeam("run", home / "mine.yaml", "--out", tmp_path / "runs", "--set", "training.batch_size=16")
    assert first.code == 0, first.err
    (run,) = (tmp_path / "runs").iterdir()
    write_report([run], tmp_path / "page" / "report.html")
    (command,) = re.findall(r"<pre[^>]*>(.*softbeam run.*?)</pre>", (tmp_path / "page" / "report.html").read_text())
    assert "The clients&#x27; data is " in (tmp_path / "page" / "report.html").read_text()
    # As a shell would do it, in this process: go to a folder, then run a command.
    monkeypatch.chdir(empty)
    *moves, words = [shlex.split(part) for part in unescape(command).split(" && ")]
    for cd, folder in moves:
        assert cd == "cd"
        monkeypatch.chdir(folder)
    again = softbeam(*words[1:], "--out", tmp_path / "again")
    assert again.code == 0, again.err
    (other,) = (tmp_path / "again").iterdir()
    assert load_experiment(other / "experiment.yaml") == load_experiment(run / "experiment.yaml")


@pytest.mark.parametrize(
    ("note", "more"),
    [
        ({}, []),
        ({"plugins": ["A", "B"]}, []),  # no module of the user's own is named
        ({"plugins": "A", "deployment": "/the lab"}, ["--on", "/the lab"]),
    ],
)
def test_the_command_goes_where_it_must_and_nowhere_else(
    note: dict[str, object], more: list[str], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "a run")
    (run / "placement.json").write_text(json.dumps(note))
    command = reproduction_command([run], [load_summary(run)])
    assert shlex.split(command) == ["softbeam", "run", str(run / "experiment.yaml"), *more]


def test_modules_in_two_folders_are_both_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", aggregator={"name": "mine:Rule"}, name="theirs:Strategy")
    for folder, name in (("a", "mine"), ("b", "theirs")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").touch()
    (run / "placement.json").write_text(json.dumps({"plugins": [str(tmp_path / "a"), str(tmp_path / "b")]}))
    command = reproduction_command([run], [load_summary(run)])
    assert command.startswith(f"cd {tmp_path / 'a'} && PYTHONPATH={tmp_path / 'b'} softbeam run ")


def test_several_seeds_are_made_again_by_one_command(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), seed=seed) for seed in (3, 1)]
    assert reproduction_command(runs, [load_summary(run) for run in runs]).endswith("/3/experiment.yaml --seeds 3,1")
