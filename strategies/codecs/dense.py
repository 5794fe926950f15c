"""Codecs that keep every probability, at 32, 16, 8 or 4 bits. N samples, H horizons, C classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from strategies.codecs.packing import pack_bits, unpack_bits
from strategies.labels import normalise_rows

# The largest level of four bits.
TOP_LEVEL = 15


@dataclass(frozen=True)
class FloatCodec:
    """Floating-point probabilities.

    The worst error is the rounding of ``dtype`` (float16: 2^-12 for values below 1).

    Source: IEEE 754.

    Attributes:
        dtype: float32 or float16.
    """

    dtype: DTypeLike

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, H, C) in ``dtype``: 4 or 2 bytes a value."""
        return probs.astype(self.dtype)

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_classes: int) -> NDArray[np.float32]:
        """Back to float32; rows are scaled to sum to one."""
        values = checked_rows(payload, np.dtype(self.dtype), (num_horizons, num_classes)).astype(np.float32)
        check_probabilities(values)
        if not np.allclose(values.sum(axis=-1, dtype=np.float64), 1.0, atol=2e-2):
            raise ValueError("rows must sum to one; did you send logits?")
        return values if np.dtype(self.dtype) == np.float32 else normalise_rows(values)


@dataclass(frozen=True)
class SquareRootCodec:
    """Eight bits a value, linear in the square root of the probability.

    q = round(255 sqrt(p)); the error before rows are scaled back is at most sqrt(p) / 255 + 1 / 255^2 / 4.
    The square root spends the levels where small probabilities are, which keeps the ranking of the tail.

    Source: companding, as in ITU-T G.711, with the square root that makes the variance of counts constant.
    """

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, H, C) uint8: one byte a value."""
        return np.rint(255.0 * np.sqrt(np.clip(probs, 0.0, 1.0))).astype(np.uint8)

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_classes: int) -> NDArray[np.float32]:
        """Square and scale the rows to sum to one."""
        levels = checked_rows(payload, np.dtype(np.uint8), (num_horizons, num_classes)).astype(np.float32)
        if np.any(levels.sum(axis=-1) == 0):
            raise ValueError("a row without any probability is not a distribution")
        return normalise_rows((levels / 255.0) ** 2)


@dataclass(frozen=True)
class FourBitCodec:
    """Four bits a value, linear in the square root of the probability relative to the row's largest.

    q = round(15 sqrt(p / max p)), the root of that ratio is off by at most 1/30. Rows sum to one anyway, so the largest
    probability need not travel; without dividing by it, a flat row of 64 classes would have two levels.

    Source: companding, as in ITU-T G.711, with the square root of `SquareRootCodec`.
    """

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, ceil(H C / 2)) uint8: half a byte a value."""
        num_samples, num_horizons, num_classes = probs.shape
        return pack_bits(relative_levels(probs).reshape(num_samples, num_horizons * num_classes), 4)

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_classes: int) -> NDArray[np.float32]:
        """Square and scale the rows to sum to one."""
        count = num_horizons * num_classes
        rows = checked_rows(payload, np.dtype(np.uint8), ((count + 1) // 2,)).astype(np.uint8)
        levels = unpack_bits(rows, 4, count).reshape(-1, num_horizons, num_classes)
        if np.any(levels.max(axis=-1, initial=0) != TOP_LEVEL):
            raise ValueError("the largest probability of a row must have the highest level")
        return normalise_rows((levels / TOP_LEVEL) ** 2)


def relative_levels(probs: NDArray[np.float32]) -> NDArray[np.int64]:
    """(N, H, C) round(15 sqrt(p / max p)) of each row."""
    top = probs.max(axis=-1, keepdims=True)
    levels: NDArray[np.int64] = np.rint(TOP_LEVEL * np.sqrt(np.clip(probs, 0.0, None) / top)).astype(np.int64)
    return levels


def check_probabilities(values: NDArray[np.float32]) -> None:
    """Refuse values that are no probabilities.

    Raises:
        ValueError: a value is negative or not finite.
    """
    if not np.all(np.isfinite(values)) or values.min(initial=0.0) < 0:
        raise ValueError("probabilities must be finite and >= 0")


def checked_rows(
    payload: NDArray[np.generic], dtype: np.dtype[np.generic], row_shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """The payload, checked to have the dtype and the shape (N, *row_shape).

    Raises:
        ValueError: the payload has another dtype or shape.
    """
    if payload.dtype != dtype or payload.ndim != 1 + len(row_shape) or payload.shape[1:] != row_shape:
        expected = ", ".join(("N", *map(str, row_shape)))
        raise ValueError(f"expected {dtype} of shape ({expected}), got {payload.dtype} {payload.shape}")
    return payload
