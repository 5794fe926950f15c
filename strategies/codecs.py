"""How soft labels become bytes and back. N samples, H horizons, B beams.

A codec turns (N, H, B) probabilities into an array that travels as it is, so the bytes
counted are the bytes of that array. Decoding always ends on the simplex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from strategies.labels import normalise_rows


class Codec(Protocol):
    """One way to encode soft labels."""

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, H, B) probabilities to the array that travels."""

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_beams: int) -> NDArray[np.float32]:
        """The array that travelled back to (N, H, B) probabilities.

        Raises:
            ValueError: the payload was not made by this codec for these shapes.
        """


@dataclass(frozen=True)
class FloatCodec:
    """Floating-point probabilities; the worst error is the rounding of ``dtype`` (float16: 2^-12 for values below 1).

    Attributes:
        dtype: float32 or float16.
    """

    dtype: DTypeLike

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, H, B) in ``dtype``: 4 or 2 bytes a value."""
        return probs.astype(self.dtype)

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_beams: int) -> NDArray[np.float32]:
        """Back to float32; rows are scaled to sum to one."""
        values = _checked(payload, np.dtype(self.dtype), num_horizons, num_beams).astype(np.float32)
        if not np.all(np.isfinite(values)) or values.min(initial=0.0) < 0:
            raise ValueError("probabilities must be finite and >= 0")
        if not np.allclose(values.sum(axis=-1, dtype=np.float64), 1.0, atol=2e-2):
            raise ValueError("rows must sum to one; did you send logits?")
        return values if np.dtype(self.dtype) == np.float32 else normalise_rows(values)


@dataclass(frozen=True)
class SquareRootCodec:
    """Eight bits a value, linear in the square root of the probability.

    q = round(255 sqrt(p)); the error before rows are scaled back is at most sqrt(p) / 255 + 1 / 255^2 / 4.
    The square root spends the levels where small probabilities are, which keeps the ranking of the tail.
    """

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, H, B) uint8: one byte a value."""
        return np.rint(255.0 * np.sqrt(np.clip(probs, 0.0, 1.0))).astype(np.uint8)

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_beams: int) -> NDArray[np.float32]:
        """Square and scale the rows to sum to one."""
        levels = _checked(payload, np.dtype(np.uint8), num_horizons, num_beams).astype(np.float32)
        if np.any(levels.sum(axis=-1) == 0):
            raise ValueError("a row without any probability is not a distribution")
        return normalise_rows((levels / 255.0) ** 2)


def _checked(
    payload: NDArray[np.generic], dtype: np.dtype[np.generic], num_horizons: int, num_beams: int
) -> NDArray[np.generic]:
    if payload.dtype != dtype or payload.ndim != 3 or payload.shape[1:] != (num_horizons, num_beams):
        raise ValueError(
            f"expected {dtype} of shape (N, {num_horizons}, {num_beams}), got {payload.dtype} {payload.shape}"
        )
    return payload


CODECS: dict[str, Codec] = {
    "float32": FloatCodec(np.float32),
    "float16": FloatCodec(np.float16),
    "uint8": SquareRootCodec(),
}
