"""A growing recording is read as one, pass by pass in the order of names, and what is broken is left out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.data.arrivals import Stitched, append_arrival, open_growing
from clients.data.recording import Recording, open_recording, write_recording
from clients.models.tracker import read_windows
from configs.seeding import rng_for
from tests.disks import fill, small_disk

LENGTH = 7
# Windows of a pass of 7 frames with 4 frames seen and 2 future slots: one.
FRAMES, FUTURE = 4, 2


def write(folder: Path, passes: Sequence[int] = (0,), **changes: Any) -> Path:
    """A recording of GPS; power and position of a frame follow from the name of its folder."""
    rng, num_frames = rng_for(0, folder.name), LENGTH * len(passes)
    arrays: dict[str, Any] = {
        "pass_ids": np.repeat(passes, LENGTH).astype(np.int32),
        "sensors": {"gps": rng.normal(size=(num_frames, 2))},
        "power": rng.random((num_frames, 4)).astype(np.float32),
        "splits": {"train": list(passes)},
    }
    write_recording(folder, **{**arrays, **changes})
    return folder


def grown(folder: Path, share: float = 0.0) -> Recording:
    found = open_growing(folder, modality="gps", num_classes=4, validation_share=share)
    assert found is not None
    return found


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write(tmp_path / "own", [3, 8], splits={"train": [3], "test": [8]})


def arrive(own: Path, *names: str, passes: Sequence[int] = (0,), **changes: Any) -> None:
    for name in names:
        write(own / "arrivals" / name, passes, **changes)


def test_a_recording_without_arrivals_is_the_ordinary_one(own: Path) -> None:
    assert grown(own) is open_recording(own)
    (own / "arrivals").mkdir()
    assert grown(own) is open_recording(own)


def test_a_folder_that_is_neither_a_recording_nor_has_arrivals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recording\.json: not found"):
        open_growing(tmp_path, modality="gps", num_classes=4, validation_share=0.0)


def test_the_rows_of_arrivals_follow_in_the_order_of_names(own: Path) -> None:
    arrive(own, "t2", "t10")
    found, starts = grown(own), np.arange(4 * LENGTH)
    parts = [open_recording(path) for path in (own, own / "arrivals" / "t10", own / "arrivals" / "t2")]
    np.testing.assert_array_equal(found.sensors["gps"][starts], np.concatenate([one.sensors["gps"] for one in parts]))
    assert found.power is not None
    np.testing.assert_array_equal(found.power[starts], np.concatenate([one.power for one in parts]))  # type: ignore[misc]
    np.testing.assert_array_equal(found.pass_ids, np.repeat([3, 8, 9, 10], LENGTH))


def test_new_passes_are_for_training_and_the_old_ones_stay_what_they_were(own: Path) -> None:
    arrive(own, "t1", passes=[5, 3])
    assert grown(own).splits == {"train": (3, 9, 10), "test": (8,)}
    before = open_recording(own).window_starts(FRAMES, FUTURE, "test")
    np.testing.assert_array_equal(grown(own).window_starts(FRAMES, FUTURE, "test"), before)


@pytest.mark.parametrize(
    ("share", "for_validation"),
    [(0.0, []), (0.2, [4, 9]), (0.3, [3, 6, 9]), (0.25, [3, 7]), (0.5, [1, 3, 5, 7, 9]), (0.75, [1, 2, 3, 5, 6, 7, 9])],
)
def test_the_share_of_validation_counts_new_passes_one_by_one(
    own: Path, share: float, for_validation: list[int]
) -> None:
    # Ten passes, of which the recording "b" brings three at once.
    arrive(own, "a", "c", "d", "e", "f", "g", "h")
    arrive(own, "b", passes=[20, 21, 22])
    splits = grown(own, share).splits
    assert splits.get("validation", ()) == tuple(9 + number for number in for_validation)
    assert len(splits["train"]) == 1 + 10 - len(for_validation)


def test_what_has_arrived_keeps_its_split_when_more_arrives(own: Path) -> None:
    seen: dict[int, str] = {}
    for number in range(12):
        arrive(own, f"t{number:02d}")
        for split, passes in grown(own, 0.3).splits.items():
            for one in passes:
                assert seen.setdefault(one, split) == split
    assert len(seen) == 14


def test_a_pass_that_arrives_for_testing_is_used_for_neither(own: Path) -> None:
    arrive(own, "t1", passes=[0, 1], splits={"test": [0]})
    assert grown(own).splits == {"train": (3, 10), "test": (8,)}


def test_no_window_reaches_from_one_recording_into_the_next(own: Path) -> None:
    # All passes have one number in their own recordings.
    arrive(own, "t1", "t2", passes=[8])
    found = grown(own)
    starts = found.window_starts(FRAMES, FUTURE)
    np.testing.assert_array_equal(starts, np.arange(4) * LENGTH)
    np.testing.assert_array_equal(found.window_starts(FRAMES, FUTURE, "train"), [0, 2 * LENGTH, 3 * LENGTH])


def test_windows_of_a_growing_recording_are_read_and_labelled_like_those_of_its_parts(own: Path) -> None:
    arrive(own, "t1")
    found, part = grown(own), open_recording(own / "arrivals" / "t1")
    mine, theirs = np.array([2 * LENGTH]), np.array([0])
    np.testing.assert_array_equal(found.beams(mine, FRAMES, FUTURE), part.beams(theirs, FRAMES, FUTURE))
    windows, expected = (
        read_windows(one, starts, modalities=["gps"], num_frames=FRAMES)
        for one, starts in ((found, mine), (part, theirs))
    )
    np.testing.assert_array_equal(windows.frames["gps"], expected.frames["gps"])
    np.testing.assert_array_equal(windows.rows, expected.rows)


def spoil(arrival: Path, what: str) -> None:
    manifest = arrival / "recording.json"
    if what == "half an array":
        path = arrival / "gps.npy"
        path.write_bytes(path.read_bytes()[:-30])
    elif what == "no manifest":
        manifest.unlink()
    elif what == "a file":
        for path in arrival.iterdir():
            path.unlink()
        arrival.rmdir()
        arrival.write_text("not a folder")
    else:
        changes = {"odd splits": {"splits": [1]}, "odd modalities": {"modalities": 3}}[what]
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


@pytest.mark.parametrize("what", ["half an array", "no manifest", "a file", "odd splits", "odd modalities"])
def test_what_cannot_be_read_is_left_out_with_a_warning_and_looked_at_again(
    own: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    arrive(own, "t1", "t2", "t3")
    whole = open_recording(own / "arrivals" / "t1").sensors["gps"].copy(), np.arange(LENGTH) + 2 * LENGTH
    spoil(own / "arrivals" / "t2", what)
    found = grown(own)
    assert len(found.pass_ids) == 4 * LENGTH
    np.testing.assert_array_equal(found.sensors["gps"][whole[1]], whole[0])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(own / "arrivals" / "t2") in record.getMessage()
    broken = own / "arrivals" / "t2"
    broken.rename(own / "arrivals" / ".t2")
    arrive(own, "t2")
    assert len(grown(own).pass_ids) == 5 * LENGTH


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"power": None}, "no power"),
        ({"power": np.full((LENGTH, 4), np.nan, np.float32)}, "not finite"),
        ({"power": np.ones((LENGTH, 5), np.float32)}, "5 beams, expected 4"),
        ({"sensors": {"lidar": np.ones((LENGTH, 216), np.float16)}}, "has no gps"),
    ],
)
def test_what_one_could_not_learn_from_is_left_out(
    own: Path, changes: dict[str, Any], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    arrive(own, "t1", **changes)
    assert grown(own) is open_recording(own)
    assert problem in caplog.text


def test_what_is_still_being_written_does_not_count(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrive(own, ".t1")
    assert grown(own) is open_recording(own)
    assert caplog.records == []


def test_a_recording_may_begin_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "arrivals").mkdir()
    assert open_growing(tmp_path, modality="gps", num_classes=4, validation_share=0.0) is None
    arrive(tmp_path, "t1")
    assert grown(tmp_path).splits == {"train": (0,)}


def test_frames_without_labels_do_not_keep_labelled_ones_out(tmp_path: Path) -> None:
    own = write(tmp_path / "own", power=None)
    arrive(own, "t1")
    assert grown(own).splits == {"train": (0,)}
    assert len(grown(own).pass_ids) == LENGTH


def test_a_recording_of_another_sensor_does_not_grow(tmp_path: Path) -> None:
    own = write(tmp_path / "own", sensors={"lidar": np.ones((LENGTH, 216), np.float16)})
    arrive(own, "t1")
    with pytest.raises(ValueError, match="has no gps, which its arrivals have"):
        grown(own)


def test_stitched_rows_are_those_of_the_concatenation_in_any_order_and_shape() -> None:
    parts = [np.arange(6.0).reshape(3, 2), np.empty((0, 2)), 10 + np.arange(4.0).reshape(2, 2)]
    stitched, whole = Stitched(parts), np.concatenate(parts)
    assert len(stitched) == 5
    assert stitched.shape == whole.shape
    assert stitched.nbytes == whole.nbytes
    for rows in (np.array([2, 3]), np.array([[4, 0], [3, 3]]), np.empty((0, 3), np.int64)):
        np.testing.assert_array_equal(stitched[rows], whole[rows])


def test_an_appended_arrival_is_the_recording_that_it_came_from(own: Path, tmp_path: Path) -> None:
    source = open_recording(write(tmp_path / "source", [5, 6]))
    arrival = append_arrival(own, source.folder, "t1")
    assert arrival == own / "arrivals" / "t1"
    found = open_recording(arrival)
    np.testing.assert_array_equal(found.sensors["gps"], source.sensors["gps"])
    np.testing.assert_array_equal(found.power, source.power)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.pass_ids, source.pass_ids)
    assert found.splits == source.splits
    assert [path.name for path in (own / "arrivals").iterdir()] == ["t1"]
    assert len(grown(own).pass_ids) == 4 * LENGTH


def test_an_arrival_must_sort_after_those_that_are_there(own: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "source")
    append_arrival(own, source, "t9")
    for name in ("t9", "t10", "t8"):
        with pytest.raises(ValueError, match="must sort after 't9'"):
            append_arrival(own, source, name)
    append_arrival(own, source, "t91")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../other"])
def test_a_name_that_is_no_visible_folder_is_refused(own: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be the name of a folder and not begin with a dot"):
        append_arrival(own, write(tmp_path / "source"), name)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"power": None}, "no power"),
        ({"power": np.full((LENGTH, 4), np.inf, np.float32)}, r"power\.npy: holds values that are not finite"),
        ({"sensors": {"gps": np.full((LENGTH, 2), np.nan)}}, r"gps\.npy: holds values that are not finite"),
    ],
)
def test_what_one_could_not_learn_from_does_not_arrive(
    own: Path, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        append_arrival(own, write(tmp_path / "source", **changes), "t1")
    assert not (own / "arrivals").exists()


def test_a_camera_box_that_is_not_there_may_arrive(own: Path, tmp_path: Path) -> None:
    sensors = {"gps": np.ones((LENGTH, 2)), "box": np.full((LENGTH, 4), np.nan, np.float32)}
    append_arrival(own, write(tmp_path / "source", sensors=sensors), "t1")
    assert len(grown(own).pass_ids) == 3 * LENGTH


def test_a_crash_before_the_arrival_has_its_name_leaves_nothing_that_counts(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            append_arrival(own, write(tmp_path / "source"), "t1")
    assert list((own / "arrivals").iterdir()) == []
    append_arrival(own, tmp_path / "source", "t1")


def test_on_a_full_disk_nothing_arrives_and_later_it_does(tmp_path: Path) -> None:
    source = write(tmp_path / "source", list(range(20)))
    with small_disk(tmp_path) as disk:
        own = write(disk / "own")
        fill(disk)
        with pytest.raises(OSError):
            append_arrival(own, source, "t1")
        assert len(grown(own).pass_ids) == LENGTH
        assert not any((own / "arrivals").glob("*")) and not any((own / "arrivals").glob(".*"))
        (disk / "ballast").unlink()
        append_arrival(own, source, "t1")
        found = grown(own)
        assert len(found.pass_ids) == 21 * LENGTH


def classed(num_passes: int = 1, num_classes: int = 4) -> dict[str, Any]:
    return {"power": None, "labels": np.arange(LENGTH * num_passes) % 3, "num_classes": num_classes}


def test_classes_arrive_as_power_does(tmp_path: Path) -> None:
    own = write(tmp_path / "own", [3], **classed())
    arrive(own, "a", **classed())
    found = grown(own)
    assert found.power is None and found.num_classes == 4
    assert found.stored_labels(np.arange(14)).tolist() == [0, 1, 2, 0, 1, 2, 0] * 2


def test_an_arrival_of_another_number_of_classes_is_left_out(tmp_path: Path, caplog: Any) -> None:
    own = write(tmp_path / "own", [3], **classed())
    arrive(own, "a", **classed(num_classes=5))
    assert len(grown(own).pass_ids) == LENGTH
    assert "has labels of 5 classes, expected 4" in caplog.text


def test_power_and_classes_do_not_mix(tmp_path: Path) -> None:
    own = write(tmp_path / "own", [3])
    arrive(own, "a", **classed())
    with pytest.raises(ValueError, match="some of its parts have power and others have classes"):
        grown(own)
