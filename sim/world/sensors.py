"""The records that the sensors of the mast and the GPS of the vehicle make of a pass, as in `clients.data.modalities`.

F frames, V vehicles, N boxes, P radar points.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from configs.schema import World
from configs.seeding import rng_for
from sim.world.camera import camera, motion
from sim.world.radar import doppler, maps, radar
from sim.world.raycast import cast
from sim.world.scene import Scene
from sim.world.site import Site

Sensor = Callable[[World, Scene, np.random.Generator], NDArray[np.generic]]

GPS_JITTER_M, GPS_MEMORY = 0.09, 0.8

LIDAR_RAYS, LIDAR_HEIGHT, LIDAR_MAX_M, LIDAR_NOISE_M = 216, 1.0, 16.392, 0.02
NUM_POLES, POLE_HALF_WIDTH = 5, 0.12


def gps(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float64]:
    """(F, 2) metres east and north: the truth, a bias of the whole pass and AR(1) jitter.

    Source: spreads measured on the calibrated positions of DeepSense 6G scenario 9.
    """
    across, along = world.gps_bias_m
    bias = rng.standard_normal(2) * [along, across]
    kicks = GPS_JITTER_M * np.sqrt(1.0 - GPS_MEMORY**2) * rng.standard_normal((scene.num_frames, 2))
    jitter = np.empty_like(kicks)
    jitter[0] = GPS_JITTER_M * rng.standard_normal(2)
    for frame in range(1, scene.num_frames):
        jitter[frame] = GPS_MEMORY * jitter[frame - 1] + kicks[frame]
    fixes: NDArray[np.float64] = scene.antenna[:, :2] + bias + jitter
    return fixes


def lidar(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float16]:
    """(F, 216) range of each ray of a level scan at 1 m height, in metres; 0 if nothing came back.

    Returns fail with p = 0.08 + 0.5 (r/R - 0.6)+ + 0.35 (1 - cos incidence), and 0.25 more in rain, which also
    sends back 5 % of the rays itself.

    Source: rays and range of the scenario 9 loader; noise and failures are assumptions.
    """
    azimuth = lidar_azimuths()
    direction = (np.sin(azimuth), np.cos(azimuth), np.zeros(LIDAR_RAYS))
    pole_low, pole_high = _poles(scene.site)
    low = np.concatenate([_flat(scene.low), np.broadcast_to(pole_low, (scene.num_frames, NUM_POLES, 3))], axis=1)
    high = np.concatenate([_flat(scene.high), np.broadcast_to(pole_high, (scene.num_frames, NUM_POLES, 3))], axis=1)
    slabs = cast(np.array([0.0, 0.0, LIDAR_HEIGHT]), direction, low[:, :, None], high[:, :, None])
    entries = slabs.entry()
    nearest = entries.argmin(axis=1)[:, None]
    distance = np.take_along_axis(entries, nearest, axis=1)[:, 0]
    face = np.take_along_axis(slabs.face(), nearest, axis=1)[:, 0]
    cosine = np.abs(np.where(face == 0, direction[0], direction[1]))

    share = np.where(np.isfinite(distance), distance, 0.0) / LIDAR_MAX_M
    lost = 0.08 + 0.5 * np.maximum(share - 0.6, 0.0) + 0.35 * (1.0 - cosine) + 0.25 * scene.rain
    seen = (distance < LIDAR_MAX_M) & (rng.random(distance.shape) >= lost)
    measured = np.where(seen, distance + LIDAR_NOISE_M * rng.standard_normal(distance.shape), 0.0)
    is_drop = scene.rain & (rng.random(distance.shape) < 0.05)
    drop = rng.uniform(0.5, 5.0, distance.shape)
    return np.where(is_drop, drop, measured).astype(np.float16)


def lidar_azimuths() -> NDArray[np.float64]:
    """(216,) azimuth of each ray, radians, left to right."""
    return np.deg2rad(np.linspace(-90.0, 90.0, LIDAR_RAYS))


@lru_cache(maxsize=1024)
def _poles(site: Site) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(5, 3) corners of the street's poles behind the far lane."""
    rng = rng_for(site.array_seed, "poles", site.number)
    x = np.linspace(-8.0, 8.0, NUM_POLES) + rng.uniform(-1.5, 1.5, NUM_POLES)
    foot = np.stack([x, site.far_lane_y + rng.uniform(1.9, 2.8, NUM_POLES), np.zeros(NUM_POLES)], axis=1)
    half = np.array([POLE_HALF_WIDTH, POLE_HALF_WIDTH, 0.0])
    return foot - half, foot + half + np.array([0.0, 0.0, 4.0])


def _flat(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, V, 2, 3) -> (F, 2V, 3): box 2v is the body of vehicle v, 2v + 1 its cabin."""
    return corners.reshape(len(corners), -1, 3)


SENSORS: dict[str, Sensor] = {
    "camera": camera,
    "motion": motion,
    "radar": radar,
    "doppler": doppler,
    "maps": maps,
    "lidar": lidar,
    "gps": gps,
}
