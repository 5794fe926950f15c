"""What a folder holds is told by bytes, and they are read only where size, times and inode leave a doubt."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.contents import FolderContents


def release(folder: Path) -> Path:
    """A folder with a table, an archive, a sensor's file and what a desktop leaves behind."""
    (folder / "unit1").mkdir(parents=True)
    (folder / "scenario9.csv").write_text("index,seq_index\n1,1\n")
    (folder / "scenario9_arrays.npz").write_bytes(b"1234")
    (folder / "unit1" / "a.jpg").write_bytes(b"12345")
    (folder / "unit1" / "._a.jpg").write_bytes(b"1")
    (folder / "download.zip").write_bytes(b"12")
    return folder


def rewrite(path: Path, content: bytes) -> None:
    """Other bytes of the same size, with the time that the file had."""
    before = path.stat()
    assert before.st_size == len(content)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path, content: bytes) -> None:
    """Another file of the same name, size and time, as an archiver puts it there."""
    rewrite_to = path.with_name("other")
    shutil.copy2(path, rewrite_to)
    rewrite(rewrite_to, content)
    rewrite_to.rename(path)


OTHER: dict[str, Callable[[Path], object]] = {
    "a table with other bytes of the same size and time": lambda at: rewrite(
        at / "scenario9.csv", b"index,seq_index\n1,2\n"
    ),
    "an archive with other bytes of the same size and time": lambda at: rewrite(at / "scenario9_arrays.npz", b"1235"),
    "a picture with other bytes of the same size and time": lambda at: rewrite(at / "unit1" / "a.jpg", b"12346"),
    "another picture of the same size and time": lambda at: replace(at / "unit1" / "a.jpg", b"12346"),
    "a file that came": lambda at: (at / "unit1" / "b.jpg").write_bytes(b"1"),
    "a file that went": lambda at: (at / "unit1" / "a.jpg").unlink(),
    "a file of another name": lambda at: (at / "unit1" / "a.jpg").rename(at / "unit1" / "c.jpg"),
    "a folder of another name": lambda at: (at / "unit1").rename(at / "unit2"),
    "a file of another size": lambda at: (at / "unit1" / "a.jpg").write_bytes(b"123456"),
    "another download": lambda at: (at / "download.zip").write_bytes(b"123"),
}
SAME: dict[str, Callable[[Path], object]] = {
    "nothing": lambda at: None,
    "touched": lambda at: os.utime(at / "unit1" / "a.jpg", ns=(1, 1)),
    "written again": lambda at: (at / "unit1" / "a.jpg").write_bytes(b"12345"),
    "a desktop was here": lambda at: [(at / name).write_bytes(b"2") for name in (".DS_Store", "Thumbs.db", "._x.csv")],
    "an archive of a Mac": lambda at: (at / "__MACOSX" / "unit1").mkdir(parents=True),
    "a folder behind a link": lambda at: [
        (at / "unit1").rename(at.parent / "far"),
        (at / "unit1").symlink_to("../far"),
    ],
    "a file behind a link": lambda at: [
        (at / "unit1" / "a.jpg").rename(at.parent / "far.jpg"),
        (at / "unit1" / "a.jpg").symlink_to("../../far.jpg"),
    ],
}


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute pass for whoever asks how long ago a file was written."""
    now = time.time_ns() + 60 * 10**9
    monkeypatch.setattr("configs.contents.time.time_ns", lambda: now)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("case", OTHER)
def test_a_folder_in_which_anything_that_counts_has_changed_holds_something_else(
    case: str, keeps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    folder, known = release(tmp_path / "scenario9"), tmp_path / "known.json" if keeps else None
    before = FolderContents(folder, known).digest()
    assert FolderContents(folder, known).digest() == before
    OTHER[case](folder)
    assert FolderContents(folder, known).digest() != before


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("case", SAME)
def test_a_folder_that_holds_the_same_is_the_same(
    case: str, keeps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    folder, known = release(tmp_path / "scenario9"), tmp_path / "known.json" if keeps else None
    before = FolderContents(folder, known).digest()
    SAME[case](folder)
    assert FolderContents(folder, known).digest() == before


def test_files_are_read_once_and_again_only_where_there_is_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    folder, known = release(tmp_path / "scenario9"), tmp_path / "known.json"
    read: list[str] = []
    opened = Path.open

    def noting(path: Path, *words: Any, **named: Any) -> object:
        read.append(path.name)
        return opened(path, *words, **named)

    FolderContents(folder, known).digest()
    monkeypatch.setattr(Path, "open", noting)
    FolderContents(folder, known).digest()
    assert [name for name in read if not name.startswith((".", "known"))] == []
    os.utime(folder / "unit1" / "a.jpg", ns=(1, 1))
    FolderContents(folder, known).digest()
    assert [name for name in read if not name.startswith((".", "known"))] == ["a.jpg"]


def test_a_file_that_was_written_just_now_is_read_again(tmp_path: Path) -> None:
    folder, known = release(tmp_path / "scenario9"), tmp_path / "known.json"
    FolderContents(folder, known).digest()
    assert not known.exists()


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"1:2": 3}', b"\xff"])
def test_a_damaged_memory_of_what_was_found_costs_time_only(
    damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    folder, known = release(tmp_path / "scenario9"), tmp_path / "known.json"
    before = FolderContents(folder, known).digest()
    known.write_bytes(damage)
    assert FolderContents(folder, known).digest() == before


def test_links_that_lead_round_end_somewhere_and_a_folder_that_is_missing_holds_nothing(tmp_path: Path) -> None:
    folder = release(tmp_path / "scenario9")
    (folder / "unit1" / "round").symlink_to(folder)
    assert FolderContents(folder).digest() == FolderContents(folder).digest()
    assert FolderContents(tmp_path / "none").digest() != FolderContents(folder).digest()
