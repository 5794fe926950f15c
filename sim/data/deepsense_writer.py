"""Writes passes of the synthetic street as a DeepSense 6G release: the official layout of scenario 9.

Every program that reads a download can read this, ours and others. It is called scenario 0, so that nobody takes it
for a measured one, and ``synthetic.json`` beside the CSV says how to make it again. F frames.

Source: layout, header and file formats of the scenario 9 release, www.deepsense6g.net.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from clients.data.geodesy import to_degrees
from clients.data.row_faults import NUM_BEAMS
from clients.data.scans import NUM_RAYS, RANGE_UNITS_PER_M, SCAN_LENGTHS
from clients.data.sensor_files import MAT_KEY
from configs.files import fresh_folder
from configs.progress import Progress
from configs.schema import World
from configs.seeding import rng_for
from sim.data.generate import simulate_pass
from sim.world.camera import camera
from sim.world.radar import radar_cube
from sim.world.scene import draw_scene
from sim.world.site import make_site

# The seventh last column of the release has no name.
HEADER = (
    *("index", "unit1_rgb", "unit1_pwr_60ghz", "unit1_loc", "unit1_lidar", "unit1_lidar_SCR", "unit1_radar"),
    *("unit2_loc", "unit2_loc_cal", "", "unit1_beam_index", "seq_index", "time_stamp[UTC]", "unit2_direction"),
    *("unit2_num_sat", "unit2_sat_used", "unit2_fix_type", "unit2_DGPS", "unit2_PDOP", "unit2_HDOP"),
)
# The reports of the GPS receiver, which the street does not simulate: direction, satellites, fix, dilutions of
# precision.
RECEIVER = ("0", "8", "G1 G2 G3 G4 G5 G6 G7 G8", "3D", "Yes", "1.5", "1.0")
MODALITIES = ("camera", "radar", "lidar", "gps")
# The name of the random streams; `sim.data.generate.simulate_pass` makes the same passes from it.
STREAM = "export"
# The invented latitude and longitude of the base station.
STATION_DEG = np.array([50.0, 10.0])
STATION_CELL = "./unit1/GPS_data/gps_location.txt"
# Error of the uncalibrated position, constant over a pass: s.d. along and across the street in metres.
# Source: measured on scenario 9, uncalibrated against calibrated positions.
RAW_GPS_BIAS_M = np.array([8.9, 3.4])
SLOT_S, PAUSE_S, FIRST_S = 0.111, 20.0, 12 * 3600.0
JPEG_QUALITY = 90
_FULL_SCAN = SCAN_LENGTHS[1]


@dataclass(frozen=True)
class Export:
    """The settings of an export.

    Attributes:
        world: the street; its reference mast records.
        num_passes: the number of vehicles that drive by.
        seed: the seed that draws everything.
        modalities: names from `MODALITIES`; the cells of the others stay blank. Power is always written.
        image_size: the width and height of pictures in pixels.
    """

    world: World
    num_passes: int
    seed: int = 0
    modalities: tuple[str, ...] = MODALITIES
    image_size: tuple[int, int] = (960, 540)

    def __post_init__(self) -> None:
        unknown = [name for name in self.modalities if name not in MODALITIES]
        if unknown:
            raise ValueError(f"modalities: {unknown[0]!r} cannot be exported; use {', '.join(MODALITIES)}")
        if self.world.num_beams != NUM_BEAMS:
            raise ValueError(
                f"world.num_beams: DeepSense 6G has {NUM_BEAMS} beams, got {self.world.num_beams}; leave it out"
            )
        if self.num_passes < 1:
            raise ValueError(f"passes: must be at least 1, got {self.num_passes}")
        if min(self.image_size) < 16 or max(self.image_size) > 4096:
            raise ValueError(f"image size: must be 16x16 to 4096x4096, got {self.image_size[0]}x{self.image_size[1]}")


def write_release(export: Export, folder: Path, *, progress: Progress | None = None) -> None:
    """Write a release, whole or not at all. A frame with all modalities takes a little more than a megabyte.

    Args:
        export: the settings of the export.
        folder: the folder of the release; it must not exist.
        progress: is called with the number of written passes and of all passes.

    Raises:
        ValueError: the folder exists.
    """
    with fresh_folder(folder) as draft:
        _write_numbers(draft / STATION_CELL, STATION_DEG)
        rows: list[list[str]] = []
        seconds = FIRST_S
        for index in range(export.num_passes):
            recorded = _record_pass(export, index)
            for frame in range(len(recorded["power"])):
                row = len(rows)
                cells = _write_frame(
                    draft, row, _clock(seconds), {name: data[frame] for name, data in recorded.items()}
                )
                beam = int(np.argmax(recorded["power"][frame])) + 1
                values = {"index": row + 1, "unit1_beam_index": beam, "seq_index": index + 1}
                named = {**cells, **values, "time_stamp[UTC]": f"['{_clock(seconds)}']"}
                rows.append([*(str(named.get(name, "")) for name in HEADER[: -len(RECEIVER)]), *RECEIVER])
                seconds += SLOT_S
            seconds += PAUSE_S
            if progress is not None:
                progress(index + 1, export.num_passes)
        with (draft / "scenario0.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
        recipe = {
            "source": "softbeam, synthetic",
            "world": export.world.model_dump(),
            "seed": export.seed,
            "passes": export.num_passes,
            "modalities": list(export.modalities),
            "image_size": list(export.image_size),
        }
        (draft / "synthetic.json").write_text(json.dumps(recipe, indent=1) + "\n")


def _record_pass(export: Export, index: int) -> dict[str, NDArray[np.generic]]:
    """Record the power and the exported modalities of one pass, as the sensors give them; every array has F rows."""
    world, seed = export.world, export.seed
    small = [name for name in ("lidar", "gps") if name in export.modalities]
    recorded: dict[str, NDArray[np.generic]] = dict(
        simulate_pass(world, seed=seed, stream=STREAM, index=index, modalities=small)
    )
    scene = draw_scene(world, rng_for(seed, STREAM, index, "scene"), site=make_site(world, 0))
    if "camera" in export.modalities:
        width, height = export.image_size
        recorded["camera"] = camera(world, scene, rng_for(seed, STREAM, index, "camera"), pixels=(height, width))
    if "radar" in export.modalities:
        recorded["radar"] = radar_cube(world, scene, rng_for(seed, STREAM, index, "radar"))
    if "gps" in export.modalities:
        position_m = recorded["gps"].astype(np.float64)
        bias_m = RAW_GPS_BIAS_M * rng_for(seed, STREAM, index, "raw gps").standard_normal(2)
        recorded["gps"] = to_degrees(position_m, STATION_DEG)
        recorded["raw gps"] = to_degrees(position_m + bias_m, STATION_DEG)
    return recorded


def _write_frame(folder: Path, row: int, clock: str, frame: Mapping[str, Any]) -> dict[str, str]:
    """Write the files of one frame; return its cells by column."""
    time = clock.rpartition("-")[0].replace("-", "_")
    cells = {"unit1_pwr_60ghz": f"./unit1/mmWave_data/mmWave_power_{row}.txt", "unit1_loc": STATION_CELL}
    _write_numbers(folder / cells["unit1_pwr_60ghz"], frame["power"])
    if "camera" in frame:
        cells["unit1_rgb"] = f"./unit1/camera_data/image_BS1_{row}_{time}.jpg"
        Image.fromarray(frame["camera"]).save(_made(folder / cells["unit1_rgb"]), quality=JPEG_QUALITY)
    if "radar" in frame:
        cells["unit1_radar"] = f"./unit1/radar_data/data_{row}_{time}.mat"
        savemat(_made(folder / cells["unit1_radar"]), {MAT_KEY: frame["radar"]})
    if "lidar" in frame:
        cells["unit1_lidar"] = f"./unit1/lidar_data/Lidar_data_{row}.mat"
        cells["unit1_lidar_SCR"] = f"./unit1/lidar_SCR_data/Lidar_data_{row}.mat"
        savemat(_made(folder / cells["unit1_lidar"]), {MAT_KEY: _scan(frame["lidar"], _FULL_SCAN)})
        savemat(_made(folder / cells["unit1_lidar_SCR"]), {MAT_KEY: _scan(frame["lidar"], NUM_RAYS)})
    if "gps" in frame:
        cells["unit2_loc"] = f"./unit2/GPS_data/gps_location_{row}.txt"
        cells["unit2_loc_cal"] = f"./unit2/GPS_data_calibrated/gps_location_{row}.txt"
        _write_numbers(folder / cells["unit2_loc"], frame["raw gps"])
        _write_numbers(folder / cells["unit2_loc_cal"], frame["gps"])
    return cells


def _scan(range_m: NDArray[np.float16], num_rays: int) -> NDArray[np.float64]:
    """(num_rays, 2) range in decimetres and degrees to the left, from right to left; each is our nearest ray."""
    rays = np.rint(np.linspace(NUM_RAYS - 1, 0, num_rays)).astype(np.int64)
    angle = np.linspace(-90.0, 90.0, num_rays)
    return np.stack([range_m[rays].astype(np.float64) * RANGE_UNITS_PER_M, angle], axis=1)


def _write_numbers(path: Path, numbers: Sequence[float] | NDArray[np.generic]) -> None:
    np.savetxt(_made(path), np.asarray(numbers, np.float64), fmt="%.18e", newline="\r\n")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _clock(seconds: float) -> str:
    """The time of day as hh-mm-ss-ms."""
    whole, milli = divmod(round(seconds * 1000.0), 1000)
    return f"{whole // 3600 % 24:02d}-{whole // 60 % 60:02d}-{whole % 60:02d}-{milli:03d}"
