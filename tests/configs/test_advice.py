"""Each cause for which a place cannot be used has advice of its own, wherever the error comes up."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from configs.advice import ADVICE, OTHER, advice_for, again, explained
from configs.files import unwritable
from tests.sim.cli.test_main import softbeam, write_yaml

ROOM = "make room on the disk"


@pytest.mark.parametrize("number", ADVICE)
def test_only_a_full_disk_is_told_to_make_room_and_every_cause_names_place_and_reason(number: int) -> None:
    error = OSError(number, os.strerror(number), "/data/runs")
    line = explained(error)
    assert line.startswith("/data/runs: ") and line.endswith(ADVICE[number])
    assert os.strerror(number)[1:] in line
    assert (ROOM in line) == (number in (errno.ENOSPC, errno.EFBIG))
    assert again(error) == f"{advice_for(error)}, then give the same command again"
    assert str(unwritable(Path("/data/runs/x"), error)).endswith(
        f"{advice_for(error)}, then go on with softbeam resume"
    )


def test_the_advice_of_a_file_of_a_run_names_the_run(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    (run / "clients").mkdir(parents=True)
    (run / "experiment.yaml").touch()
    error = OSError(errno.ENOSPC, "No space left on device")
    for path in (run / "rounds.jsonl", run / "clients" / "000-gps.state"):
        assert str(unwritable(path, error)).endswith(f"go on with softbeam resume '{run}'")


def test_an_error_that_says_all_itself_is_left_alone() -> None:
    assert explained(OSError("/x: cannot be written; take another disk")) == "/x: cannot be written; take another disk"
    assert explained(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")).endswith("Connection refused")
    assert advice_for(OSError("no number")) == OTHER
    assert explained(OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b")).startswith("/a -> /b: ")


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop" / "runs"


def file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


OUTS = {
    errno.ENOTDIR: lambda folder: file(folder) / "runs",
    errno.EEXIST: file,
    errno.ENAMETOOLONG: lambda folder: folder / ("x" * 300),
    errno.ELOOP: loop,
    errno.ENOENT: lambda folder: Path("/proc/nothing/runs"),
}


@pytest.mark.parametrize("cause", OUTS)
def test_a_place_for_runs_that_cannot_be_used_is_one_line_with_the_advice_of_its_cause(
    cause: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = softbeam("run", write_yaml(tmp_path), "--out", OUTS[cause](tmp_path))
    assert (answer.code, answer.out) == (1, "")
    (line,) = answer.err.splitlines()
    causes = (cause, errno.ENOTDIR) if cause == errno.EEXIST else (cause,)
    assert line.startswith("error: ") and any(line.endswith(ADVICE[one]) for one in causes), line
    assert ROOM not in line


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_one_line_with_its_own_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "closed").mkdir(mode=0o500)
    answer = softbeam("run", write_yaml(tmp_path), "--out", tmp_path / "closed" / "runs")
    assert answer.code == 1 and answer.err.strip().endswith(ADVICE[errno.EACCES])
