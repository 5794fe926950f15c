"""What a client remembers survives whatever happens while it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clients.memory import ClientMemory


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


def test_the_two_newest_are_kept(memory: ClientMemory) -> None:
    save(memory, 8, 9, 10, 11)
    assert sorted(path.name for path in memory.folder.iterdir()) == ["000010.pt", "000011.pt"]


def test_rounds_are_ordered_as_numbers(memory: ClientMemory) -> None:
    save(memory, 99_999, 100_000, 1_000_000)
    assert made(memory, 2_000_000) == 1_000_000
    assert made(memory, 1_000_000) == 100_000


def test_another_folder_is_another_memory(tmp_path: Path) -> None:
    save(ClientMemory(tmp_path / "a"), 1)
    assert made(ClientMemory(tmp_path / "b"), 2) is None
    assert made(ClientMemory(tmp_path / "a"), 2) == 1


def test_a_crash_while_writing_leaves_the_old_state(memory: ClientMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    save(memory, 1)

    def dies(state: dict[str, Any], path: Path) -> None:
        path.write_bytes(b"half of a sta")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            save(memory, 2)
    assert made(memory, 3) == 1
    save(memory, 2)
    assert made(memory, 3) == 2


@pytest.mark.parametrize("damage", ["empty", "half", "text"])
def test_a_corrupt_file_is_refused_in_one_line_by_its_name(memory: ClientMemory, damage: str) -> None:
    save(memory, 1)
    path = memory.folder / "000001.pt"
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"no state at all\n"}[damage])
    with pytest.raises(ValueError) as caught:
        memory.load(before_round=2)
    assert str(caught.value).startswith(f"{path}: not readable")
    assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_is_refused(memory: ClientMemory) -> None:
    memory.folder.mkdir(parents=True)
    torch.save({"run": print}, memory.folder / "000001.pt")
    with pytest.raises(ValueError, match="not readable"):
        memory.load(before_round=2)
