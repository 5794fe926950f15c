"""Where a run reads and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.loading import find_config, load_experiment
from configs.placement import federation_folder, native_placement, softbeam_home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path))
    return tmp_path.resolve()


def test_generated_data_lies_where_the_environment_says(home: Path) -> None:
    assert softbeam_home() == home


def test_without_the_environment_it_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOFTBEAM_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert softbeam_home() == tmp_path.resolve() / ".softbeam"


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
    assert placement.plugins == find_config("quickstart").resolve().parent
    assert placement.federation == federation_folder(placement.experiment)


def test_a_native_run_without_a_config_is_the_quickstart(home: Path) -> None:
    assert native_placement({}, 1).experiment == load_experiment("quickstart")
