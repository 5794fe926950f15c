"""A recording is read as it was written, or refused by the name of the file that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from clients.data.recording import Recording, open_recording, write_recording
from configs.seeding import rng_for


def arrays(lengths: list[int]) -> dict[str, Any]:
    """What `write_recording` takes, for passes of these lengths."""
    rng = rng_for(0, "recording")
    num_frames = sum(lengths)
    return {
        "pass_ids": np.repeat(np.arange(len(lengths)) + 10, lengths).astype(np.int32),
        "sensors": {"gps": rng.normal(size=(num_frames, 2)), "box": rng.random((num_frames, 4)).astype(np.float32)},
        "power": rng.random((num_frames, 64)).astype(np.float32),
        "splits": {"train": [10], "test": list(range(11, 10 + len(lengths)))},
    }


def recording(folder: Path, lengths: list[int]) -> Recording:
    write_recording(folder, **arrays(lengths))
    return open_recording(folder)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with a recording that was not opened yet."""
    folder = tmp_path / "written"
    write_recording(folder, **arrays([13, 4]))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:
        open_recording(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def change(folder: Path, **values: Any) -> None:
    path = folder / "recording.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    sent, read = arrays([13, 4]), recording(tmp_path / "r", [13, 4])
    np.testing.assert_array_equal(read.pass_ids, sent["pass_ids"])
    np.testing.assert_array_equal(read.power, sent["power"])
    assert set(read.sensors) == {"gps", "box"}
    for name, frames in sent["sensors"].items():
        np.testing.assert_array_equal(read.sensors[name], frames)
        assert read.sensors[name].dtype == MODALITIES[name].dtype
    assert read.splits == {"train": (10,), "test": (11,)}


@pytest.mark.parametrize("name", MODALITIES)
def test_every_modality_is_stored_in_its_own_shape_and_dtype(tmp_path: Path, name: str) -> None:
    frames: NDArray[Any] = rng_for(0, name).uniform(0, 200, (3, *MODALITIES[name].frame_shape))
    frames = frames.astype(MODALITIES[name].dtype)
    write_recording(
        tmp_path / "r", pass_ids=np.zeros(3, np.int32), sensors={name: frames}, power=None, splits={"train": [0]}
    )
    np.testing.assert_array_equal(open_recording(tmp_path / "r").sensors[name], frames)


def test_an_unlabelled_recording_has_no_power_and_says_so(tmp_path: Path) -> None:
    write_recording(tmp_path / "r", **{**arrays([13]), "power": None})
    read = open_recording(tmp_path / "r")
    assert read.power is None
    with pytest.raises(ValueError, match=r"no power\.npy"):
        read.beams(np.array([0]), 8, 3)


def test_a_pass_of_len_frames_has_len_minus_l_minus_j_windows(tmp_path: Path) -> None:
    # The rule of the paper: starts while start + L + J < len, so one fewer than would fit.
    read = recording(tmp_path / "r", [11, 12, 13, 30])
    starts = read.window_starts(8, 3)
    np.testing.assert_array_equal(starts, [11, 23, 24, *range(36, 36 + 19)])


def test_windows_of_a_split_lie_in_its_passes(tmp_path: Path) -> None:
    read = recording(tmp_path / "r", [14, 15])
    np.testing.assert_array_equal(read.window_starts(8, 3, "train"), [0, 1, 2])
    np.testing.assert_array_equal(read.window_starts(8, 3, "test"), [14, 15, 16, 17])
    assert len(read.window_starts(8, 3, "validation")) == 0


def test_no_window_reaches_into_the_next_pass(tmp_path: Path) -> None:
    read = recording(tmp_path / "r", [14, 12, 20])
    for num_frames, num_future in ((8, 3), (1, 0), (3, 5)):
        starts = read.window_starts(num_frames, num_future)
        assert np.all(np.diff(starts) > 0)
        np.testing.assert_array_equal(read.pass_ids[starts], read.pass_ids[starts + num_frames + num_future - 1])


def test_beams_are_those_of_the_last_frame_and_of_the_slots_after_it(tmp_path: Path) -> None:
    read = recording(tmp_path / "r", [20])
    assert read.power is not None
    np.testing.assert_array_equal(read.beams(np.array([2]), 8, 3), [read.power[[9, 10, 11, 12]].argmax(axis=1)])
    np.testing.assert_array_equal(read.powers(np.array([2]), 8, 3), read.power[None, [9, 10, 11, 12]])


def test_a_missing_recording_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path / 'recording.json'}: not found")


