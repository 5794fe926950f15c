"""What the server knows survives a stop, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server.checkpoint import FILE, Checkpoint, load_checkpoint, save_checkpoint
from strategies.caching import TargetCache
from strategies.distillation import FederationState
from strategies.labels import SoftLabels


def labels(*ids: int) -> SoftLabels:
    probs = np.full((len(ids), 2, 4), 0.2, np.float32)
    probs[..., 1] = 0.4
    return SoftLabels(np.array(ids, np.int64), probs, 2.0)


def checkpoint(round_number: int = 3) -> Checkpoint:
    cache = TargetCache().publish(labels(0, 1, 2), 1).publish(labels(2, 5), 2)
    federation = FederationState(round_number, cache, {"000-gps": 2, "001-gps": -1}, labels(0, 1, 2, 5))
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
    for one, other in (
        (read.federation.cache.labels, sent.federation.cache.labels),
        (read.federation.ensembles, sent.federation.ensembles),
    ):
        assert one is not None and other is not None
        np.testing.assert_array_equal(one.sample_ids, other.sample_ids)
        np.testing.assert_array_equal(one.probs, other.probs)
        assert one.temperature == other.temperature
    assert read.federation.cache.published is not None
    np.testing.assert_array_equal(read.federation.cache.published, [1, 1, 2, 2])


def test_after_a_stop_a_client_lacks_what_it_lacked_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    read = load_checkpoint(tmp_path)
    assert read is not None
    newer = read.federation.cache.newer_than(1)
    assert newer is not None
    np.testing.assert_array_equal(newer.sample_ids, [2, 5])
    published = read.federation.cache.publish(labels(1, 9), 3).newer_than(2)
    assert published is not None
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
