"""Masks of what moves in the pictures of a camera: binary frame differences, of a recording or of a live stream.

Two successive frames are made grey in [0, 1] and blurred by a Gaussian of one pixel. A pixel of the mask is on if they
differ there by more than a tenth of their largest difference. For two equal frames no pixel is on. F frames, R rows,
C columns.

Source: input processing of arXiv:2603.16116 (224 x 224, sigma 1, 10 %); grey by ITU-R BT.601.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PIXELS = 224
THRESHOLD = 0.1
_GREY = np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255.0)


def motion_masks(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(F - 1, R, C) masks between successive frames.

    Args:
        images: (F, R, C, 3) RGB frames of one pass, F >= 2.

    Raises:
        ValueError: the images have another shape.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) < 2:
        raise ValueError(f"images: expected the shape (F, rows, columns, 3) with F >= 2, got {images.shape}")
    change = np.abs(np.diff(_blurred_grey(images), axis=0))
    masks: NDArray[np.bool_] = change > THRESHOLD * change.max(axis=(1, 2), keepdims=True)
    return masks


class MotionDetector:
    """Makes the masks of a stream of pictures; it keeps each picture only until the next one comes."""

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None

    def push(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(R, C) mask between the previous picture and this one; for the first picture no pixel is on.

        Args:
            image: (R, C, 3) RGB picture, of the same size every time.

        Raises:
            ValueError: the picture has another size than the previous one, or is not RGB.
        """
        if image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"image: expected the shape (rows, columns, 3), got {image.shape}")
        before, self._before = self._before, _blurred_grey(image[None])[0]
        if before is None:
            return np.zeros(image.shape[:2], np.bool_)
        if before.shape != image.shape[:2]:
            raise ValueError(
                f"image: has the shape {image.shape}, but the one before had {before.shape}; reset the detector first"
            )
        change = np.abs(self._before - before)
        mask: NDArray[np.bool_] = change > THRESHOLD * change.max()
        return mask

    def reset(self) -> None:
        """Forget the previous picture; the next one begins another pass."""
        self._before = None


def packed_masks(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(F, 224, 28) masks of one pass in the form of the modality ``motion``: eight pixels a byte, left to right.

    Frame t holds the change since frame t - 1, so no pixel is on in the first frame.

    Args:
        images: (F, 224, 224, 3) RGB frames of one pass.
    """
    masks = np.zeros(images.shape[:3], np.bool_)
    if len(images) > 1:
        masks[1:] = motion_masks(images)
    return np.packbits(masks, axis=-1)


def _blurred_grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(F, R, C) grey pictures in [0, 1], blurred; the Gaussian ends at four pixels, border pixels are repeated."""
    from scipy.ndimage import gaussian_filter1d  # This import takes a tenth of the time in which a process starts.

    grey = images.astype(np.float32) @ _GREY
    for axis in (1, 2):
        grey = gaussian_filter1d(grey, sigma=1.0, axis=axis, mode="nearest", truncate=4.0)
    return grey
