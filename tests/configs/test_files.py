"""A file is whole or not there, and a name from elsewhere leads nowhere else."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.advice import explained
from configs.files import (
    fresh_folder,
    is_plain_name,
    make_folder,
    make_once,
    modes_like,
    remove_leftovers,
    reserve,
    swap_in,
    temporary_beside,
    write_durably,
)
from tests.disks import DISK_KIB, small_disk


@pytest.mark.parametrize("name", ["a", "a b", ".a", "a.", "...", "é", "-"])
def test_the_name_of_one_folder_is_plain(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/", "/a", "a/b", "../a", "a\\b", "a\0"])
def test_whatever_leads_elsewhere_is_not(name: str) -> None:
    assert not is_plain_name(name)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_durably(path, b"long old content")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    write_durably(tmp_path / "secret", b"x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_durably(tmp_path / "file", b"old")

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_new_folders_are_made_known_to_the_disk_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    make_folder(tmp_path / "a" / "b")
    assert sorted(synced) == [str(tmp_path), str(tmp_path / "a")]
    synced.clear()
    make_folder(tmp_path / "a" / "b")
    assert synced == []


def test_only_temporary_files_of_dead_processes_are_left_over(tmp_path: Path) -> None:
    mine = temporary_beside(tmp_path / "file")
    theirs = tmp_path / f".file.{os.getppid()}.tmp"
    for path in (mine, theirs, tmp_path / "file.1.tmp", tmp_path / ".odd.tmp", tmp_path / ".file"):
        path.touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [theirs.name, "file.1.tmp", ".odd.tmp", ".file"]
    )  # fmt: skip


def test_whoever_comes_late_waits_and_takes_what_the_first_made(tmp_path: Path) -> None:
    folder, made = tmp_path / "data", []
    began, may_end = threading.Event(), threading.Event()

    def slowly() -> None:
        began.set()
        assert may_end.wait(10)
        folder.mkdir()
        made.append("first")

    first = threading.Thread(target=lambda: make_once(folder, slowly))
    late = threading.Thread(target=lambda: make_once(folder, lambda: made.append("late")))
    first.start()
    assert began.wait(10)
    late.start()
    time.sleep(0.1)
    assert late.is_alive()
    may_end.set()
    first.join(10)
    late.join(10)
    assert made == ["first"]


def test_what_the_first_could_not_make_the_late_one_makes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with pytest.raises(OSError, match="full"):
        make_once(folder, lambda: (_ for _ in ()).throw(OSError("the disk is full")))
    assert make_once(folder, folder.mkdir)
    assert not make_once(folder, lambda: pytest.fail("made twice"))


def test_room_is_taken_before_a_file_is_mapped_or_the_file_is_named_and_gone(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    reserve(tmp_path / "there", 5000)
    assert (tmp_path / "there").stat().st_size == 5000
    with small_disk(tmp_path) as disk:
        (disk / "map.npy").touch()
        with pytest.raises(OSError, match=r"map\.npy: cannot be written \(.*\); it takes .* MB: make room on the disk"):
            reserve(disk / "map.npy", 1 << 30)
        assert not (disk / "map.npy").exists()


def test_a_disk_that_is_full_while_a_folder_is_written_is_one_line_that_names_it(tmp_path: Path) -> None:
    text = rf"^{tmp_path / 'data'}: cannot be written \(No space left on device\)"
    with pytest.raises(OSError, match=text), fresh_folder(tmp_path / "data"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_durably, swap_in])
def test_a_file_for_which_there_is_no_room_is_named_and_leaves_nothing(
    write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    with small_disk(tmp_path) as disk:
        with pytest.raises(OSError) as caught:
            write(disk / "figure.pdf", bytes(1024 * (DISK_KIB + 1)))
        assert explained(caught.value) == f"{disk / 'figure.pdf'}: no space left on device; make room on the disk"
        assert list(disk.iterdir()) == []


def test_a_text_with_a_path_that_is_no_utf_8_is_written(tmp_path: Path) -> None:
    swap_in(tmp_path / "page", f"caf\u00e9 {os.fsdecode(b'x' + bytes([0xE9]))}")
    assert (tmp_path / "page").read_bytes() == "caf\u00e9 x".encode() + rb"\udce9"


@pytest.mark.parametrize(("umask_of_folder", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640), (0, 0o666)])
def test_files_have_the_mode_of_their_folder_whatever_the_umask_of_who_writes_them(
    umask_of_folder: int, expected: int, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    before = os.umask(umask_of_folder)
    try:
        folder.mkdir()
        for umask in (0o077, 0o022):
            os.umask(umask)
            with modes_like(folder):
                write_durably(folder / f"whole-{umask}", b"x")
                (folder / f"plain-{umask}").write_text("x")
                write_durably(folder / f"secret-{umask}", b"x", mode=0o600)
            assert os.umask(umask) == umask, "it is as it was"
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {mode for name, mode in modes.items() if "secret" not in name} == {expected}
    assert {mode for name, mode in modes.items() if "secret" in name} == {0o600}
