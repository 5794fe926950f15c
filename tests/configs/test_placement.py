"""Where a run reads and writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.loading import load_experiment
from configs.placement import federation_folder, folder_digest, native_placement, resolved_folder, softbeam_home
from configs.yaml_files import find_config


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
    assert placement.plugins == (find_config("quickstart").resolve().parent, Path.cwd())
    assert placement.federation == federation_folder(placement.experiment)


def test_a_native_run_without_a_config_is_the_quickstart(home: Path) -> None:
    assert native_placement({}, 1).experiment == load_experiment("quickstart")


def release(folder: Path) -> Path:
    """A folder with a table, an archive, a sensor's file and what a desktop leaves behind."""
    (folder / "unit1").mkdir(parents=True)
    (folder / "scenario9.csv").write_text("index,seq_index\n1,1\n")
    (folder / "scenario9_arrays.npz").write_bytes(b"1234")
    (folder / "unit1" / "a.jpg").write_bytes(b"12345")
    (folder / "unit1" / "._a.jpg").write_bytes(b"1")
    return folder


def keep_time(path: Path, change: Callable[[], object]) -> None:
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


OTHER_DATA: dict[str, Callable[[Path], object]] = {
    "a table with other bytes of the same size and time": lambda at: keep_time(
        at / "scenario9.csv", lambda: (at / "scenario9.csv").write_text("index,seq_index\n1,2\n")
    ),
    "an archive with other bytes of the same size and time": lambda at: keep_time(
        at / "scenario9_arrays.npz", lambda: (at / "scenario9_arrays.npz").write_bytes(b"1235")
    ),
    "a file that came": lambda at: (at / "unit1" / "b.jpg").write_bytes(b"1"),
    "a file that went": lambda at: (at / "unit1" / "a.jpg").unlink(),
    "a file of another name": lambda at: (at / "unit1" / "a.jpg").rename(at / "unit1" / "c.jpg"),
    "a file of another size": lambda at: (at / "unit1" / "a.jpg").write_bytes(b"123456"),
    "a file of another time": lambda at: os.utime(at / "unit1" / "a.jpg", ns=(1, 1)),
}


@pytest.mark.parametrize("case", OTHER_DATA)
def test_a_release_in_which_anything_that_counts_has_changed_is_other_data(case: str, tmp_path: Path) -> None:
    folder = release(tmp_path / "scenario9")
    before = folder_digest(folder)
    assert folder_digest(folder) == before
    OTHER_DATA[case](folder)
    assert folder_digest(folder) != before


def test_what_a_desktop_leaves_in_a_release_does_not_count(tmp_path: Path) -> None:
    folder = release(tmp_path / "scenario9")
    before = folder_digest(folder)
    (folder / "unit1" / "._b.jpg").write_bytes(b"2")
    (folder / ".DS_Store").write_bytes(b"2")
    assert folder_digest(folder) == before


def test_a_release_that_was_completed_is_made_into_other_data(tmp_path: Path, home: Path) -> None:
    folder = release(tmp_path / "scenario9")
    experiment = load_experiment(find_config("deepsense-scenario9"), [f"data.folder={folder}"])
    before = federation_folder(experiment)
    assert federation_folder(experiment) == before
    (folder / "unit1" / "b.jpg").write_bytes(b"1")
    assert federation_folder(experiment) != before


def test_a_tilde_in_a_folder_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved_folder("~/scenario9") == tmp_path / "scenario9"
