"""Codecs that keep the most likely classes only. N samples, H horizons, C classes, K classes kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.codecs.dense import TOP_LEVEL, check_probabilities, checked_rows, relative_levels
from strategies.codecs.packing import pack_bits, pack_fields, unpack_bits, unpack_fields
from strategies.labels import normalise_rows

# The number of rows that are spread at once: what they need should fit into caches.
_BLOCK = 256
# The weight of each level of four bits.
_WEIGHTS = (np.arange(TOP_LEVEL + 1) / TOP_LEVEL) ** 2


@dataclass(frozen=True)
class TopCodec:
    """The K most likely classes, a float16 and a byte each; the rest is spread evenly over the other classes.

    Of more than 256 classes, each takes two bytes.

    The worst error of a kept class is 2^-12; that of another class is its distance from the mean of the other classes.

    Source: top-k sparsification of soft labels, as in FedTGD and the message formats of federated distillation surveys.

    Attributes:
        num_kept: the number K of kept classes, from 1 to C.
    """

    num_kept: int

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, H, 3 K) uint8: K little-endian float16, then K classes; (N, H, 4 K) where a class takes two bytes."""
        order = _most_likely(probs, self.num_kept)
        values = np.take_along_axis(probs, order, axis=-1).astype("<f2")
        classes = order.astype(_index_dtype(probs.shape[-1]))
        return np.concatenate([values.view(np.uint8), classes.view(np.uint8)], axis=-1)

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_classes: int) -> NDArray[np.float32]:
        """Put the kept classes in place and spread the rest."""
        kept, index = self.num_kept, _index_dtype(num_classes)
        size = kept * (2 + index.itemsize)
        rows = checked_rows(payload, np.dtype(np.uint8), (num_horizons, size)).astype(np.uint8)
        values = np.ascontiguousarray(rows[..., : 2 * kept]).view("<f2").astype(np.float32)
        check_probabilities(values)
        total = values.sum(axis=-1, dtype=np.float64)
        least = 1.0 - 2e-3 if kept == num_classes else 0.0
        if np.any(total > 1.0 + 2e-3) or np.any(total < least):
            raise ValueError("the kept probabilities of a row must not sum to more than one; did you send logits?")
        classes = np.ascontiguousarray(rows[..., 2 * kept :]).view(index).astype(np.int64)
        return _spread(values, classes, num_classes, np.maximum(1.0 - total, 0.0))


