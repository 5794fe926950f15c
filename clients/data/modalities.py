"""The modalities, one row each: what a frame is, and how it is read, encoded, drawn and damaged by a fault.

A modality of Softbeam needs a row here, its name in `configs.data` and an encoder; if it has files of its own, also a
reader of them, and if the street can make it, a sensor (`sim.world.sensors.SENSORS`). A test checks that every row has
all parts. A row of a user's own stands in a file beside the YAML, and `clients.models.own_sensors` adds it.

Shapes are in brackets, with F frames of a recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

FileKind = Literal["camera", "radar", "lidar"]
"""The kinds of sensor files of a release, each with one reader in `clients.data.sensor_files`."""


@dataclass(frozen=True)
class Modality:
    """One kind of sensor.

    Attributes:
        name: the short name, which is also the stem of the array's file on disk.
        frame_shape: the shape of one frame; the array on disk is (F, *frame_shape).
        dtype: the type of the values on disk.
        unit: the unit of the values.
        encoder: the class in `clients.models.encoders` that computes features from its frames, by name; a sensor of a
            user's own may give a class of their own in its place.
        colour: its colour in every figure, as #rrggbb.
        file: the kind of file that its frames are read from; None if the table of a release holds them.
        is_on_request: whether its frames are made from these files only on request, because making them takes time.
        lost_frame: what a faulty sensor gives in place of a lost frame: zeros, or the previous frame.
        least_spread: the smallest spread of each channel of the encoder's inputs that counts as one, in the unit of the
            channel; one number stands for all channels. Inputs are never scaled by less, so that a frame a little
            outside a few still ones does not become huge.
        shows_motion: whether a frame shows how fast things move, so that it would be wrong at another speed.
        jitter: the deviation of an offset, in the unit, that a learner adds to all frames of a perturbed window; the
            frames of such a sensor may be interpolated (`clients.learning.speed`). 0 for none.
        is_of_power: whether its frames are made of the power of earlier slots (`clients.data.past_power`).
        measures: what has to be sent over the air for a decision, as `clients.learning.baselines.SWEPT` says it.
    """

    name: str
    frame_shape: tuple[int, ...]
    dtype: DTypeLike
    unit: str
    encoder: str | type[Any]
    colour: str
    least_spread: tuple[float, ...]
    file: FileKind | None = None
    is_on_request: bool = False
    lost_frame: Literal["zeros", "repeated"] = "zeros"
    shows_motion: bool = False
    jitter: float = 0.0
    is_of_power: bool = False
    measures: str = "nothing"


# The source of the colours is Okabe and Ito, "Color Universal Design", 2008, which has eight; the ninth is the wine of
# P. Tol, "Colour Schemes", SRON/EPS/TN/09-002, 2021.
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
            least_spread=(8.0,),
            file="camera",
        ),
        Modality(
            name="radar",
            frame_shape=(64, 64),
            dtype=np.float16,
            unit="range-angle map (range, angle), log2(1 + magnitude)",
            encoder="ImageEncoder",
            colour="#d55e00",
            least_spread=(0.1,),
            file="radar",
        ),
        Modality(
            name="doppler",
            frame_shape=(64, 64),
            dtype=np.float16,
            unit="Doppler-angle map (velocity, angle), log2(1 + magnitude)",
            encoder="ImageEncoder",
            colour="#f0e442",
            least_spread=(0.1,),
            file="radar",
            shows_motion=True,
        ),
        Modality(
            name="motion",
            frame_shape=(224, 28),
            dtype=np.uint8,
            unit="mask of what moved since the frame before, eight pixels a byte",
            encoder="MotionEncoder",
            colour="#56b4e9",
            least_spread=(0.01,),
            file="camera",
            is_on_request=True,
            shows_motion=True,
        ),
        Modality(
            name="maps",
            frame_shape=(2, 128, 64),
            dtype=np.float16,
            unit="range-angle and Doppler-angle map, log2(1 + magnitude), unscaled",
            encoder="MapsEncoder",
            colour="#000000",
            least_spread=(0.01,),
            file="radar",
            is_on_request=True,
            shows_motion=True,
        ),
        Modality(
            name="lidar",
            frame_shape=(216,),
            dtype=np.float16,
            unit="metres per ray from left (-90 deg) to right; 0 = no return",
            encoder="LidarEncoder",
            colour="#009e73",
            least_spread=(0.01,),
            file="lidar",
        ),
        Modality(
            name="gps",
            frame_shape=(2,),
            dtype=np.float64,
            unit="metres east and north of the base station",
            encoder="GpsEncoder",
            colour="#cc79a7",
            # The error of a position, and what it is of a bearing and a log range at 20 metres.
            least_spread=(1.0, 1.0, 0.05, 0.05, 0.05),
            lost_frame="repeated",
            # The width of a vehicle on its lane; chosen on passes of other nodes among 0, 0.3 and 0.6.
            jitter=0.3,
        ),
        Modality(
            name="box",
            frame_shape=(4,),
            dtype=np.float32,
            unit="centre x, centre y, width, height in image fractions; NaN = no box",
            encoder="BoxEncoder",
            colour="#e69f00",
            # A box jumps by about a hundredth of the image; whether there is one is not scaled.
            least_spread=(0.02, 0.02, 0.02, 0.02, 1.0),
        ),
        Modality(
            name="past_power",
            frame_shape=(64,),
            dtype=np.float16,
            unit="power in the slot before, dB above 30 dB below its strongest beam; all 0 = no sweep",
            encoder="PowerEncoder",
            colour="#882255",
            # A decibel: readings of one beam differ by less from slot to slot.
            least_spread=(1.0,),
            # What changed since the last sweep says how fast the vehicle drives.
            shows_motion=True,
            is_of_power=True,
            measures="a full sweep in every slot before",
        ),
    )
}

SHIPPED = frozenset(MODALITIES)
"""The names of Softbeam's own modalities."""


def made_of(file: str, *, on_request: bool = False) -> tuple[str, ...]:
    """The modalities whose frames are read from a kind of file: those made always, or those made on request."""
    return tuple(row.name for row in MODALITIES.values() if row.file == file and row.is_on_request == on_request)
