"""Every layout of a DeepSense 6G release: scenarios, single-task archives, the 2022 challenge; made up and measured."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clients.data.deepsense import read_scenario
from clients.data.recording import Recording

STATION_DEG = np.array([33.42, -111.93])
POWER = np.full((8, 64), 0.1)
POWER[np.arange(8), 5 * np.arange(8)] = 0.9


def write_table(file: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    """A CSV, and for every cell that starts with ./ a file: text for positions and power, else something to open."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))
    for name, cells in columns.items():
        for row, cell in enumerate(cells):
            if not str(cell).startswith("./"):
                continue
            path = file.parent / str(cell)
            path.parent.mkdir(parents=True, exist_ok=True)
            if "pwr" in name:
                np.savetxt(path, POWER[row])
            elif "loc" in name:
                offset = 0.0 if name.startswith("unit1") else row * 1e-5
                np.savetxt(path, np.add(STATION_DEG, [offset, 0.0]), newline="\r\n", footer="\r\n", comments="")
            elif "rgb" in name:
                Image.new("RGB", (16, 9)).save(path)
            else:
                path.write_bytes(b"")
    return file.parent


def paths(pattern: str, rows: int = 4) -> list[str]:
    return [pattern.format(row) for row in range(rows)]


LABELS = [5 * row + 1 for row in range(8)]


def test_scenarios_31_to_34_are_read_by_their_own_names(tmp_path: Path) -> None:
    columns = {
        "index": [1, 2, 5, 6],
        "unit1_rgb": paths("./unit1/camera_data/image_{}.jpg"),
        "unit1_pwr_60ghz": paths("./unit1/mmWave_data/mmWave_power_{}.txt"),
        "unit1_lidar": paths("./unit1/lidar_data/lidar_data_{}.ply"),
        "unit1_radar": paths("./unit1/radar_data/radar_data_{}.npy"),
        "unit1_loc": paths("./unit1/GPS_data/gps_location.txt"),
        "unit2_loc": paths("./unit2/GPS_data/GPS_location_{}.txt"),
        "unit1_beam": LABELS[:4],
        "unit1_max_pwr": [0.9] * 4,
        "time_stamp": ["10:00:00-000000"] * 4,
        "seq_index": [1, 1, 2, 2],
    }
    folder = write_table(tmp_path / "scenario33_dev.csv", columns)
    scenario = read_scenario(folder)
    assert (scenario.name, scenario.has_passes, scenario.problems) == ("scenario33", True, ())
    assert scenario.beams.tolist() == [0, 5, 10, 15]
    assert scenario.pass_ids.tolist() == [1, 1, 2, 2]
    assert list(scenario.files) == ["camera", "radar", "lidar"]
    assert scenario.files["lidar"] == tuple(folder / cell for cell in columns["unit1_lidar"])
    # A degree of latitude is 110.9 km there.
    np.testing.assert_allclose(scenario.sensors["gps"][:, 1].astype(float), 1.109 * np.arange(4), atol=1e-3)


def test_a_sweep_with_nan_in_the_official_form_is_left_out_because_its_label_is_the_beam_without_a_reading(
    tmp_path: Path,
) -> None:
    columns = {
        "unit1_pwr_60ghz": paths("./unit1/p_{}.txt"),
        "unit1_loc": paths("./unit1/station.txt"),
        "unit2_loc": paths("./unit2/g_{}.txt"),
        "unit1_beam": [1, 2, 11, 16],  # row 1: the first beam without a reading, as released
        "seq_index": [1] * 4,
    }
    folder = write_table(tmp_path / "scenario32_dev.csv", columns)
    power = POWER[1].copy()
    power[1] = np.nan
    np.savetxt(folder / "unit1/p_1.txt", power)
    scenario = read_scenario(folder)
    assert scenario.problems[0] == "scenario32_dev.csv: 1 of 4 rows are left out, and passes are cut there (1)"
    assert scenario.problems[1].startswith("scenario32_dev.csv, line 3: 1 of 64 power readings are not finite")
    assert scenario.beams.tolist() == [0, 10, 15]
    assert np.isfinite(scenario.labelled_power).all()


