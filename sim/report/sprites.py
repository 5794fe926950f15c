"""Frames of a pass as one picture for a page, side by side, of which the page shows one frame at a time.

F frames of a pass, B beams.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.world.sensors import LIDAR_MAX_M, lidar_azimuths

if TYPE_CHECKING:
    from PIL.Image import Image

# Quality of JPEG: pictures of 64 x 64 pixels show its blocks early.
QUALITY = 88
# Pixels of a scan from above; its width stands for twice `LIDAR_MAX_M`.
SCAN_WIDTH, SCAN_HEIGHT = 160, 80


def camera_sprite(frames: NDArray[np.uint8]) -> str:
    """Pictures (F, rows, columns, 3) as the address of one JPEG."""
    from PIL import Image

    return _address(Image.fromarray(_side_by_side(np.ascontiguousarray(frames))), "jpeg")


def radar_sprite(frames: NDArray[np.floating], *, low: float, high: float) -> str:
    """Maps (F, rows, columns), row 0 at the bottom, as the address of one PNG; low values are dark."""
    level = np.clip((frames.astype(np.float32) - low) / max(high - low, 1e-9), 0.0, 1.0)[:, ::-1]
    return _address(_coloured(_side_by_side(level), "magma"), "png")


def lidar_sprite(
    distance: NDArray[np.floating], position_m: NDArray[np.floating] | None, colours: dict[str, str]
) -> str:
    """Scans from above as the address of one PNG without a background: the mast is in the middle of the lower edge.

    Args:
        distance: (F, R) metres of each ray, from left to right; 0 is no return.
        position_m: (F, 2) metres east and north of the mast, where GPS puts the vehicle; None without GPS.
        colours: the colours, as #rrggbb, of ``lidar``, ``gps`` and ``mast``.
    """
    from PIL import Image

    azimuth = lidar_azimuths()
    shown = np.zeros((len(distance), SCAN_HEIGHT, SCAN_WIDTH), np.uint8)
    for frame, rays in zip(shown, distance.astype(np.float64), strict=True):
        seen = rays > 0
        _dot(frame, rays[seen] * np.sin(azimuth[seen]), rays[seen] * np.cos(azimuth[seen]), value=1, half=1)
    if position_m is not None:
        for frame, (east, north) in zip(shown, position_m, strict=True):
            if np.isfinite([east, north]).all():
                _dot(frame, np.array([east]), np.array([north]), value=2, half=3)
    shown[:, -5:, SCAN_WIDTH // 2 - 3 : SCAN_WIDTH // 2 + 3] = 3
    image = Image.fromarray(_side_by_side(shown))
    palette = [0, 0, 0, *(channel for name in ("lidar", "gps", "mast") for channel in _rgb(colours[name]))]
    image.putpalette(palette)
    return _address(image, "png", transparency=0)


def strength_picture(values: NDArray[np.floating], *, colour: str, marked: NDArray[np.integer], mark: str) -> str:
    """Values (F, B) in [0, 1] over time as the address of a PNG: time to the right, beams upwards, one beam marked.

    Args:
        values: the opacity of each pixel; NaN is nothing at all.
        colour: the colour, as #rrggbb.
        marked: (F,) the beam that is marked in each frame.
        mark: the colour of the mark, as #rrggbb.
    """
    from PIL import Image

    num_frames, num_beams = values.shape
    pixels = np.zeros((num_beams, num_frames, 4), np.uint8)
    pixels[..., :3] = _rgb(colour)
    pixels[..., 3] = np.round(255 * np.nan_to_num(values.T)).astype(np.uint8)
    known = ~np.isnan(values).all(axis=1)
    pixels[marked[known], np.flatnonzero(known)] = (*_rgb(mark), 255)
    return _address(Image.fromarray(pixels[::-1]), "png")


def _dot(
    frame: NDArray[np.uint8], x_m: NDArray[np.float64], y_m: NDArray[np.float64], *, value: int, half: int
) -> None:
    """Set small squares of a scan; what is outside of it is left out."""
    columns = np.round((x_m / LIDAR_MAX_M + 1.0) * 0.5 * (SCAN_WIDTH - 1)).astype(int)
    rows = np.round((1.0 - y_m / LIDAR_MAX_M) * (SCAN_HEIGHT - 1)).astype(int)
    for row, column in zip(rows, columns, strict=True):
        if 0 <= row < SCAN_HEIGHT and 0 <= column < SCAN_WIDTH:
            frame[max(0, row - half + 1) : row + half, max(0, column - half + 1) : column + half] = value


def _side_by_side(frames: NDArray[np.generic]) -> NDArray[np.generic]:
    """(rows, F x columns, ...) from (F, rows, columns, ...)."""
    return np.concatenate(list(frames), axis=1)


def _coloured(level: NDArray[np.generic], name: str) -> Image:
    from matplotlib import colormaps
    from PIL import Image

    image = Image.fromarray(np.round(255 * np.asarray(level, np.float32)).astype(np.uint8))
    image.putpalette((colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes())
    return image


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue


def _address(image: Image, kind: str, **options: int) -> str:
    """The picture as an address that holds it."""
    drawn = io.BytesIO()
    image.save(drawn, format=kind, **({"quality": QUALITY} if kind == "jpeg" else {"compress_level": 6}), **options)
    return f"data:image/{kind};base64,{base64.b64encode(drawn.getvalue()).decode()}"
