"""Sensor files to frames: each format by hand, and damage of every kind as one clear line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from clients.data.radar_maps import doppler_angle_map, range_angle_map
from clients.data.scans import ranges_of_cloud, ranges_of_scan, read_ply
from clients.data.sensor_files import read_frames

RNG = np.random.default_rng(0)


def cube(num_chirps: int = 128) -> NDArray[np.complex64]:
    return (RNG.standard_normal((4, 256, num_chirps, 2)) @ [1.0, 1.0j]).astype(np.complex64)


@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
def test_an_image_is_squeezed_by_area(tmp_path: Path, name: str) -> None:
    # 960 x 540 to 64 x 64: the left third red, the rest green, the lower half black.
    pixels = np.zeros((540, 960, 3), np.uint8)
    pixels[:270, :320, 0] = 200
    pixels[:270, 320:, 1] = 100
    Image.fromarray(pixels).save(tmp_path / name)
    frames, problems = read_frames("camera", [tmp_path / name], ["camera"])
    (small,) = frames["camera"].astype(int)
    assert problems == []
    np.testing.assert_allclose(small[:30, :20], np.broadcast_to([200, 0, 0], (30, 20, 3)), atol=4)
    np.testing.assert_allclose(small[:30, 23:], np.broadcast_to([0, 100, 0], (30, 41, 3)), atol=4)
    np.testing.assert_allclose(small[34:], 0, atol=4)


def test_the_one_pixel_between_black_and_white_is_grey(tmp_path: Path) -> None:
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[:, 65:] = 250  # half of the small image's column 32
    Image.fromarray(pixels).save(tmp_path / "edge.png")
    row = read_frames("camera", [tmp_path / "edge.png"], ["camera"])[0]["camera"][0, 0, :, 0]
    assert row[31:34].tolist() == [0, 125, 250]


def test_a_grey_image_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(tmp_path / "grey.png")
    frames, _ = read_frames("camera", [tmp_path / "grey.png"], ["camera"])
    assert (frames["camera"] == 77).all()


@pytest.mark.parametrize("num_chirps", [128, 250])
def test_a_radar_cube_gives_both_maps_from_mat_and_npy(tmp_path: Path, num_chirps: int) -> None:
    raw = cube(num_chirps)
    savemat(tmp_path / "plain.mat", {"data": raw.astype(np.complex128)})
    savemat(tmp_path / "packed.mat", {"data": raw, "other": 1}, do_compression=True)
    np.save(tmp_path / "raw.npy", raw)
    files = [tmp_path / name for name in ("plain.mat", "packed.mat", "raw.npy")]
    frames, problems = read_frames("radar", files, ["radar", "doppler"])
    assert problems == []
    for row in range(3):
        # One step of float16 apart at most: a transform's last bit depends on how its input lies in memory.
        np.testing.assert_allclose(frames["radar"][row], range_angle_map(raw), atol=0.005)
        np.testing.assert_allclose(frames["doppler"][row], doppler_angle_map(raw), atol=0.005)


def test_a_cleaned_scan_is_turned_so_that_left_comes_first(tmp_path: Path) -> None:
    scan = np.zeros((216, 2))
    scan[0, 0], scan[215, 0], scan[100, 0] = 50.0, 80.0, np.nan
    savemat(tmp_path / "scan.mat", {"data": scan})
    frames, _ = read_frames("lidar", [tmp_path / "scan.mat"], ["lidar"])
    (ranges,) = frames["lidar"]
    assert (ranges[215], ranges[0]) == (5.0, 8.0)
    assert np.flatnonzero(ranges).tolist() == [0, 215]


@pytest.mark.parametrize("unit", ["degrees", "radians"])
def test_a_full_scan_gives_the_nearest_return_of_each_ray(unit: str) -> None:
    angle = np.linspace(-180.0, 180.0, 460)
    scan = np.stack([np.zeros(460), np.radians(angle) if unit == "radians" else angle], axis=1)
    ahead = int(np.argmin(np.abs(angle - 0.42)))  # ray 107 is 0.4 degrees left of straight ahead
    scan[ahead, 0] = 70.0
    scan[int(np.argmin(np.abs(angle - 90.0))), 0] = 30.0  # left
    scan[int(np.argmin(np.abs(angle - 150.0))), 0] = 10.0  # behind
    ranges = ranges_of_scan(scan)
    assert {int(ray): float(ranges[ray]) for ray in np.flatnonzero(ranges)} == {0: 3.0, 107: 7.0}


def test_a_cloud_gives_the_nearest_point_of_each_ray_in_the_height_band() -> None:
    points = np.array(
        [
            [0.0, 6.0, 0.0],  # left
            [0.0, -9.0, 0.5],  # right
            [0.0, -4.0, 3.0],  # a branch over it
            [0.0, -3.0, -2.0],  # the ground before it
            [-5.0, 0.1, 0.0],  # behind
            [0.1, 0.1, 0.0],  # the mast
            [20.0, -20.0, 0.0],
            [10.0, -10.0, 0.0],  # before it, 45 degrees right: ray 0.75 x 215 = 161.25
            [np.nan, np.nan, 0.0],
        ]
    )
    ranges = ranges_of_cloud(points)
    found = {int(ray): float(ranges[ray]) for ray in np.flatnonzero(ranges)}
    assert found == {0: 6.0, 161: pytest.approx(14.142, abs=0.005), 215: 9.0}


POINTS = np.array([[1.0, 2.0, -0.5], [3.5, -1.25, 0.25]])


def ply(kind: str, *, newline: str = "\n") -> bytes:
    """Two points with an intensity each, and a face behind them."""
    header = ["ply", f"format {kind} 1.0", "comment made up", "element vertex 2"]
    header += ["property double x", "property double y", "property double z", "property ushort intensity"]
    header += ["element face 1", "property list uchar int vertex_index", "end_header", ""]
    if kind == "ascii":
        body = "".join(f"{x} {y} {z} 7{newline}" for x, y, z in POINTS).encode() + b"3 0 1 0\n"
    else:
        body = b"".join(struct.pack("<dddH", *point, 7) for point in POINTS) + bytes(13)
    return newline.join(header).encode() + body


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_point_cloud_is_read_in_text_and_binary(tmp_path: Path, kind: str, newline: str) -> None:
    (tmp_path / "cloud.ply").write_bytes(ply(kind, newline=newline))
    np.testing.assert_array_equal(read_ply(tmp_path / "cloud.ply"), POINTS)
    frames, problems = read_frames("lidar", [tmp_path / "cloud.ply"], ["lidar"])
    assert problems == []
    assert np.count_nonzero(frames["lidar"]) == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-35], "cut off after 0 of 2|cut off after 1 of 2"),
        (lambda data: data[:40], "header is missing or has no end"),
        (lambda data: b"", "header is missing"),
        (lambda data: data.replace(b"little", b"big"), "binary_big_endian form"),
        (lambda data: data.replace(b"double x", b"double u"), "expected x, y and z"),
        (lambda data: data.replace(b"ushort", b"list"), "lists or unknown types"),
        (lambda data: data.replace(b"vertex 2", b"edge 2"), "first element is not the points"),
        (lambda data: data.replace(b"vertex 2", b"vertex two"), "two points"),
    ],
)
def test_a_damaged_point_cloud_is_one_clear_line(tmp_path: Path, damage: object, message: str) -> None:
    assert callable(damage)
    (tmp_path / "cloud.ply").write_bytes(damage(ply("binary_little_endian")))
    frames, (problem,) = read_frames("lidar", [tmp_path / "cloud.ply"], ["lidar"])
    assert problem.startswith("lidar: cloud.ply is left out: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(problem)
    assert not frames["lidar"].any()


def test_every_way_to_cut_a_file_off_is_one_line_and_the_rest_loads(tmp_path: Path) -> None:
    raw = cube()
    savemat(tmp_path / "a.mat", {"data": raw})
    savemat(tmp_path / "b.mat", {"data": raw}, do_compression=True)
    np.save(tmp_path / "c.npy", raw)
    for name in ("a.mat", "b.mat", "c.npy"):
        whole = (tmp_path / name).read_bytes()
        for size in (0, 1, 50, 127, 130, 150, 200, len(whole) // 2, len(whole) - 1):
            (tmp_path / f"cut_{name}").write_bytes(whole[:size])
            frames, problems = read_frames("radar", [tmp_path / f"cut_{name}", tmp_path / name], ["radar"])
            assert len(problems) == 1, (name, size)
            assert "\n" not in problems[0]
            assert not frames["radar"][0].any()
            assert frames["radar"][1].any()


def test_a_cut_off_image_is_one_line_and_black(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 255, (540, 960, 3), np.uint8)).save(tmp_path / "image.jpg")
    whole = (tmp_path / "image.jpg").read_bytes()
    for size in (0, 10, 200, len(whole) // 2):
        (tmp_path / "cut.jpg").write_bytes(whole[:size])
        frames, problems = read_frames("camera", [tmp_path / "cut.jpg"], ["camera"])
        assert len(problems) == 1
        assert problems[0].startswith("camera: cut.jpg is left out: it is no whole image (")
        assert not frames["camera"].any()


def test_files_of_swapped_columns_say_so(tmp_path: Path) -> None:
    savemat(tmp_path / "scan.mat", {"data": np.zeros((216, 2))})
    savemat(tmp_path / "cube.mat", {"data": cube()})
    savemat(tmp_path / "nameless.mat", {"radar": cube()})
    Image.new("RGB", (8, 8)).save(tmp_path / "image.jpg")
    for kind, name, message in [
        ("radar", "scan.mat", "a radar cube has the shape (216, 2), expected (4, 256, 128) or (4, 256, 250)"),
        ("lidar", "cube.mat", "a scan has the shape (4, 256, 128) and type complex"),
        ("camera", "cube.mat", "it is no whole image (cannot identify image file"),
        ("radar", "image.jpg", ".jpg is not the ending of a radar cube; are columns swapped?"),
        ("radar", "nameless.mat", "there is no array named 'data' in it"),
        ("radar", "nowhere.mat", "it is no whole radar cube"),
    ]:
        _, (problem,) = read_frames(kind, [tmp_path / name], [kind])
        assert problem.startswith(f"{kind}: {name} is left out: {message}")


def test_matlabs_hdf5_form_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(600))
    _, (problem,) = read_frames("radar", [tmp_path / "new.mat"], ["radar"])
    assert "MATLAB 7.3 (HDF5) is not read; save it again with save(..., '-v7')" in problem


def test_a_frame_without_a_file_is_zeros_and_no_problem() -> None:
    frames, problems = read_frames("radar", [None, None], ["radar", "doppler"])
    assert problems == []
    assert frames["radar"].shape == frames["doppler"].shape == (2, 64, 64)
    assert not frames["radar"].any()