@dataclass(frozen=True)
class TopFourBitCodec:
    """The K most likely classes at four bits each, their indices in as few bits as possible, the rest spread evenly.

    Levels are those of `FourBitCodec`; a byte a row holds the square root of the probability of the rest, off by at
    most 1/510. With 8 of 64 classes a row takes 11 bytes, 23 times less than float32.

    Source: `TopCodec` and `FourBitCodec`.

    Attributes:
        num_kept: the number K of kept classes, from 1 to C.
    """

    num_kept: int

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, ceil(H (8 + K (bits + 4)) / 8)) uint8, with bits = ceil(log2 C)."""
        num_samples, num_horizons, num_classes = probs.shape
        order = _most_likely(probs, self.num_kept)
        values = np.take_along_axis(probs, order, axis=-1)
        rest = np.clip(1.0 - values.sum(axis=-1, dtype=np.float64), 0.0, 1.0)
        fields = [
            (np.rint(255.0 * np.sqrt(rest)).astype(np.int64)[..., None], 8),
            (relative_levels(values), 4),
            (order, _bits_for(num_classes)),
        ]
        return pack_fields(
            [(field.reshape(num_samples, num_horizons * field.shape[-1]), num_bits) for field, num_bits in fields]
        )

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_classes: int) -> NDArray[np.float32]:
        """Put the kept classes in place and spread the rest."""
        kept = self.num_kept
        layout = [(num_horizons, 8), (num_horizons * kept, 4), (num_horizons * kept, _bits_for(num_classes))]
        size = (sum(count * num_bits for count, num_bits in layout) + 7) // 8
        rows = checked_rows(payload, np.dtype(np.uint8), (size,)).astype(np.uint8)
        rest, levels, order = (
            field.reshape(len(rows), num_horizons, field.shape[1] // num_horizons)
            for field in unpack_fields(rows, layout)
        )
        if np.any(levels[..., :1] != TOP_LEVEL) or np.any(np.diff(levels, axis=-1) > 0):
            raise ValueError("levels of kept classes must start at the highest and never rise")
        rest_share = (rest[..., 0] / 255.0) ** 2
        if kept == num_classes and np.any(rest_share > 0):
            raise ValueError("all classes are kept, so no probability may be left for others")
        weights = _WEIGHTS[levels]
        values = weights / weights.sum(axis=-1, keepdims=True) * (1.0 - rest_share[..., None])
        return _spread(values, order, num_classes, rest_share)


@dataclass(frozen=True)
class ArgMaxCodec:
    """The most likely class alone, in as few bits as classes need: six for 64.

    The worst error is 1 - 1/C, for a flat row.

    Source: the one-bit soft labels of CFD, arXiv 2012.00632, which for one of C classes are log2 C bits.
    """

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """(N, ceil(H bits / 8)) uint8."""
        return pack_bits(probs.argmax(axis=-1), _bits_for(probs.shape[-1]))

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_classes: int) -> NDArray[np.float32]:
        """Give the class that was sent the whole probability."""
        num_bits = _bits_for(num_classes)
        rows = checked_rows(payload, np.dtype(np.uint8), ((num_horizons * num_bits + 7) // 8,)).astype(np.uint8)
        classes = unpack_bits(rows, num_bits, num_horizons)[..., None]
        return _spread(np.ones(classes.shape), classes, num_classes, np.zeros(classes.shape[:-1]))


def _index_dtype(num_classes: int) -> np.dtype[np.unsignedinteger]:
    """The type of a class of :class:`TopCodec`: a byte up to 256 classes, else two."""
    return np.dtype("<u1" if num_classes <= 256 else "<u2")


def _bits_for(num_classes: int) -> int:
    return max(1, (num_classes - 1).bit_length())


def _most_likely(probs: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """(N, H, count) classes by falling probability; ties go to the smaller class."""
    rows = -probs.reshape(-1, probs.shape[-1])
    # Sorting values alone is many times faster than sorting classes by them, and says which classes are in.
    last = np.sort(rows, axis=-1)[:, count - 1 : count]
    is_in = rows <= last
    if np.count_nonzero(is_in) == len(rows) * count and not np.any(np.isnan(last)):
        order = _by_rising(rows, is_in, count)
    else:
        # In some rows several classes have the last value, or some value is not a number.
        is_clear = is_in.sum(axis=-1) == count
        order = np.empty((len(rows), count), np.int64)
        order[is_clear] = _by_rising(rows[is_clear], is_in[is_clear], count)
        order[~is_clear] = np.argsort(rows[~is_clear], axis=-1, kind="stable")[:, :count]
    return order.reshape(*probs.shape[:-1], count)


def _by_rising(rows: NDArray[np.float32], is_in: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """(R, count) the classes of rows (R, C) that are in, by rising value; ties go to the smaller class."""
    places = np.flatnonzero(is_in)
    values = rows.reshape(-1)[places].reshape(len(rows), count)
    order = np.argsort(values, axis=-1, kind="stable") + count * np.arange(len(rows))[:, None]
    found: NDArray[np.int64] = (places % rows.shape[-1])[order]
    return found


def _spread(
    values: NDArray[np.floating], order: NDArray[np.int64], num_classes: int, rest: NDArray[np.floating]
) -> NDArray[np.float32]:
    """(N, H, C) rows with values at some classes and the rest spread evenly over the others."""
    if np.any(order >= num_classes):
        raise ValueError(f"classes must be below {num_classes}, got {order.max()}")
    num_kept = order.shape[-1]
    num_rows = order.size // num_kept
    places = order.reshape(num_rows, num_kept) + (np.arange(num_rows) * num_classes)[:, None]
    is_named = np.zeros(num_rows * num_classes, np.bool_)
    is_named[places] = True
    if np.count_nonzero(is_named) != order.size:
        raise ValueError("a row names a class twice")
    each = (rest / max(num_classes - num_kept, 1)).reshape(num_rows, 1)
    kept = values.reshape(num_rows, num_kept)
    found = np.empty((num_rows, num_classes), np.float32)
    block = np.empty((min(num_rows, _BLOCK), num_classes))
    for first in range(0, num_rows, _BLOCK):
        last = min(first + _BLOCK, num_rows)
        rows = block[: last - first]
        rows[:] = each[first:last]
        rows.reshape(-1)[places[first:last] - first * num_classes] = kept[first:last]
        found[first:last] = normalise_rows(rows)
    return found.reshape(*order.shape[:-1], num_classes)
