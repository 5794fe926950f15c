"""What a client remembers survives whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clients.memory import ClientMemory
from tests.disks import fill, small_disk


def save(memory: ClientMemory, *rounds: int) -> None:
    for number in rounds:
        memory.save({"made": number, "weights": torch.full((3,), float(number))}, round_number=number)


def made(memory: ClientMemory, before_round: int) -> int | None:
    state = memory.load(before_round=before_round)
    return None if state is None else int(state["made"])


@pytest.fixture
def memory(tmp_path: Path) -> ClientMemory:
    return ClientMemory(tmp_path / "clients" / "000-gps")


def test_a_client_that_never_saved_remembers_nothing(memory: ClientMemory) -> None:
    assert memory.load(before_round=99) is None
    assert not memory.folder.exists()


def test_what_was_saved_is_remembered_in_the_next_round(memory: ClientMemory) -> None:
    save(memory, 1)
    state = memory.load(before_round=2)
    assert state is not None
    torch.testing.assert_close(state["weights"], torch.ones(3))


def test_a_round_never_starts_from_what_it_made_itself(memory: ClientMemory) -> None:
    save(memory, 1, 2)
    assert made(memory, 3) == 2
    assert made(memory, 2) == 1
    assert made(memory, 1) is None


def test_after_a_pause_the_newest_state_counts(memory: ClientMemory) -> None:
    save(memory, 3)
    assert made(memory, 9) == 3


def test_a_round_that_is_done_again_replaces_what_it_made(memory: ClientMemory) -> None:
    save(memory, 1, 2)
    memory.save({"made": 22}, round_number=2)
    assert made(memory, 3) == 22
    assert made(memory, 2) == 1


def test_the_three_newest_are_kept(memory: ClientMemory) -> None:
    save(memory, 8, 9, 10, 11)
    assert sorted(path.name for path in memory.folder.iterdir()) == ["000009.state", "000010.state", "000011.state"]


def test_rounds_are_ordered_as_numbers(memory: ClientMemory) -> None:
    save(memory, 99_999, 100_000, 1_000_000)
    assert made(memory, 2_000_000) == 1_000_000
    assert made(memory, 1_000_000) == 100_000


def test_another_folder_is_another_memory(tmp_path: Path) -> None:
    save(ClientMemory(tmp_path / "a"), 1)
    assert made(ClientMemory(tmp_path / "b"), 2) is None
    assert made(ClientMemory(tmp_path / "a"), 2) == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_state_and_no_part_of_a_new_one(
    memory: ClientMemory, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(memory, 1)

    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, step, dies)
        with pytest.raises(KeyboardInterrupt):
            save(memory, 2)
    assert [path.name for path in memory.folder.iterdir()] == ["000001.state"]
    assert made(memory, 3) == 1
    save(memory, 2)
    assert made(memory, 3) == 2


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_it_counts(
    memory: ClientMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.folder.mkdir(parents=True)
    done: list[str] = []
    sync, move = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("sync folder" if is_folder else "sync file")
        sync(descriptor)

    def moved(old: Path, new: Path) -> None:
        done.append("rename")
        move(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved)
    save(memory, 1)
    assert done == ["sync file", "rename", "sync folder"]


def test_a_virtual_client_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ClientMemory(tmp_path, is_durable=False)
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    save(memory, 1, 2)
    assert made(memory, 3) == 2
    assert not waited
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.state", "000002.state"]


def test_what_a_dead_process_left_half_written_is_removed_and_what_a_living_one_writes_stays(
    memory: ClientMemory,
) -> None:
    save(memory, 1)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getpid(), os.getppid()):
        (memory.folder / f".000002.state.{process}.tmp").write_bytes(b"half of a sta")
    save(memory, 2)
    assert sorted(path.name for path in memory.folder.iterdir()) == [
        f".000002.state.{os.getppid()}.tmp", "000001.state", "000002.state",
    ]  # fmt: skip


def damage_by(kind: str, whole: bytes) -> bytes:
    flipped = bytearray(whole)
    # In the middle of the numbers of the tensor, which is stored as it is.
    flipped[whole.index(torch.full((300,), 2.0).numpy().tobytes()) + 600] ^= 1
    damaged = {"empty": b"", "half": whole[: len(whole) // 2], "text": b"no state at all\n", "one bit": bytes(flipped)}
    return damaged[kind]


@pytest.mark.parametrize("damage", ["empty", "half", "text", "one bit"])
def test_an_unreadable_file_is_set_aside_and_the_next_older_state_is_taken(
    memory: ClientMemory, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        memory.save({"made": number, "weights": torch.full((300,), float(number))}, round_number=number)
    path = memory.folder / "000002.state"
    damaged = damage_by(damage, path.read_bytes())
    path.write_bytes(damaged)
    assert made(memory, 3) == 1
    assert sorted(one.name for one in memory.folder.iterdir()) == ["000001.state", "000002.state.broken"]
    assert (memory.folder / "000002.state.broken").read_bytes() == damaged
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(path) in record.getMessage()


def test_where_no_state_can_be_read_the_client_starts_anew(memory: ClientMemory) -> None:
    save(memory, 1, 2)
    for number in (1, 2):
        (memory.folder / f"{number:06d}.state").write_bytes(b"")
    assert memory.load(before_round=3) is None
    save(memory, 3)
    assert made(memory, 4) == 3


def test_a_state_of_a_later_round_is_not_touched_however_broken(memory: ClientMemory) -> None:
    save(memory, 1, 2)
    (memory.folder / "000002.state").write_bytes(b"")
    assert made(memory, 2) == 1
    assert (memory.folder / "000002.state").exists()


def test_a_file_is_not_set_aside_because_the_machine_has_no_memory_left(
    memory: ClientMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(memory, 1)

    def exhausted(*arguments: object, **options: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", exhausted)
        with pytest.raises(MemoryError):
            memory.load(before_round=2)
    assert made(memory, 2) == 1


def test_a_file_that_would_run_code_is_not_loaded(memory: ClientMemory) -> None:
    memory.folder.mkdir(parents=True)
    torch.save({"run": print}, memory.folder / "000001.state")
    assert memory.load(before_round=2) is None
    assert (memory.folder / "000001.state.broken").exists()


def test_on_a_full_disk_the_old_states_stay_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        memory = ClientMemory(disk / "clients" / "000-gps")
        save(memory, 1, 2)
        fill(disk)
        with pytest.raises(OSError) as caught:
            memory.save({"weights": torch.zeros(50_000)}, round_number=3)
        assert caught.value.errno == errno.ENOSPC
        assert sorted(path.name for path in memory.folder.iterdir()) == ["000001.state", "000002.state"]
        assert made(memory, 3) == 2
        (disk / "ballast").unlink()
        save(memory, 3)
        assert made(memory, 4) == 3
