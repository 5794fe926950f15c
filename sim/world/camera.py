"""The camera of the mast: a pinhole over the ray-box caster, with shadows, weather and light.

F frames, N boxes, R rows, C columns.

Source: DeepSense 6G scenario 9 has a 960 x 540 RGB camera; its field of view, textures and noise are assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clients.data.motion import PIXELS, packed_masks
from configs.schema import World
from configs.seeding import rng_for
from sim.world.raycast import cast
from sim.world.scene import MAST, SENSOR_HEIGHT, Scene
from sim.world.site import Site

DEFAULT_PIXELS = (64, 64)
TAN_HALF_WIDTH = np.tan(np.deg2rad(55.0))
TAN_HALF_HEIGHT = TAN_HALF_WIDTH * 9.0 / 16.0
FACE_SHADE = np.array([0.62, 0.8, 1.05])
GLASS = np.array([0.10, 0.12, 0.15])
NIGHT_LIGHT = 0.18
HEADLAMP, TAIL_LAMP = np.array([1.0, 0.95, 0.8]), np.array([0.85, 0.12, 0.08])
# A share of half a pixel; it is set so that the motion mask of 224 x 224 images is as dense as in scenario 9.
SHAKE_SHARE = 0.35
# Boxes times pixels that are computed at once: a whole pass of small images, or a few frames of large ones.
CHUNK = 4_000_000


def camera(
    world: World, scene: Scene, rng: np.random.Generator, *, pixels: tuple[int, int] = DEFAULT_PIXELS
) -> NDArray[np.uint8]:
    """(F, R, C, 3) RGB of a level pinhole camera with a field of 110 degrees by 16:9, scaled to the wanted shape.

    Faces are shaded by their axis, vehicles cast a shadow, the mast shakes by up to half a pixel, light varies by
    pass. By night the street is dark, and front and rear lamps glare; rain lowers the contrast.

    Args:
        world: is not used; every sensor takes it.
        scene: the pass.
        rng: the random stream of the pass for the camera.
        pixels: R and C.
    """
    view = _view(scene.site, pixels)
    num_frames, fine = scene.num_frames, view.oversampling
    shake = rng.binomial(fine // 2, SHAKE_SHARE, (num_frames, 2))
    light = np.exp(0.12 * rng.standard_normal()) * (NIGHT_LIGHT if scene.night else 1.0)
    rows = shake[:, :1] + np.arange(pixels[0]) * fine
    columns = shake[:, 1:] + np.arange(pixels[1]) * fine
    low, high = _flat(scene.low), _flat(scene.high)
    out = np.empty((num_frames, *pixels, 3), np.uint8)
    step = max(1, CHUNK // (low.shape[1] * pixels[0] * pixels[1]))
    for first in range(0, num_frames, step):
        part = slice(first, first + step)
        image = view.background[rows[part, :, None], columns[part, None, :]] * np.float32(light)
        u, w = view.across[columns[part]], view.upward[rows[part]]
        _cast_shadows(image, scene, low[part], high[part], u, w)
        _draw_vehicles(image, scene, low[part], high[part], u, w, light=light)
        if scene.rain:
            image = 0.7 * image + 0.3 * np.float32(0.55 * light)
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image += noise * np.sqrt(0.0004 * np.maximum(image, 0.0) + 0.00008)
        out[part] = 255.0 * np.clip(image, 0.0, 1.0) + 0.5
    return out


def motion(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(F, 224, 28) packed motion masks of pictures of 224 x 224 pixels; ten times slower than :func:`camera`."""
    return packed_masks(camera(world, scene, rng, pixels=(PIXELS, PIXELS)))