def test_a_missing_sensor_file_is_a_frame_of_zeros_and_a_sensor_without_files_is_absent(tmp_path: Path) -> None:
    columns = {
        "unit1_rgb": ["./unit1/a.jpg", "", "./unit1/c.jpg", "./unit1/d.jpg"],
        "unit1_radar": paths("./unit1/radar_{}.mat"),
        "unit1_pwr_60ghz": paths("./unit1/p_{}.txt"),
        "unit1_loc": paths("./unit1/station.txt"),
        "unit2_loc": paths("./unit2/g_{}.txt"),
        "unit1_beam_index": LABELS[:4],
        "seq_index": [1] * 4,
    }
    folder = write_table(tmp_path / "scenario9.csv", columns)
    (folder / "unit1/c.jpg").unlink()
    for path in folder.glob("unit1/radar_*.mat"):
        path.unlink()
    scenario = read_scenario(folder)
    assert scenario.files == {"camera": (folder / "unit1/a.jpg", None, None, folder / "unit1/d.jpg")}
    assert scenario.problems == (
        "camera: 2 of 4 files are missing, their frames are zeros (scenario9.csv, line 3: blank)",
        "radar: none of 4 files is there (scenario9.csv, line 2: ./unit1/radar_0.mat)",
    )


def test_the_scan_without_clutter_is_preferred_where_it_was_downloaded(tmp_path: Path) -> None:
    columns = {
        "unit1_lidar": paths("./unit1/lidar_data/{}.mat"),
        "unit1_lidar_SCR": paths("./unit1/lidar_SCR_data/{}.mat"),
        "unit1_pwr_60ghz": paths("./unit1/p_{}.txt"),
        "unit1_beam_index": LABELS[:4],
        "seq_index": [1] * 4,
    }
    folder = write_table(tmp_path / "scenario8.csv", columns)
    assert read_scenario(folder).files["lidar"][0] == folder / "unit1/lidar_SCR_data/0.mat"
    for path in folder.glob("unit1/lidar_SCR_data/*"):
        path.unlink()
    assert read_scenario(folder).files["lidar"][0] == folder / "unit1/lidar_data/0.mat"


def test_positions_that_were_not_downloaded_are_absent_and_the_rest_loads(tmp_path: Path) -> None:
    columns = {
        "unit1_rgb": paths("./unit1/{}.jpg"),
        "unit1_pwr_60ghz": paths("./unit1/p_{}.txt"),
        "unit1_loc": paths("./unit1/station.txt"),
        "unit2_loc": paths("./unit2/g_{}.txt"),
        "unit1_beam_index": LABELS[:4],
        "seq_index": [1] * 4,
    }
    folder = write_table(tmp_path / "scenario6.csv", columns)
    for path in folder.glob("unit2/*"):
        path.unlink()
    scenario = read_scenario(folder)
    assert list(scenario.sensors) == []
    assert list(scenario.files) == ["camera"]
    assert scenario.problems == ("gps: none of 4 files is there (scenario6.csv, line 2: ./unit2/g_0.txt)",)


def test_other_positions_are_taken_where_the_preferred_ones_were_not_downloaded(tmp_path: Path) -> None:
    columns = {
        "unit1_pwr_60ghz": paths("./unit1/p_{}.txt"),
        "unit1_loc": paths("./unit1/station.txt"),
        "unit2_loc": paths("./unit2/g_{}.txt"),
        "unit2_loc_cal": paths("./unit2/cal_{}.txt"),
        "unit1_beam_index": LABELS[:4],
        "seq_index": [1] * 4,
    }
    folder = write_table(tmp_path / "scenario9.csv", columns)
    for path in folder.glob("unit2/cal_*"):
        path.unlink()
    scenario = read_scenario(folder)
    assert scenario.sensors["gps"].shape == (4, 2)
    (problem,) = scenario.problems
    assert problem == "gps: none of 4 files is there (scenario9.csv, line 2: ./unit2/cal_0.txt); unit2_loc is taken"


