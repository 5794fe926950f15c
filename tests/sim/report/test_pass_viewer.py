"""Passes in a page: pictures of what was sensed, data for the script that are those of the run, and what is missing."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clients.data.recording import Recording, open_recording
from sim.report.contact_sheet import FLOOR_DB
from sim.report.pass_viewer import MAX_FRAMES, learners_of, shown_passes, viewer_caption, viewer_section
from sim.report.predictions import open_test_set, predictions_of
from sim.report.sprites import SCAN_HEIGHT, SCAN_WIDTH, camera_sprite, lidar_sprite, radar_sprite, strength_picture
from sim.report.summaries import load_summary
from sim.world.sensors import LIDAR_MAX_M

COLOURS = {"lidar": "#009e73", "gps": "#cc79a7", "mast": "#6b7280"}


def opened(address: str) -> Image.Image:
    kind, _, content = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def recording(num_frames: int = 5, **sensors: np.ndarray) -> Recording:
    power = np.eye(8, dtype=np.float32)[np.arange(num_frames) % 8] + np.float32(0.1)
    return Recording(Path(), np.zeros(num_frames, np.int32), sensors, power, {})


def test_frames_of_a_camera_stand_side_by_side() -> None:
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    frames[1] = 255
    image = np.asarray(opened(camera_sprite(frames)))
    assert image.shape == (8, 24, 3)
    assert image[:, :8].mean() < 10 < 245 < image[:, 8:16].mean()


def test_the_first_row_of_a_radar_map_is_below() -> None:
    maps = np.zeros((2, 4, 4), np.float16)
    maps[0, 0, 3] = 9.0
    image = np.asarray(opened(radar_sprite(maps, low=0.0, high=9.0)).convert("L"))
    assert image.shape == (4, 8)
    assert np.unravel_index(image.argmax(), image.shape) == (3, 3)


def test_a_scan_shows_the_mast_returns_and_the_vehicle_where_they_are() -> None:
    rays = np.zeros((1, 216))
    rays[0, 108] = LIDAR_MAX_M / 2  # straight ahead
    image = opened(lidar_sprite(rays, np.array([[LIDAR_MAX_M / 2, LIDAR_MAX_M / 2]]), COLOURS)).convert("RGBA")
    assert image.size == (SCAN_WIDTH, SCAN_HEIGHT)
    assert image.getpixel((SCAN_WIDTH // 2, SCAN_HEIGHT - 2)) == (0x6B, 0x72, 0x80, 255)
    assert image.getpixel((SCAN_WIDTH * 3 // 4, SCAN_HEIGHT // 2)) == (0xCC, 0x79, 0xA7, 255)
    ahead = [image.getpixel((column, SCAN_HEIGHT // 2)) for column in range(SCAN_WIDTH // 2 - 2, SCAN_WIDTH // 2 + 3)]
    assert (0x00, 0x9E, 0x73, 255) in ahead
    assert image.getpixel((3, 3))[3] == 0


def test_beams_rise_upwards_and_a_frame_without_values_is_empty() -> None:
    values = np.array([[1.0, 0.0, 0.5], [np.nan] * 3])
    image = np.asarray(opened(strength_picture(values, colour="#0000ff", marked=np.array([2, 0]), mark="#ff0000")))
    assert image[:, 0].tolist() == [[255, 0, 0, 255], [0, 0, 255, 0], [0, 0, 255, 255]]
    assert image[:, 1, 3].tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def page(sensed_run: Path) -> str:
    predictions = predictions_of(sensed_run, load_summary(sensed_run))
    return viewer_section(shown_passes(open_test_set(sensed_run), predictions), learners_of(predictions))


def test_the_data_of_the_script_are_those_of_the_test_set_and_of_the_models(page: str, sensed_run: Path) -> None:
    data = json.loads(re.findall(r'<script type="application/json" id="viewer-data">(.*?)</script>', page)[0])
    recorded = open_test_set(sensed_run)
    predictions = predictions_of(sensed_run, load_summary(sensed_run))
    assert [one["name"] for one in data["learners"]] == ["000-camera", "001-radar", "002-lidar", "003-gps", "teacher"]
    assert len(data["passes"]) == 3
    for one in data["passes"]:
        rows = np.flatnonzero(recorded.pass_ids == one["number"])
        level = np.frombuffer(base64.b64decode(one["level"]), np.uint8).reshape(len(rows), 64)
        assert recorded.power is not None
        assert one["best"] == recorded.power[rows].argmax(axis=1).tolist()
        assert level[np.arange(len(rows)), one["best"]].tolist() == [255] * len(rows)
        np.testing.assert_allclose(one["track"], np.asarray(recorded.sensors["gps"])[rows], atol=0.006)
        assert [name for name, *_ in one["sensors"]] == ["camera", "radar", "lidar"]
        known = rows[one["known"]]
        assert known.tolist() == [
            start + 7 for start in predictions.starts if recorded.pass_ids[start] == one["number"]
        ]
        for learner, probs in zip(predictions.learners, one["probs"], strict=True):
            first = np.frombuffer(base64.b64decode(probs), np.uint8).reshape(len(rows), 64).argmax(axis=1)
            guessed = learner.first[np.isin(predictions.starts + 7, known), 0]
            np.testing.assert_array_equal(first[one["known"]], guessed)


def test_without_a_script_five_moments_of_every_sensor_and_the_whole_pass_are_there(page: str) -> None:
    static = page.partition("<script")[0]
    assert static.count('class="frame"') == 3 * 3 * 5  # passes, sensors, moments
    assert static.count("<img ") == 3 * 6  # power, four students, the teacher
    assert static.count("url(data:image/") == 3 * 3  # each picture stands there once
    assert '<div class="viewer" id="viewer" hidden></div>' in static


def test_the_script_asks_for_nothing_from_outside(page: str) -> None:
    script = page.rpartition("<script>")[2]
    assert not re.search(r"fetch|XMLHttp|import|https?:(?!//www\.w3\.org/2000/svg)|eval|innerHTML", script)


def test_the_caption_counts_guesses_near_the_best_beam(sensed_run: Path) -> None:
    predictions = predictions_of(sensed_run, load_summary(sensed_run))
    passes, teacher = shown_passes(open_test_set(sensed_run), predictions), predictions.learners[-1]
    near = np.abs(teacher.first[predictions.shown, 0] - predictions.best[predictions.shown, 0]) <= 2
    assert f"teacher {100 * near.mean():.0f} %" in viewer_caption(passes, learners_of(predictions))
    assert viewer_caption(passes, []) == "There are no predictions of these passes."


def test_a_test_set_without_sensors_that_can_be_drawn_has_power_alone() -> None:
    (one,) = shown_passes(recording(), None)
    assert one.sprites == {} and one.position_m is None
    assert one.level_db.max() == 0.0 and one.level_db.min() >= FLOOR_DB
    page = viewer_section([one], [])
    assert "there is only the power of its beams" in page and page.count("<img ") == 1


def test_a_pass_that_is_too_short_is_not_shown_and_of_one_that_is_too_long_the_middle_is() -> None:
    assert shown_passes(recording(2), None) == []
    (one,) = shown_passes(recording(MAX_FRAMES + 40), None)
    assert one.frames == slice(20, 20 + MAX_FRAMES)


def test_names_never_run_as_markup(sensed_run: Path) -> None:
    from dataclasses import replace

    predictions = predictions_of(sensed_run, load_summary(sensed_run))
    evil = [replace(one, name="</script><b>x") for one in predictions.learners[:1]]
    passes = shown_passes(open_recording(open_test_set(sensed_run).folder), None)
    passes = [replace(one, probs={evil[0].name: np.full_like(one.level_db, np.nan)}) for one in passes]
    page = viewer_section(passes, evil)
    assert "<b>" not in page and page.count("</script>") == 2
