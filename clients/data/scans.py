"""Turns LiDAR files into one range per azimuth: planar scans of scenarios 8 and 9, point clouds of scenarios 31-34.

The rays of a result go from -90 (left) to +90 degrees (right) of straight ahead; 0 means that nothing returned.
N points.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.files import read_plain

NUM_RAYS = 216
# The cleaned scan of scenarios 8 and 9 has a row per ray, the full one has 460 rows; the columns are range and angle.
SCAN_LENGTHS = (NUM_RAYS, 460)
# Source: the loaders of DeepSense 6G scenarios 8 and 9 divide the first column by ten to get metres.
RANGE_UNITS_PER_M = 10.0
# The heights in metres, relative to the sensor, and the smallest range at which points of a cloud count: neither the
# ground nor tree tops nor the mast itself shall count. We assume a sensor 1.5 to 2.5 m above the ground, whose x axis
# points straight ahead and y axis to the left.
HEIGHT_BAND_M = (-1.2, 1.0)
NEAREST_M = 0.5
# No sensor reaches farther than this; a larger number is damage, and does not count as a return.
FARTHEST_M = 500.0

_PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4"},
    **{"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}


def ranges_of_scan(scan: NDArray[np.generic]) -> NDArray[np.float16]:
    """(216,) metres per ray, from a planar scan of scenario 8 or 9.

    The rows of the cleaned scan (216 rows) are the rays from right to left, as the tutorial of its makers draws it. Of
    the full scan (460 rows), each ray takes the nearest return by the angle. Angles count to the left from straight
    ahead; they are in degrees, or in radians if none is beyond 2 pi.

    Args:
        scan: (216, 2) or (460, 2) range in decimetres and angle.

    Raises:
        ValueError: the scan has another shape, or does not hold numbers.
    """
    if scan.ndim != 2 or scan.shape[1] != 2 or len(scan) not in SCAN_LENGTHS or scan.dtype.kind not in "fiu":
        raise ValueError(
            f"a scan has the shape {scan.shape} and type {scan.dtype}, expected (216, 2) or (460, 2) numbers"
        )
    values = scan.astype(np.float64)
    range_m = values[:, 0] / RANGE_UNITS_PER_M
    if len(scan) == NUM_RAYS:
        return np.where((range_m > 0) & (range_m <= FARTHEST_M), range_m, 0.0)[::-1].astype(np.float16)
    angle = values[:, 1]
    left = angle if np.nanmax(np.abs(angle)) <= 2.0 * np.pi else np.radians(angle)
    return nearest_by_azimuth(range_m, -left)


def ranges_of_cloud(points: NDArray[np.float64]) -> NDArray[np.float16]:
    """(216,) metres per ray: the nearest point at every azimuth whose height is within `HEIGHT_BAND_M`.

    Args:
        points: (N, 3) points in metres from the sensor: x ahead, y to the left, z up.
    """
    x, y, z = points.T
    range_m = np.hypot(x, y)
    counts = (z >= HEIGHT_BAND_M[0]) & (z <= HEIGHT_BAND_M[1]) & (range_m >= NEAREST_M)
    return nearest_by_azimuth(range_m[counts], np.arctan2(-y, x)[counts])


def nearest_by_azimuth(range_m: NDArray[np.float64], azimuth: NDArray[np.float64]) -> NDArray[np.float16]:
    """(216,) smallest range in metres in the bin of each ray, 0 if the bin is empty.

    Args:
        range_m: (N,) metres; a value that is not above zero, or beyond `FARTHEST_M`, does not count.
        azimuth: (N,) radians to the right of straight ahead; points behind the sensor are left out.
    """
    turned = (azimuth + np.pi) % (2.0 * np.pi) - np.pi
    position = (turned / np.pi + 0.5) * (NUM_RAYS - 1)
    valid = np.isfinite(position) & (range_m > 0) & (range_m <= FARTHEST_M)
    bins = np.rint(np.where(valid, position, -1.0)).astype(np.int64)
    valid &= (bins >= 0) & (bins < NUM_RAYS)
    nearest = np.full(NUM_RAYS, np.inf)
    np.minimum.at(nearest, bins[valid], range_m[valid])
    return np.where(np.isfinite(nearest), nearest, 0.0).astype(np.float16)


def read_ply(path: Path) -> NDArray[np.float64]:
    """(N, 3) x, y and z of a point cloud, ASCII or binary little-endian; other properties are skipped.

    Source: the PLY format, Greg Turk, Stanford, 1994.

    Raises:
        ValueError: the file has another form, or is shorter than its header says.
        OSError: the file cannot be read.
    """
    data = read_plain(path)
    end = re.search(rb"end_header\r?\n", data)
    if not data.startswith(b"ply") or end is None:
        raise ValueError("it is no PLY file: its header is missing or has no end")
    lines = [line.split() for line in data[: end.start()].decode("ascii", "replace").splitlines()]
    encoding = next((line[1] for line in lines if len(line) > 1 and line[0] == "format"), "unnamed")
    elements = [place for place, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or len(lines[elements[0]]) != 3 or lines[elements[0]][1] != "vertex":
        raise ValueError("it is a PLY file whose first element is not the points ('element vertex N')")
    if not lines[elements[0]][2].isdigit():
        raise ValueError(f"it is a PLY file with {lines[elements[0]][2]} points; expected a whole number")
    count = int(lines[elements[0]][2])
    own = lines[elements[0] + 1 : elements[1] if len(elements) > 1 else None]
    properties = [line[1:] for line in own if line[:1] == ["property"]]
    if any(len(entry) != 2 or entry[0] not in _PLY_TYPES for entry in properties):
        raise ValueError("it is a PLY file whose points have lists or unknown types")
    names = [name for _, name in properties]
    if not {"x", "y", "z"} <= set(names) or len(set(names)) != len(names):
        raise ValueError(f"the points of the PLY file have {', '.join(names) or 'nothing'}, expected x, y and z once")
    body = data[end.end() :]
    if encoding == "ascii":
        values = np.array(body.split()[: count * len(names)], np.float64)
        whole = len(values) // len(names)
        table = {name: values[place :: len(names)] for place, name in enumerate(names)}
    elif encoding == "binary_little_endian":
        row = np.dtype([(name, _PLY_TYPES[kind]) for kind, name in properties])
        whole = min(len(body) // row.itemsize, count)
        records = np.frombuffer(body, row, whole)
        table = {name: records[name].astype(np.float64) for name in names}
    else:
        raise ValueError(f"it is a PLY file in {encoding} form; only ascii and binary_little_endian can be read")
    if whole < count:
        raise ValueError(f"it is a PLY file cut off after {whole} of {count} points")
    return np.stack([table["x"], table["y"], table["z"]], axis=1)
