"""Rays, LiDAR and GPS."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.schema import World
from configs.seeding import rng_for
from sim.world.raycast import cast
from sim.world.scene import Scene
from sim.world.sensors import LIDAR_MAX_M, gps, lidar, lidar_azimuths
from tests.streets import EMPTY_STREET, Box, car, empty_pass, scene_of

Floats = NDArray[np.float64]


def scan(scene: Scene, seed: int = 0) -> Floats:
    return lidar(EMPTY_STREET, scene, rng_for(seed, "lidar")).astype(np.float64)


def errors_of_gps(world: World, scene: Scene, num_passes: int) -> Floats:
    """(passes, F, 2) metres east and north off the truth."""
    fixes = [gps(world, scene, rng_for(seed, "gps")) for seed in range(num_passes)]
    return np.array(fixes) - scene.antenna[:, :2]


def test_a_ray_enters_a_box_where_the_hand_computes_it() -> None:
    low, high = np.array([[-1.0, 4.0, -1.0]]), np.array([[1.0, 6.0, 1.0]])
    directions = (np.array([0.0, 0.2, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, -1.0]), np.zeros(4))
    slabs = cast(np.zeros(3), directions, low[:, None], high[:, None])
    np.testing.assert_allclose(slabs.entry()[0], [4.0, 4.0, np.inf, np.inf], rtol=1e-6)
    assert slabs.face()[0, 0] == 1


def test_a_ray_that_starts_inside_a_box_does_not_enter_it() -> None:
    slabs = cast(np.zeros(3), (np.ones(1), np.zeros(1), np.zeros(1)), -np.ones((1, 1, 3)), np.ones((1, 1, 3)))
    assert np.isinf(slabs.entry()).all()


def test_rays_are_spread_from_left_to_right() -> None:
    azimuths = np.rad2deg(lidar_azimuths())
    assert (azimuths[0], azimuths[-1], len(azimuths)) == (-90.0, 90.0, 216)


def test_ranges_are_the_distances_to_the_near_side() -> None:
    ranges, azimuth = scan(scene_of(car(0.0), num_frames=40)), lidar_azimuths()
    on_side = np.abs(7.0 * np.tan(azimuth)) < 1.9
    hits = ranges[:, on_side]
    expected = np.broadcast_to(7.0 / np.cos(azimuth[on_side]), hits.shape)
    assert np.mean(hits > 0) == pytest.approx(0.92 - 0.35 * np.mean(1 - np.cos(azimuth[on_side])), abs=0.03)
    np.testing.assert_allclose(hits[hits > 0], expected[hits > 0], atol=0.1)
    assert np.std((hits - expected)[hits > 0]) == pytest.approx(0.02, abs=0.003)


def test_a_bumper_too_low_for_the_plane_of_the_scan_is_not_seen() -> None:
    flat = Box((-2.0, 7.0, 0.1), (2.0, 9.0, 0.9))
    straight = np.abs(lidar_azimuths()) < np.deg2rad(14.0)
    np.testing.assert_array_equal(scan(scene_of(flat))[:, straight], scan(scene_of(car(60.0)))[:, straight])


def test_nothing_is_seen_beyond_the_largest_range() -> None:
    ranges = scan(scene_of(Box((-30.0, 16.5, 0.3), (30.0, 18.0, 3.0)), num_frames=20))
    assert ranges.max() <= LIDAR_MAX_M + 0.1
    assert np.mean(ranges > 0) < 0.1  # poles alone


def test_the_scan_sees_the_vehicle_under_test_where_it_is() -> None:
    scene = empty_pass()
    ranges = scan(scene)
    on_road = (ranges > 0) & (ranges * np.cos(lidar_azimuths()) < 10.0)
    seen = np.rad2deg((on_road * lidar_azimuths()).sum(axis=1) / on_road.sum(axis=1))
    true = np.rad2deg(np.arctan2(scene.antenna[:, 0], scene.antenna[:, 1]))
    assert np.median(np.abs(seen - true)) < 6.0


def test_rain_loses_a_quarter_of_the_returns_and_makes_up_a_twentieth() -> None:
    straight = np.abs(lidar_azimuths()) < np.deg2rad(14.0)
    dry, wet = (scan(scene_of(car(0.0), num_frames=100, rain=rain))[:, straight] for rain in (False, True))
    is_drop = (wet > 0) & (wet < 6.0)
    assert not ((dry > 0) & (dry < 6.0)).any()
    assert is_drop.mean() == pytest.approx(0.05, abs=0.01)
    assert np.mean(dry > 6.0) - np.mean(wet > 6.0) / 0.95 == pytest.approx(0.25, abs=0.03)


def test_the_night_does_not_change_a_scan() -> None:
    np.testing.assert_array_equal(scan(scene_of(car(0.0))), scan(scene_of(car(0.0), night=True)))


def test_gps_has_the_bias_of_the_world_across_and_along_and_little_jitter() -> None:
    world = EMPTY_STREET.model_copy(update={"gps_bias_m": (0.5, 2.0)})
    errors = errors_of_gps(world, scene_of(car(0.0), num_frames=40), 400)
    bias = errors.mean(axis=1)
    # East is along the street; three s.d. of an s.d. from 400 draws are 11 %.
    np.testing.assert_allclose(bias.std(axis=0), [2.0, 0.5], rtol=0.12)
    np.testing.assert_allclose(bias.mean(axis=0), 0.0, atol=0.3)
    jitter = errors - bias[:, None]
    assert jitter.std() == pytest.approx(0.09, abs=0.015)
    steps = np.diff(errors, axis=1)
    assert steps.std() == pytest.approx(0.09 * np.sqrt(2.0 * (1.0 - 0.8)), rel=0.05)


def test_gps_without_bias_is_within_centimetres() -> None:
    errors = errors_of_gps(EMPTY_STREET.model_copy(update={"gps_bias_m": (0.0, 0.0)}), empty_pass(), 50)
    assert errors.std() == pytest.approx(0.09, rel=0.1)
