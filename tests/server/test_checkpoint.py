"""What the server knows survives a stop, whole or not at all."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.memory import ClientMemory
from configs import files
from server.checkpoint import FILE, PREVIOUS, Checkpoint, load_checkpoint, save_checkpoint
from strategies.cache import CachedLabels, TargetCache
from strategies.labels import SoftLabels
from strategies.messages.records import Member
from strategies.methods.base import FederationState


def labels(*ids: int) -> SoftLabels:
    probs = np.full((len(ids), 2, 4), 0.2, np.float32)
    probs[..., 1] = 0.4
    return SoftLabels(np.array(ids, np.int64), probs, 2.0)


def cached(round_number: int, *ids: int) -> CachedLabels:
    payload = np.arange(2 * len(ids), dtype=np.uint8).reshape(len(ids), 2) + round_number
    return CachedLabels(np.array(ids, np.int64), payload.astype(np.uint8), np.full(len(ids), round_number))


def assert_same(one: CachedLabels, other: CachedLabels) -> None:
    assert one.digest() == other.digest()
    assert one.payload.dtype == other.payload.dtype


def checkpoint(round_number: int = 3) -> Checkpoint:
    cache = TargetCache(cached(0)).publish(cached(1, 0, 1, 2)).publish(cached(2, 2, 5))
    federation = FederationState(
        round=round_number,
        cache=cache,
        own_caches={"001-gps": cache.publish(cached(2, 7))},
        known_rounds={"000-gps": 2, "001-gps": -1},
        answers={"000-gps": cached(2, 3, 4)},
        ensembles=labels(0, 1, 2, 5),
        arrays={"beams": np.array([1, 5], np.uint16)},
        members={
            "000-gps": Member("000-gps", "gps", 100, 3, 40),
            "001-gps": Member("001-gps", "gps", 100, 3, 41, seen=(0, 1, 1, 0), public_key=bytes(range(32))),
        },
    )
    weights = {"model": {"w": torch.arange(4.0)}, "progress": {"round": 5, "best_score": 0.5}}
    return Checkpoint(weights, federation, {"controls": {"000-gps": {"local.common.top5": [0.5, 0.25]}}, "none": None})


def test_a_run_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    sent = checkpoint()
    save_checkpoint(tmp_path, sent)
    read = load_checkpoint(tmp_path)
    assert read is not None
    torch.testing.assert_close(read.teacher, sent.teacher)
    assert read.findings == sent.findings
    assert read.federation.round == 3
    assert read.federation.known_rounds == {"000-gps": 2, "001-gps": -1}
    assert read.federation.members == sent.federation.members
    assert read.mishap == ""
    assert read.federation.cache is not None and sent.federation.cache is not None
    for one, other in (
        (read.federation.cache, sent.federation.cache),
        (read.federation.own_caches["001-gps"], sent.federation.own_caches["001-gps"]),
    ):
        assert_same(one.base, other.base)
        for mine, theirs in zip(one.recent, other.recent, strict=True):
            assert_same(mine, theirs)
    assert_same(read.federation.answers["000-gps"], sent.federation.answers["000-gps"])
    one_ensemble, other_ensemble = read.federation.ensembles, sent.federation.ensembles
    assert one_ensemble is not None and other_ensemble is not None
    np.testing.assert_array_equal(one_ensemble.sample_ids, other_ensemble.sample_ids)
    np.testing.assert_array_equal(one_ensemble.probs, other_ensemble.probs)
    assert one_ensemble.temperature == other_ensemble.temperature
    np.testing.assert_array_equal(read.federation.arrays["beams"], [1, 5])
    assert read.federation.arrays["beams"].dtype == np.uint16


def test_after_a_stop_a_client_lacks_what_it_lacked_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    read = load_checkpoint(tmp_path)
    assert read is not None
    assert read.federation.cache is not None
    np.testing.assert_array_equal(read.federation.cache.newest.newer_than(1).sample_ids, [2, 5])
    published = read.federation.cache.publish(cached(3, 1, 9)).newest.newer_than(2)
    np.testing.assert_array_equal(published.sample_ids, [1, 9])


def test_a_checkpoint_before_the_first_round_holds_no_targets(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint({}, FederationState(), {}))
    read = load_checkpoint(tmp_path)
    assert read is not None
    assert read.federation == FederationState()


def round_of(folder: Path) -> int:
    read = load_checkpoint(folder)
    assert read is not None
    return read.federation.round


def names_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / FILE).parent.iterdir()}


def test_the_newest_checkpoint_and_the_one_before_are_kept_and_nothing_else(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    assert names_in(tmp_path) == {"newest.state"}
    for number in (2, 3):
        save_checkpoint(tmp_path, checkpoint(number))
    assert round_of(tmp_path) == 3
    assert names_in(tmp_path) == {"newest.state", "previous.state"}
    (tmp_path / FILE).unlink()
    assert round_of(tmp_path) == 2


class Killed(BaseException):
    """Ends the process at a point where it cannot tidy up."""


def calls_while_saving(folder: Path, monkeypatch: pytest.MonkeyPatch, *, dies_at: int | None) -> int:
    """Save round 3; how many calls that change the disk were made before it ended, or died instead of one."""
    calls = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            nonlocal calls
            if calls == dies_at:
                raise Killed
            calls += 1
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            save_checkpoint(folder, checkpoint(3))
        except Killed:
            assert dies_at is not None
    return calls


def test_a_kill_between_any_two_writes_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(name: str) -> Path:
        for number in (1, 2):
            save_checkpoint(tmp_path / name, checkpoint(number))
        return tmp_path / name

    num_calls = calls_while_saving(two("whole"), monkeypatch, dies_at=None)
    assert num_calls >= 5  # the file, its folder, three renamings
    rounds = []
    for number in range(num_calls):
        folder = two(str(number))
        calls_while_saving(folder, monkeypatch, dies_at=number)
        rounds.append(round_of(folder))
        assert load_checkpoint(folder).mishap == ""  # type: ignore[union-attr]
    assert rounds == sorted(rounds)
    assert set(rounds) == {2, 3}


def test_what_a_dead_process_left_half_written_is_removed_and_a_living_ones_stays(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    folder = (tmp_path / FILE).parent
    left, alive = folder / f".newest.state.{dead.stdout.strip()}.tmp", folder / f".newest.state.{os.getppid()}.tmp"
    for path in (left, alive):
        path.write_bytes(b"half of a che")
    load_checkpoint(tmp_path)
    assert not left.exists()
    assert alive.exists()


@contextmanager
def disk_with_room_for(num_bytes: int) -> Iterator[None]:
    """A disk that is full after so many bytes of a file, as far as this process can tell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("num_bytes", [0, 100, 2000])