@pytest.mark.parametrize("first", [20220401000000001, 10**30, -(10**12)])
def test_passes_with_long_numbers_are_numbered_anew_in_their_order(first: int, tmp_path: Path) -> None:
    columns = {
        "index": [1, 2, 3, 4],
        "unit1_pwr_60ghz": paths("./unit1/p_{}.txt"),
        "unit1_beam_index": LABELS[:4],
        "seq_index": [first, first, first + 1, first + 1],
    }
    scenario = read_scenario(write_table(tmp_path / "scenario9.csv", columns))
    assert scenario.pass_ids.tolist() == [1, 1, 2, 2]
    assert scenario.problems == (
        f"scenario9.csv: seq_index reaches {first + 1}; the passes are numbered from 1 in its order",
    )


def write_archive(folder: Path) -> Path:
    for part, rows in (("train", slice(0, 4)), ("val", slice(4, 6)), ("test", slice(6, 8))):
        columns = {
            "index": [1, 2, 3, 4][: rows.stop - rows.start],
            "unit2_loc_1": paths("./unit2/GPS_data/g_{}.txt", 8)[rows],
            "unit1_pwr_1": paths("./unit1/mmWave_data/p_{}.txt", 8)[rows],
            "beam_index_1": LABELS[rows],
        }
        write_table(folder / "development_dataset" / f"scenario5_dev_{part}.csv", columns)
    for row in range(8):
        np.savetxt(folder / f"development_dataset/unit1/mmWave_data/p_{row}.txt", POWER[row])
    (folder / "development_dataset/unit1/GPS_data").mkdir()
    np.savetxt(folder / "development_dataset/unit1/GPS_data/gps_location.txt", STATION_DEG)
    return folder


@pytest.mark.parametrize("below", ["", "development_dataset"])
def test_a_single_task_archive_loads_as_rows_without_passes(tmp_path: Path, below: str) -> None:
    scenario = read_scenario(write_archive(tmp_path) / below)
    assert (scenario.name, scenario.has_passes, scenario.problems) == ("scenario5", False, ())
    assert len(scenario.pass_ids) == len(set(scenario.pass_ids.tolist())) == 8
    assert sorted(scenario.beams.tolist()) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert np.linalg.norm(scenario.sensors["gps"].astype(float), axis=1).max() < 5.0


def test_tables_of_one_archive_with_other_columns_are_one_clear_error(tmp_path: Path) -> None:
    folder = write_archive(tmp_path) / "development_dataset"
    (folder / "scenario5_dev_val.csv").write_text("index,beam_index_1\n1,3\n")
    with pytest.raises(ValueError, match=r"has other columns than .*csv; download them again"):
        read_scenario(folder)


def test_an_archive_with_labels_but_no_power_has_power_in_the_labelled_beam(tmp_path: Path) -> None:
    columns = {"unit1_radar_1": paths("./unit1/radar_data/{}.mat"), "beam_index_1": [1, 33, 64, 65]}
    scenario = read_scenario(write_table(tmp_path / "scenario9_dev_train.csv", columns))
    assert scenario.beams.tolist() == [0, 32, 63]
    assert scenario.labelled_power.sum(axis=1).tolist() == [1.0, 1.0, 1.0]
    assert list(scenario.files) == ["radar"]
    assert scenario.problems == (
        "scenario9_dev_train.csv: 1 of 4 rows are left out",
        "scenario9_dev_train.csv: there is no power; it is set to 1 in the labelled beam and 0 elsewhere",
        "scenario9_dev_train.csv, line 5: the label is 65, expected 1 to 64",
    )


def test_a_challenge_without_labels_loads_and_says_so_where_labels_are_needed(tmp_path: Path) -> None:
    columns = {"unit1_loc": paths("./unit1/station.txt"), "unit2_loc": paths("./unit2/g_{}.txt")}
    scenario = read_scenario(write_table(tmp_path / "scenario5_challenge.csv", columns))
    assert scenario.power is None
    assert len(scenario.sensors["gps"]) == 4
    assert scenario.problems == ("scenario5_challenge.csv: there is no power, and there are no beam labels",)
    with pytest.raises(ValueError, match="scenario5: there is no power and no beam labels in this release"):
        _ = scenario.beams


