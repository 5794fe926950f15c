"""Where generated data lies: one folder for each user, and nobody's own folder in a test."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from configs.home import hold, in_use_file, softbeam_home


@pytest.fixture
def unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, with neither variable set."""
    for name in ("SOFTBEAM_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "user"


def test_generated_data_lies_where_the_environment_says(
    unset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert softbeam_home() == unset / ".cache" / "softbeam"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert softbeam_home() == tmp_path / "xdg" / "softbeam"
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path / "mine"))
    assert softbeam_home() == tmp_path / "mine"


@pytest.mark.parametrize("cache", ["", "relative/cache", "."])
def test_a_cache_that_is_no_absolute_path_is_ignored(cache: str, unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("SOFTBEAM_HOME", "")
    assert softbeam_home() == unset / ".cache" / "softbeam"


def test_the_folder_does_not_depend_on_the_one_in_which_a_command_is_given(
    unset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = softbeam_home()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert softbeam_home() == before


def test_data_of_an_earlier_version_is_told_once(
    unset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".softbeam" / "data").mkdir(parents=True)
    assert softbeam_home() == softbeam_home() == unset / ".cache" / "softbeam"
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path / '.softbeam'}: an earlier version kept its data here; it is now in {unset}")
    assert line.endswith(f"or set SOFTBEAM_HOME={tmp_path / '.softbeam'} to go on using it")
    monkeypatch.setenv("SOFTBEAM_HOME", ".softbeam")
    assert softbeam_home() == tmp_path / ".softbeam"


def test_without_a_home_the_variable_is_asked_for(unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ValueError, match="SOFTBEAM_HOME: this user has no home"):
        softbeam_home()


def test_tests_cannot_reach_the_cache_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTBEAM_HOME")
    assert Path.home() / ".cache" not in softbeam_home().parents


def is_held(path: Path) -> bool:
    with in_use_file(path).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_an_entry_is_held_and_its_time_is_that_of_the_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path))
    entry = tmp_path / "data" / "one"
    hold(entry)
    assert is_held(entry)
    os.utime(in_use_file(entry), (1, 1))
    hold(entry)
    assert in_use_file(entry).stat().st_mtime > 1
    in_use_file(entry).unlink()  # somebody removed the whole cache by hand
    hold(entry)
    assert is_held(entry)


def test_what_lies_outside_of_the_cache_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path / "home"))
    (tmp_path / "federation").mkdir()
    hold(tmp_path / "federation")
    assert [path.name for path in tmp_path.iterdir()] == ["federation"]
