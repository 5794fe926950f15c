"""From encoded rows to the bytes that travel, and back: bits, differences, entropy coding, ids. N samples.

Entropy coding is DEFLATE from the standard library, so that clients need no further package.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

LEVEL = 5
# No public set has more samples; their bitmap has half a megabyte, and their ids have 32 MB.
MAX_SAMPLES = 1 << 22


def pack_bits(values: NDArray[np.integer], num_bits: int) -> NDArray[np.uint8]:
    """Pack (N, M) integers below 2^num_bits into (N, ceil(M num_bits / 8)) bytes, highest bit first, then zeros."""
    num_samples, count = values.shape
    size, num_bytes = _group(num_bits)
    if not size:
        shifts = np.arange(num_bits - 1, -1, -1)
        bits = (values[..., None] >> shifts) & 1
        return np.packbits(bits.reshape(num_samples, count * num_bits).astype(np.uint8), axis=1)
    groups = -(-count // size)
    padded = values
    if count % size:
        padded = np.zeros((num_samples, groups * size), np.int64)
        padded[:, :count] = values
    words = np.zeros((num_samples, groups), np.uint64)
    for place in range(size):
        words <<= np.uint64(num_bits)
        words |= padded[:, place::size].astype(np.uint64)
    # The highest byte of a word comes first, and a group fills the last ones.
    packed = words.astype(">u8").view(np.uint8).reshape(num_samples, groups, 8)[..., 8 - num_bytes :]
    return packed.reshape(num_samples, groups * num_bytes)[:, : (count * num_bits + 7) // 8]


def unpack_bits(payload: NDArray[np.uint8], num_bits: int, count: int) -> NDArray[np.int64]:
    """The inverse of :func:`pack_bits`: (N, count) integers.

    Raises:
        ValueError: padding bits are set.
    """
    size, num_bytes = _group(num_bits)
    values: NDArray[np.int64]
    if not size:
        bits = np.unpackbits(payload, axis=1)
        if np.any(bits[:, count * num_bits :]):
            raise ValueError("padding bits must be zero")
        weights = 1 << np.arange(num_bits - 1, -1, -1)
        values = bits[:, : count * num_bits].reshape(len(payload), count, num_bits) @ weights
        return values
    groups = -(-payload.shape[1] // num_bytes)
    filled = np.zeros((len(payload), groups, 8), np.uint8)
    padded = payload
    if payload.shape[1] % num_bytes:
        padded = np.zeros((len(payload), groups * num_bytes), np.uint8)
        padded[:, : payload.shape[1]] = payload
    filled[..., 8 - num_bytes :] = padded.reshape(len(payload), groups, num_bytes)
    words = filled.reshape(len(payload), groups * 8).view(">u8").astype(np.int64)
    values = np.empty((len(payload), groups * size), np.int64)
    for place in range(size):
        values[:, place::size] = (words >> (size - 1 - place) * num_bits) & ((1 << num_bits) - 1)
    if np.any(values[:, count:]):
        raise ValueError("padding bits must be zero")
    return values[:, :count]


def _group(num_bits: int) -> tuple[int, int]:
    """The fewest integers of so many bits that fill whole bytes, and these bytes; (0, 0) where they exceed a word."""
    size = 8 // math.gcd(num_bits, 8)
    return (size, size * num_bits // 8) if size * num_bits < 64 else (0, 0)


def pack_fields(fields: list[tuple[NDArray[np.integer], int]]) -> NDArray[np.uint8]:
    """Pack the fields of each row one after the other into (N, bytes).

    Args:
        fields: for each field, its (N, M) integers and the number of bits of each integer.
    """
    parts = [pack_bits(values, num_bits) for values, num_bits in fields]
    if all(values.shape[1] * num_bits % 8 == 0 for values, num_bits in fields[:-1]):
        return np.concatenate(parts, axis=1)
    bits = [
        np.unpackbits(part, axis=1)[:, : values.shape[1] * num_bits]
        for part, (values, num_bits) in zip(parts, fields, strict=True)
    ]
    return np.packbits(np.concatenate(bits, axis=1), axis=1)


def unpack_fields(rows: NDArray[np.uint8], layout: list[tuple[int, int]]) -> list[NDArray[np.int64]]:
    """The inverse of :func:`pack_fields`.

    Args:
        rows: (N, bytes) packed rows.
        layout: for each field, the number of its integers in a row and the number of bits of each integer.

    Raises:
        ValueError: padding bits are set.
    """
    fields: list[NDArray[np.int64]] = []
    first = 0
    if all(count * num_bits % 8 == 0 for count, num_bits in layout[:-1]):
        for number, (count, num_bits) in enumerate(layout, 1):
            last = first + count * num_bits // 8 if number < len(layout) else rows.shape[1]
            fields.append(unpack_bits(np.ascontiguousarray(rows[:, first:last]), num_bits, count))
            first = last
        return fields
    bits = np.unpackbits(rows, axis=1)
    for count, num_bits in layout:
        last = first + count * num_bits
        fields.append(unpack_bits(np.packbits(bits[:, first:last], axis=1), num_bits, count))
        first = last
    if np.any(bits[:, first:]):
        raise ValueError("padding bits must be zero")
    return fields


def compress(payload: NDArray[np.generic], *, reference: NDArray[np.generic] | None = None) -> NDArray[np.uint8]:
    """(M,) entropy coded bytes of an array, or of its difference against another, byte by byte modulo 256.

    Args:
        payload: any plain array.
        reference: an array of the same shape and dtype, which both sides must have.
    """
    difference = _bytes(payload) - (0 if reference is None else _bytes(reference))
    return np.frombuffer(deflate(difference.astype(np.uint8).tobytes()), np.uint8)


def deflate(content: bytes) -> bytes:
    """The shorter of two zlib streams of some bytes: one with earlier bytes repeated, the other with runs only.

    Encoded soft labels hardly repeat themselves, so level 9 spent most of its time on a search that finds next to
    nothing. Level 5 is about as short while answers still change a lot, and runs of equal bytes are as short later,
    when differences are mostly zeros. An answer of 500 samples with the default codec, as a difference in rounds 2 and
    3, 4 and 5, 6 and 7 of a small quickstart, takes 99.7, 99.3 and 100.5 % of the bytes of level 9, and 1.1, 1.2 and
    0.9 CPU-ms in place of 1.3, 4.0 and 10.2 (docs/decisions/0068-two-cheap-streams.md, with other codecs and levels).

    Source: DEFLATE, RFC 1951, with the strategies of zlib (https://zlib.net/manual.html, deflateInit2).
    """
    runs = zlib.compressobj(LEVEL, strategy=zlib.Z_RLE)
    return min(zlib.compress(content, LEVEL), runs.compress(content) + runs.flush(), key=len)


def expand(
    data: NDArray[np.generic],
    shape: Sequence[int],
    dtype: DTypeLike,
    *,
    reference: NDArray[np.generic] | None = None,
) -> NDArray[np.generic]:
    """The inverse of :func:`compress`, which never makes more bytes than are expected.

    Raises:
        ValueError: the data is not what :func:`compress` makes of an array of that shape and dtype.
    """
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(f"entropy coded values must be uint8 (M,), got {data.dtype} {data.shape}")
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    decoder = zlib.decompressobj()
    try:
        raw = decoder.decompress(data.tobytes(), size + 1)
    except zlib.error as error:
        raise ValueError(f"entropy coded values are damaged ({error})") from None
    if len(raw) != size or not decoder.eof or decoder.unused_data:
        raise ValueError(f"entropy coded values must expand to {size} bytes")
    flat = np.frombuffer(raw, np.uint8)
    if reference is not None:
        flat = flat + _bytes(reference)
    array: NDArray[np.generic] = flat.view(dtype).reshape(shape)
    return array


def pack_ids(ids: NDArray[np.int64]) -> NDArray[np.generic]:
    """Sample ids as a bitmap (uint8) or as numbers (uint32), whichever is smaller.

    Args:
        ids: (N,) strictly increasing, below 2^32.
    """
    if len(ids) == 0:
        return np.empty(0, np.uint8)
    if ids[-1] // 8 + 1 >= 4 * len(ids):
        return ids.astype(np.uint32)
    bitmap = np.zeros(int(ids[-1]) + 1, np.uint8)
    bitmap[ids] = 1
    return np.packbits(bitmap)


def unpack_ids(packed: NDArray[np.generic], *, below: int = MAX_SAMPLES) -> NDArray[np.int64]:
    """The inverse of :func:`pack_ids`: (N,) strictly increasing.

    Args:
        packed: the ids as received.
        below: ids must be below this number, which also bounds the size of a bitmap before it is unpacked.

    Raises:
        ValueError: it is neither a bitmap nor strictly increasing numbers, or an id is not below ``below``.
    """
    if packed.ndim != 1 or packed.dtype not in (np.uint8, np.uint32):
        raise ValueError(f"ids must be uint32 (N,) or a bitmap, got {packed.dtype} {packed.shape}")
    if packed.dtype == np.uint32:
        ids: NDArray[np.int64] = packed.astype(np.int64)
        if np.any(np.diff(ids) <= 0):
            raise ValueError("sample ids must be strictly increasing")
        if len(ids) and ids[-1] >= below:
            raise ValueError(f"samples that were not asked for: ids must be below {below}, got {ids[-1]}")
        return ids
    if len(packed) > (below + 7) // 8:
        raise ValueError(
            f"samples that were not asked for: ids must be below {below}, and the bitmap has {8 * len(packed)}"
        )
    if len(packed) and packed[-1] == 0:
        raise ValueError("a bitmap of ids must end with the last id")
    found = np.flatnonzero(np.unpackbits(packed.astype(np.uint8)))
    if len(found) and found[-1] >= below:
        raise ValueError(f"samples that were not asked for: ids must be below {below}, got {found[-1]}")
    return found


def _bytes(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
