"""What a YAML extends, what comes of it, and where a mistake in it stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from configs.loading import load_experiment, to_values
from configs.study_loading import load_study
from configs.yaml_files import CONFIG_FOLDER, merged, read_config
from sim.experiments import resume_experiment, run_experiment
from sim.run_note import read_run
from tests.conftest import tiny_values
from tests.federations import quiet

RULE = """
import numpy as np
from strategies.aggregation import align, weighted_mean

class {name}:
    def aggregate(self, contributions):
        return weighted_mean(align(contributions), np.ones((1, 1, 1)))
"""


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ValueError) as caught:
        load_experiment(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("extends", ["quickstart", "quickstart.yaml", "other/quick.yaml", "$HERE/other/quick.yaml"])
def test_a_yaml_that_extends_another_differs_from_it_in_what_it_says_alone(
    extends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    (tmp_path / "other").mkdir()
    shutil.copy(CONFIG_FOLDER / "quickstart.yaml", tmp_path / "other" / "quick.yaml")
    if extends == "quickstart.yaml":
        shutil.copy(CONFIG_FOLDER / "quickstart.yaml", tmp_path / "quickstart.yaml")
    mine = written(tmp_path / "mine.yaml", f"extends: {extends}\nname: mine\nstrategy: {{rounds: 3}}\n")
    expected = load_experiment("quickstart", ["name=mine", "strategy.rounds=3"])
    assert load_experiment(mine) == expected
    assert load_experiment(mine, ["strategy.rounds=7", "name=quickstart"]) == load_experiment("quickstart")


def test_a_yaml_of_the_name_of_a_preset_may_extend_it(tmp_path: Path) -> None:
    mine = written(tmp_path / "quickstart.yaml", "extends: quickstart\nseed: 4\n")
    assert load_experiment(mine) == load_experiment("quickstart", ["seed=4"])


def test_a_chain_is_followed_each_file_relative_to_its_own_folder(tmp_path: Path) -> None:
    written(tmp_path / "a" / "one.yaml", "extends: quickstart\nname: one\nseed: 1\n")
    written(tmp_path / "b" / "two.yaml", "extends: ../a/one.yaml\nseed: 2\nstrategy: {rounds: 2}\n")
    three = written(tmp_path / "three.yaml", "extends: b/two.yaml\nstrategy: {public_samples: 8}\n")
    wanted = ["name=one", "seed=2", "strategy.rounds=2", "strategy.public_samples=8"]
    assert load_experiment(three) == load_experiment("quickstart", wanted)
    assert [file.name for file in read_config(three).files] == ["three.yaml", "two.yaml", "one.yaml", "quickstart.yaml"]


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": [{"b": 1}]}, {"a": [{"c": 1}]}, {"a": [{"c": 1}]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({}, {"a": 1}, {"a": 1}),
        # What belongs to another source, or to another plug-in, makes no sense for this one.
        (
            {"data": {"source": "street", "world": {}}},
            {"data": {"source": "deepsense", "folder": "x"}},
            {"data": {"source": "deepsense", "folder": "x"}},
        ),
        (
            {"data": {"source": "street", "world": {"sites": 2}}},
            {"data": {"source": "street", "traffic_skew": 1.0}},
            {"data": {"source": "street", "world": {"sites": 2}, "traffic_skew": 1.0}},
        ),
        (
            {"strategy": {"name": "personal", "options": {"pull": 2}, "rounds": 3}},
            {"strategy": {"name": "fedmd"}},
            {"strategy": {"name": "fedmd", "rounds": 3}},
        ),
        (
            {"students": {"gps": {"width": 4}, "radar": {"width": 2}}},
            {"students": {"gps": {"model": "my_models:Net"}}},
            {"students": {"gps": {"model": "my_models:Net"}, "radar": {"width": 2}}},
        ),
        (
            {"teacher": {"model": "my_models:Net", "options": {"hidden": 4}}},
            {"teacher": {"model": "my_models:Net", "options": {"depth": 2}}},
            {"teacher": {"model": "my_models:Net", "options": {"hidden": 4, "depth": 2}}},
        ),
        (
            {"aggregator": {"name": "mean", "options": {"exponent": 2}}},
            {"aggregator": {"name": "mean", "options": {"other": 1}}},
            {"aggregator": {"name": "mean", "options": {"exponent": 2, "other": 1}}},
        ),
    ],
)
def test_mappings_merge_and_everything_else_is_replaced(before: object, changes: object, after: object) -> None:
    assert isinstance(before, dict) and isinstance(changes, dict)
    copy = yaml.safe_load(yaml.safe_dump(before))
    assert merged(before, changes) == after
    assert before == copy


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("extends: quikstart\n", "mine.yaml: extends: quikstart: no such config; give a YAML file or one of "),
        ("extends: quikstart\n", "; did you mean quickstart?"),
        ("extends: base\n", "; did you mean base.yaml?"),
        ("extends: 3\n", "mine.yaml: extends: must be the name of a config or the path of a YAML file, got 3"),
        ("extends:\n", "mine.yaml: extends: must be the name of a config or the path of a YAML file, got None"),
        ("extends: [quickstart]\n", "got ['quickstart']"),
        ("extends: mine.yaml\n", "the files extend each other in a circle"),
        ("extends: back.yaml\n", "the files extend each other in a circle"),
        ("extends: .\n", "mine.yaml: extends: .: no such config"),
        ("extends: broken.yaml\n", "broken.yaml: not valid YAML"),
        ("extends: study-paper\n", "mine.yaml: this is a study, not an experiment"),
        ("extends: $NOWHERE/x.yaml\n", "the environment variable NOWHERE is not set"),
        ("seed: 1\nname: x\nseed: 2\n", "mine.yaml: seed: stands in line 1 and again in line 3; leave one out"),
        ("a: &x [*x]\n", "mine.yaml: "),
    ],
)
def test_a_mistake_in_what_is_extended_is_refused_by_the_name_of_the_file(
    text: str, problem: str, tmp_path: Path
) -> None:
    written(tmp_path / "base.yaml", "extends: quickstart\n")
    written(tmp_path / "back.yaml", "extends: mine.yaml\n")
    written(tmp_path / "broken.yaml", "a: [")
    assert problem in refusal(written(tmp_path / "mine.yaml", text))


def test_a_mistake_names_the_file_and_the_line_in_which_it_stands_and_the_source_of_its_section(tmp_path: Path) -> None:
    base = written(tmp_path / "base.yaml", "extends: quickstart\n\nstrategy:\n  rouns: 3\n")
    mine = written(
        tmp_path / "mine.yaml", "extends: base.yaml\nseed: 1.5\ndata:\n  nodes:\n  - {modality: gps, n: 2}\n"
    )
    found = refusal(mine, "data.passes.test=0")
    assert f"{mine}: seed: must be a valid integer, got 1.5 (line 2)" in found
    assert "strategy.rouns: unknown key; see configs/strategy.py for the known ones; did you mean rounds?" in found
    assert f"rounds? ({base}, line 4)" in found
    assert "data.nodes.0.n: unknown key; see configs/data.py for the known ones (line 5)" in found
    assert "data.passes.test: must be greater than or equal to 1, got 0 (--set)" in found


@pytest.mark.parametrize(
    ("override", "file"),
    [
        ("colour=1", "schema"),
        ("training.colour=1", "schema"),
        ("engine.colour=1", "schema"),
        ("strategy.privacy.colour=1", "strategy"),
        ("strategy.aggregator.colour=1", "strategy"),
        ("data.colour=1", "data"),
        ("data.nodes.0.faults={colour: 1}", "data"),
        ("data.world={colour: 1}", "world"),
        ("students={gps: {colour: 1}}", "models"),
    ],
)
def test_an_unknown_key_names_the_file_that_has_its_section(override: str, file: str) -> None:
    with pytest.raises(ValueError, match=f"unknown key; see configs/{file}.py for the known ones"):
        load_experiment("quickstart", [override])


def test_a_study_may_extend_a_study_and_its_mistakes_have_lines(tmp_path: Path) -> None:
    mine = written(tmp_path / "mine.yaml", "extends: study-reduced\nname: mine\n")
    assert load_study(mine) == load_study("study-reduced", ["name=mine"])
    mine.write_text("extends: study-reduced\nquick:\n  colour: 1\n")
    with pytest.raises(ValueError, match=r"colour: unknown key; see configs/study.py for the known ones \(line 3\)"):
        load_study(mine, quick=True)


def test_a_run_keeps_the_whole_experiment_and_finds_its_rules_again_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {**tiny_values(rounds=1, aggregator={"name": "base_rules:Base"}), "controls": False}
    written(tmp_path / "base" / "base.yaml", yaml.safe_dump(base))
    written(tmp_path / "base" / "base_rules.py", RULE.format(name="Base"))
    mine = written(tmp_path / "mine" / "mine.yaml", "extends: ../base/base.yaml\nname: mine\n")
    (tmp_path / "here").mkdir()
    written(tmp_path / "here" / "here_rules.py", RULE.format(name="Here"))
    monkeypatch.chdir(tmp_path / "here")
    for name in ("base_rules:Base", "here_rules:Here"):
        experiment = load_experiment(mine, [f"strategy.aggregator.name={name}"])
        plugins = read_config(mine).plugin_folders
        assert plugins == (tmp_path / "mine", tmp_path / "base", tmp_path / "here")
        run = run_experiment(experiment, plugins=plugins, out=tmp_path / "runs", progress=quiet)
        assert yaml.safe_load((run / "experiment.yaml").read_text()) == to_values(experiment)
        assert read_run(run)[0] == experiment
        (run / "summary.json").unlink()
        with monkeypatch.context() as patch:
            patch.chdir("/")
            resume_experiment(run, quiet)
        assert (run / "summary.json").is_file()
