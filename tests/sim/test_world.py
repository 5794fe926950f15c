"""The synthetic street: geometry, channel, sensors and the federation that is written from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.sensing.modalities import MODALITIES
from clients.sensing.recording import open_recording
from configs.schema import Nodes, Passes, StreetData, World
from configs.seeding import rng_for
from sim.channel import beam_angles, beam_power, blockage_db
from sim.generate import plan_federation, simulate_pass, write_street
from sim.raycast import cast
from sim.scene import MIN_FRAMES, Scene, draw_scene
from sim.sensors import SENSORS, camera, lidar, lidar_azimuths, radar

EMPTY_STREET = World(density=0.0, stop_probability=0.0, rician_k_db=40.0)
ALL = tuple(SENSORS)


def empty_pass(index: int = 0) -> Scene:
    return draw_scene(EMPTY_STREET, rng_for(0, "scene", index), near_lane_share=1.0)


def with_boxes(scene: Scene, low: list[float], high: list[float]) -> Scene:
    """The scene with one more vehicle of one box, at rest."""
    corners = [np.broadcast_to(np.array(corner), (scene.num_frames, 1, 2, 3)) for corner in (low, high)]
    return replace(
        scene,
        low=np.concatenate([scene.low, corners[0]], axis=1),
        high=np.concatenate([scene.high, corners[1]], axis=1),
        velocity=np.concatenate([scene.velocity, np.zeros((scene.num_frames, 1))], axis=1),
        colours=np.concatenate([scene.colours, np.array([[0.1, 0.2, 0.9]])]),
    )


def standing(scene: Scene, x: float) -> Scene:
    """The scene with vehicle 0 as a box of 4 by 2 by 1.5 m that stands at ``x`` on the line y = 8."""
    shape = (scene.num_frames, 1, 2, 3)
    return replace(
        scene,
        antenna=np.broadcast_to(np.array([x, 8.0, 1.75]), (scene.num_frames, 3)),
        low=np.broadcast_to(np.array([x - 2.0, 7.0, 0.3]), shape),
        high=np.broadcast_to(np.array([x + 2.0, 9.0, 1.5]), shape),
    )


def test_a_ray_enters_a_box_where_the_hand_computes_it() -> None:
    low, high = np.array([[-1.0, 4.0, -1.0]]), np.array([[1.0, 6.0, 1.0]])
    directions = (np.array([0.0, 0.2, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, -1.0]), np.zeros(4))
    slabs = cast(np.zeros(3), directions, low[:, None], high[:, None])
    np.testing.assert_allclose(slabs.entry()[0], [4.0, 4.0, np.inf, np.inf], rtol=1e-6)
    assert slabs.face()[0, 0] == 1


def test_every_pass_is_long_enough_for_a_window_and_drives_its_lanes_way() -> None:
    for index in range(60):
        scene = draw_scene(World(speed_mps=12.0), rng_for(1, index), near_lane_share=0.5)
        assert scene.num_frames >= MIN_FRAMES
        travelled = scene.antenna[-1, 0] - scene.antenna[0, 0]
        assert travelled < 0 if scene.near_lane else travelled > 0
        assert (scene.antenna[:, 1].mean() < 9.7) == scene.near_lane


def test_velocities_are_the_derivatives_of_the_positions() -> None:
    scene = draw_scene(World(density=4.0), rng_for(2, "scene"), near_lane_share=0.5)
    middle = (scene.low[:, :, 0, 0] + scene.high[:, :, 0, 0]) / 2
    np.testing.assert_allclose(np.diff(middle, axis=0) / 0.111, scene.velocity[1:], atol=1e-6)


def test_vehicles_never_overlap() -> None:
    for index in range(30):
        scene = draw_scene(World(density=6.0), rng_for(3, index), near_lane_share=0.5)
        low, high = scene.low.min(axis=2), scene.high.max(axis=2)
        apart = (low[:, :, None] >= high[:, None]) | (high[:, :, None] <= low[:, None])
        overlapping = ~apart.any(axis=-1) & ~np.eye(low.shape[1], dtype=bool)
        assert not overlapping.any()


def test_with_a_clear_view_the_best_beam_points_at_the_vehicle() -> None:
    misses = []
    for index in range(8):
        scene = empty_pass(index)
        best = beam_power(EMPTY_STREET, scene, rng_for(0, index)).argmax(axis=1)
        azimuth = np.arctan2(scene.antenna[:, 0], scene.antenna[:, 1])
        misses.append(np.abs(best - np.abs(azimuth[:, None] - beam_angles()).argmin(axis=1)))
    miss = np.concatenate(misses)
    assert np.mean(miss <= 2) > 0.85
    assert np.mean(miss <= 5) > 0.98


def test_a_bus_in_front_of_the_vehicle_costs_more_than_ten_decibels() -> None:
    scene = standing(empty_pass(), 0.0)
    blocked = with_boxes(scene, [-5.5, 4.0, 0.3], [5.5, 6.0, 3.1])
    np.testing.assert_array_equal(blockage_db(scene), 0.0)
    assert blockage_db(blocked).min() > 15.0
    clear, shadowed = (beam_power(EMPTY_STREET, s, rng_for(0)).max(axis=1) for s in (scene, blocked))
    assert np.median(10 * np.log10(clear / shadowed)) > 8.0


def test_a_grazing_knife_edge_costs_six_decibels() -> None:
    scene = standing(empty_pass(), 0.0)
    at_half_way = 2.2 + 0.5 * (1.75 - 2.2)
    blocked = with_boxes(scene, [-9.0, 4.0, 0.3], [9.0, 6.0, at_half_way])
    np.testing.assert_allclose(blockage_db(blocked), 6.03, atol=0.01)  # P.526: J(0)


def test_a_vehicle_behind_the_antenna_blocks_nothing() -> None:
    scene = with_boxes(standing(empty_pass(), 0.0), [-5.5, 10.0, 0.3], [5.5, 12.5, 3.1])
    np.testing.assert_array_equal(blockage_db(scene), 0.0)


def test_lidar_ranges_are_the_distances_to_the_near_side() -> None:
    scene = standing(empty_pass(), 0.0)
    ranges = lidar(EMPTY_STREET, scene, rng_for(0, "lidar")).astype(np.float64)
    azimuth = lidar_azimuths()
    on_side = np.abs(7.0 * np.tan(azimuth)) < 1.9
    hits = ranges[:, on_side]
    expected = np.broadcast_to(7.0 / np.cos(azimuth[on_side]), hits.shape)
    assert np.mean(hits > 0) > 0.85
    np.testing.assert_allclose(hits[hits > 0], expected[hits > 0], atol=0.1)


def test_lidar_sees_the_vehicle_under_test_where_it_is() -> None:
    scene = empty_pass()
    ranges = lidar(EMPTY_STREET, scene, rng_for(0, "lidar")).astype(np.float64)
    on_road = (ranges > 0) & (ranges * np.cos(lidar_azimuths()) < 10.0)
    seen = np.rad2deg((on_road * lidar_azimuths()).sum(axis=1) / on_road.sum(axis=1))
    true = np.rad2deg(np.arctan2(scene.antenna[:, 0], scene.antenna[:, 1]))
    assert np.median(np.abs(seen - true)) < 6.0


def test_a_moving_vehicle_peaks_in_the_radar_map_at_its_range_and_side() -> None:
    peaks, expected = [], []
    for index in range(6):
        scene = empty_pass(index)
        maps = radar(EMPTY_STREET, scene, rng_for(0, index)).astype(np.float64)
        frame = 4
        row, column = np.unravel_index(maps[frame].argmax(), (64, 64))
        x, y = scene.antenna[frame, :2]
        peaks.append((0.39 * (row + 0.5), (column - 32) / 32))
        expected.append((np.hypot(x, y), x / np.hypot(x, y)))
    error = np.abs(np.array(peaks) - np.array(expected))
    assert np.median(error[:, 0]) < 2.0
    assert np.median(error[:, 1]) < 0.3


def test_a_vehicle_at_rest_leaves_the_radar_map() -> None:
    scene = empty_pass()
    at_rest = replace(scene, velocity=np.zeros_like(scene.velocity))
    moving, still = (radar(EMPTY_STREET, s, rng_for(0, "radar")).astype(np.float64).max() for s in (scene, at_rest))
    assert still < 0.6 * moving


def test_the_camera_shows_the_vehicle_at_its_pinhole_column() -> None:
    scene = empty_pass()
    frames = camera(EMPTY_STREET, scene, rng_for(0, "camera")).astype(np.float64)
    redness = frames[..., 0] - frames[..., 1] - frames[..., 2] / 4
    weight = np.maximum(redness - 25.0, 0.0)[:, 30:46].sum(axis=1)
    tangent = scene.antenna[:, 0] / scene.low[:, 0, 0, 1]
    inside = np.abs(tangent) < 1.0
    columns = (weight * np.arange(64)).sum(axis=1)[inside] / weight.sum(axis=1)[inside]
    expected = (tangent[inside] / np.tan(np.deg2rad(55.0)) + 1.0) * 32.0
    assert np.median(np.abs(columns - expected)) < 2.5


def test_the_night_is_dark() -> None:
    scene = empty_pass()
    day, night = (camera(EMPTY_STREET, s, rng_for(0)) for s in (scene, replace(scene, night=True)))
    assert night.mean() < 0.4 * day.mean()


def make(index: int, modalities: tuple[str, ...] = ALL) -> dict[str, NDArray[np.generic]]:
    return simulate_pass(World(), seed=5, site="public", index=index, modalities=modalities)


def test_frames_have_the_shapes_of_their_modality() -> None:
    frames = make(0)
    assert frames["power"].shape == (len(frames["power"]), 64)
    assert frames["power"].dtype == np.float32
    for name in ALL:
        assert frames[name].shape == (len(frames["power"]), *MODALITIES[name].frame_shape)
        assert frames[name].dtype == MODALITIES[name].dtype
        assert np.isfinite(frames[name].astype(np.float64)).all()


def test_a_pass_made_alone_equals_the_pass_made_after_others() -> None:
    first = make(3)
    make(1)
    again = make(3)
    for name, frames in first.items():
        np.testing.assert_array_equal(frames, again[name])


def test_leaving_a_modality_out_changes_nothing_else() -> None:
    everything, some = make(2), make(2, ("lidar", "gps"))
    assert set(some) == {"power", "lidar", "gps"}
    for name, frames in some.items():
        np.testing.assert_array_equal(frames, everything[name])


def test_an_unknown_sensor_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"data\.nodes: the street has no sensor 'box'; use camera, radar"):
        make(0, ("box",))


def street(**changes: object) -> StreetData:
    fields: dict[str, object] = {
        "source": "street",
        "passes": Passes(server=3, public=2, test=2, client=3, client_test=1),
        "nodes": (Nodes(modality="lidar", count=2), Nodes(modality="gps", count=1)),
    }
    return StreetData(**{**fields, **changes})  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_federation_is_the_same_with_one_worker_and_with_two(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_street(
        street(), tmp_path / "one", seed=7, workers=1, progress=lambda done, total: calls.append((done, total))
    )
    write_street(street(), tmp_path / "two", seed=7, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert calls[-1][0] == calls[-1][1] == len(calls)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_written_federation_opens_and_holds_what_each_part_should(tmp_path: Path) -> None:
    folder = tmp_path / "federation"
    write_street(street(), folder, seed=8, workers=1)
    assert sorted(path.name for path in (folder / "clients").iterdir()) == ["000-lidar", "001-lidar", "002-gps"]
    server, public, test = (open_recording(folder / name) for name in ("server", "public", "test"))
    assert set(server.sensors) == set(public.sensors) == set(test.sensors) == {"lidar", "gps"}
    assert public.power is None
    assert sorted(server.splits["train"] + server.splits["validation"]) == [0, 1, 2]
    assert len(server.splits["validation"]) == 1
    assert test.splits == {"test": (0, 1)}

    client = open_recording(folder / "clients" / "002-gps")
    assert set(client.sensors) == {"gps"}
    assert len(client.splits["test"]) == 1
    assert client.window_starts(8, 3, "train").size > 0
    alone = simulate_pass(
        World(),
        seed=8,
        site="clients/002-gps",
        index=0,
        modalities=("gps",),
        near_lane_share=plan_federation(street(), seed=8)[-1].near_lane_share,
    )
    np.testing.assert_array_equal(client.sensors["gps"][client.pass_ids == 0], alone["gps"])

    manifest = json.loads((folder / "federation.json").read_text())
    assert [entry["id"] for entry in manifest["clients"]] == ["000-lidar", "001-lidar", "002-gps"]


def test_no_two_recordings_share_a_pass(tmp_path: Path) -> None:
    write_street(street(), tmp_path / "federation", seed=9, workers=1)
    recordings = [open_recording(path.parent) for path in (tmp_path / "federation").rglob("recording.json")]
    first = [tuple(np.asarray(next(iter(r.sensors.values()))[0], np.float64).ravel()) for r in recordings]
    assert len(set(first)) == len(recordings) == 6


def test_a_small_skew_gives_clients_different_traffic_and_a_large_one_the_same() -> None:
    nodes = (Nodes(modality="gps", count=60),)
    skewed, even = (
        np.array([part.near_lane_share for part in plan_federation(street(nodes=nodes, skew=skew), seed=1)[3:]])
        for skew in (0.5, 1e5)
    )
    assert skewed.std() > 0.3
    assert even.std() < 0.01
    assert skewed.mean() == pytest.approx(World().near_lane_share, abs=0.15)


def test_every_client_keeps_two_passes_however_uneven_the_amounts() -> None:
    nodes = (Nodes(modality="gps", count=40),)
    parts = plan_federation(street(nodes=nodes, amount_spread=2.0), seed=1)[3:]
    assert min(len(part.splits["train"]) + len(part.splits["validation"]) for part in parts) == 2
    assert len({part.num_passes for part in parts}) > 3


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        write_street(street(), tmp_path, seed=0, workers=1)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_writer_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_street(street(), tmp_path / "federation", seed=0, workers=1, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_the_streets_beam_statistics_are_those_of_scenario_9_in_kind() -> None:
    lengths, levels, beams = [], [], []
    for index in range(80):
        scene = draw_scene(World(), rng_for(0, "statistics", index), near_lane_share=World().near_lane_share)
        power = beam_power(World(), scene, rng_for(0, index)).astype(np.float64)
        lengths.append(len(power))
        levels.append(np.sort(10 * np.log10(power), axis=1)[:, ::-1])
        beams.append(power.argmax(axis=1))
    sorted_db = np.concatenate(levels)
    step = np.abs(np.concatenate([np.diff(beam) for beam in beams]))
    share = np.bincount(np.concatenate(beams), minlength=64) / len(sorted_db)
    entropy = -np.sum(share[share > 0] * np.log2(share[share > 0]))
    assert 35 < np.median(lengths) < 46
    assert 0.18 < np.median(sorted_db[:, 0] - sorted_db[:, 1]) < 0.32
    assert 8.0 < np.median(sorted_db[:, 0] - sorted_db[:, -1]) < 13.0
    assert 0.20 < np.mean(step == 0) < 0.35
    assert np.mean(step > 5) < 0.04
    assert 5.2 < entropy < 5.8
