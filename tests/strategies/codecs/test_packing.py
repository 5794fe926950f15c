"""Bits, bytes and ids come back as they were, and what nobody packed is refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.seeding import rng_for
from sim.bench.codec_cost import two_rounds
from strategies.codecs.packing import (
    compress,
    deflate,
    expand,
    pack_bits,
    pack_fields,
    pack_ids,
    unpack_bits,
    unpack_fields,
    unpack_ids,
)
from strategies.codecs.table import CODECS


@pytest.mark.parametrize("num_bits", range(1, 17))
@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_bits_are_packed_one_after_the_other(num_bits: int, count: int) -> None:
    values = rng_for(0, "bits", num_bits).integers(0, 2**num_bits, (5, count))
    texts = ["".join(f"{value:0{num_bits}b}" for value in row) for row in values]
    size = (count * num_bits + 7) // 8
    rows = [[int(text.ljust(8 * size, "0")[8 * at : 8 * at + 8], 2) for at in range(size)] for text in texts]
    np.testing.assert_array_equal(pack_bits(values, num_bits), np.array(rows, np.uint8).reshape(5, size))


@pytest.mark.parametrize("num_bits", range(1, 17))
@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_bits_come_back(num_bits: int, count: int) -> None:
    values = rng_for(0, "bits", num_bits).integers(0, 2**num_bits, (5, count))
    packed = pack_bits(values, num_bits)
    assert packed.shape == (5, (count * num_bits + 7) // 8)
    np.testing.assert_array_equal(unpack_bits(packed, num_bits, count), values)


def test_bits_by_hand() -> None:
    np.testing.assert_array_equal(pack_bits(np.array([[5, 63]]), 6), [[0b00010111, 0b11110000]])


def test_fields_come_back_and_set_padding_is_refused() -> None:
    fields = [(np.array([[3, 1]]), 2), (np.array([[9]]), 4)]
    packed = pack_fields(fields)
    np.testing.assert_array_equal(packed, [[0b11011001]])
    for field, (values, _) in zip(unpack_fields(packed, [(2, 2), (1, 4)]), fields, strict=True):
        np.testing.assert_array_equal(field, values)
    with pytest.raises(ValueError, match="padding"):
        unpack_fields(packed, [(2, 2), (1, 3)])


def arrays() -> list[NDArray[np.generic]]:
    rng = rng_for(0, "payloads")
    return [
        rng.integers(0, 256, (7, 11), dtype=np.uint8),
        rng.random((3, 2, 5)).astype(np.float16),
        np.empty((0, 4), np.uint8),
    ]


@pytest.mark.parametrize("index", range(3))
def test_entropy_coded_arrays_come_back_with_and_without_a_reference(index: int) -> None:
    array = arrays()[index]
    reference = np.roll(array, 1, axis=0)
    np.testing.assert_array_equal(expand(compress(array), array.shape, array.dtype), array)
    packed = compress(array, reference=reference)
    np.testing.assert_array_equal(expand(packed, array.shape, array.dtype, reference=reference), array)


def test_what_hardly_changed_takes_few_bytes_as_a_difference() -> None:
    rng = rng_for(0, "rounds")
    before = rng.integers(0, 256, (200, 44), dtype=np.uint8)
    now = before.copy()
    now[rng.integers(0, 200, 20), 3] += 1
    assert len(compress(now, reference=before)) < len(compress(now)) / 20


def test_repetitions_and_runs_are_both_found() -> None:
    drawn = rng_for(0, "repeated").integers(0, 256, 400, dtype=np.uint8).tobytes()
    assert len(deflate(20 * drawn)) < 2 * len(drawn)  # Runs alone would find nothing here.
    values = rng_for(0, "sparse").choice(np.array([0, 1, 255], np.uint8), 20_000, p=[0.9, 0.05, 0.05]).tobytes()
    assert len(deflate(values)) < len(zlib.compress(values, 5))
    assert zlib.decompress(deflate(values)) == values


@pytest.mark.parametrize("spec", CODECS)
def test_a_difference_takes_hardly_more_bytes_than_the_longest_search_finds(spec: str) -> None:
    before, now = (CODECS[spec].encode(probs) for probs in two_rounds(0, 400))
    difference = compress(now, reference=before)
    longest = zlib.compress(zlib.decompress(difference.tobytes()), 9)
    assert len(difference) < 1.03 * len(longest)


def test_what_was_packed_with_the_longest_search_is_read() -> None:
    array = arrays()[0]
    old = np.frombuffer(zlib.compress(array.tobytes(), 9), np.uint8)
    np.testing.assert_array_equal(expand(old, array.shape, array.dtype), array)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-3],
        lambda data: np.concatenate([data, data]),
        lambda data: np.zeros(30, np.uint8),
        lambda data: data.astype(np.uint16),
        lambda data: data[None],
        lambda data: np.empty(0, np.uint8),
        lambda data: compress(np.zeros((7, 12), np.uint8)),
        lambda data: np.frombuffer(zlib.compress(bytes(10**8)), np.uint8),
    ],
    ids=["cut", "twice", "zeros", "dtype", "shape", "empty", "more", "bomb"],
)
def test_damaged_values_are_refused(damage: object) -> None:
    data = compress(arrays()[0])
    with pytest.raises(ValueError, match="entropy coded values"):
        expand(damage(data), (7, 11), np.uint8)  # type: ignore[operator]


@pytest.mark.parametrize(
    "ids", [[], [0], [7], [8], [100_000], list(range(50)), [0, 3, 5, 900], list(range(0, 400, 40))]
)
def test_ids_come_back_in_the_smaller_of_both_forms(ids: list[int]) -> None:
    packed = pack_ids(np.array(ids, np.int64))
    np.testing.assert_array_equal(unpack_ids(packed), ids)
    bitmap = ids[-1] // 8 + 1 if ids else 0
    assert packed.nbytes == min(4 * len(ids), bitmap)


@pytest.mark.parametrize(
    "packed",
    [
        np.array([3, 1], np.uint32),
        np.array([1, 1], np.uint32),
        np.array([1], np.int64),
        np.array([[1]], np.uint32),
        np.array([0.5], np.float32),
        np.array([1, 0], np.uint8),
        np.array([[1]], np.uint8),
    ],
    ids=["unsorted", "repeated", "int64", "two axes", "fractions", "trailing zeros", "two axes of bits"],
)
def test_malformed_ids_are_refused(packed: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError):
        unpack_ids(packed)
