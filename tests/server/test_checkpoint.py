"""What the server knows survives a stop, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server.checkpoint import FILE, Checkpoint, load_checkpoint, save_checkpoint
from strategies.caching import Holding, TargetCache
from strategies.choreography import FederationState
from strategies.labels import SoftLabels


def labels(*ids: int) -> SoftLabels:
    probs = np.full((len(ids), 2, 4), 0.2, np.float32)
    probs[..., 1] = 0.4
    return SoftLabels(np.array(ids, np.int64), probs, 2.0)


def holding(round_number: int, *ids: int) -> Holding:
    payload = np.arange(2 * len(ids), dtype=np.uint8).reshape(len(ids), 2) + round_number
    return Holding(np.array(ids, np.int64), payload.astype(np.uint8), np.full(len(ids), round_number))


def assert_same(one: Holding, other: Holding) -> None:
    assert one.digest() == other.digest()
    assert one.payload.dtype == other.payload.dtype


def checkpoint(round_number: int = 3) -> Checkpoint:
    cache = TargetCache(holding(0)).publish(holding(1, 0, 1, 2)).publish(holding(2, 2, 5))
    federation = FederationState(
        round=round_number,
        cache=cache,
        own_caches={"001-gps": cache.publish(holding(2, 7))},
        known_rounds={"000-gps": 2, "001-gps": -1},
        answers={"000-gps": holding(2, 3, 4)},
        ensembles=labels(0, 1, 2, 5),
        arrays={"beams": np.array([1, 5], np.uint16)},
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
    published = read.federation.cache.publish(holding(3, 1, 9)).newest.newer_than(2)
    np.testing.assert_array_equal(published.sample_ids, [1, 9])


def test_a_checkpoint_before_the_first_round_holds_no_targets(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint({}, FederationState(), {}))
    read = load_checkpoint(tmp_path)
    assert read is not None
    assert read.federation == FederationState()


def test_a_newer_checkpoint_replaces_the_older_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(number))
    read = load_checkpoint(tmp_path)
    assert read is not None
    assert read.federation.round == 3
    assert [path.name for path in (tmp_path / FILE).parent.iterdir()] == [Path(FILE).name]


def test_a_crash_while_writing_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, checkpoint(1))

    def dies(state: dict[str, Any], path: Path) -> None:
        path.write_bytes(b"half of a che")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, checkpoint(2))
    read = load_checkpoint(tmp_path)
    assert read is not None
    assert read.federation.round == 1


@pytest.mark.parametrize("damage", ["empty", "half", "text", "another"])
def test_a_corrupt_checkpoint_is_refused_in_one_line_by_its_name(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, checkpoint())
    path = tmp_path / FILE
    whole = path.read_bytes()
    if damage == "another":
        torch.save({"weights": 3}, path)
    else:
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"no checkpoint\n"}[damage])
    with pytest.raises(ValueError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value).startswith(f"{path}: not a readable checkpoint")
    assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    torch.save({"teacher": print}, tmp_path / FILE)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path)
