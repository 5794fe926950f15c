"""The radar's map and its raw samples, from points whose range, side and speed the hand computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.data.radar_maps import doppler_angle_map, range_angle_map
from configs.schema import World
from configs.seeding import rng_for
from sim.world.radar import doppler, radar, radar_cube
from sim.world.scene import Scene
from tests.streets import EMPTY_STREET, Box, car, empty_pass, halted, point, scene_of

Floats = NDArray[np.float64]
RANGE_BIN_M = 0.195
# 40 range bins away, 3 : 4 : 5; it drives off along the line of sight at 5 * 0.6 = 3 m/s.
BIN_40 = point(4.68, 6.24, speed=5.0)
EMPTY_MAP_LEVEL = 1.5


def cube_of(*boxes: Box, num_frames: int = 4, seed: int = 0) -> NDArray[np.complex64]:
    return radar_cube(EMPTY_STREET, scene_of(*boxes, num_frames=num_frames), rng_for(seed, "cube"))


def map_of(scene: Scene, seed: int = 0, world: World = EMPTY_STREET) -> Floats:
    return radar(world, scene, rng_for(seed, "radar")).astype(np.float64)


def moving_spectrum(cube: NDArray[np.complex64]) -> Floats:
    """(F, 256, 64): magnitude by range bin and angle, without what stands still, by plain transforms."""
    magnitudes = []
    for samples in cube:
        ranges = np.fft.fft(samples - samples.mean(axis=-1, keepdims=True), axis=1)
        angles = np.fft.fftshift(np.fft.fft(ranges[..., ::8], n=64, axis=0), axes=0)
        magnitudes.append(np.abs(angles).sum(axis=-1).T)
    return np.array(magnitudes)


def test_the_cube_has_receivers_samples_and_chirps() -> None:
    cube = cube_of(BIN_40, num_frames=2)
    assert cube.shape == (2, 4, 256, 128)
    assert cube.dtype == np.complex64
    assert np.isfinite(cube).all()


@pytest.mark.parametrize(("bins", "x_share"), [(40, 0.6), (51, -0.8), (30, 0.28), (100, 0.0)])
def test_a_point_peaks_at_its_range_bin_and_the_sine_of_its_azimuth(bins: int, x_share: float) -> None:
    distance = bins * RANGE_BIN_M
    x, y = distance * x_share, distance * np.sqrt(1.0 - x_share**2)
    # Straight ahead no speed along the street is radial: the point is moved a little, to the next column at most.
    box = point(x if x_share else 0.3, y, speed=12.0)
    spectrum = moving_spectrum(cube_of(box, num_frames=8)).mean(axis=0)
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert row == bins
    assert abs(column - (32 + 32 * x_share)) <= 1.0


def test_a_points_phase_turns_from_chirp_to_chirp_as_its_radial_speed_asks() -> None:
    cube = cube_of(BIN_40, num_frames=8)
    speeds = np.abs(np.fft.fft(np.fft.fft(cube, axis=2)[:, :, 40], axis=-1))
    speeds[..., 0] = 0.0  # what stands still along the street
    # 2 v T M / lambda = 2 * 3 * 65e-6 * 128 / 3.893e-3 = 12.8 cycles over a frame.
    assert speeds.mean(axis=(0, 1)).argmax() == 13


def test_the_doppler_map_shows_who_leaves_above_the_middle_and_who_comes_below() -> None:
    # Rows of 0.468 m/s: 3 m/s are 6.4 rows from row 32.
    for speed, row in ((5.0, 38), (-5.0, 25)):
        image = doppler_angle_map(cube_of(replace(BIN_40, speed=speed), num_frames=1)[0]).astype(np.float64)
        peak = np.unravel_index(image.argmax(), image.shape)
        assert abs(peak[0] - row) <= 1
        assert abs(peak[1] - 51) <= 2


def test_the_doppler_sensor_is_the_map_of_the_same_cube() -> None:
    scene = scene_of(car(3.0, speed=-6.0), num_frames=2)
    images = doppler(EMPTY_STREET, scene, rng_for(0, "doppler"))
    cube = radar_cube(EMPTY_STREET, scene, rng_for(0, "doppler"))
    np.testing.assert_array_equal(images, np.stack([doppler_angle_map(frame) for frame in cube]))


def test_in_the_map_a_row_is_two_range_bins() -> None:
    image = map_of(scene_of(BIN_40, num_frames=16)).mean(axis=0)
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert row == 20
    assert abs(column - 51.2) <= 1.5


@pytest.mark.parametrize("index", range(4))
def test_the_map_of_the_cube_agrees_with_the_short_way_on_average(index: int) -> None:
    scene = empty_pass(index)
    start = max(scene.num_frames // 2 - 12, 0)  # the vehicle passes at speed for some: their pass is short
    part = slice(start, start + 8)
    cut = replace(scene, **{name: getattr(scene, name)[part] for name in ("antenna", "low", "high", "velocity")})
    # Both draw point strengths of their own, so single frames differ; their mean does not.
    short = np.mean([map_of(cut, seed) for seed in range(4)], axis=0).mean(axis=0)
    cubes = [radar_cube(EMPTY_STREET, cut, rng_for(seed, "cube")) for seed in range(2)]
    long = np.mean([range_angle_map(frame).astype(np.float64) for cube in cubes for frame in cube], axis=0)
    assert np.corrcoef(short.ravel(), long.ravel())[0, 1] > 0.95
    # The same level too: a learner fed by a real cube has seen such maps.
    assert np.abs(short - long).mean() < 0.15


def test_an_empty_map_is_at_the_level_of_noise_either_way() -> None:
    still = scene_of(car(3.0), num_frames=6)
    short = map_of(still)
    long = np.stack([range_angle_map(frame) for frame in radar_cube(EMPTY_STREET, still, rng_for(0))]).astype(float)
    assert np.median(short) == pytest.approx(EMPTY_MAP_LEVEL, abs=0.1)
    assert np.median(long) == pytest.approx(EMPTY_MAP_LEVEL, abs=0.1)


def test_what_stands_still_vanishes_from_the_map_and_from_the_map_of_the_cube() -> None:
    moving, still = scene_of(car(5.0, speed=-5.0), num_frames=6), scene_of(car(5.0), num_frames=6)
    assert map_of(moving).max() > map_of(still).max() + 2.0
    assert map_of(still).max() < 2.6
    images = [range_angle_map(radar_cube(EMPTY_STREET, s, rng_for(0))[0]).max() for s in (moving, still)]
    assert images[0] > images[1] + 2.0


def test_a_pass_at_rest_leaves_the_radar_map() -> None:
    scene = empty_pass()
    assert map_of(halted(scene)).max() < 0.6 * map_of(scene).max()


def test_a_moving_vehicle_peaks_in_the_map_at_its_range_and_side() -> None:
    peaks, expected = [], []
    for index in range(6):
        scene = empty_pass(index)
        image = map_of(scene, index)[4]
        row, column = np.unravel_index(image.argmax(), image.shape)
        x, y = scene.antenna[4, :2]
        peaks.append((2 * RANGE_BIN_M * (row + 0.5), (column - 32) / 32))
        expected.append((np.hypot(x, y), x / np.hypot(x, y)))
    error = np.abs(np.array(peaks) - np.array(expected))
    assert np.median(error[:, 0]) < 2.0
    assert np.median(error[:, 1]) < 0.3


def test_a_vehicle_behind_a_truck_is_almost_invisible() -> None:
    hidden = car(4.0, 11.0, speed=8.0)
    truck = Box((-2.0, 6.5, 0.3), (9.0, 9.0, 3.1))  # at rest, so that only the hidden one is on the map
    seen = map_of(scene_of(hidden, num_frames=12)).mean(axis=0)
    unseen = map_of(scene_of(hidden, truck, num_frames=12)).mean(axis=0)
    # 15 dB less; the logarithm of the map has a floor of noise.
    assert 2.0 ** seen.max() - 1.0 > 3.0 * (2.0 ** unseen.max() - 1.0)


def test_twice_the_distance_costs_twelve_decibels() -> None:
    near, far = (
        moving_spectrum(cube_of(point(0.6 * r, 0.8 * r, speed=9.0), num_frames=30)).max(axis=(1, 2))
        for r in (40 * RANGE_BIN_M, 80 * RANGE_BIN_M)
    )
    assert 20 * np.log10(near.mean() / far.mean()) == pytest.approx(12.0, abs=1.8)


def test_what_drives_beyond_the_last_row_is_not_folded_into_the_map() -> None:
    # 30 m are bin 153.8: the map ends at bin 127.
    assert map_of(scene_of(point(18.0, 24.0, speed=9.0), num_frames=6)).max() < 2.6


def test_the_same_stream_gives_the_same_samples_and_another_one_does_not() -> None:
    np.testing.assert_array_equal(cube_of(BIN_40, num_frames=1), cube_of(BIN_40, num_frames=1))
    assert not np.array_equal(cube_of(BIN_40, num_frames=1), cube_of(BIN_40, num_frames=1, seed=1))
