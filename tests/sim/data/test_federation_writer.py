"""A federation from arrays or a data frame is whole, checked, and what was put in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.data.recording import PUBLIC_LABELS, PUBLIC_POWER, open_recording
from configs.seeding import rng_for
from sim.data.federation_writer import FederationWriter, SensorTable, frames_of
from sim.data.splitting import By, Dirichlet, Even
from sim.data.validation import find_faults


def drives(num_passes: int = 40, length: int = 14, num_beams: int = 16) -> SensorTable:
    """Passes of positions and ranges, each at one of two cities."""
    rng = rng_for(0, "drives")
    num_rows = num_passes * length
    power = rng.random((num_rows, num_beams))
    return SensorTable(
        sensors={"gps": rng.normal(size=(num_rows, 2)), "lidar": rng.random((num_rows, 216)).astype(np.float32)},
        power=power,
        passes=np.repeat([f"drive {i}" for i in range(num_passes)], length),
        columns={"city": np.repeat(np.array(["Bonn", "Rom"])[np.arange(num_passes) % 2], length)},
    )


def test_every_row_is_in_one_part_with_its_label_and_its_frame(tmp_path: Path) -> None:
    table = drives()
    with FederationWriter(tmp_path / "mine", num_beams=16) as writer:
        writer.deal(table, Even(5))
    folder = tmp_path / "mine"
    parts = [folder / "server", folder / "test", *sorted((folder / "clients").iterdir())]
    powers = [np.asarray(open_recording(part).power) for part in parts] + [np.load(folder / PUBLIC_POWER)]
    assert open_recording(folder / "public").power is None
    together = np.concatenate(powers)
    expected = np.asarray(table.power, np.float32)
    np.testing.assert_array_equal(np.sort(together[:, 0]), np.sort(expected[:, 0]))
    place = {row.tobytes(): number for number, row in enumerate(expected)}
    for part, power in zip(parts, powers, strict=False):
        recording = open_recording(part)
        rows = [place[row.tobytes()] for row in power]
        for name, frames in recording.sensors.items():
            np.testing.assert_array_equal(frames, frames_of(name, np.asarray(table.sensors[name])[rows]))
        # Passes were not torn apart, and their rows are in order.
        for one in np.unique(recording.pass_ids):
            mine = np.array(rows)[recording.pass_ids == one]
            assert len(mine) == 14 and (np.diff(mine) == 1).all()
    assert [path.name for path in parts[2:]] == ["000-gps", "001-lidar", "002-gps", "003-lidar", "004-gps"]
    assert json.loads((folder / "federation.json").read_text())["num_beams"] == 16


def test_no_pass_of_a_client_is_in_two_splits_and_the_shares_are_kept(tmp_path: Path) -> None:
    with FederationWriter(tmp_path / "mine", num_beams=16, validation=0.25) as writer:
        writer.deal(drives(), Even(2), client_test=0.25)
    for client in (tmp_path / "mine" / "clients").iterdir():
        splits = open_recording(client).splits
        assert sorted(one for ids in splits.values() for one in ids) == list(range(8))
        assert {name: len(ids) for name, ids in splits.items()} == {"train": 4, "validation": 2, "test": 2}


def test_a_column_gives_each_place_a_client_for_each_sensor_with_the_same_passes(tmp_path: Path) -> None:
    with FederationWriter(tmp_path / "mine", num_beams=16) as writer:
        writer.deal(drives(), By("city"), every_sensor=True)
    clients = sorted((tmp_path / "mine" / "clients").iterdir())
    assert [path.name for path in clients] == ["000-Bonn-gps", "001-Bonn-lidar", "002-Rom-gps", "003-Rom-lidar"]
    gps, lidar = (open_recording(path) for path in clients[:2])
    np.testing.assert_array_equal(np.asarray(gps.power), np.asarray(lidar.power))
    assert gps.splits["test"] == lidar.splits["test"]


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    def written(name: str, seed: int) -> dict[str, bytes]:
        with FederationWriter(tmp_path / name, num_beams=16, seed=seed) as writer:
            writer.deal(drives(), Dirichlet(4, 0.5))
        found = {path for path in (tmp_path / name).rglob("*") if path.is_file()}
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in found}

    assert written("a", 1) == written("b", 1)
    assert written("c", 2) != written("a2", 1)


def test_rows_without_passes_are_samples_of_their_own(tmp_path: Path) -> None:
    table = SensorTable({"gps": rng_for(0).normal(size=(50, 2))}, labels=np.arange(50) % 7)
    with FederationWriter(tmp_path / "mine", num_beams=7) as writer:
        writer.deal(table, Even(2))
    test = open_recording(tmp_path / "mine" / "test")
    starts = test.window_starts(num_frames=1, num_future=0)
    assert starts.tolist() == list(range(len(test.pass_ids)))
    assert len(test.window_starts(num_frames=2, num_future=0)) == 0


def test_parts_are_written_one_by_one_and_labels_are_optional_where_nobody_needs_them(tmp_path: Path) -> None:
    rng = rng_for(0)

    def part(num_rows: int, **more: Any) -> SensorTable:
        return SensorTable({"gps": rng.normal(size=(num_rows, 2))}, **more)

    with FederationWriter(tmp_path / "mine", num_beams=4) as writer:
        writer.server(part(20, labels=np.arange(20) % 4))
        writer.public(part(30))
        writer.test(part(10, labels=np.arange(10) % 4))
        assert writer.client(part(15, labels=np.arange(15) % 4), name="roof", test=[3, 4]) == "000-roof"
        assert writer.client(part(5)) == "001-gps"
    assert not (tmp_path / "mine" / PUBLIC_POWER).exists()
    assert open_recording(tmp_path / "mine" / "clients" / "000-roof").splits["test"] == (3, 4)
    assert open_recording(tmp_path / "mine" / "clients" / "001-gps").power is None
    assert find_faults(tmp_path / "mine") == []


class Frame:
    """Named columns, as a pandas frame has them."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)


