"""Drawn passes: who drives where, in which weather, and never through each other."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from configs.presets import PresetName
from configs.schema import World
from configs.seeding import rng_for
from sim.world.scene import KINDS, MAX_FRAMES, MIN_FRAMES, Scene, draw_scene
from sim.world.site import make_site
from sim.world.traffic import CLOSEST_M

SLOT_S = 0.111
RUSH = {"rush_probability": 0.5, "stop_probability": 0.5, "density": 6.0}


def passes(count: int, **knobs: Any) -> list[Scene]:
    world = World(**knobs)
    return [
        draw_scene(world, rng_for(1, "scene", index), site=make_site(world, index % world.sites))
        for index in range(count)
    ]


def share(scenes: list[Scene], name: str) -> float:
    return float(np.mean([getattr(scene, name) for scene in scenes]))


def middle_x(scene: Scene) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(F, V) middles of the vehicles along the street."""
    return (scene.low[..., 0].min(axis=2) + scene.high[..., 0].max(axis=2)) / 2.0


@pytest.mark.parametrize("preset", get_args(PresetName))
def test_nobody_touches_or_overtakes_anybody_even_in_a_rush_hour_with_stops(preset: str) -> None:
    num_crowded = 0
    for scene in passes(200, preset=preset, **RUSH):
        low, high = scene.low.min(axis=2), scene.high.max(axis=2)
        apart = (low[:, :, None] >= high[:, None]) | (high[:, :, None] <= low[:, None])
        assert (apart.any(axis=-1) | np.eye(low.shape[1], dtype=bool)).all()
        for heading in (-1.0, 1.0):
            lane = scene.headings == heading
            order = np.argsort(middle_x(scene)[0, lane])
            gaps = low[:, lane, 0][:, order[1:]] - high[:, lane, 0][:, order[:-1]]
            assert gaps.min(initial=np.inf) >= CLOSEST_M - 1e-9
            num_crowded += lane.sum() >= 4
    assert num_crowded > 50


@pytest.mark.parametrize("preset", get_args(PresetName))
def test_velocities_are_the_derivatives_of_the_positions(preset: str) -> None:
    for scene in passes(20, preset=preset, **RUSH):
        np.testing.assert_allclose(np.diff(middle_x(scene), axis=0) / SLOT_S, scene.velocity[1:], atol=1e-6)
        np.testing.assert_allclose(np.diff(scene.antenna[:, 0]) / SLOT_S, scene.velocity[1:, 0], atol=1e-6)


def test_everybody_drives_the_way_of_its_lane() -> None:
    for scene in passes(60, density=4.0, near_lane_share=0.5):
        assert np.all(scene.velocity * scene.headings >= 0)
        is_near = scene.low[0, :, 0, 1] + scene.high[0, :, 0, 1] < 2 * 9.7
        np.testing.assert_array_equal(scene.headings, np.where(is_near, -1.0, 1.0))
        assert is_near[0] == scene.near_lane


def test_every_pass_is_long_enough_for_a_window_however_fast_and_ends_however_slow() -> None:
    assert min(scene.num_frames for scene in passes(40, speed_mps=40.0)) == MIN_FRAMES
    assert max(scene.num_frames for scene in passes(10, speed_mps=0.6)) == MAX_FRAMES


def test_a_pass_crosses_the_field_of_the_array_from_side_to_side() -> None:
    for scene in passes(60, near_lane_share=0.5, stop_probability=0.0):
        azimuth = np.rad2deg(np.arctan2(scene.antenna[:, 0], scene.antenna[:, 1]))
        towards = -1.0 if scene.near_lane else 1.0
        assert towards * azimuth[0] == pytest.approx(-49.0, abs=16.0)
        assert towards * azimuth[-1] == pytest.approx(49.0, abs=16.0)


def test_the_antenna_rides_on_the_vehicle_under_test() -> None:
    for scene in passes(20, near_lane_share=0.5):
        body_low, body_high = scene.low[:, 0, 0], scene.high[:, 0, 0]
        np.testing.assert_allclose(scene.antenna[:, :2], (body_low + body_high)[:, :2] / 2.0, atol=1e-9)
        assert np.all(scene.antenna[:, 2] >= scene.high[:, 0, :, 2].max())


def test_every_vehicle_has_the_size_of_a_kind() -> None:
    sizes = {(kind.length, kind.width) for kind in KINDS}
    for scene in passes(30, density=5.0):
        extent = scene.high.max(axis=2) - scene.low.min(axis=2)
        assert {(round(x, 6), round(y, 6)) for x, y in extent[..., :2].reshape(-1, 2)} <= sizes


@pytest.mark.parametrize(
    ("knob", "flag"),
    [
        ("near_lane_share", "near_lane"),
        ("night_probability", "night"),
        ("rain_probability", "rain"),
        ("rush_probability", "rush"),
    ],
)
def test_lane_and_weather_come_as_often_as_asked(knob: str, flag: str) -> None:
    fast = {"speed_mps": 20.0, "density": 0.0}
    assert share(passes(400, **{knob: 0.3}, **fast), flag) == pytest.approx(0.3, abs=0.07)  # three s.d.
    assert share(passes(30, **{knob: 0.0}, **fast), flag) == 0.0
    assert share(passes(30, **{knob: 1.0}, **fast), flag) == 1.0


def test_night_and_rain_change_the_light_and_nothing_that_moves() -> None:
    fair = passes(10)
    foul = passes(10, night_probability=1.0, rain_probability=1.0)
    for day, night in zip(fair, foul, strict=True):
        np.testing.assert_array_equal(day.low, night.low)
        np.testing.assert_array_equal(day.antenna, night.antenna)


def test_there_are_as_many_others_as_asked_and_nobody_on_an_empty_street() -> None:
    assert {scene.low.shape[1] for scene in passes(20, density=0.0)} == {1}
    others = [scene.low.shape[1] - 1 for scene in passes(300, density=2.0, speed_mps=10.0)]
    assert np.mean(others) == pytest.approx(2.0, abs=0.25)


def test_a_street_of_one_direction_has_nobody_coming() -> None:
    assert all(np.all(scene.headings == -1.0) for scene in passes(30, near_lane_share=1.0, oncoming_share=0.0))
    only_oncoming = passes(30, near_lane_share=1.0, oncoming_share=1.0, density=4.0)
    assert all(np.all(scene.headings[1:] == 1.0) for scene in only_oncoming)


def test_the_rush_hour_is_slower_and_denser() -> None:
    calm, rush = passes(60, stop_probability=0.0), passes(60, stop_probability=0.0, rush_probability=1.0)
    speed_calm, speed_rush = (np.mean([np.abs(s.velocity[:, 0]).mean() for s in scenes]) for scenes in (calm, rush))
    assert speed_rush < 0.85 * speed_calm
    assert np.mean([s.low.shape[1] for s in rush]) > np.mean([s.low.shape[1] for s in calm]) + 1.0


def test_the_rush_hour_of_a_crowded_street_is_no_emptier_than_the_street() -> None:
    calm, rush = passes(60, density=9.0), passes(60, density=9.0, rush_probability=1.0)
    assert np.mean([s.low.shape[1] for s in rush]) >= np.mean([s.low.shape[1] for s in calm]) - 0.5


def test_some_others_share_the_colour_of_the_vehicle_under_test() -> None:
    alike = [
        np.all(scene.colours[1:] == scene.colours[0], axis=1) for scene in passes(200, density=5.0, speed_mps=20.0)
    ]
    assert np.mean(np.concatenate(alike)) == pytest.approx(0.12, abs=0.03)
