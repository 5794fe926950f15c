"""Masts of one world: the reference, and how far the others may be from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs.schema import World
from configs.seeding import rng_for
from sim.world.camera import camera
from sim.world.channel import beam_angles, beam_power, codebook
from sim.world.radar import radar_cube
from sim.world.scene import draw_scene
from sim.world.sensors import lidar
from sim.world.site import FAR_LANE_Y, NEAR_LANE_Y, WALL_Y, Site, make_site
from tests.streets import EMPTY_STREET, car, empty_pass, scene_of

ODDEST = {
    "sites": 300,
    "site_phase_error_deg": 180.0,
    "site_yaw_deg": 45.0,
    "site_offset_m": 3.0,
    "site_wall_m": 8.0,
}


def sites_of(**knobs: object) -> list[Site]:
    world = World.model_validate(knobs)
    return [make_site(world, number) for number in range(world.sites)]


def test_site_0_is_the_nominal_mast_whatever_the_others_are_like() -> None:
    assert make_site(World.model_validate(ODDEST), 0) == make_site(World(), 0) == Site(0, array_seed=1)
    assert (NEAR_LANE_Y, FAR_LANE_Y, WALL_Y) == (8.0, 11.4, 24.0)


@pytest.mark.parametrize("number", [-1, 4, 1000])
def test_a_site_that_the_world_lacks_is_refused_with_the_dotted_path(number: int) -> None:
    with pytest.raises(ValueError, match=rf"data\.world\.sites: there are 4 sites, so site {number} does not exist$"):
        make_site(World(preset="multi-site-mild"), number)


def test_sites_without_tolerances_differ_in_number_alone() -> None:
    assert sites_of(sites=5) == [replace(make_site(World(), 0), number=number) for number in range(5)]


def test_everybody_makes_the_same_site_whatever_traffic_and_weather() -> None:
    base = {"preset": "multi-site-hard"}
    busy = {**base, "near_lane_share": 0.1, "density": 9.0, "night_probability": 1.0, "gps_bias_m": (8.9, 3.4)}
    assert sites_of(**base) == sites_of(**busy)


def test_tolerances_are_kept_and_used_to_both_sides() -> None:
    sites = sites_of(**ODDEST)[1:]
    for found, limit in (
        ([site.yaw_rad for site in sites], np.deg2rad(45.0)),
        ([site.near_lane_y - NEAR_LANE_Y for site in sites], 3.0),
        ([site.wall_y - WALL_Y for site in sites], 8.0),
    ):
        assert -limit <= min(found) < -0.95 * limit
        assert 0.95 * limit < max(found) <= limit
    assert {site.phase_error_deg for site in sites} == {180.0}
    np.testing.assert_allclose([site.far_lane_y - site.near_lane_y for site in sites], FAR_LANE_Y - NEAR_LANE_Y)


def test_all_masts_have_one_array_without_site_errors_and_their_own_with_them() -> None:
    alike, apart = sites_of(sites=4), sites_of(sites=4, site_phase_error_deg=30.0)
    for site in alike[1:]:
        np.testing.assert_array_equal(codebook(site), codebook(alike[0]))
    np.testing.assert_array_equal(codebook(apart[0]), codebook(alike[0]))
    for one in range(4):
        for other in range(one):
            assert np.abs(codebook(apart[one]) - codebook(apart[other])).max() > 0.02


@pytest.mark.parametrize("error_deg", [8.0, 30.0])
def test_beams_of_two_masts_agree_as_phase_errors_of_that_size_allow(error_deg: float) -> None:
    reference, *others = (codebook(site) for site in sites_of(sites=400, site_phase_error_deg=error_deg))
    norm = np.linalg.norm
    agreement = [
        np.vdot(reference[:, 30], other[:, 30]).real / norm(reference[:, 30]) / norm(other[:, 30]) for other in others
    ]
    # The taper weighs E e^(j phi) = e^(-sigma^2 / 2), phi ~ N(0, sigma), like any other mean.
    assert np.mean(agreement) == pytest.approx(np.exp(-(np.deg2rad(error_deg) ** 2) / 2.0), abs=0.01)


@pytest.mark.parametrize("phase_error_deg", [0.0, 30.0])
def test_a_turned_mast_moves_the_best_beam_by_its_yaw(phase_error_deg: float) -> None:
    knobs = {"site_yaw_deg": 12.0, "site_phase_error_deg": phase_error_deg, "sites": 6}
    world = EMPTY_STREET.model_copy(update=knobs)
    yaws, moves = [], []
    for number in range(6):
        site = make_site(world, number)
        moved = []
        for index in range(4):
            scene = draw_scene(world, rng_for(0, "scene", index), site=site)
            azimuth = np.arctan2(scene.antenna[:, 0], scene.antenna[:, 1])
            is_inside = np.abs(azimuth) < np.deg2rad(30.0)
            best = beam_angles()[beam_power(world, scene, rng_for(0, index)).argmax(axis=1)]
            moved.append((best - azimuth)[is_inside])
        yaws.append(np.rad2deg(site.yaw_rad))
        moves.append(np.rad2deg(np.median(np.concatenate(moved))))
    assert max(np.abs(yaws)) > 6.0
    np.testing.assert_allclose(np.array(moves) + yaws, 0.0, atol=2.5 if phase_error_deg else 1.5)


def test_the_yaw_turns_the_array_and_no_sensor() -> None:
    straight = make_site(World(), 0)
    scene, turned = (scene_of(car(2.0), site=site) for site in (straight, replace(straight, yaw_rad=0.2)))
    for sensor in (camera, lidar):
        seen, seen_turned = (sensor(EMPTY_STREET, s, rng_for(0, "sensor")) for s in (scene, turned))
        np.testing.assert_array_equal(seen, seen_turned)


def test_lanes_are_where_the_site_has_them() -> None:
    world = EMPTY_STREET.model_copy(update={"sites": 6, "site_offset_m": 3.0, "site_wall_m": 8.0})
    for number in range(6):
        across = [empty_pass(index, world, number).antenna[0, 1] for index in range(40)]
        assert np.mean(across) == pytest.approx(make_site(world, number).near_lane_y, abs=0.12)


def test_every_mast_sees_a_street_of_its_own() -> None:
    first, second = (camera(EMPTY_STREET, scene_of(car(2.0), site=site), rng_for(0)) for site in sites_of(sites=2))
    assert np.mean(np.abs(first.astype(float) - second) > 10) > 0.05


def test_sensors_work_at_the_narrowest_street_that_can_be_asked_for() -> None:
    narrowest = min(sites_of(**ODDEST), key=lambda site: site.wall_y - site.far_lane_y)
    assert narrowest.wall_y - narrowest.far_lane_y < 4.0
    scene = scene_of(car(0.0, 11.0, speed=5.0), num_frames=1, site=narrowest)
    assert np.isfinite(radar_cube(EMPTY_STREET, scene, rng_for(0))).all()
    assert np.ptp(camera(EMPTY_STREET, scene, rng_for(0))) > 100
    assert np.isfinite(beam_power(EMPTY_STREET, scene, rng_for(0))).all()
