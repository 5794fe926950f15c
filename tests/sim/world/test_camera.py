"""The camera: where things appear, by day, by night and in rain."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.seeding import rng_for
from sim.world.camera import camera
from sim.world.scene import Scene
from tests.streets import EMPTY_STREET, Box, car, empty_pass, scene_of

Floats = NDArray[np.float64]
TAN_55 = np.tan(np.deg2rad(55.0))
BLUE = (0.1, 0.2, 0.9)


def images(scene: Scene, *, pixels: tuple[int, int] = (64, 64), seed: int = 0) -> Floats:
    return camera(EMPTY_STREET, scene, rng_for(seed, "camera"), pixels=pixels).astype(np.float64)


def column_of(tangent: float, width: int = 64) -> float:
    """The pinhole's column of a direction right of the boresight."""
    return (tangent / TAN_55 + 1.0) * width / 2.0


def row_of(height: float, distance: float, rows: int = 64) -> float:
    """The pinhole's row of a point so high, so far across the street; the camera is at 2.2 m."""
    return (1.0 - (height - 2.2) / distance / (TAN_55 * 9.0 / 16.0)) * rows / 2.0


def extent_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """First and last row, first and last column of what is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def is_red(image: Floats) -> NDArray[np.bool_]:
    return image[..., 0] - image[..., 1:].max(axis=-1) > 80.0


@pytest.mark.parametrize("pixels", [(64, 64), (48, 96), (224, 224), (1, 1), (17, 5)])
def test_an_image_has_as_many_rows_and_columns_as_asked_for(pixels: tuple[int, int]) -> None:
    taken = camera(EMPTY_STREET, scene_of(car(0.0), num_frames=2), rng_for(0), pixels=pixels)
    assert taken.shape == (2, *pixels, 3)
    assert taken.dtype == np.uint8


@pytest.mark.parametrize("pixels", [(64, 64), (96, 160)])
def test_a_box_fills_the_pixels_that_the_pinhole_projects_it_to(pixels: tuple[int, int]) -> None:
    rows, columns = pixels
    # Straight across: its front side alone is seen, from (-2, 0.3) to (2, 1.5) at 7 m.
    first_row, last_row, first, last = extent_of(is_red(images(scene_of(car(0.0)), pixels=pixels)[0]))
    assert first == pytest.approx(column_of(-2.0 / 7.0, columns), abs=1.0)
    assert last + 1 == pytest.approx(column_of(2.0 / 7.0, columns), abs=1.0)
    # Its roof, from 1.5 m at 7 m to 1.5 m at 9 m, is seen from above.
    assert first_row == pytest.approx(row_of(1.5, 9.0, rows), abs=1.0)
    assert last_row + 1 == pytest.approx(row_of(0.3, 7.0, rows), abs=1.0)


def test_a_vehicle_on_the_right_is_on_the_right_of_the_image() -> None:
    for x in (-6.0, 6.0):
        *_, first, last = extent_of(is_red(images(scene_of(car(x)))[0]))
        assert (first + last + 1) / 2 == pytest.approx(column_of(x / 7.5), abs=2.5)


def test_the_nearer_of_two_vehicles_hides_the_other() -> None:
    truck = Box((-6.0, 4.0, 0.3), (6.0, 6.0, 3.1), colour=BLUE)
    for boxes in ((car(0.0), truck), (truck, car(0.0))):
        assert not is_red(images(scene_of(*boxes))).any()
    behind = Box((-6.0, 11.0, 0.3), (6.0, 13.0, 3.1), colour=BLUE)
    assert is_red(images(scene_of(car(0.0), behind))).sum() == pytest.approx(is_red(images(scene_of(car(0.0)))).sum())


def test_the_camera_follows_the_vehicle_under_test_through_a_pass() -> None:
    scene = empty_pass()
    frames = images(scene)
    redness = frames[..., 0] - frames[..., 1] - frames[..., 2] / 4
    weight = np.maximum(redness - 25.0, 0.0)[:, 30:46].sum(axis=1)
    tangent = scene.antenna[:, 0] / scene.low[:, 0, 0, 1]
    inside = np.abs(tangent) < 1.0
    columns = (weight * np.arange(64)).sum(axis=1)[inside] / weight.sum(axis=1)[inside]
    assert np.median(np.abs(columns - column_of(tangent[inside]))) < 2.5


def test_a_vehicle_darkens_the_ground_before_it() -> None:
    row = int(row_of(0.0, 6.7))  # the shadow begins half a metre before the body, which is at 7 m
    column = int(column_of(0.0))
    with_car, without = (images(scene_of(car(x)))[0, row, column - 3 : column + 3].mean() for x in (0.0, 60.0))
    assert with_car == pytest.approx(0.5 * without, rel=0.15)


def test_frames_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(car(3.0), car(-4.0, 11.0), num_frames=7, night=True, rain=True)
    at_once = images(scene)
    for frames_at_once in (1, 3):
        monkeypatch.setattr("sim.world.camera.CHUNK", frames_at_once * 4 * 64 * 64)
        np.testing.assert_array_equal(images(scene), at_once)


def test_the_mast_shakes_by_half_a_pixel_and_the_noise_is_small() -> None:
    frames = images(scene_of(car(0.0), num_frames=12))
    assert np.abs(frames - frames.mean(axis=0)).mean() < 8.0
    assert np.abs(np.diff(frames, axis=0)).max() > 20.0
    assert not np.array_equal(frames[0], frames[1])


def test_the_light_of_passes_differs_by_an_eighth() -> None:
    levels = [np.log(images(scene_of(car(60.0), num_frames=1), seed=seed).mean()) for seed in range(80)]
    assert np.std(levels) == pytest.approx(0.12, abs=0.035)


def test_the_night_is_dark() -> None:
    day, night = (images(scene_of(car(60.0), night=night)) for night in (False, True))
    assert night.mean() == pytest.approx(0.18 * day.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("x", "heading", "is_front"),
    [(7.0, -1.0, True), (-7.0, -1.0, False), (7.0, 1.0, False), (-7.0, 1.0, True)],
)
def test_by_night_the_camera_sees_white_lamps_of_who_comes_and_red_ones_of_who_leaves(
    x: float, heading: float, is_front: bool
) -> None:
    night, dark = (images(scene_of(car(at, heading=heading, colour=BLUE), night=True))[0] for at in (x, 60.0))  # type: ignore[arg-type]
    glaring = night.max(axis=-1) > 150.0
    assert not (dark.max(axis=-1) > 150.0).any()
    # The end towards the middle of the street: x = 5 m, from 7 to 9 m across.
    _, _, first, last = extent_of(glaring)
    ends = sorted((column_of(np.sign(x) * 5.0 / 9.0), column_of(np.sign(x) * 5.0 / 7.0)))
    assert first == pytest.approx(ends[0], abs=1.0)
    assert last + 1 == pytest.approx(ends[1], abs=1.0)
    red, green, _ = night[glaring].mean(axis=0)
    assert (green > 0.85 * red) if is_front else (green < 0.3 * red)


def test_by_day_and_straight_ahead_no_lamp_is_seen() -> None:
    by_day = images(scene_of(car(7.0, colour=(0.1, 0.1, 0.1))))[0]  # type: ignore[arg-type]
    row, column = int(row_of(0.9, 8.0)), int(column_of(5.0 / 8.0))
    assert by_day[row, column].max() < 60.0
    assert images(scene_of(car(0.0, colour=BLUE), night=True)).max() < 110.0  # type: ignore[arg-type]


def test_rain_veils_everything_by_three_tenths() -> None:
    clear, wet = (images(scene_of(car(0.0), rain=rain), pixels=(96, 96))[0] for rain in (False, True))
    inside = (clear > 10.0) & (clear < 240.0)
    slope, offset = np.polyfit(clear[inside], wet[inside], 1)
    assert slope == pytest.approx(0.7, abs=0.03)
    # What is as bright as the veil, 0.55 times the light of the pass, stays; the light is within a few tenths of 1.
    assert offset / 0.3 == pytest.approx(0.55 * 255.0, rel=0.4)


def test_the_empty_street_has_a_bright_sky_above_and_marks_on_a_grey_road() -> None:
    empty = images(scene_of(car(60.0)))[0]
    sky, road = empty[:6], empty[int(row_of(0.0, 8.0)) - 1 : int(row_of(0.0, 8.0)) + 2]
    assert sky.mean() > road.mean()
    assert np.abs(road - road.mean(axis=-1, keepdims=True)).mean() < 12.0
