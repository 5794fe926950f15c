"""Beams, blockage and the power that a pass is measured with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs.schema import World
from configs.seeding import rng_for
from sim.world.channel import FADING_MEMORY, MEASUREMENT_DB, beam_angles, beam_power, blockage_db, codebook, steering
from sim.world.scene import Scene
from tests.streets import EMPTY_STREET, REFERENCE, Box, car, empty_pass, scene_of

# Neither noise floor nor gain of the vehicle nor diffuse cluster.
CLEAR = EMPTY_STREET.model_copy(update={"snr_db": 60.0, "pass_gain_db": 0.0, "fading_db": 0.0, "rician_k_db": 99.0})
BUS_IN_FRONT = Box((-5.5, 4.0, 0.3), (5.5, 6.0, 3.1))


def power_db(world: World, scene: Scene, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return 10.0 * np.log10(beam_power(world, scene, rng_for(seed, "power")).astype(np.float64))


def test_the_array_answers_a_wave_from_30_degrees_with_quarter_turns() -> None:
    np.testing.assert_allclose(steering(np.array(np.pi / 6))[:5], [1, 1j, -1, -1j, 1], atol=1e-12)


def test_beams_point_evenly_over_90_degrees_from_left_to_right() -> None:
    angles = np.rad2deg(beam_angles())
    assert (angles[0], angles[-1], len(angles)) == (-45.0, 45.0, 64)
    np.testing.assert_allclose(np.diff(angles), 90.0 / 63.0)


def test_on_average_a_beam_has_unit_gain_in_its_own_direction() -> None:
    towards = np.einsum("ba,ab->b", steering(beam_angles()).conj(), codebook(REFERENCE))
    assert np.mean(np.abs(towards) ** 2) == pytest.approx(1.0)
    assert np.abs(towards).min() > 0.5


def test_with_a_clear_view_the_best_beam_points_at_the_vehicle() -> None:
    misses = []
    for index in range(8):
        scene = empty_pass(index)
        best = beam_power(EMPTY_STREET, scene, rng_for(0, index)).argmax(axis=1)
        azimuth = np.arctan2(scene.antenna[:, 0], scene.antenna[:, 1])
        misses.append(np.abs(best - np.abs(azimuth[:, None] - beam_angles()).argmin(axis=1)))
    miss = np.concatenate(misses)
    assert np.mean(miss <= 2) > 0.85
    assert np.mean(miss <= 5) > 0.97


def test_twice_the_distance_costs_six_decibels() -> None:
    near, far = ([power_db(CLEAR, scene_of(car(x, y))).max() for x in np.linspace(-3, 3, 25)] for y in (8.0, 16.0))
    assert np.mean(near) - np.mean(far) == pytest.approx(6.0, abs=1.5)


def test_an_hour_of_noise_is_a_floor_under_every_beam() -> None:
    world = CLEAR.model_copy(update={"snr_db": -20.0})
    # 100 times the mean beam at 10 m: what is received vanishes in it, but for the error of the measurement.
    floor = power_db(world, scene_of(car(0.0), num_frames=50))
    assert floor.mean() == pytest.approx(20.0, abs=0.2)
    assert floor.std() == pytest.approx(MEASUREMENT_DB, abs=0.05)


def test_the_gain_of_a_pass_moves_all_beams_and_frames_alike() -> None:
    scene = scene_of(car(0.0), num_frames=3)
    world = CLEAR.model_copy(update={"pass_gain_db": 5.0})
    moved = [power_db(world, scene, seed).max(axis=1) - power_db(CLEAR, scene, seed).max(axis=1) for seed in range(300)]
    assert np.std(moved) == pytest.approx(5.0, abs=0.7)
    assert np.ptp(moved, axis=1).max() < 8 * MEASUREMENT_DB


def test_the_slow_fading_moves_all_beams_alike_and_remembers_the_slot_before() -> None:
    scene, fading = scene_of(car(0.0), num_frames=200), CLEAR.model_copy(update={"fading_db": 5.0})
    moved = np.array([power_db(fading, scene, seed) - power_db(CLEAR, scene, seed) for seed in range(40)])
    assert np.ptp(moved, axis=2).max() < 12 * MEASUREMENT_DB
    level = moved.mean(axis=2)
    assert level.std() == pytest.approx(5.0, abs=0.6)
    assert level[:, 0].std() == pytest.approx(5.0, abs=1.5)
    assert np.mean(level[:, 1:] * level[:, :-1]) / np.mean(level**2) == pytest.approx(FADING_MEMORY, abs=0.02)


@pytest.mark.parametrize(("k_db", "jitter_db"), [(99.0, (0.1, 0.4)), (3.0, (1.0, 6.0))])
def test_a_weaker_line_of_sight_makes_a_standing_vehicle_fade(k_db: float, jitter_db: tuple[float, float]) -> None:
    world = CLEAR.model_copy(update={"rician_k_db": k_db})
    spread = power_db(world, scene_of(car(1.0), num_frames=200)).max(axis=1).std()
    assert jitter_db[0] < spread < jitter_db[1]


def test_a_bus_in_front_of_the_vehicle_costs_more_than_ten_decibels() -> None:
    clear, shadowed = scene_of(car(0.0), num_frames=40), scene_of(car(0.0), BUS_IN_FRONT, num_frames=40)
    np.testing.assert_array_equal(blockage_db(clear), 0.0)
    assert blockage_db(shadowed).min() > 15.0
    assert np.median(power_db(EMPTY_STREET, clear).max(axis=1) - power_db(EMPTY_STREET, shadowed).max(axis=1)) > 8.0


def test_a_grazing_knife_edge_costs_six_decibels() -> None:
    at_half_way = 2.2 + 0.5 * (1.75 - 2.2)
    blocked = scene_of(car(0.0), Box((-9.0, 4.0, 0.3), (9.0, 6.0, at_half_way)))
    np.testing.assert_allclose(blockage_db(blocked), 6.03, atol=0.01)  # P.526: J(0)


def test_the_easiest_way_round_counts() -> None:
    # The roof is far above, but the left side only grazes the line of sight.
    blocked = scene_of(car(0.0), Box((0.0, 4.0, 0.3), (9.0, 6.0, 4.0)))
    np.testing.assert_allclose(blockage_db(blocked), 6.03, atol=0.01)


def test_two_grazing_edges_add_up_and_many_are_capped_at_30_decibels() -> None:
    edge = Box((0.0, 4.0, 0.3), (9.0, 6.0, 4.0))
    np.testing.assert_allclose(blockage_db(scene_of(car(0.0), edge, edge)), 12.07, atol=0.02)
    np.testing.assert_array_equal(blockage_db(scene_of(car(0.0), BUS_IN_FRONT, BUS_IN_FRONT, BUS_IN_FRONT)), 30.0)


@pytest.mark.parametrize("low_y", [10.0, 8.0])
def test_a_vehicle_behind_or_beside_the_antenna_blocks_nothing(low_y: float) -> None:
    np.testing.assert_array_equal(
        blockage_db(scene_of(car(0.0), Box((-5.5, low_y, 0.3), (5.5, low_y + 2.5, 3.1)))), 0.0
    )


def test_a_vehicle_under_the_line_of_sight_blocks_nothing() -> None:
    np.testing.assert_array_equal(blockage_db(scene_of(car(0.0), Box((-2.0, 4.0, 0.2), (2.0, 6.0, 0.9)))), 0.0)


def test_a_truck_behind_the_vehicle_reflects_if_the_mirror_point_lies_on_it() -> None:
    alone, beside, behind = (
        power_db(CLEAR, scene_of(car(0.0), *others))
        for others in ((), (Box((9.0, 11.0, 0.3), (20.0, 13.5, 3.1)),), (Box((-5.5, 11.0, 0.3), (5.5, 13.5, 3.1)),))
    )
    np.testing.assert_array_equal(alone, beside)
    assert np.abs(alone - behind).max() > 0.5


def test_an_array_turned_by_one_beam_receives_one_beam_to_the_side() -> None:
    turned = replace(REFERENCE, yaw_rad=np.deg2rad(5 * 90.0 / 63.0))
    straight, aside = (
        np.concatenate([power_db(CLEAR, scene_of(car(x), site=site)).argmax(axis=1) for x in np.linspace(-4, 4, 20)])
        for site in (REFERENCE, turned)
    )
    assert np.median(straight - aside) == pytest.approx(5.0, abs=1.0)