def columns() -> dict[str, Any]:
    scans = list(rng_for(0).random((6, 216)))
    east, north = np.arange(6.0), -np.arange(6.0)
    return {"e": east, "n": north, "scan": scans, "beam": [0, 1, 2, 3, 0, 1], "drive": list("aabbcc"), "day": [1] * 6}


def check_frame(frame: Any) -> None:
    sensors = {"gps": ["e", "n"], "lidar": "scan"}
    table = SensorTable.from_frame(frame, sensors=sensors, labels="beam", passes="drive")
    np.testing.assert_array_equal(table.sensors["gps"], np.stack([np.arange(6.0), -np.arange(6.0)], axis=1))
    assert np.asarray(table.sensors["lidar"]).shape == (6, 216)
    assert np.asarray(table.labels).tolist() == [0, 1, 2, 3, 0, 1]
    assert set(table.columns) == {"beam", "drive", "day"}
    with pytest.raises(ValueError, match=r"no column 'drives'; did you mean drive\?"):
        SensorTable.from_frame(frame, sensors=sensors, passes="drives")


def test_a_frame_with_named_columns_becomes_a_table() -> None:
    check_frame(Frame(columns()))


def test_a_pandas_frame_becomes_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    check_frame(pandas.DataFrame(columns()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"power": np.ones((40, 5))}, r"power: expected \(F, 4\), got \(40, 5\)"),
        ({"labels": np.full(40, 4)}, "labels: row 0 is 4, expected 0 to 3"),
        ({"labels": np.arange(40) / 40}, "labels: expected whole numbers"),
        ({"power": np.ones((40, 4)), "labels": np.zeros(40, int)}, "give power or labels, not both"),
        ({}, "neither power nor labels"),
        ({"power": np.full((40, 4), -60.0)}, "holds a negative power; power is linear"),
        ({"labels": np.zeros(40, int), "passes": np.arange(40) % 2}, "pass 0 begins again"),
        ({"labels": np.zeros(40, int), "sensors": {"gps": np.full((40, 2), np.nan)}}, "values that are not finite"),
        ({"labels": np.zeros(40, int), "sensors": {"gps": np.ones((40, 3))}}, r"gps must be \(F, 2\) in metres"),
        (
            {"labels": np.zeros(40, int), "sensors": {"gsp": np.ones((40, 2))}},
            "unknown modality 'gsp'.*did you mean gps",
        ),
        ({"labels": np.zeros(40, int), "sensors": {"camera": np.ones((40, 64, 64, 3))}}, "whole numbers from 0 to 255"),
        ({"labels": np.zeros(40, int), "sensors": {"lidar": np.full((40, 216), 1e9)}}, "beyond 65504"),
    ],
)
def test_what_nobody_can_learn_from_is_refused_and_leaves_nothing(
    change: dict[str, Any], text: str, tmp_path: Path
) -> None:
    table = SensorTable(**{"sensors": {"gps": np.ones((40, 2))}, **change})
    with pytest.raises(ValueError, match=text), FederationWriter(tmp_path / "mine", num_beams=4) as writer:
        writer.server(table)
    assert list(tmp_path.iterdir()) == []