def _draw_vehicles(
    image: NDArray[np.float32],
    scene: Scene,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    u: NDArray[np.float32],
    w: NDArray[np.float32],
    *,
    light: float,
) -> None:
    """Paint the boxes over ``image``, the nearest in front; ``u`` (F, C) and ``w`` (F, R) are tangents of pixels."""
    direction = (u[:, None, None, :], np.ones((1, 1, 1, 1), np.float32), w[:, None, :, None])
    slabs = cast(MAST.astype(np.float32), direction, low[:, :, None, None], high[:, :, None, None])
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
    colour = np.where((is_cabin & (face != 2))[:, None], 0.35 * colour + 0.65 * GLASS * light, colour)
    if scene.night:
        # Right of the mast the camera sees the left end of a vehicle, which is its front if it drives to the left.
        is_front = np.sign(u[frame, column]) != scene.headings[box // 2]
        lamp = np.where(is_front[:, None], HEADLAMP, TAIL_LAMP)
        colour = np.where(((face == 0) & ~is_cabin)[:, None], lamp, colour)
    image[frame, row, column] = colour


def _cast_shadows(
    image: NDArray[np.float32],
    scene: Scene,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    u: NDArray[np.float32],
    w: NDArray[np.float32],
) -> None:
    """Darken the ground under and in front of each vehicle."""
    site = scene.site
    first = int(np.argmax(np.all(w < -SENSOR_HEIGHT / (site.far_lane_y + 3.0), axis=0)))
    last = int(np.argmax(np.all(w < -SENSOR_HEIGHT / (site.near_lane_y - 3.0), axis=0)))
    y = SENSOR_HEIGHT / -w[:, first:last, None]
    x = u[:, None, :] * y
    shade = np.zeros(x.shape, bool)
    for body in range(0, low.shape[1], 2):
        both = slice(body, body + 2)
        left, near, _ = low[:, both].min(axis=1).T[:, :, None, None]
        right, far, _ = high[:, both].max(axis=1).T[:, :, None, None]
        shade |= (x > left - 0.2) & (x < right + 0.2) & (y > near - 0.5) & (y < far + 0.1)
    image[:, first:last] *= np.where(shade, np.float32(0.5), np.float32(1.0))[..., None]


@dataclass(frozen=True)
class _View:
    """The empty street, drawn fine enough to shift it by a fraction of a pixel.

    Attributes:
        across: the tangents of the fine columns; ``upward`` are those of the fine rows.
        background: (fine rows, fine columns, RGB) the picture of the empty street.
        oversampling: the number of fine pixels in a pixel, along each axis.
    """

    across: NDArray[np.float32]
    upward: NDArray[np.float32]
    background: NDArray[np.float32]
    oversampling: int


@lru_cache(maxsize=8)
def _view(site: Site, pixels: tuple[int, int]) -> _View:
    k = 4 if max(pixels) <= 256 else 2
    rng = rng_for(site.array_seed, "background", site.number)
    size = ((pixels[0] + 1) * k, (pixels[1] + 1) * k)
    tick_w, tick_u = ((np.arange(n) - k / 2 + 0.5) / (m * k) * 2.0 - 1.0 for n, m in zip(size, pixels, strict=True))
    u, w = TAN_HALF_WIDTH * tick_u, -TAN_HALF_HEIGHT * tick_w
    depth = np.where(w < 0, SENSOR_HEIGHT / np.maximum(-w, 1e-6), np.inf)[:, None]
    image = np.empty((*size, 3))
    image[:] = np.array([0.55, 0.68, 0.85]) + 0.12 * (w[:, None, None] / TAN_HALF_HEIGHT - 0.5)

    height = SENSOR_HEIGHT + w * site.wall_y
    wall_x = u * site.wall_y
    is_wall = (height > 0) & (height < 12.0)
    is_window = ((height % 3.2 > 1.0) & (height % 3.2 < 2.6))[:, None] & ((wall_x % 3.0 > 0.9) & (wall_x % 3.0 < 2.3))
    shades = (0.8 + 0.4 * rng.random(64))[(wall_x // 6.0).astype(int) % 64]
    bricks = np.array([0.52, 0.40, 0.34]) * shades[None, :, None]
    panes = np.array([0.20, 0.25, 0.32]) * (0.6 + 0.8 * rng.random(size))[..., None]
    image = np.where(is_wall[:, None, None], np.where(is_window[..., None], panes, bricks), image)

    x = u * np.minimum(depth, 200.0)
    near, far = site.near_lane_y, site.far_lane_y
    grey = np.where(depth < near - 1.9, 0.52, np.where(depth > far + 1.9, 0.55, 0.34))
    is_mark = (np.abs(depth - (near + far) / 2) < 0.12) & (x % 6.0 < 3.0)
    is_edge = (np.abs(depth - near + 1.8) < 0.1) | (np.abs(depth - far - 1.8) < 0.1)
    ground = np.where(is_mark | is_edge, 0.85, grey) + 0.05 * rng.standard_normal(size)
    image = np.where((depth < site.wall_y)[..., None], ground[..., None], image)

    smooth = np.cumsum(np.cumsum(np.pad(image, ((1, 0), (1, 0), (0, 0))), axis=0), axis=1)
    smooth = (smooth[k:, k:] - smooth[:-k, k:] - smooth[k:, :-k] + smooth[:-k, :-k]) / k**2
    rows, columns = (slice(k // 2, k // 2 + n) for n in smooth.shape[:2])
    return _View(u[columns].astype(np.float32), w[rows].astype(np.float32), smooth.astype(np.float32), k)


def _flat(corners: NDArray[np.float64]) -> NDArray[np.float32]:
    """(F, V, 2, 3) -> (F, 2V, 3): box 2v is the body of vehicle v, 2v + 1 its cabin."""
    return corners.reshape(len(corners), -1, 3).astype(np.float32)
