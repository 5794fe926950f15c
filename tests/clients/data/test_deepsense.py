"""The DeepSense 6G reader, on a made-up scenario in both layouts and on measured ones where they are present."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.data.deepsense import read_scenario
from clients.data.geodesy import to_metres
from clients.data.recording import Recording
from tests.releases import Release

STATION_DEG = np.array([33.42, -111.93])
HEADER = ["index", "unit1_pwr_60ghz", "unit1_loc", "unit2_loc", "unit2_loc_cal", "", "unit1_beam_index", "seq_index"]


class MadeUp:
    """Six rows of two passes: row k has its strongest beam at 10 k (0-based)."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.power = rng.uniform(0.1, 0.5, (6, 64))
        self.power[np.arange(6), 10 * np.arange(6)] = 0.9
        self.labels = [str(10 * k + 1) for k in range(6)]
        self.pass_ids = ["1", "1", "1", "2", "2", "2"]
        self.calibrated_deg = STATION_DEG + [[1e-5 * k, 2e-5 * k] for k in range(6)]

    def _write_table(self, folder: Path, header: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "scenario9.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(header)
            for k, (label, pass_id) in enumerate(zip(self.labels, self.pass_ids, strict=True)):
                paths = [
                    f"./unit1/power_{k}.txt",
                    "./unit1/station.txt",
                    f"./unit2/raw_{k}.txt",
                    f"./unit2/cal_{k}.txt",
                ]
                table.writerow([k + 1, *paths, "", label, pass_id])

    def write_files(self, folder: Path, header: list[str] = HEADER) -> Path:
        self._write_table(folder, header)
        for name in ("unit1", "unit2"):
            (folder / name).mkdir()
        np.savetxt(folder / "unit1/station.txt", STATION_DEG, newline="\r\n", footer="\r\n", comments="")
        for k in range(6):
            np.savetxt(folder / f"unit1/power_{k}.txt", self.power[k])
            np.savetxt(folder / f"unit2/raw_{k}.txt", [0.0, 0.0])
            np.savetxt(folder / f"unit2/cal_{k}.txt", self.calibrated_deg[k])
        return folder

    def write_arrays(self, folder: Path, **extra: Any) -> Path:
        self._write_table(folder, HEADER)
        arrays: dict[str, Any] = {
            "unit1_pwr_60ghz": self.power.astype(np.float32),
            "unit1_loc": STATION_DEG[None],
            "unit2_loc": np.zeros((6, 2)),
            "unit2_loc_cal": self.calibrated_deg,
            **extra,
        }
        np.savez(folder / "scenario9_arrays.npz", **arrays)
        return folder


def test_both_layouts_of_one_scenario_read_alike(tmp_path: Path) -> None:
    files = read_scenario(MadeUp().write_files(tmp_path / "files"))
    arrays = read_scenario(MadeUp().write_arrays(tmp_path / "arrays"))
    assert files.name == arrays.name == "scenario9"
    assert files.problems == arrays.problems == ()
    assert files.pass_ids.tolist() == arrays.pass_ids.tolist() == [1, 1, 1, 2, 2, 2]
    assert files.beams.tolist() == arrays.beams.tolist() == [0, 10, 20, 30, 40, 50]
    np.testing.assert_array_equal(files.power, arrays.power)
    one, other = (read.sensors["gps"].astype(np.float64) for read in (files, arrays))
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_the_calibrated_position_is_preferred_and_counted_from_the_base_station(tmp_path: Path) -> None:
    gps = read_scenario(MadeUp().write_arrays(tmp_path)).sensors["gps"]
    np.testing.assert_allclose(gps[0], [0.0, 0.0], atol=1e-9)
    # Row 1 is 2e-5 degrees east and 1e-5 degrees north; a degree of latitude is 110.9 km there.
    np.testing.assert_allclose(gps[1], [2 * 0.9304, 1.1091], atol=1e-3)


def _earth_centred(latitude_deg: float, longitude_deg: float) -> NDArray[np.float64]:
    latitude, longitude = np.radians([latitude_deg, longitude_deg])
    axis, eccentricity2 = 6378137.0, 6.69437999014e-3
    radius = axis / np.sqrt(1 - eccentricity2 * np.sin(latitude) ** 2)
    return np.array(
        [
            radius * np.cos(latitude) * np.cos(longitude),
            radius * np.cos(latitude) * np.sin(longitude),
            radius * (1 - eccentricity2) * np.sin(latitude),
        ]
    )


def test_metres_agree_within_2_mm_with_the_earth_centred_projection_at_100_m() -> None:
    latitude, longitude = np.radians(STATION_DEG)
    east = np.array([-np.sin(longitude), np.cos(longitude), 0.0])
    up = np.array([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
    position_deg = STATION_DEG + np.array([[6e-4, 8e-4], [-6e-4, 8e-4], [0.0, -1e-3]])
    offsets = np.array([_earth_centred(*point) - _earth_centred(*STATION_DEG) for point in position_deg])
    exact = np.stack([offsets @ east, offsets @ np.cross(up, east)], axis=1)
    np.testing.assert_allclose(to_metres(position_deg, STATION_DEG), exact, atol=2e-3)


def test_broken_rows_are_left_out_and_named_and_the_rest_loads(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.labels[4] = "7"
    folder = made_up.write_files(tmp_path)
    (folder / "unit1/power_0.txt").unlink()
    np.savetxt(folder / "unit1/power_1.txt", np.full(64, np.nan))
    np.savetxt(folder / "unit1/power_2.txt", np.ones(63))
    (folder / "unit2/cal_3.txt").write_text("somewhere\n")
    scenario = read_scenario(folder)
    assert scenario.beams.tolist() == [50]
    assert scenario.pass_ids.tolist() == [2]
    assert scenario.problems == (
        "scenario9.csv: 5 of 6 rows are left out, none of them within a pass",
        "scenario9.csv, line 2: unit1_pwr_60ghz: ./unit1/power_0.txt cannot be opened",
        "scenario9.csv, line 3: there is no finite power reading",
        "scenario9.csv, line 4: there are 63 power readings, expected 64",
        "scenario9.csv, line 5: unit2_loc_cal: ./unit2/cal_3.txt is not a file of numbers",
        "scenario9.csv, line 6: the label is 7, but the strongest beam is 41",
    )


@pytest.mark.parametrize("lose", ["power", "position", "cells"])
def test_no_window_runs_over_a_row_that_was_left_out(lose: str, tmp_path: Path) -> None:
    folder = Release(num_passes=2, length=24).write(tmp_path / "scenario7")
    if lose == "cells":
        lines = (folder / "scenario7.csv").read_text().splitlines()
        (folder / "scenario7.csv").write_text("\n".join([*lines[:11], lines[11] + ",1", *lines[12:]]))
    else:
        (folder / {"power": "unit1/power_10.txt", "position": "unit2/gps_10.txt"}[lose]).unlink()
    scenario = read_scenario(folder)
    assert scenario.problems[0] == "scenario7.csv: 1 of 48 rows are left out, and passes are cut there (1)"
    assert np.unique(scenario.pass_ids, return_counts=True)[1].tolist() == [10, 24, 13]
    recording = Recording(folder, scenario.pass_ids, scenario.sensors, scenario.power, {}, every_window=True)
    # Passes of 10, 24 and 13 rows; windows over the gap would make 13 + 14 of the first pass.
    assert len(recording.window_starts(8, 3)) == 0 + 14 + 3


@pytest.mark.parametrize("reading", [np.nan, np.inf, -np.inf])
def test_a_sweep_with_missing_readings_stays_where_its_label_is_the_strongest_measured_beam(
    reading: float, tmp_path: Path
) -> None:
    made_up = MadeUp()
    made_up.power[3, 5] = reading
    scenario = read_scenario(made_up.write_files(tmp_path))
    assert scenario.beams.tolist() == [0, 10, 20, 30, 40, 50]
    finite = made_up.power[3][np.isfinite(made_up.power[3])].astype(np.float32)
    assert scenario.labelled_power[3, 5] == finite.min()
    (problem,) = scenario.problems
    assert problem.startswith("scenario9.csv, line 5: 1 sweeps have power readings that are not finite")


@pytest.mark.parametrize("reading", [np.nan, np.inf])
@pytest.mark.parametrize(("beam", "is_labelled"), [(30, True), (5, True), (5, False)])
def test_a_sweep_whose_strongest_beam_may_be_missing_is_left_out(
    reading: float, beam: int, is_labelled: bool, tmp_path: Path
) -> None:
    made_up = MadeUp()
    made_up.power[3, beam] = reading
    if beam == 5:
        made_up.labels[3] = "6"  # some releases point at the first missing beam
    if is_labelled:
        folder = made_up.write_files(tmp_path)
    else:
        made_up.write_files(tmp_path, ["other" if name == "unit1_beam_index" else name for name in HEADER])
        folder = tmp_path / "scenario9_challenge.csv"
        (tmp_path / "scenario9.csv").rename(folder)
        folder = tmp_path
    scenario = read_scenario(folder)
    assert scenario.beams.tolist() == [0, 10, 20, 40, 50]
    assert "1 of 6 rows are left out" in scenario.problems[0]
    told = f"the label is {beam + 1}, but" if is_labelled else "no label tells the strongest beam"
    assert "line 5: 1 of 64 power readings are not finite" in scenario.problems[-1] and told in scenario.problems[-1]


def test_frames_of_a_pass_are_made_contiguous_in_the_order_of_the_table(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.pass_ids = ["2", "1", "2", "1", "2", "1"]
    scenario = read_scenario(made_up.write_arrays(tmp_path))
    assert scenario.pass_ids.tolist() == [1, 1, 1, 2, 2, 2]
    assert scenario.beams.tolist() == [10, 30, 50, 0, 20, 40]
    (problem,) = scenario.problems
    assert "goes on after rows of another, as if they took turns" in problem


def test_a_frame_without_a_box_stays_in_as_nan(tmp_path: Path) -> None:
    boxes = np.full((6, 4), 0.5, np.float32)
    boxes[2] = np.nan
    scenario = read_scenario(MadeUp().write_arrays(tmp_path, unit1_bbox_tx=boxes))
    np.testing.assert_array_equal(scenario.sensors["box"], boxes)


@pytest.mark.parametrize("label", ["unit1_beam", "beam_index_1"])
def test_the_label_column_may_have_another_releases_name(tmp_path: Path, label: str) -> None:
    header = [label if name == "unit1_beam_index" else name for name in HEADER]
    assert read_scenario(MadeUp().write_files(tmp_path, header)).beams.tolist() == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize("column", ["unit1_beam_index", "unit1_pwr_60ghz", "unit1_loc"])
def test_a_missing_column_is_one_error_that_names_file_and_column(tmp_path: Path, column: str) -> None:
    header = ["other" if name == column else name for name in HEADER]
    with pytest.raises(ValueError, match=rf"scenario9\.csv: there is no {column}"):
        read_scenario(MadeUp().write_files(tmp_path, header))


def test_a_missing_folder_or_table_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: expected one scenarioN\.csv, found no such folder"):
        read_scenario(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected one scenarioN\.csv, found no CSV"):
        read_scenario(tmp_path)


def test_the_scenarios_own_table_is_found_among_others(tmp_path: Path) -> None:
    folder = MadeUp().write_arrays(tmp_path)
    (folder / "notes.csv").write_text("a,b\n1,2\n")
    assert len(read_scenario(folder).beams) == 6


def test_an_empty_or_binary_table_is_one_clear_error(tmp_path: Path) -> None:
    table = tmp_path / "scenario1.csv"
    table.write_text("index,unit1_beam_index\n")
    with pytest.raises(ValueError, match=r"scenario1\.csv: there are no rows"):
        read_scenario(tmp_path)
    table.write_bytes(b"\xff\x81\x00\x81")
    with pytest.raises(ValueError, match=r"scenario1\.csv: is not a readable CSV"):
        read_scenario(tmp_path)


def test_corrupt_arrays_are_one_clear_error(tmp_path: Path) -> None:
    folder = MadeUp().write_arrays(tmp_path)
    archive = folder / "scenario9_arrays.npz"
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:300] + bytes(100) + whole[400:]):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"scenario9_arrays\.npz: not a readable \.npz archive"):
            read_scenario(folder)


def test_arrays_that_do_not_fit_the_table_are_one_clear_error(tmp_path: Path) -> None:
    folder = MadeUp().write_arrays(tmp_path, unit2_loc_cal=np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"unit2_loc_cal has shape \(5, 2\), expected 6 rows"):
        read_scenario(folder)


def test_a_mirrored_beam_order_is_refused(tmp_path: Path) -> None:
    made_up = MadeUp()
    made_up.power = made_up.power[:, ::-1]
    with pytest.raises(ValueError, match=r"not one of 6 rows is whole .* official order"):
        read_scenario(made_up.write_arrays(tmp_path))


def _measured(number: int) -> Path:
    checkout = Path(__file__).resolve().parents[3]
    root = Path(os.environ.get("SOFTBEAM_DEEPSENSE", checkout.parent / "shared" / "real-deepsense"))
    if not (root / f"scenario{number}").is_dir():
        pytest.skip(
            f"DeepSense 6G scenario {number} is not in {root}; set SOFTBEAM_DEEPSENSE to the folder that holds it"
        )
    return root / f"scenario{number}"


@pytest.mark.parametrize(
    ("number", "num_frames", "num_passes", "range_m"),
    [
        (1, 2422, 29, (14, 35)),
        (3, 1487, 52, (7, 42)),
        (5, 2300, 29, (15, 37)),
        (8, 4043, 83, (8, 18)),
        (9, 5964, 136, (7, 15)),
    ],
)
def test_every_row_of_a_measured_scenario_loads_with_its_released_label(
    number: int, num_frames: int, num_passes: int, range_m: tuple[float, float]
) -> None:
    folder = _measured(number)
    scenario = read_scenario(folder)
    with (folder / f"scenario{number}.csv").open(newline="") as file:
        labels = [int(row["unit1_beam_index"]) - 1 for row in csv.DictReader(file)]
    # Pictures, scans and cubes are named in the tables, and are not here.
    assert all(": none of " in problem for problem in scenario.problems)
    assert len(scenario.beams) == num_frames
    assert len(set(scenario.pass_ids.tolist())) == num_passes
    assert scenario.beams.tolist() == labels
    distance_m = np.linalg.norm(scenario.sensors["gps"], axis=1)
    assert range_m[0] < distance_m.min()
    assert distance_m.max() < range_m[1]


def test_scenario_9_has_3201_windows_in_its_first_95_passes_and_1267_in_the_other_41() -> None:
    scenario = read_scenario(_measured(9))
    passes = np.unique(scenario.pass_ids).tolist()
    recording = Recording(
        folder=Path("scenario9"),
        pass_ids=scenario.pass_ids,
        sensors=scenario.sensors,
        power=scenario.power,
        splits={"train": tuple(passes[:95]), "test": tuple(passes[95:])},
    )
    assert len(recording.window_starts(8, 3, "train")) == 3201
    assert len(recording.window_starts(8, 3, "test")) == 1267


def test_scenario_5_has_a_camera_box_in_1952_of_2300_frames() -> None:
    boxes = read_scenario(_measured(5)).sensors["box"].astype(np.float64)
    assert int(np.isfinite(boxes).all(axis=1).sum()) == 1952
    assert int(np.isnan(boxes).all(axis=1).sum()) == 2300 - 1952
