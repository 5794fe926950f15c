"""What the mast's sensors and the vehicle's GPS record of a pass, in the form of `clients.sensing.modalities`.

F frames, V vehicles, N boxes, P radar points.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from configs.schema import World
from configs.seeding import rng_for
from sim.raycast import cast
from sim.scene import FAR_LANE_Y, MAST, NEAR_LANE_Y, SENSOR_HEIGHT, WALL_Y, Scene

Sensor = Callable[[World, Scene, np.random.Generator], NDArray[np.generic]]

GPS_JITTER_M, GPS_MEMORY = 0.09, 0.8

LIDAR_RAYS, LIDAR_HEIGHT, LIDAR_MAX_M, LIDAR_NOISE_M = 216, 1.0, 16.392, 0.02
NUM_POLES, POLE_HALF_WIDTH = 5, 0.12

RANGE_BIN_M, NUM_BINS, NUM_CHIRPS, CHIRP_S, RADAR_WAVELENGTH_M = 0.195, 128, 16, 8 * 65e-6, 299_792_458.0 / 77e9
RADAR_ANTENNAS, RADAR_ANGLES = 4, 64
RADAR_SNR_DB, RADAR_AREA_M2, HIDDEN_DB = 22.0, 40.0, -15.0

CAMERA_PIXELS, OVERSAMPLING = 64, 4
TAN_HALF_WIDTH = np.tan(np.deg2rad(55.0))
TAN_HALF_HEIGHT = TAN_HALF_WIDTH * 9.0 / 16.0
FACE_SHADE = np.array([0.62, 0.8, 1.05])
NIGHT_LIGHT, LAMP = 0.18, 0.9


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
    """(F, 216) range of each ray of a level scan at 1 m height, metres; 0 where nothing came back.

    Returns fail with p = 0.08 + 0.5 (r/R - 0.6)+ + 0.35 (1 - cos incidence), and 0.25 more in rain, which also
    sends back 5 % of the rays itself.

    Source: rays and range of the scenario 9 loader; noise and failures are assumptions.
    """
    azimuth = lidar_azimuths()
    direction = (np.sin(azimuth), np.cos(azimuth), np.zeros(LIDAR_RAYS))
    pole_low, pole_high = _poles(world.array_seed)
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


def radar(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float16]:
    """(F, 64, 64) range-angle map, log2(1 + magnitude): range rows of 0.39 m, columns uniform in sin(azimuth).

    Every vehicle is nine Swerling-I points. A point at range r is a Hann-windowed tone, whose range FFT is known in
    closed form and cut off three bins away; 16 chirps, every eighth of a frame of 128, so that the notch of the
    chirp-mean removal is that of the whole frame. Static clutter cancels there exactly and is not generated, and a
    vehicle that stops fades away. Then an angle FFT, the sum of magnitudes over chirps, and the larger of two range
    bins.

    Source: waveform of the DeepSense 6G scenario 9 loader (77 GHz, 15.015 MHz/us, 256 samples at 5 MHz, 4 receivers).
    """
    x, y, amplitude, radial = _radar_points(scene, rng)
    distance = np.hypot(x, y)
    position = distance / RANGE_BIN_M
    carrier = amplitude * np.exp(-4j * np.pi * distance / RADAR_WAVELENGTH_M)
    chirps = np.exp(4j * np.pi * radial[..., None] * CHIRP_S * np.arange(NUM_CHIRPS) / RADAR_WAVELENGTH_M)
    antennas = np.exp(1j * np.pi * (x / distance)[..., None] * np.arange(RADAR_ANTENNAS))
    signal = (carrier[..., None, None] * chirps[..., None] * antennas[..., None, :]).astype(np.complex64)

    shape = (scene.num_frames, NUM_BINS, NUM_CHIRPS, RADAR_ANTENNAS)
    noise = rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0] / np.float32(np.sqrt(2.0))
    cube = noise
    frames = np.arange(scene.num_frames)
    for point in range(distance.shape[1]):
        first = np.floor(position[:, point]).astype(np.int64) - 2
        for bins in (first + k for k in range(6)):
            inside = (bins >= 0) & (bins < NUM_BINS)
            weight = _hann_response(position[:, point] - bins) * inside
            cube[frames, np.clip(bins, 0, NUM_BINS - 1)] += weight[:, None, None] * signal[:, point]
    cube -= cube.mean(axis=2, keepdims=True)
    maps = np.empty((scene.num_frames, NUM_BINS, RADAR_ANGLES), np.float32)
    for frame in frames:
        spectrum = np.fft.fft(cube[frame], n=RADAR_ANGLES, axis=-1)
        maps[frame] = np.fft.fftshift(np.abs(spectrum).sum(axis=1), axes=-1)
    pooled = maps.reshape(scene.num_frames, NUM_BINS // 2, 2, RADAR_ANGLES).max(axis=2)
    image: NDArray[np.float16] = np.log2(1.0 + pooled / NUM_CHIRPS).astype(np.float16)
    return image


def _radar_points(scene: Scene, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Across the mast's plane: x, y, amplitude over noise and radial speed of every point, (F, P) each."""
    along = np.array([0.0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0, 0.0, 1.0])
    across = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5])
    low, high = scene.low.min(axis=2), scene.high.max(axis=2)
    x = low[..., 0, None] + along * (high - low)[..., 0, None]
    y = low[..., 1, None] + across * (high - low)[..., 1, None]
    distance = np.hypot(x, y)
    swerling = rng.standard_normal((*x.shape, 2)).view(np.complex128)[..., 0] / np.sqrt(2.0)
    strength = 10.0 ** (RADAR_SNR_DB / 20.0) * np.sqrt(RADAR_AREA_M2 / (len(along) * 40.0))
    amplitude = strength * swerling * (y / distance) * (10.0 / distance) ** 2
    amplitude = np.where(_is_hidden(scene, x, y), 10.0 ** (HIDDEN_DB / 20.0), 1.0) * amplitude
    radial = scene.velocity[..., None] * x / distance
    flat = (scene.num_frames, -1)
    return x.reshape(flat), y.reshape(flat), amplitude.reshape(flat), radial.reshape(flat)


