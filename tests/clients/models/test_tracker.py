"""The tracker: frames are shared without changing what comes out, and a sensor may be missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.data.recording import Recording, open_recording, write_recording
from clients.models.tracker import PREDICTION_BATCH, BeamTracker, Windows, count_parameters, predict, read_windows
from configs.schema import Model, Task
from configs.seeding import rng_for

TASK = Task(num_frames=4, num_future=2, num_beams=4)
SIZE = Model(width=2, features=6, hidden=8, dropout=0.5)


def tracker_for(recording: Recording, *modalities: str) -> BeamTracker:
    torch.manual_seed(0)
    tracker = BeamTracker(modalities, SIZE, TASK)
    tracker.fit_scale(recording, recording.window_starts(4, 2))
    with torch.no_grad():
        tracker.absent.normal_()
    return tracker.eval()


def windows_of(recording: Recording, starts: np.ndarray, *modalities: str) -> Windows:
    return read_windows(recording, starts, modalities=modalities, num_frames=4)


def test_windows_hold_each_frame_once_and_know_their_rows(street: Recording) -> None:
    windows = windows_of(street, np.array([0, 1, 2, 12]), "gps")
    assert len(windows.frames["gps"]) == 6 + 4
    expected = np.stack([street.sensors["gps"][start : start + 4] for start in (0, 1, 2, 12)])
    np.testing.assert_array_equal(windows.frames["gps"][windows.rows].numpy(), expected)


def test_sharing_frames_equals_encoding_each_window_by_itself(street: Recording) -> None:
    tracker = tracker_for(street, "gps", "lidar")
    starts = street.window_starts(4, 2)[[0, 1, 2, 7, 8, 20]]
    together = tracker(windows_of(street, starts, "gps", "lidar"))
    alone = torch.cat([tracker(windows_of(street, starts[i : i + 1], "gps", "lidar")) for i in range(len(starts))])
    assert together.shape == (6, 3, 4)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_order_of_windows_does_not_matter(street: Recording) -> None:
    tracker = tracker_for(street, "gps")
    starts = street.window_starts(4, 2)[:10]
    order = rng_for(0, "order").permutation(10)
    torch.testing.assert_close(
        tracker(windows_of(street, starts[order], "gps")), tracker(windows_of(street, starts, "gps"))[order]
    )


def test_a_hidden_modality_equals_an_absent_one(street: Recording) -> None:
    tracker, starts = tracker_for(street, "gps", "lidar"), street.window_starts(4, 2)[:5]
    both = windows_of(street, starts, "gps", "lidar")
    for hidden, there in ((1, "gps"), (0, "lidar")):
        present = torch.ones(5, 2, dtype=torch.bool)
        present[:, hidden] = False
        torch.testing.assert_close(tracker(both, present), tracker(windows_of(street, starts, there)))


def test_a_modality_is_hidden_from_the_windows_that_it_is_hidden_from_only(street: Recording) -> None:
    tracker, starts = tracker_for(street, "gps", "lidar"), street.window_starts(4, 2)[:2]
    both = windows_of(street, starts, "gps", "lidar")
    mixed = tracker(both, torch.tensor([[True, True], [True, False]]))
    torch.testing.assert_close(mixed[0], tracker(both)[0])
    torch.testing.assert_close(mixed[1], tracker(windows_of(street, starts, "gps"))[1])
    assert not torch.allclose(mixed[1], tracker(both)[1])


def test_hiding_nothing_changes_nothing(street: Recording) -> None:
    tracker, starts = tracker_for(street, "gps", "lidar"), street.window_starts(4, 2)[:5]
    both = windows_of(street, starts, "gps", "lidar")
    torch.testing.assert_close(tracker(both, torch.ones(5, 2, dtype=torch.bool)), tracker(both))


def test_without_any_modality_every_window_gets_the_same_answer(street: Recording) -> None:
    tracker, starts = tracker_for(street, "gps", "lidar"), street.window_starts(4, 2)[:5]
    logits = tracker(windows_of(street, starts, "gps", "lidar"), torch.zeros(5, 2, dtype=torch.bool))
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))


def test_a_later_frame_than_the_window_s_last_is_not_seen(street: Recording, tmp_path: Path) -> None:
    gps = np.array(street.sensors["gps"])
    gps[4:] = 7.0
    write_recording(tmp_path / "r", pass_ids=street.pass_ids, sensors={"gps": gps}, power=None, splits={})
    blinded = open_recording(tmp_path / "r")
    tracker, first = tracker_for(street, "gps"), np.array([0])
    torch.testing.assert_close(predict(tracker, blinded, first), predict(tracker, street, first))
    assert not torch.allclose(predict(tracker, blinded, first + 1), predict(tracker, street, first + 1))


def test_boxes_that_were_not_found_give_finite_logits_and_gradients(tmp_path: Path) -> None:
    boxes = rng_for(0, "boxes").random((20, 4)).astype(np.float32)
    boxes[3:9] = np.nan
    write_recording(
        tmp_path / "r", pass_ids=np.zeros(20, np.int32), sensors={"box": boxes}, power=None, splits={"train": [0]}
    )
    recording = open_recording(tmp_path / "r")
    tracker = tracker_for(recording, "box")
    starts = recording.window_starts(4, 2)
    logits = tracker(windows_of(recording, starts, "box"))
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in tracker.parameters() if p.grad is not None)


def test_a_prediction_is_made_without_dropout_and_leaves_the_mode_as_it_was(street: Recording) -> None:
    tracker, starts = tracker_for(street, "gps"), street.window_starts(4, 2)
    expected = predict(tracker, street, starts)
    tracker.train()
    torch.testing.assert_close(predict(tracker, street, starts), expected)
    assert tracker.training
    assert not expected.requires_grad


def test_a_prediction_does_not_depend_on_how_it_is_cut(street: Recording) -> None:
    tracker, some = tracker_for(street, "gps"), street.window_starts(4, 2)
    many = np.tile(some, PREDICTION_BATCH // len(some) + 2)
    expected = predict(tracker, street, some)
    torch.testing.assert_close(predict(tracker, street, many), expected.repeat(len(many) // len(some), 1, 1))


def test_no_window_gives_no_prediction(street: Recording) -> None:
    assert predict(tracker_for(street, "gps"), street, np.empty(0, np.int64)).shape == (0, 3, 4)


def test_a_fused_tracker_answers_from_what_the_recording_has(street: Recording, tmp_path: Path) -> None:
    write_recording(
        tmp_path / "r",
        pass_ids=street.pass_ids,
        sensors={"gps": np.array(street.sensors["gps"])},
        power=None,
        splits={},
    )
    only_gps = open_recording(tmp_path / "r")
    tracker, starts = tracker_for(street, "gps", "lidar"), street.window_starts(4, 2)[:5]
    torch.testing.assert_close(predict(tracker, only_gps, starts), tracker(windows_of(street, starts, "gps")).detach())


def test_a_recording_without_any_of_its_modalities_is_refused(street: Recording) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="holds none of radar"):
        predict(BeamTracker(("radar",), SIZE, TASK), street, np.array([0]))


def test_parameters_of_a_gps_tracker_by_hand(street: Recording) -> None:
    # MLP 5-16-6, a gain for each of 6 changes, GRU 12 -> 8, head 8 -> 3 x 4; a single modality is never absent.
    expected = (5 * 16 + 16) + (16 * 6 + 6) + 6 + 3 * (8 * 12 + 8 * 8 + 2 * 8) + (8 * 12 + 12)
    assert count_parameters(BeamTracker(("gps",), SIZE, TASK)) == expected


def test_the_gain_of_changes_matters_where_something_changes_and_nowhere_else(street: Recording) -> None:
    tracker = tracker_for(street, "gps")
    moving = windows_of(street, street.window_starts(4, 2)[:5], "gps")
    still = Windows(moving.frames, moving.rows[:, :1].expand(-1, 4))
    before = tracker(moving), tracker(still)
    with torch.no_grad():
        tracker.change_gain.mul_(100.0)
    assert (tracker(moving) - before[0]).abs().max() > 0.01
    torch.testing.assert_close(tracker(still), before[1])
