"""The modalities and the shape of one frame of each.

Shapes in brackets: F frames of a recording.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike


@dataclass(frozen=True)
class Modality:
    """One kind of sensor.

    Attributes:
        name: short name, also the stem of its array on disk.
        frame_shape: shape of one frame; the array on disk is (F, *frame_shape).
        dtype: on disk.
        unit: of the values.
    """

    name: str
    frame_shape: tuple[int, ...]
    dtype: DTypeLike
    unit: str


MODALITIES: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        Modality("camera", (64, 64, 3), np.uint8, "RGB, row 0 on top"),
        Modality("radar", (64, 64), np.float16, "range-angle map (range, angle), log2(1 + magnitude)"),
        Modality("doppler", (64, 64), np.float16, "Doppler-angle map (velocity, angle), log2(1 + magnitude)"),
        Modality("motion", (224, 28), np.uint8, "mask of what moved since the frame before, eight pixels a byte"),
        Modality("maps", (2, 128, 64), np.float16, "range-angle and Doppler-angle map, log2(1 + magnitude), unscaled"),
        Modality("lidar", (216,), np.float16, "metres per ray from left (-90 deg) to right; 0 = no return"),
        Modality("gps", (2,), np.float64, "metres east and north of the base station"),
        Modality("box", (4,), np.float32, "centre x, centre y, width, height in image fractions; NaN = no box"),
    )
}
