"""The synthetic street as a release: what the reader makes of it is what was simulated."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from clients.data.deepsense import Scenario, read_scenario
from clients.data.geodesy import to_degrees, to_metres
from clients.data.scans import ranges_of_scan
from configs.schema import World
from sim.data.conversion import convert_scenario, open_conversion
from sim.data.deepsense_writer import HEADER, STATION_DEG, STREAM, Export, write_release
from sim.data.generate import simulate_pass

EXPORT = Export(World(preset="s9"), num_passes=2, seed=3, image_size=(192, 108))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "release"
    write_release(EXPORT, folder)
    return folder


@pytest.fixture(scope="module")
def read(release: Path) -> Scenario:
    return open_conversion(convert_scenario(release, release.parent / "recording"))


@pytest.fixture(scope="module")
def simulated() -> dict[str, NDArray[np.generic]]:
    names = ("camera", "radar", "lidar", "gps")
    passes = [simulate_pass(EXPORT.world, seed=EXPORT.seed, stream=STREAM, index=i, modalities=names) for i in range(2)]
    return {name: np.concatenate([frames[name] for frames in passes]) for name in (*names, "power")}


def correlations(one: NDArray[np.generic], other: NDArray[np.generic]) -> NDArray[np.float64]:
    """Frame by frame."""
    pairs = zip(one.astype(float), other.astype(float), strict=True)
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


def test_power_labels_and_passes_come_back_exactly(read: Scenario, simulated: dict[str, NDArray[np.generic]]) -> None:
    assert (read.name, read.problems, read.has_passes) == ("scenario0", (), True)
    np.testing.assert_array_equal(read.labelled_power, simulated["power"])
    np.testing.assert_array_equal(read.beams, simulated["power"].argmax(axis=1))
    assert sorted(set(read.pass_ids.tolist())) == [1, 2]


def test_positions_come_back_within_a_micrometre(read: Scenario, simulated: dict[str, NDArray[np.generic]]) -> None:
    np.testing.assert_allclose(
        read.sensors["gps"].astype(np.float64), simulated["gps"].astype(np.float64), rtol=0, atol=1e-6
    )


def test_lidar_ranges_come_back_exactly_from_both_scans(
    read: Scenario, release: Path, simulated: dict[str, NDArray[np.generic]]
) -> None:
    np.testing.assert_array_equal(read.sensors["lidar"], simulated["lidar"])
    for row in (0, 20, 40):
        full = loadmat(release / f"unit1/lidar_data/Lidar_data_{row}.mat")["data"]
        assert full.shape == (460, 2)
        np.testing.assert_array_equal(ranges_of_scan(full), simulated["lidar"][row])


def test_the_map_of_a_cube_is_the_map_that_the_street_makes_without_one(
    read: Scenario, simulated: dict[str, NDArray[np.generic]]
) -> None:
    # One draw of point strengths, another of noise: a weak echo from the ends of the street is half noise.
    has_echo = simulated["radar"].astype(float).max(axis=(1, 2)) > 4.0
    assert has_echo.mean() > 0.5
    found = correlations(read.sensors["radar"], simulated["radar"])[has_echo]
    # The short map takes every eighth chirp, which is blind at 3.7 m/s along the line of sight; the cube is not.
    assert np.median(found) > 0.97
    assert np.mean(found > 0.95) > 0.85
    floors = [np.median(maps.astype(float)) for maps in (read.sensors["radar"], simulated["radar"])]
    assert floors[0] == pytest.approx(floors[1], abs=0.1)


def test_images_show_the_same_scene_as_the_small_camera(
    read: Scenario, simulated: dict[str, NDArray[np.generic]]
) -> None:
    found = correlations(read.sensors["camera"], simulated["camera"])
    assert found.min() > 0.9
    # Of all frames of the pass the one of the same moment is the most alike, or its neighbour.
    own = np.flatnonzero(read.pass_ids == 1)
    for row in (10, 20, 30):
        alike = correlations(
            read.sensors["camera"][own], np.broadcast_to(simulated["camera"][row], (len(own), 64, 64, 3))
        )
        assert abs(int(alike.argmax()) - row) <= 1


def test_the_table_has_the_header_of_the_release_and_a_file_behind_every_path(release: Path) -> None:
    with (release / "scenario0.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == [*HEADER]
    assert header.index("") == 9
    assert rows[0][header.index("time_stamp[UTC]")] == "['12-00-00-000']"
    assert rows[1][header.index("time_stamp[UTC]")] == "['12-00-00-111']"
    for row in rows:
        paths = [cell for cell in row if cell.startswith("./")]
        assert len(paths) == 8
        assert all((release / path).is_file() for path in paths)
    assert Image.open(release / rows[0][1]).size == (192, 108)
    radar = loadmat(release / rows[0][6])["data"]
    assert (radar.shape, radar.dtype) == ((4, 256, 128), np.complex64)
    power = (release / rows[0][2]).read_text().splitlines()
    assert len(power) == 64
    assert all(len(line.split("e")[0]) == 20 for line in power)


def test_the_raw_position_is_metres_off_and_the_calibrated_one_is_read(
    release: Path, simulated: dict[str, NDArray[np.generic]]
) -> None:
    raw_deg = np.loadtxt(release / "unit2/GPS_data/gps_location_0.txt")
    error_m = to_metres(raw_deg[None], STATION_DEG)[0] - simulated["gps"][0].astype(np.float64)
    assert 0.5 < np.linalg.norm(error_m) < 40.0


def test_degrees_and_metres_are_inverse() -> None:
    position_m = np.array([[0.0, 0.0], [100.0, -50.0], [-30.0, 12.5]])
    np.testing.assert_allclose(to_metres(to_degrees(position_m, STATION_DEG), STATION_DEG), position_m, atol=1e-8)


def test_it_says_that_it_is_synthetic_and_how_to_make_it_again(release: Path) -> None:
    recipe = json.loads((release / "synthetic.json").read_text())
    assert recipe["source"] == "softbeam, synthetic"
    assert World.model_validate(recipe["world"]) == EXPORT.world
    assert (recipe["seed"], recipe["passes"]) == (3, 2)


def test_what_is_not_exported_stays_blank(tmp_path: Path) -> None:
    write_release(Export(World(preset="s9"), num_passes=1, modalities=("lidar",)), tmp_path / "release")
    scenario = read_scenario(tmp_path / "release")
    assert list(scenario.files) == ["lidar"]
    assert list(scenario.sensors) == []
    assert scenario.problems == ("gps: none of its files is named (unit2_loc_cal is blank in every row)",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("sonar",)}, "'sonar' cannot be exported; use camera, radar, lidar, gps"),
        ({"num_passes": 0}, "passes: must be at least 1, got 0"),
        ({"image_size": (960, 8)}, "image size: must be 16x16 to 4096x4096, got 960x8"),
    ],
)
def test_an_impossible_export_is_one_clear_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Export(**{"world": World(preset="s9"), "num_passes": 1, **options})  # type: ignore[arg-type]


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        write_release(EXPORT, tmp_path)