def test_a_row_of_the_2022_challenge_is_its_last_frame_with_the_newest_position_that_is_given(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {"index": [1, 2, 3, 4]}
    for kind, ending in (("rgb", "jpg"), ("radar", "npy"), ("lidar", "ply")):
        for frame in range(1, 6):
            columns[f"unit1_{kind}_{frame}"] = [f"./scenario33/unit1/{kind}/{row + frame}.{ending}" for row in range(4)]
    columns["unit1_loc"] = ["./scenario32/unit1/station.txt"] * 2 + ["./scenario33/unit1/station.txt"] * 2
    for frame in (1, 2):
        columns[f"unit2_loc_{frame}"] = [f"./scenario33/unit2/{frame}_{row}.txt" for row in range(4)]
    columns["unit1_pwr_60ghz"] = ["./scenario33/unit1/p_0.txt", "./scenario33/unit1/p_1.txt", "", ""]
    columns["unit1_beam"] = [1, 6, 11, 16]
    folder = write_table(tmp_path / "ml_challenge_dev_multi_modal.csv", columns)
    # Another base station: 0.00001 degrees further north.
    np.savetxt(folder / "scenario32/unit1/station.txt", np.add(STATION_DEG, [1e-5, 0.0]))
    np.savetxt(folder / "scenario33/unit2/2_0.txt", np.add(STATION_DEG, [3e-5, 0.0]))
    scenario = read_scenario(folder)
    assert scenario.has_passes is False
    assert scenario.files["camera"] == tuple(folder / f"scenario33/unit1/rgb/{row + 5}.jpg" for row in range(2))
    assert scenario.beams.tolist() == [0, 5]
    np.testing.assert_allclose(scenario.sensors["gps"].astype(float), [[0.0, 2.218], [0.0, 0.0]], atol=1e-3)
    assert scenario.problems == (
        "ml_challenge_dev_multi_modal.csv: 2 of 4 rows are left out",
        "ml_challenge_dev_multi_modal.csv, line 4: unit1_pwr_60ghz is blank",
        "ml_challenge_dev_multi_modal.csv, line 5: unit1_pwr_60ghz is blank",
    )


def test_a_folder_above_the_table_is_told_where_the_tables_are(tmp_path: Path) -> None:
    write_archive(tmp_path / "Scenario5")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scenario1.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match="found none but in other; name the folder that holds the CSV"):
        read_scenario(tmp_path)


def test_swapped_columns_are_one_error_that_says_what_was_found(tmp_path: Path) -> None:
    columns = {
        "unit2_loc": paths("./unit1/pwr_{}.txt"),
        "unit1_pwr_60ghz": paths("./unit2/loc_{}.txt"),
        "unit1_loc": paths("./unit1/station.txt"),
        "unit1_beam_index": LABELS[:4],
        "seq_index": [1] * 4,
    }
    folder = write_table(tmp_path / "scenario5.csv", columns)
    for row in range(4):
        np.savetxt(folder / f"unit2/loc_{row}.txt", STATION_DEG)
    with pytest.raises(
        ValueError, match=r"not one of 4 rows is whole \(scenario5\.csv, line 2: there are 2 power.* swapped\?"
    ):
        read_scenario(folder)


def measured(name: str) -> Path:
    checkout = Path(__file__).resolve().parents[3]
    root = Path(os.environ.get("SOFTBEAM_DEEPSENSE", checkout.parent / "shared" / "real-deepsense"))
    if not (root / name).is_dir():
        pytest.skip(f"DeepSense 6G {name} is not in {root}; set SOFTBEAM_DEEPSENSE to the folder that holds it")
    return root / name