def test_a_federation_without_a_part_is_refused_at_the_end(tmp_path: Path) -> None:
    table = SensorTable({"gps": np.ones((40, 2))}, labels=np.zeros(40, int))
    with (
        pytest.raises(ValueError, match=r"public: is missing"),
        FederationWriter(tmp_path / "m", num_beams=4) as writer,
    ):
        writer.server(table)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="num_beams: must be 2 to 1024, got 1"):
        FederationWriter(tmp_path / "m", num_beams=1)
    with pytest.raises(ValueError, match="inside a `with"):
        FederationWriter(tmp_path / "m", num_beams=4).server(table)


def digits(num_rows: int = 200) -> SensorTable:
    """Positions whose class is the tenth of a circle that they lie in, each row a sample of its own."""
    places = rng_for(0, "digits").normal(size=(num_rows, 2))
    angle = np.arctan2(places[:, 0], places[:, 1])
    return SensorTable({"gps": places}, labels=((angle / np.pi + 1) * 5).astype(int) % 10)


def test_classes_stay_classes_and_only_the_server_may_know_those_of_the_public_set(tmp_path: Path) -> None:
    for name, public_labels in (("known", True), ("unknown", False)):
        with FederationWriter(tmp_path / name, num_classes=10) as writer:
            writer.deal(digits(), Dirichlet(4, 0.3), public_labels=public_labels)
        folder = tmp_path / name
        parts = [folder / "server", folder / "test", *sorted((folder / "clients").iterdir())]
        recordings = [open_recording(part) for part in parts]
        assert all(one.power is None and one.num_classes == 10 for one in recordings)
        found = [one.labels for one in recordings if one.labels is not None]
        assert not open_recording(folder / "public").is_labelled
        assert (folder / PUBLIC_LABELS).is_file() == public_labels
        if public_labels:
            found.append(np.load(folder / PUBLIC_LABELS))
            assert sorted(np.concatenate(found).tolist()) == sorted(np.asarray(digits().labels).tolist())
        assert find_faults(folder) == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "num_beams: give it for beam tracking, or num_classes"),
        ({"num_beams": 8, "num_classes": 8}, "num_beams: give it for beam tracking, or num_classes"),
        ({"num_classes": 1}, "num_classes: must be 2 to 1024, got 1"),
    ],
)
def test_a_federation_is_of_beams_or_of_classes(settings: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        FederationWriter(tmp_path / "mine", **settings)


def test_power_is_no_class(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"^table: power is of beams; give labels, or num_beams"),
        FederationWriter(tmp_path / "mine", num_classes=16) as writer,
    ):
        writer.deal(drives(), Even(3))