def test_a_full_disk_is_one_clear_error_and_leaves_both_checkpoints(tmp_path: Path, num_bytes: int) -> None:
    for number in (1, 2):
        save_checkpoint(tmp_path, checkpoint(number))
    with disk_with_room_for(num_bytes), pytest.raises(OSError) as caught:
        save_checkpoint(tmp_path, checkpoint(3))
    assert str(caught.value).startswith(f"{tmp_path / FILE}: cannot be written (")
    assert "make room" in str(caught.value)
    assert names_in(tmp_path) == {"newest.state", "previous.state"}
    assert round_of(tmp_path) == 2
    (tmp_path / FILE).unlink()
    assert round_of(tmp_path) == 1


def damaged(path: Path, damage: str) -> None:
    whole = path.read_bytes()
    # Of a weight: between the arrays there is padding, of which no bit matters.
    weight = whole.index(np.arange(4, dtype=np.float32).tobytes()) + 4
    contents = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "a bit": whole[:weight] + bytes([whole[weight] ^ 1]) + whole[weight + 1 :],
        "text": b"no checkpoint\n",
    }
    if damage == "another":
        torch.save({"weights": 3}, path)
    else:
        path.write_bytes(contents[damage])


def test_a_checkpoint_waits_for_what_clients_wrote_since_the_one_before_and_only_then_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync_one, move = files.sync, os.replace

    def synced(path: Path) -> None:
        done.append(path.name)
        sync_one(path)

    def moved(old: Path, new: Path) -> None:
        done.append(f"rename to {new.name}")
        move(old, new)

    monkeypatch.setattr(files, "sync", synced)
    monkeypatch.setattr("server.checkpoint.os.replace", moved)
    memories = {client: ClientMemory(tmp_path / "clients" / client, is_durable=False) for client in ("a", "b")}
    memories["a"].save({"made": 1}, round_number=1)
    memories["b"].save({"made": 1}, round_number=1)
    done.clear()
    save_checkpoint(tmp_path, checkpoint(1))
    assert sorted(done[:4]) == ["000001.state", "000001.state", "a", "b"]
    assert done[-1] == "rename to newest.state"
    # A file system may have no finer clock than the time between the two.
    os.utime(memories["a"].folder / "000001.state", (1, 1))
    os.utime(memories["b"].folder / "000001.state", (1, 1))
    memories["b"].save({"made": 2}, round_number=2)
    done.clear()
    save_checkpoint(tmp_path, checkpoint(2))
    assert sorted(name for name in done if name in ("a", "b") or name[0] == "0") == ["000002.state", "b"]


DAMAGES = ["empty", "half", "a bit", "text", "another"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_is_broken_and_alone_is_refused_in_one_line_that_says_how_to_mend_it(
    tmp_path: Path, damage: str
) -> None:
    save_checkpoint(tmp_path, checkpoint())
    path = tmp_path / FILE
    damaged(path, damage)
    with pytest.raises(ValueError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value).startswith(f"{path}: not a readable checkpoint")
    assert f"delete {path.parent} and resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_newest_checkpoint_is_set_aside_with_a_warning_for_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        save_checkpoint(tmp_path, checkpoint(number))
    damaged(tmp_path / FILE, damage)
    read = load_checkpoint(tmp_path)
    assert read is not None
    assert read.federation.round == 1
    assert "newest.state: not a readable checkpoint" in read.mishap
    assert "set aside as newest.state.broken" in caplog.text
    assert names_in(tmp_path) == {"previous.state", "newest.state.broken"}
    save_checkpoint(tmp_path, checkpoint(2))
    assert names_in(tmp_path) == {"previous.state", "newest.state", "newest.state.broken"}
    (tmp_path / FILE).unlink()
    assert round_of(tmp_path) == 1


def test_with_both_broken_nothing_is_moved_and_both_are_named(tmp_path: Path) -> None:
    for number in (1, 2):
        save_checkpoint(tmp_path, checkpoint(number))
    for name in (FILE, PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"newest\.state: not a readable checkpoint.*previous\.state: not a readable checkp"
    ):
        load_checkpoint(tmp_path)
    assert names_in(tmp_path) == {"newest.state", "previous.state"}


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    torch.save({"teacher": print}, tmp_path / FILE)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path)