@pytest.mark.parametrize(
    ("share", "num_future", "train", "test"), [(0.7, 3, 3201, 1267), (0.8, 6, 3286, 774), (0.8, 3, 3610, 858)]
)
def test_window_counts_of_scenario_9_are_the_published_ones(
    share: float, num_future: int, train: int, test: int
) -> None:
    scenario = read_scenario(measured("scenario9"))
    passes = np.unique(scenario.pass_ids).tolist()
    first = int(share * len(passes))
    splits = {"train": tuple(passes[:first]), "test": tuple(passes[first:])}
    recording = Recording(Path("scenario9"), scenario.pass_ids, scenario.sensors, scenario.power, splits)
    assert len(recording.window_starts(8, num_future, "train")) == train
    assert len(recording.window_starts(8, num_future, "test")) == test


def expand(source: Path, out: Path) -> int:
    """The released layout from the compact one: a text file for every number that the CSV names."""
    (table,) = source.glob("scenario*.csv")
    with table.open(newline="") as file:
        lines = list(csv.reader(file))
    header, rows = lines[0], [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    with np.load(next(source.glob("*_arrays.npz"))) as archive:
        arrays = {name: archive[name] for name in archive if name in header}
    out.mkdir()
    with (out / table.name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *(list(row.values()) for row in rows)])
    for name, array in arrays.items():
        for row, cells in enumerate(rows[:1] if len(array) == 1 else rows):
            path = out / cells[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(f"{value:.18e}" for value in array[row].astype(np.float64).tolist()) + "\n")
    return len(rows)


def assert_both_forms_agree(number: int, folder: Path) -> int:
    compact = read_scenario(measured(f"scenario{number}"))
    num_rows = expand(measured(f"scenario{number}"), folder)
    files = read_scenario(folder)
    # Pictures, scans and cubes are named in the tables, and are not here.
    assert all(": none of " in problem for problem in files.problems)
    assert len(files.pass_ids) == num_rows
    np.testing.assert_array_equal(files.pass_ids, compact.pass_ids)
    np.testing.assert_array_equal(files.labelled_power, compact.labelled_power)
    np.testing.assert_array_equal(files.beams, compact.beams)
    np.testing.assert_array_equal(files.sensors["gps"], compact.sensors["gps"])
    return num_rows


def test_all_16216_measured_rows_load_alike_from_files_and_from_arrays(tmp_path: Path) -> None:
    counts = [assert_both_forms_agree(number, tmp_path / str(number)) for number in (1, 3, 5, 8, 9)]
    assert sum(counts) == 16_216


def test_the_official_archive_of_scenario_5_loads_as_released(tmp_path: Path) -> None:
    sample = measured("official_sample_scenario5") / "position-aided-beam-prediction-dataset.zip"
    with zipfile.ZipFile(sample) as archive:
        archive.extractall(tmp_path)
    scenario = read_scenario(tmp_path / "Scenario5")
    assert (scenario.has_passes, scenario.problems) == (False, ())
    assert len(scenario.beams) == 1584 + 399 + 317
    with (tmp_path / "Scenario5/development_dataset/scenario5_dev_test.csv").open(newline="") as file:
        labels = [int(row["beam_index_1"]) - 1 for row in csv.DictReader(file)]
    assert set(labels) <= set(scenario.beams.tolist())
    whole = read_scenario(measured("scenario5"))
    rows_of = [
        sorted(map(tuple, np.column_stack([part.beams, part.sensors["gps"].round(6)]).tolist()))
        for part in (scenario, whole)
    ]
    assert rows_of[0] == rows_of[1]
    challenge = read_scenario(tmp_path / "Scenario5" / "challenge_dataset")
    assert len(challenge.sensors["gps"]) == 151
    assert challenge.power is None


def test_measured_images_are_named_where_only_they_were_downloaded() -> None:
    scenario = read_scenario(measured("scenario5_camera_challenge"))
    assert list(scenario.files) == ["camera"]
    assert len(scenario.files["camera"]) == 96
    assert any(problem.startswith("gps: none of 96 files is there (") for problem in scenario.problems)
