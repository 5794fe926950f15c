"""Where a run reads and writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from configs.loading import load_experiment
from configs.placement import federation_folder, native_placement, resolved_folder
from configs.yaml_files import find_config


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path))
    return tmp_path.resolve()


def test_experiments_on_the_same_data_share_its_folder_and_others_do_not(home: Path) -> None:
    folder = federation_folder(load_experiment("quickstart"))
    assert folder.parent == home / "data"
    assert federation_folder(load_experiment("quickstart", ["strategy.rounds=1"])) == folder
    assert federation_folder(load_experiment("quickstart", ["seed=1"])) != folder


def test_a_native_run_takes_its_config_and_overrides_from_flat_strings(home: Path) -> None:
    run_config = {"config": "quickstart", "overrides": "seed=4 'strategy.aggregator={name: mean}'"}
    placement = native_placement(run_config, 12)
    assert placement.experiment.seed == 4
    assert placement.experiment.strategy.aggregator.name == "mean"
    assert placement.run == home / "runs" / "quickstart-12"
    assert placement.plugins == (find_config("quickstart").resolve().parent, Path.cwd())
    assert placement.federation == federation_folder(placement.experiment)


def test_a_native_run_without_a_config_is_the_quickstart(home: Path) -> None:
    assert native_placement({}, 1).experiment == load_experiment("quickstart")


def release(folder: Path) -> Path:
    """A folder with a table and a sensor's file."""
    (folder / "unit1").mkdir(parents=True)
    (folder / "scenario9.csv").write_text("index,seq_index\n1,1\n")
    (folder / "unit1" / "a.jpg").write_bytes(b"12345")
    return folder


def test_a_release_that_was_completed_is_made_into_other_data(tmp_path: Path, home: Path) -> None:
    folder = release(tmp_path / "scenario9")
    experiment = load_experiment(find_config("deepsense-scenario9"), [f"data.folder={folder}"])
    before = federation_folder(experiment)
    assert federation_folder(experiment) == before
    (folder / "unit1" / "b.jpg").write_bytes(b"1")
    assert federation_folder(experiment) != before


def test_the_same_release_in_another_folder_is_the_same_data(tmp_path: Path, home: Path) -> None:
    def place(folder: Path) -> Path:
        return federation_folder(load_experiment(find_config("deepsense-scenario9"), [f"data.folder={folder}"]))

    before = place(release(tmp_path / "scenario9"))
    assert place(Path(shutil.copytree(tmp_path / "scenario9", tmp_path / "copy"))) == before
    (tmp_path / "scenario9").rename(tmp_path / "renamed")
    assert place(tmp_path / "renamed") == before
    (tmp_path / "link").symlink_to(tmp_path / "renamed")
    assert place(tmp_path / "link") == before


def test_a_tilde_in_a_folder_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved_folder("~/scenario9") == tmp_path / "scenario9"
