"""A sensor of a user's own: found by its name everywhere, and refused in one line before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.data.modalities import MODALITIES, SHIPPED, Modality
from clients.data.recording import open_recording, write_recording
from clients.models.encoders import Encoder, make_encoder
from clients.models.own_sensors import add_row, add_sensors, known_sensors
from configs.loading import load_experiment
from sim.report.style import MUTED, PALETTE

ROW = Modality(
    name="imu",
    frame_shape=(6,),
    dtype="float32",
    unit="acceleration and turn rate",
    encoder="Encoder",
    colour="#332288",
    least_spread=(0.05,),
)
SOURCE = """
from clients.data.modalities import Modality

IMU = Modality(
    name="imu", frame_shape=({width},), dtype="float32", unit="", encoder="Encoder", colour="#332288",
    least_spread=(0.05,),
)
"""


class Frozen(Encoder):
    """An encoder without anything to learn."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(frames), 5, requires_grad=True) + 0.0


class Wide(Encoder):
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.cat([super().forward(frames)] * 2, dim=-1)


class Endless(Encoder):
    def inputs(self, frames: torch.Tensor) -> torch.Tensor:
        return frames / 0.0


@pytest.fixture(autouse=True)
def _as_shipped() -> Iterator[None]:
    yield
    for name in [name for name in MODALITIES if name not in SHIPPED]:
        del MODALITIES[name]
    known_sensors({}, ())


def written(folder: Path, width: int = 6) -> list[Path]:
    (folder / "my_sensors.py").write_text(SOURCE.format(width=width))
    return [folder]


def test_a_sensor_of_a_file_is_read_encoded_and_drawn_by_its_name(tmp_path: Path) -> None:
    assert PALETTE["imu"] == MUTED
    add_sensors({"imu": "my_sensors:IMU"}, written(tmp_path))
    sensors = {"imu": np.random.default_rng(0).normal(size=(12, 6))}
    passes = np.zeros(12, np.int32)
    write_recording(tmp_path / "mast", pass_ids=passes, sensors=sensors, power=None, splits={})
    frames = open_recording(tmp_path / "mast").sensors["imu"]
    assert frames.dtype == np.float32
    encoder = make_encoder("imu", width=2, num_features=5)
    encoder.fit_scale(torch.from_numpy(np.array(frames)))
    assert encoder(torch.from_numpy(np.array(frames))).shape == (12, 5)
    assert PALETTE["imu"] == "#332288"


def test_a_launch_reads_the_file_anew_and_what_follows_takes_what_the_launch_read(tmp_path: Path) -> None:
    add_sensors({"imu": "my_sensors:IMU"}, written(tmp_path))
    written(tmp_path, width=7)
    known_sensors({"imu": "my_sensors:IMU"}, [tmp_path])
    assert MODALITIES["imu"].frame_shape == (6,)
    add_sensors({"imu": "my_sensors:IMU"}, [tmp_path])
    assert MODALITIES["imu"].frame_shape == (7,)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"frame_shape": 6}, "frame_shape must be a tuple of sizes above 0, such as (6,), got 6"),
        ({"frame_shape": (0,)}, "frame_shape must be a tuple of sizes above 0"),
        ({"dtype": "complex64"}, "dtype must be one of float16, float32, float64, uint8"),
        ({"dtype": ">f4"}, "dtype must be one of"),
        ({"dtype": "number"}, "dtype must be one of"),
        ({"colour": "blue"}, "colour must be #rrggbb in lower case, such as #332288, got 'blue'"),
        ({"least_spread": (0.0,)}, "least_spread must be a tuple of numbers above 0"),
        ({"least_spread": (1.0, 1.0)}, "Encoder cannot encode frames (6,)"),
        ({"jitter": -1.0}, "jitter must be a number of at least 0, got -1.0"),
        ({"lost_frame": "ones"}, "lost_frame must be zeros or repeated, got 'ones'"),
        ({"is_of_power": True}, "file, is_on_request and is_of_power are for sensors of Softbeam"),
        ({"name": "radar"}, "radar is a sensor of Softbeam; choose another name"),
        ({"encoder": "ImuEncoder"}, "encoder must be one of Encoder, ImageEncoder"),
        ({"encoder": torch.nn.Linear}, "or a class that inherits from Encoder"),
        ({"encoder": "ImageEncoder"}, "ImageEncoder cannot encode frames (6,)"),
        ({"encoder": Frozen}, "Frozen cannot encode frames (6,): no parameter gets a gradient"),
        ({"encoder": Wide}, "Wide cannot encode frames (6,): expected features (6, 5), got (6, 10)"),
        ({"encoder": Endless}, "Endless cannot encode frames (6,): features are not finite"),
    ],
)
def test_a_row_that_cannot_work_is_refused_in_one_line_and_leaves_the_table_as_it_was(
    changes: dict[str, Any], told: str
) -> None:
    before = dict(MODALITIES)
    with pytest.raises(ValueError) as caught:
        add_row(replace(ROW, **changes))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == MODALITIES


@pytest.mark.parametrize(
    ("sensors", "told"),
    [
        ({"imu": "my_sensors:IMO"}, "data.sensors.imu: my_sensors: has no IMO; did you mean IMU?"),
        ({"imu": "my_sensors:Modality"}, "data.sensors.imu: my_sensors: Modality is type, not Modality"),
        ({"imu": "my_sensor:IMU"}, "data.sensors.imu: there is no module my_sensor and no my_sensor.py in"),
        ({"imu": "my_sensors"}, "data.sensors.imu: expected \"module:NAME\", got 'my_sensors'"),
        (
            {"tilt": "my_sensors:IMU"},
            "data.sensors.tilt: my_sensors:IMU: name is 'imu', and data.sensors calls it tilt",
        ),
    ],
)
def test_what_a_yaml_names_wrongly_is_said_with_its_path(tmp_path: Path, sensors: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        add_sensors(sensors, written(tmp_path))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.sensors={gps: 'my_sensors:IMU'}", "data.sensors.gps: gps is a sensor of Softbeam; choose another name"),
        ("data.sensors={power: 'my_sensors:IMU'}", "power is a file of every recording; choose another name"),
        ("data.nodes.0.modality=imu", "data.nodes.0.modality: must be one of 'camera', 'radar'"),
    ],
)
def test_names_are_checked_when_the_yaml_is_read(override: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_experiment("quickstart", [override])
    assert told in str(caught.value)


def test_a_street_has_no_sensor_of_a_user_s_own() -> None:
    with pytest.raises(ValueError, match="the street has no sensor 'imu'"):
        load_experiment("quickstart", ["data.sensors={imu: 'my_sensors:IMU'}", "data.nodes=[{modality: imu}]"])
