from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients.data.arrivals import append_arrival
from clients.serving.canary import HELD_OUT_SHARE, admit, recording_for
from clients.serving.margins import Margins
from clients.serving.model_store import ModelStore
from configs import data
from tests.clients.serving.conftest import Models, write_passes


@pytest.fixture
def store(models: Models, tmp_path: Path) -> ModelStore:
    """A store whose current version knows its beams."""
    store = ModelStore(tmp_path / "store")
    decision = admit(store, models.write(tmp_path / "first"), None)
    assert decision.to_dict() == {"version": "0001", "is_current": True, "reason": "is the first version"}
    return store


def test_a_version_that_is_as_good_is_taken_with_its_evidence(
    store: ModelStore, models: Models, tmp_path: Path
) -> None:
    recording = write_passes(tmp_path / "recording")
    decision = admit(store, models.write(tmp_path / "second", seed=2), recording)
    assert decision.is_current and decision.version == "0002" and store.state().current == "0002"
    evidence = store.canary("0002")
    assert evidence is not None and evidence["against"] == "0001" and evidence["taken"]
    # Four of the six passes are not for training, and a pass of 20 frames has 14 windows.
    assert evidence["passes"] == [2, 3, 4, 5] and evidence["held_out"] and evidence["windows"] == 4 * 14
    assert len(evidence["new"]["top5"]) == len(evidence["old"]["power_loss_db"]) == 4
    points = 100 * (np.mean(evidence["new"]["top5"]) - np.mean(evidence["old"]["top5"]))
    assert f"Top-5 {points:+.1f} points" in decision.reason and "last 4 held-out passes" in decision.reason


def test_a_version_whose_beams_are_mixed_up_is_refused_and_never_served(
    store: ModelStore, models: Models, tmp_path: Path
) -> None:
    recording = write_passes(tmp_path / "recording")
    bad = models.write(tmp_path / "bad", shift=4)
    decision = admit(store, bad, recording)
    assert not decision.is_current and "is worse: Top-5 -" in decision.reason
    assert "the margin is 2 points and 0.5 dB" in decision.reason
    assert store.state().current == "0001"
    evidence = store.canary("0002")
    assert evidence is not None and not evidence["taken"] and evidence["reason"] == decision.reason
    again = admit(store, bad, recording)
    assert (
        not again.is_current
        and again.version == "0002"
        and "was refused before: version 0002: is worse" in again.reason
    )
    assert store.versions() == ["0001", "0002"]


def test_each_margin_refuses_by_itself(store: ModelStore, models: Models, tmp_path: Path) -> None:
    recording = write_passes(tmp_path / "recording")
    for number, (margins, taken) in enumerate(
        [(Margins(100, 0.5), False), (Margins(2, 100), False), (Margins(100, 100), True)]
    ):
        bad = models.write(tmp_path / f"bad-{number}", shift=4, temperature=1.0 + number)
        assert admit(store, bad, recording, margins=margins).is_current is taken


def test_what_was_rolled_back_does_not_come_back(store: ModelStore, models: Models, tmp_path: Path) -> None:
    recording, second = write_passes(tmp_path / "recording"), models.write(tmp_path / "second", seed=2)
    assert admit(store, second, recording).is_current
    assert admit(store, second, recording).reason == "is current already"
    with store.writing():
        store.roll_back("an operator did not like it")
    decision = admit(store, second, recording)
    assert not decision.is_current and "an operator did not like it" in decision.reason
    assert store.state().current == "0001"


def test_a_version_that_answers_with_no_number_is_refused_also_as_the_first(models: Models, tmp_path: Path) -> None:
    store, broken = ModelStore(tmp_path / "new"), models.write(tmp_path / "broken", temperature=float("nan"))
    decision = admit(store, broken, write_passes(tmp_path / "recording"))
    assert not decision.is_current and decision.reason == "answers with what is no number"
    other = admit(ModelStore(tmp_path / "other"), broken, None)
    assert not other.is_current and other.reason == "answers with what is no number"


def test_a_damaged_current_version_does_not_stop_the_next_one(
    store: ModelStore, models: Models, tmp_path: Path
) -> None:
    (store.current() / "window.onnx").write_bytes(b"\0" * 50)
    decision = admit(store, models.write(tmp_path / "second", seed=2), write_passes(tmp_path / "recording"))
    assert decision.is_current and "a version that does not answer" in decision.reason


def test_without_a_labelled_pass_nothing_is_compared_and_nothing_is_changed(
    store: ModelStore, models: Models, tmp_path: Path
) -> None:
    second, unlabelled = models.write(tmp_path / "second", seed=2), write_passes(tmp_path / "recording", labelled=False)
    for recording in (None, unlabelled):
        with pytest.raises(ValueError, match="no labelled pass to compare version 0001 and the new one on"):
            admit(store, second, recording)
    assert store.versions() == ["0001"]


def test_passes_that_arrived_count_and_the_last_ones_do(store: ModelStore, models: Models, tmp_path: Path) -> None:
    write_passes(tmp_path / "recording", train=6)
    write_passes(tmp_path / "more", passes=5, train=0)
    append_arrival(tmp_path / "recording", tmp_path / "more", "0001")
    second = models.write(tmp_path / "second", seed=2)
    recording = recording_for(tmp_path / "recording", second)
    assert recording is not None and len(recording.splits["validation"]) == 1  # a fifth of those that arrived
    admit(store, second, recording, margins=Margins(passes=3))
    evidence = store.canary("0002")
    assert evidence is not None and evidence["passes"] == list(recording.splits["validation"]) and evidence["held_out"]


def test_where_all_passes_are_for_training_the_verdict_says_so(
    store: ModelStore, models: Models, tmp_path: Path
) -> None:
    recording = write_passes(tmp_path / "recording", train=6)
    decision = admit(store, models.write(tmp_path / "second", seed=2), recording, margins=Margins(passes=1))
    assert "on the last 1 pass, all of which were trained on," in decision.reason
    evidence = store.canary("0002")
    assert evidence is not None and evidence["passes"] == [5] and not evidence["held_out"]


def test_a_recording_of_another_array_or_sensor_is_refused(store: ModelStore, models: Models, tmp_path: Path) -> None:
    recording = write_passes(tmp_path / "recording")
    wide = recording.__class__(**{**vars(recording), "power": np.ones((len(recording.pass_ids), 16), np.float32)})
    with pytest.raises(ValueError, match="its power has 16 beams, and the model 8"):
        admit(store, models.write(tmp_path / "second", seed=2), wide)
    deaf = recording.__class__(**{**vars(recording), "sensors": {}})
    with pytest.raises(ValueError, match="has no frames of gps, which the model senses"):
        admit(store, tmp_path / "second", deaf)


@pytest.mark.parametrize("values", [{"top5_points": -1.0}, {"power_loss_db": float("nan")}, {"passes": 0}])
def test_margins_have_ranges(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Margins(**values)  # type: ignore[arg-type]


def test_the_share_of_arrivals_is_that_of_experiments() -> None:
    assert HELD_OUT_SHARE == data.HELD_OUT_SHARE
