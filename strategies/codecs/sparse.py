"""Codecs that keep the most likely beams only. N samples, H horizons, B beams, K beams kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.codecs.dense import TOP_LEVEL, check_probabilities, checked_rows, relative_levels
from strategies.codecs.packing import pack_bits, pack_fields, unpack_bits, unpack_fields
from strategies.labels import normalise_rows


@dataclass(frozen=True)
class TopCodec:
    """The K most likely beams, a float16 and a byte each; the rest is spread evenly over the other beams.

    The worst error of a kept beam is 2^-12; that of another beam is its distance from the mean of the other beams.

    Source: top-k sparsification of soft labels, as in FedTGD and the message formats of federated distillation surveys.

    Attributes:
        num_kept: the number K of kept beams, from 1 to B.
    """

    num_kept: int

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, H, 3 K) uint8: K little-endian float16, then K beams; three bytes a kept beam."""
        order = _most_likely(probs, self.num_kept)
        values = np.take_along_axis(probs, order, axis=-1).astype("<f2")
        return np.concatenate([values.view(np.uint8), order.astype(np.uint8)], axis=-1)

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_beams: int) -> NDArray[np.float32]:
        """Put the kept beams in place and spread the rest."""
        kept = self.num_kept
        rows = checked_rows(payload, np.dtype(np.uint8), (num_horizons, 3 * kept)).astype(np.uint8)
        values = np.ascontiguousarray(rows[..., : 2 * kept]).view("<f2").astype(np.float32)
        check_probabilities(values)
        total = values.sum(axis=-1, dtype=np.float64)
        least = 1.0 - 2e-3 if kept == num_beams else 0.0
        if np.any(total > 1.0 + 2e-3) or np.any(total < least):
            raise ValueError("the kept probabilities of a row must not sum to more than one; did you send logits?")
        return _spread(values, rows[..., 2 * kept :].astype(np.int64), num_beams, np.maximum(1.0 - total, 0.0))


@dataclass(frozen=True)
class TopFourBitCodec:
    """The K most likely beams at four bits each, their indices in as few bits as possible, the rest spread evenly.

    Levels are those of `FourBitCodec`; a byte a row holds the square root of the probability of the rest, off by at
    most 1/510. With 8 of 64 beams a row takes 11 bytes, 23 times less than float32.

    Source: `TopCodec` and `FourBitCodec`.

    Attributes:
        num_kept: the number K of kept beams, from 1 to B.
    """

    num_kept: int

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, ceil(H (8 + K (bits + 4)) / 8)) uint8, with bits = ceil(log2 B)."""
        num_samples, num_horizons, num_beams = probs.shape
        order = _most_likely(probs, self.num_kept)
        values = np.take_along_axis(probs, order, axis=-1)
        rest = np.clip(1.0 - values.sum(axis=-1, dtype=np.float64), 0.0, 1.0)
        fields = [
            (np.rint(255.0 * np.sqrt(rest)).astype(np.int64)[..., None], 8),
            (relative_levels(values), 4),
            (order, _bits_for(num_beams)),
        ]
        return pack_fields(
            [(field.reshape(num_samples, num_horizons * field.shape[-1]), num_bits) for field, num_bits in fields]
        )

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_beams: int) -> NDArray[np.float32]:
        """Put the kept beams in place and spread the rest."""
        kept = self.num_kept
        layout = [(num_horizons, 8), (num_horizons * kept, 4), (num_horizons * kept, _bits_for(num_beams))]
        size = (sum(count * num_bits for count, num_bits in layout) + 7) // 8
        rows = checked_rows(payload, np.dtype(np.uint8), (size,)).astype(np.uint8)
        rest, levels, order = (
            field.reshape(len(rows), num_horizons, field.shape[1] // num_horizons)
            for field in unpack_fields(rows, layout)
        )
        if np.any(levels[..., :1] != TOP_LEVEL) or np.any(np.diff(levels, axis=-1) > 0):
            raise ValueError("levels of kept beams must start at the highest and never rise")
        rest_share = (rest[..., 0] / 255.0) ** 2
        if kept == num_beams and np.any(rest_share > 0):
            raise ValueError("all beams are kept, so no probability may be left for others")
        weights = (levels / TOP_LEVEL) ** 2
        values = weights / weights.sum(axis=-1, keepdims=True) * (1.0 - rest_share[..., None])
        return _spread(values, order, num_beams, rest_share)


@dataclass(frozen=True)
class ArgMaxCodec:
    """The most likely beam alone, in as few bits as beams need: six for 64.

    The worst error is 1 - 1/B, for a flat row.

    Source: the one-bit soft labels of CFD, arXiv 2012.00632, which for one of B beams are log2 B bits.
    """

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, ceil(H bits / 8)) uint8."""
        return pack_bits(probs.argmax(axis=-1), _bits_for(probs.shape[-1]))

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_beams: int) -> NDArray[np.float32]:
        """Give the beam that was sent the whole probability."""
        num_bits = _bits_for(num_beams)
        rows = checked_rows(payload, np.dtype(np.uint8), ((num_horizons * num_bits + 7) // 8,)).astype(np.uint8)
        beams = unpack_bits(rows, num_bits, num_horizons)[..., None]
        return _spread(np.ones(beams.shape), beams, num_beams, np.zeros(beams.shape[:-1]))


def _bits_for(num_beams: int) -> int:
    return max(1, (num_beams - 1).bit_length())


def _most_likely(probs: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """(N, H, count) beams by falling probability; ties go to the smaller beam."""
    order: NDArray[np.int64] = np.argsort(-probs, axis=-1, kind="stable")[..., :count]
    return order


def _spread(
    values: NDArray[np.floating], order: NDArray[np.int64], num_beams: int, rest: NDArray[np.floating]
) -> NDArray[np.float32]:
    """(N, H, B) rows with values at some beams and the rest spread evenly over the others."""
    if np.any(order >= num_beams):
        raise ValueError(f"beams must be below {num_beams}, got {order.max()}")
    if np.any(np.diff(np.sort(order, axis=-1), axis=-1) == 0):
        raise ValueError("a row names a beam twice")
    num_others = max(num_beams - order.shape[-1], 1)
    rows = np.repeat((rest / num_others)[..., None], num_beams, axis=-1).astype(np.float64)
    np.put_along_axis(rows, order, values.astype(np.float64), axis=-1)
    return normalise_rows(rows)