@pytest.mark.parametrize("text", ["{", "", "\x00"])
def test_a_manifest_that_is_not_json_is_refused(written: Path, text: str) -> None:
    (written / "recording.json").write_text(text)
    assert refusal(written).startswith(f"{written / 'recording.json'}: not valid JSON")


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_a_manifest_that_is_no_mapping_is_refused(written: Path, text: str) -> None:
    (written / "recording.json").write_text(text)
    assert refusal(written).startswith(f"{written / 'recording.json'}: ")


@pytest.mark.parametrize("key", ["format", "modalities", "labelled", "splits"])
def test_a_manifest_without_a_key_is_refused(written: Path, key: str) -> None:
    path = written / "recording.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    text = refusal(written)
    assert text.startswith(f"{path}: ")
    assert key in text


def test_another_format_is_refused(written: Path) -> None:
    change(written, format=2)
    assert "format 2, expected 1" in refusal(written)


def test_an_unknown_modality_is_refused(written: Path) -> None:
    np.save(written / "sonar.npy", np.zeros((17, 3)))
    change(written, modalities=["gps", "sonar"])
    assert "sonar" in refusal(written)


@pytest.mark.parametrize("name", ["gps", "power", "pass_ids"])
def test_a_missing_array_is_refused_by_its_file(written: Path, name: str) -> None:
    (written / f"{name}.npy").unlink()
    assert refusal(written).startswith(f"{written / name}.npy: not found")


@pytest.mark.parametrize("name", ["gps", "power", "pass_ids"])
@pytest.mark.parametrize("damage", ["empty", "half", "text"])
def test_a_corrupt_array_is_refused_by_its_file(written: Path, name: str, damage: str) -> None:
    path = written / f"{name}.npy"
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) - 30], "text": b"no array at all\n"}[damage])
    assert refusal(written).startswith(f"{path}: not a readable .npy array")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("gps", np.zeros((17, 3))),
        ("gps", np.zeros((16, 2))),
        ("gps", np.zeros(17)),
        ("power", np.zeros((16, 64), np.float32)),
        ("power", np.zeros(17, np.float32)),
        ("power", np.zeros((17, 64, 1), np.float32)),
        ("pass_ids", np.zeros((17, 1), np.int32)),
        ("pass_ids", np.zeros(16, np.int32)),
    ],
)
def test_an_array_of_the_wrong_shape_is_refused_by_its_file(written: Path, name: str, array: NDArray[Any]) -> None:
    np.save(written / f"{name}.npy", array)
    text = refusal(written)
    assert "shape" in text
    assert str(written) in text


@pytest.mark.parametrize(("name", "array"), [("gps", np.full((17, 2), "x")), ("pass_ids", np.full(17, 0.5))])
def test_an_array_of_the_wrong_kind_is_refused_by_its_file(written: Path, name: str, array: NDArray[Any]) -> None:
    np.save(written / f"{name}.npy", array)
    assert str(written / f"{name}.npy") in refusal(written)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sensors": {"gps": np.zeros((17, 3))}},
        {"sensors": {"gps": np.zeros((16, 2))}},
        {"power": np.zeros((16, 64), np.float32)},
        {"power": np.zeros(17, np.float32)},
        {"pass_ids": np.zeros((17, 1), np.int32)},
    ],
)
def test_arrays_that_do_not_fit_are_not_written(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="shape"):
        write_recording(tmp_path / "r", **{**arrays([13, 4]), **wrong})
    assert not (tmp_path / "r" / "recording.json").exists()


def test_a_recording_is_not_written_over_another(written: Path) -> None:
    with pytest.raises(ValueError, match="written"):
        write_recording(written, **arrays([5]))
