"""The gallery: every ready experiment says in a sentence what it is about, is whole, and runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from configs.loading import load_experiment
from configs.yaml_files import CONFIG_FOLDER, first_comment, gallery_files
from tests.conftest import tiny_values
from tests.sim.cli.test_main import softbeam

NAMES = [path.stem for path in gallery_files()]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def small(name: str) -> list[str]:
    """The overrides that leave what an experiment is about, and make it run in a second."""
    tiny = tiny_values()
    passes = {**tiny["data"]["passes"], "public": 3, "client": 6}
    values = {
        "name": "small",  # so that the same data is made once
        **{f"data.passes.{key}": value for key, value in passes.items()},
        "data.nodes": [{"modality": "gps", "count": 4}],
        **{f"training.{key}": value for key, value in tiny["training"].items()},
        **{f"teaching.{key}": value for key, value in tiny["teaching"].items()},
        "students": {"gps": tiny["students"]["gps"]},
        "teacher": tiny["teacher"],
        "strategy.rounds": 2,
        "strategy.public_samples": 24,
        "engine": {"name": "inline", "workers": 1},
    }
    return [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def test_there_are_ten_and_each_says_in_one_sentence_what_it_is_about() -> None:
    rows = json.loads(softbeam("gallery", "--json").out)
    assert [row["name"] for row in rows] == NAMES
    assert len(rows) == 10
    for row in rows:
        assert re.fullmatch(r"[A-Z][^.]+\.", row["description"]), row
        assert Path(row["file"]).is_file()
    shown = softbeam("gallery").out
    assert all(row["name"] in shown and row["description"] in shown for row in rows)


def test_no_name_means_two_experiments() -> None:
    assert not {path.stem for path in CONFIG_FOLDER.glob("*.yaml")} & set(NAMES)


def test_a_comment_ends_where_the_values_begin(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# One,\n# two.\nname: mine  # three\n# four\n")
    assert first_comment(tmp_path / "mine.yaml") == "One, two."


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_of_the_gallery_is_found_by_its_name_and_can_be_previewed(name: str) -> None:
    assert load_experiment(name) == load_experiment(f"gallery/{name}")
    printed = json.loads(softbeam("run", name, "--dry-run", "--json").out)
    assert printed["experiment"]["name"] == name
    assert printed["cost"]["steps"]["all"] > 0


def test_no_two_of_them_are_the_same_experiment() -> None:
    assert len({load_experiment(name, ["name=same"]).model_dump_json() for name in NAMES}) == len(NAMES)


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    assert "did you mean two-liars?" in softbeam("run", "two-lairs").err


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_of_the_gallery_runs(name: str, tmp_path: Path) -> None:
    answer = softbeam("run", name, *small(name), "--out", str(tmp_path / "runs"), "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 2
    assert summary
    assert load_experiment(folder / "experiment.yaml").strategy.name == load_experiment(name).strategy.name
