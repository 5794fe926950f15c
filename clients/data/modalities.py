"""The modalities, one row each: what a frame is, and who reads, encodes, draws and spoils it.

A new modality is a row here, its name in `configs.data`, an encoder, and where they apply a reader of its files and a
sensor of the street (`sim.world.sensors.SENSORS`); a test asks of every row that all parts are there.

Shapes in brackets: F frames of a recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

FileKind = Literal["camera", "radar", "lidar"]
"""The kinds of sensor files of a release, each with one reader in `clients.data.sensor_files`."""


@dataclass(frozen=True)
class Modality:
    """One kind of sensor.

    Attributes:
        name: short name, also the stem of its array on disk.
        frame_shape: shape of one frame; the array on disk is (F, *frame_shape).
        dtype: on disk.
        unit: of the values.
        encoder: the class in `clients.models.encoders` that makes features of its frames.
        colour: in every figure, as #rrggbb.
        file: the kind of file that its frames are read from; None where they stand in the table of a release.
        is_on_request: whether its frames are made of these files only where somebody asks for them, since it takes
        time. lost_frame: what a faulty sensor leaves of a lost frame: zeros, or the frame before it.
    """

    name: str
    frame_shape: tuple[int, ...]
    dtype: DTypeLike
    unit: str
    encoder: str
    colour: str
    file: FileKind | None = None
    is_on_request: bool = False
    lost_frame: Literal["zeros", "repeated"] = "zeros"


# Source of the colours: Okabe and Ito, "Color Universal Design", 2008.
MODALITIES: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        Modality(
            name="camera",
            frame_shape=(64, 64, 3),
            dtype=np.uint8,
            unit="RGB, row 0 on top",
            encoder="ImageEncoder",
            colour="#0072b2",
            file="camera",
        ),
        Modality(
            name="radar",
            frame_shape=(64, 64),
            dtype=np.float16,
            unit="range-angle map (range, angle), log2(1 + magnitude)",
            encoder="ImageEncoder",
            colour="#d55e00",
            file="radar",
        ),
        Modality(
            name="doppler",
            frame_shape=(64, 64),
            dtype=np.float16,
            unit="Doppler-angle map (velocity, angle), log2(1 + magnitude)",
            encoder="ImageEncoder",
            colour="#f0e442",
            file="radar",
        ),
        Modality(
            name="motion",
            frame_shape=(224, 28),
            dtype=np.uint8,
            unit="mask of what moved since the frame before, eight pixels a byte",
            encoder="MotionEncoder",
            colour="#56b4e9",
            file="camera",
            is_on_request=True,
        ),
        Modality(
            name="maps",
            frame_shape=(2, 128, 64),
            dtype=np.float16,
            unit="range-angle and Doppler-angle map, log2(1 + magnitude), unscaled",
            encoder="MapsEncoder",
            colour="#000000",
            file="radar",
            is_on_request=True,
        ),
        Modality(
            name="lidar",
            frame_shape=(216,),
            dtype=np.float16,
            unit="metres per ray from left (-90 deg) to right; 0 = no return",
            encoder="LidarEncoder",
            colour="#009e73",
            file="lidar",
        ),
        Modality(
            name="gps",
            frame_shape=(2,),
            dtype=np.float64,
            unit="metres east and north of the base station",
            encoder="GpsEncoder",
            colour="#cc79a7",
            lost_frame="repeated",
        ),
        Modality(
            name="box",
            frame_shape=(4,),
            dtype=np.float32,
            unit="centre x, centre y, width, height in image fractions; NaN = no box",
            encoder="BoxEncoder",
            colour="#e69f00",
        ),
    )
}


def made_of(file: str, *, on_request: bool = False) -> tuple[str, ...]:
    """The modalities whose frames a kind of file holds, those that are made on request or those that always are."""
    return tuple(row.name for row in MODALITIES.values() if row.file == file and row.is_on_request == on_request)
