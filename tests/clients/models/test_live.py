"""Streams with frames that are missing or late: every answer is that of a window whose frames can be named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from clients.data.motion import PIXELS
from clients.data.recording import Recording
from clients.models.decider import Decider
from clients.models.live import Frames, LiveAnswer, LiveModel, State
from clients.models.own import OwnTracker
from clients.models.streaming import LiveTracker
from clients.models.tracker import BeamTracker, Tracker, predict
from configs.models import Model
from configs.schema import Task

LENGTH = 3


class Reader:
    """Says which frames its window holds: its logits are the first numbers of the frames, a row for each sensor."""

    num_frames = LENGTH

    def __init__(self, *modalities: str) -> None:
        self.modalities = modalities
        self.tolerates_absence = len(modalities) > 1

    def fresh_state(self) -> State:
        return {name: np.zeros((LENGTH - 1, 1)) for name in self.modalities}

    def step(self, frames: Frames, state: State, present: Mapping[str, bool]) -> tuple[NDArray[np.float32], State]:
        seen = {name: np.concatenate([state[name], frames[name][:1][None]]) for name in self.modalities}
        rows = [seen[name][:, 0] if present[name] else np.full(LENGTH, -1.0) for name in self.modalities]
        return np.array(rows, np.float32), {name: value[1:] for name, value in seen.items()}


def gps(number: float) -> NDArray[np.float64]:
    return np.array([number, 0.0])


def box(number: float) -> NDArray[np.float32]:
    return np.full(4, number, np.float32)


def window(answer: LiveAnswer | None, row: int = 0) -> list[float] | None:
    return None if answer is None else answer.logits[row].tolist()


def test_a_window_is_there_once_there_are_enough_frames_and_is_forgotten_with_its_pass() -> None:
    live = LiveModel(Reader("gps"))
    for _ in range(2):
        assert [window(live.push({"gps": gps(n)})) for n in (1, 2, 3, 4)] == [None, None, [1, 2, 3], [2, 3, 4]]
        live.reset()
        assert live.newest_slot is None


def test_an_older_frame_stands_in_for_as_many_slots_as_are_allowed() -> None:
    live = LiveModel(Reader("gps"), hold=2)
    for number in (1, 2, 3):
        live.push({"gps": gps(number)})
    held = live.push({})
    assert window(held) == [2, 3, 3] and held is not None and held.held == ("gps",)
    assert window(live.push({})) == [3, 3, 3]
    assert live.push({}) is None  # the third in a row: the sensor is lost
    assert [window(live.push({"gps": gps(n)})) for n in (7, 8, 9)] == [None, None, [7, 8, 9]]


def test_without_a_stand_in_a_gap_costs_a_whole_window() -> None:
    live = LiveModel(Reader("gps"), hold=0)
    answers = [live.push({} if n == 4 else {"gps": gps(n)}) for n in range(1, 8)]
    assert [window(one) for one in answers] == [None, None, [1, 2, 3], None, None, None, [5, 6, 7]]
    with pytest.raises(ValueError, match="hold: must be at least 0"):
        LiveModel(Reader("gps"), hold=-1)


def test_slots_that_are_passed_over_had_no_frame() -> None:
    live = LiveModel(Reader("gps"), hold=2)
    for slot in (10, 11, 12):
        answer = live.push({"gps": gps(slot)}, slot=slot)
    assert window(answer) == [10, 11, 12] and live.newest_slot == 12
    assert window(live.push({"gps": gps(14)}, slot=14)) == [12, 12, 14]
    assert live.push({"gps": gps(1000)}, slot=1000) is None


def test_a_late_frame_takes_the_place_of_its_stand_ins_and_not_of_what_came_after_it() -> None:
    live = LiveModel(Reader("gps"), hold=2)
    for number in (1, 2, 3):
        live.push({"gps": gps(number)})
    live.push({})  # slot 3
    live.push({})  # slot 4
    assert live.push({"gps": gps(4)}, slot=3) is None
    assert window(live.push({"gps": gps(6)})) == [4, 4, 6]
    assert live.push({"gps": gps(99)}, slot=5) is None  # slot 5 has its frame: it stays
    assert window(live.push({"gps": gps(7)})) == [4, 6, 7]
    live.push({})
    live.push({"gps": gps(8)}, slot=7)
    assert window(live.push({})) == [7, 8, 8]  # the late one stands in for the next slot, too
    assert live.num_too_late == 0
    live.push({"gps": gps(3)}, slot=3)
    assert live.num_too_late == 1


def test_a_model_of_several_sensors_goes_on_with_those_that_count() -> None:
    live = LiveModel(Reader("gps", "box"), hold=1)
    for number in (1, 2, 3):
        answer = live.push({"gps": gps(number), "box": box(10 * number)})
    assert answer is not None and answer.absent == () and window(answer, 1) == [10, 20, 30]
    answer = live.push({"gps": gps(4)})
    assert answer is not None and answer.held == ("box",) and window(answer, 1) == [20, 30, 30]
    answer = live.push({"gps": gps(5)})
    assert answer is not None and answer.absent == ("box",) and window(answer) == [3, 4, 5]
    for number in (6, 7, 8):
        answer = live.push({"gps": gps(number), "box": box(10 * number)})
        assert answer is not None and answer.absent == (() if number == 8 else ("box",))
    assert window(answer, 1) == [60, 70, 80]


def test_a_frame_of_another_shape_is_refused_and_does_not_count() -> None:
    live = LiveModel(Reader("gps"))
    live.push({"gps": gps(1)})
    with pytest.raises(ValueError, match=r"a frame of gps has the shape \(3,\), expected \(2,\)"):
        live.push({"gps": np.zeros(3)})
    live.push({"gps": gps(2)})
    assert window(live.push({"gps": gps(3)})) == [1, 2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_frame_with_a_value_that_is_not_finite_counts_as_missing_with_one_warning(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    live = LiveModel(Reader("gps"))
    for number in (1, 2, 3):
        live.push({"gps": gps(number)})
    answer = live.push({"gps": np.array([4.0, value])})
    assert answer is not None
    assert (window(answer), answer.held) == ([2, 3, 3], ("gps",))
    assert caplog.messages == ["slot 3: gps has values that are not finite; the frame counts as missing"]
    assert live.push({"gps": gps(4)}, slot=3) is None
    assert window(live.push({"gps": gps(5)})) == [3, 4, 5]


def test_four_nan_of_a_box_are_no_fault_and_an_answer_that_is_not_finite_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = LiveModel(Reader("box"))
    assert [live.push({"box": box(np.nan)}) for _ in range(LENGTH)] == [None] * LENGTH
    assert caplog.messages == ["slot 2: the answer is not finite, so none is given; are values far out of range?"]


def test_an_answer_ranks_its_beams() -> None:
    answer = LiveAnswer(4, np.log(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], np.float32)))
    np.testing.assert_allclose(answer.probs, [[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], rtol=1e-6)
    assert answer.beams(2).tolist() == [[1, 2], [0, 1]]


# Trackers.


TASK = Task(num_frames=4, num_future=1, num_beams=6)


def drive(*modalities: str) -> Recording:
    rng = np.random.default_rng(2)
    sensors: dict[str, NDArray[Any]] = {}
    for name in modalities:
        row = MODALITIES[name]
        sensors[name] = (100 * rng.random((10, *row.frame_shape))).astype(row.dtype)
    return Recording(__file__, np.zeros(10, np.int32), sensors, None, {})  # type: ignore[arg-type]


def tracker_of(*modalities: str) -> BeamTracker:
    torch.manual_seed(4)
    tracker = BeamTracker(modalities, Model(width=2, features=4, hidden=5), TASK)
    with torch.no_grad():
        tracker.absent.normal_()
    return tracker


def streamed(live: LiveTracker, recording: Recording) -> torch.Tensor:
    answers = [
        live.push(frames={name: values[slot] for name, values in recording.sensors.items()})
        for slot in range(len(recording.pass_ids))
    ]
    assert [answer is None for answer in answers] == [slot < TASK.num_frames - 1 for slot in range(len(answers))]
    return torch.stack([answer for answer in answers if answer is not None])


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_student_of_the_federation_streams_what_it_says_of_whole_windows(modality: str) -> None:
    tracker, recording = tracker_of(modality), drive(modality)
    expected = predict(tracker, recording, np.arange(7))
    assert expected.std(dim=0).max() > 1e-4
    torch.testing.assert_close(streamed(LiveTracker(tracker), recording), expected, atol=1e-4, rtol=0)


def test_a_mixture_and_a_teacher_stream_too() -> None:
    recording = drive("gps", "lidar")
    teacher = tracker_of("gps", "lidar")
    expected = predict(teacher, recording, np.arange(7))
    torch.testing.assert_close(streamed(LiveTracker(teacher), recording), expected, atol=1e-4, rtol=0)
    one, other = tracker_of("gps"), tracker_of("gps")
    with torch.no_grad():
        other.head.bias.normal_()
    decider = Decider([one, other], temperatures=[1.0, 2.0], shares=[0.4, 0.6])
    with torch.no_grad():
        expected = decider.joined([predict(member, drive("gps"), np.arange(7)) for member in (one, other)])
    torch.testing.assert_close(streamed(LiveTracker(decider), drive("gps")), expected, atol=1e-4, rtol=0)


def test_a_teacher_whose_sensor_is_lost_answers_as_without_it() -> None:
    teacher, recording = tracker_of("gps", "lidar"), drive("gps", "lidar")
    live = LiveTracker(teacher, hold=0)
    for slot in range(10):
        answer = live.push(frames={"gps": recording.sensors["gps"][slot]})
    without = Recording(recording.folder, recording.pass_ids, {"gps": recording.sensors["gps"]}, None, {})
    assert answer is not None
    torch.testing.assert_close(answer, predict(teacher, without, np.array([6]))[0], atol=1e-5, rtol=0)


class Flat(torch.nn.Module):
    """A model of a user's own: the positions of a window, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(8, 12)

    def features(self, frames: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return frames["gps"].flatten(1)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(features)
        return found


def test_a_model_of_a_users_own_streams_over_its_frames() -> None:
    tracker: Tracker = OwnTracker(Flat(), ("gps",), TASK)
    expected = predict(tracker, drive("gps"), np.arange(7))
    torch.testing.assert_close(streamed(LiveTracker(tracker), drive("gps")), expected)


def test_a_camera_student_takes_pictures_of_any_size_and_holds_one_that_is_missing() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (5, 2 * PIXELS, 128, 3), np.uint8)
    live, other = LiveTracker(tracker_of("camera")), LiveTracker(tracker_of("camera"))
    for slot, picture in enumerate(pictures):
        answer = live.push(picture=None if slot == 3 else picture)
        expected = other.push(picture=pictures[2] if slot == 3 else picture)
    assert answer is not None and expected is not None
    assert torch.equal(answer, expected)
