"""Paths as people write them, and where they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.home import softbeam_home
from configs.paths import expanded
from configs.placement import resolved_folder
from configs.yaml_files import find_config


@pytest.fixture(autouse=True)
def _a_home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("~/runs", "runs"), ("$PLACE/a", "place/a"), ("${PLACE}/a", "place/a"), ("~", ""), ("$HOME/x y", "x y")],
)
def test_home_and_variables_are_expanded_wherever_a_path_is_read(
    written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert expanded(written) == tmp_path / meant
    assert resolved_folder(written) == tmp_path / meant
    monkeypatch.setenv("SOFTBEAM_HOME", written)
    assert softbeam_home() == (tmp_path / meant).resolve()


def test_a_config_is_found_by_such_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert find_config("~/mine.yaml") == find_config("$HOME/mine.yaml") == tmp_path / "mine.yaml"


@pytest.mark.parametrize("written", ["runs", "a$b", "half~", "odd/~"])
def test_what_stands_there_as_it_is_written_is_taken_as_it_is_written(written: str, tmp_path: Path) -> None:
    (tmp_path / written).mkdir(parents=True)
    assert expanded(written) == Path(written)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("$NOWHERE/runs", "the environment variable NOWHERE is not set"),
        ("${NOWHERE}/runs", "the environment variable NOWHERE is not set"),
        ("~nobody-by-this-name/runs", "there is no home of ~nobody-by-this-name"),
    ],
)
def test_what_stands_for_nothing_is_refused_instead_of_becoming_a_folder_of_that_name(
    written: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        expanded(written)