def _is_hidden(scene: Scene, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F, V, 9) whether another vehicle stands between the radar and a point at 1 m height."""
    origin = np.array([0.0, 0.0, 1.0])
    low, high = scene.low.min(axis=2)[:, None, None], scene.high.max(axis=2)[:, None, None]
    entry = cast(origin, (x[..., None], y[..., None], np.zeros((1, 1, 1, 1))), low, high).entry()
    is_own = np.eye(x.shape[1], dtype=bool)[:, None, :]
    hidden: NDArray[np.bool_] = np.any((entry < 1.0) & ~is_own, axis=-1)
    return hidden


def _hann_response(offset: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Range FFT of a Hann-windowed tone, ``offset`` bins from the tone, 1 at its own bin."""
    near_one = np.abs(np.abs(offset) - 1.0) < 1e-6
    safe = np.where(near_one, 0.5, offset)
    magnitude = np.where(near_one, 0.5, np.sinc(safe) / (1.0 - safe**2))
    response: NDArray[np.complex64] = (magnitude * np.exp(1j * np.pi * offset)).astype(np.complex64)
    return response


def camera(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(F, 64, 64, 3) RGB of a level pinhole camera with a field of 110 degrees, 16:9 squeezed to a square.

    Faces are shaded by their axis, vehicles cast a shadow, the mast shakes by a fraction of a pixel, light varies by
    pass. By night the street is dark and front and rear lamps glare; rain veils.
    """
    num_frames = scene.num_frames
    shake = rng.integers(0, OVERSAMPLING, (num_frames, 2))
    light = np.exp(0.12 * rng.standard_normal()) * (NIGHT_LIGHT if scene.night else 1.0)
    across, upward, background = _background(world.array_seed)
    rows = shake[:, :1] + np.arange(CAMERA_PIXELS) * OVERSAMPLING
    columns = shake[:, 1:] + np.arange(CAMERA_PIXELS) * OVERSAMPLING
    image = background[rows[:, :, None], columns[:, None, :]] * np.float32(light)
    u, w = across[columns], upward[rows]
    _cast_shadows(image, scene, u, w)
    _draw_vehicles(image, scene, u, w, light=light)
    if scene.rain:
        image = 0.7 * image + 0.3 * np.float32(0.55 * light)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += noise * np.sqrt(0.0004 * np.maximum(image, 0.0) + 0.00008)
    pixels: NDArray[np.uint8] = (255.0 * np.clip(image, 0.0, 1.0) + 0.5).astype(np.uint8)
    return pixels


def _draw_vehicles(
    image: NDArray[np.float32],
    scene: Scene,
    u: NDArray[np.float32],
    w: NDArray[np.float32],
    *,
    light: float,
) -> None:
    """Paint every box over ``image``, nearest first in view; ``u`` and ``w`` are (F, 64) tangents of pixels."""
    low, high = (_flat(corner).astype(np.float32)[:, :, None, None] for corner in (scene.low, scene.high))
    direction = (u[:, None, None, :], np.ones((1, 1, 1, 1), np.float32), w[:, None, :, None])
    slabs = cast(MAST.astype(np.float32), direction, low, high)
    entries = slabs.entry()
    nearest = entries.argmin(axis=1)
    frame, row, column = np.nonzero(np.isfinite(entries.min(axis=1)))
    box = nearest[frame, row, column]
    meets = np.stack(
        [slabs.near[0][frame, box, 0, column], slabs.near[1][frame, box, 0, 0], slabs.near[2][frame, box, row, 0]]
    )
    face = meets.argmax(axis=0)
    is_cabin = box % 2 == 1
    colour = scene.colours[box // 2] * FACE_SHADE[face, None] * light
    glass = np.array([0.10, 0.12, 0.15]) * light
    colour = np.where((is_cabin & (face != 2))[:, None], 0.35 * colour + 0.65 * glass, colour)
    if scene.night:
        colour = np.where(((face == 0) & ~is_cabin)[:, None], LAMP, colour)
    image[frame, row, column] = colour


def _cast_shadows(image: NDArray[np.float32], scene: Scene, u: NDArray[np.float32], w: NDArray[np.float32]) -> None:
    """Darken the ground under and in front of each vehicle."""
    low, high = (corner.astype(np.float32) for corner in (scene.low.min(axis=2), scene.high.max(axis=2)))
    first = int(np.argmax(np.all(w < -SENSOR_HEIGHT / (FAR_LANE_Y + 3.0), axis=0)))
    last = int(np.argmax(np.all(w < -SENSOR_HEIGHT / (NEAR_LANE_Y - 3.0), axis=0)))
    y = SENSOR_HEIGHT / -w[:, first:last, None]
    x = u[:, None, :] * y
    shade = np.zeros(x.shape, bool)
    for vehicle in range(low.shape[1]):
        left, near, _ = low[:, vehicle].T[:, :, None, None]
        right, far, _ = high[:, vehicle].T[:, :, None, None]
        shade |= (x > left - 0.2) & (x < right + 0.2) & (y > near - 0.5) & (y < far + 0.1)
    image[:, first:last] *= np.where(shade, np.float32(0.5), np.float32(1.0))[..., None]


@lru_cache(maxsize=8)
def _background(street_seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Tangents of the fine columns and rows, and the empty street (rows, columns, RGB) at those points."""
    rng = rng_for(street_seed, "background")
    size = (CAMERA_PIXELS + 1) * OVERSAMPLING
    ticks = (np.arange(size) - OVERSAMPLING / 2 + 0.5) / (CAMERA_PIXELS * OVERSAMPLING) * 2.0 - 1.0
    u, w = TAN_HALF_WIDTH * ticks, -TAN_HALF_HEIGHT * ticks
    depth = np.where(w < 0, SENSOR_HEIGHT / np.maximum(-w, 1e-6), np.inf)[:, None]
    image = np.empty((size, size, 3))
    image[:] = np.array([0.55, 0.68, 0.85]) + 0.12 * (w[:, None, None] / TAN_HALF_HEIGHT - 0.5)

    height = SENSOR_HEIGHT + w * WALL_Y
    wall_x = u * WALL_Y
    is_wall = (height > 0) & (height < 12.0)
    is_window = ((height % 3.2 > 1.0) & (height % 3.2 < 2.6))[:, None] & ((wall_x % 3.0 > 0.9) & (wall_x % 3.0 < 2.3))
    bricks = (
        np.array([0.52, 0.40, 0.34]) * (0.8 + 0.4 * rng.random(64))[(wall_x // 6.0).astype(int) % 64][None, :, None]
    )
    panes = np.array([0.20, 0.25, 0.32]) * (0.6 + 0.8 * rng.random((size, size)))[..., None]
    image = np.where(is_wall[:, None, None], np.where(is_window[..., None], panes, bricks), image)

    x = u * np.minimum(depth, 200.0)
    grey = np.where(depth < NEAR_LANE_Y - 1.9, 0.52, np.where(depth > FAR_LANE_Y + 1.9, 0.55, 0.34))
    middle = (NEAR_LANE_Y + FAR_LANE_Y) / 2
    is_mark = (np.abs(depth - middle) < 0.12) & (x % 6.0 < 3.0)
    is_edge = (np.abs(depth - NEAR_LANE_Y + 1.8) < 0.1) | (np.abs(depth - FAR_LANE_Y - 1.8) < 0.1)
    ground = np.where(is_mark | is_edge, 0.85, grey) + 0.05 * rng.standard_normal((size, size))
    image = np.where((depth < WALL_Y)[..., None], ground[..., None], image)

    smooth = np.cumsum(np.cumsum(np.pad(image, ((1, 0), (1, 0), (0, 0))), axis=0), axis=1)
    k = OVERSAMPLING
    smooth = (smooth[k:, k:] - smooth[:-k, k:] - smooth[k:, :-k] + smooth[:-k, :-k]) / k**2
    centres = slice(k // 2, k // 2 + len(smooth))
    return u[centres].astype(np.float32), w[centres].astype(np.float32), smooth.astype(np.float32)


@lru_cache(maxsize=8)
def _poles(street_seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(5, 3) corners of the street's poles behind the far lane."""
    rng = rng_for(street_seed, "poles")
    x = np.linspace(-8.0, 8.0, NUM_POLES) + rng.uniform(-1.5, 1.5, NUM_POLES)
    foot = np.stack([x, rng.uniform(13.3, 14.2, NUM_POLES), np.zeros(NUM_POLES)], axis=1)
    half = np.array([POLE_HALF_WIDTH, POLE_HALF_WIDTH, 0.0])
    return foot - half, foot + half + np.array([0.0, 0.0, 4.0])


def _flat(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, V, 2, 3) -> (F, 2V, 3): box 2v is the body of vehicle v, 2v + 1 its cabin."""
    return corners.reshape(len(corners), -1, 3)


SENSORS: dict[str, Sensor] = {"camera": camera, "radar": radar, "lidar": lidar, "gps": gps}
