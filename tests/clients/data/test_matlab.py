"""The reader of MATLAB arrays, against files that scipy writes, and against damage of every kind."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from clients.data.matlab import read_matlab_array

RNG = np.random.default_rng(0)
REAL = RNG.standard_normal((4, 3, 5))


def saved(content: dict[str, object], *, packed: bool = False) -> bytes:
    stream = io.BytesIO()
    savemat(stream, content, do_compression=packed)
    return stream.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        REAL,
        REAL.astype(np.float32),
        REAL + 1j * REAL[::-1],
        (REAL - 2j * REAL).astype(np.complex64),
        np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        np.array([[7]], np.uint8),
        np.zeros((0, 2)),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_an_array_comes_back_with_its_shape_and_numbers(array: NDArray[np.generic], packed: bool) -> None:
    found = read_matlab_array(saved({"before": "text", "data": array, "after": [1, 2]}, packed=packed), "data")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def element(kind: int, data: bytes, order: str) -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


@pytest.mark.parametrize(("order", "mark"), [("<", b"IM"), (">", b"MI")])
def test_whole_doubles_that_matlab_stores_as_bytes_are_read_in_either_byte_order(order: str, mark: bytes) -> None:
    flags = element(6, struct.pack(f"{order}II", 6, 0), order)  # class: double
    shape = element(5, struct.pack(f"{order}ii", 2, 3), order)
    short_name = struct.pack(f"{order}I", 4 << 16 | 1) + b"data"
    numbers = element(2, bytes([1, 2, 3, 4, 5, 6]), order)  # unsigned bytes, column by column
    matrix = element(14, flags + shape + short_name + numbers, order)
    found = read_matlab_array(bytes(126) + mark + matrix, "data")
    assert found.dtype == np.float64
    assert found.tolist() == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]


def test_the_other_names_are_listed_if_the_wanted_one_is_missing() -> None:
    with pytest.raises(ValueError, match="no array named 'data' in it, only radar, lidar"):
        read_matlab_array(saved({"radar": REAL, "lidar": REAL}), "data")


def test_what_is_no_array_of_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="no array of numbers"):
        read_matlab_array(saved({"data": {"field": 1}}), "data")


@pytest.mark.parametrize("packed", [False, True])
def test_no_damage_does_more_than_raise_a_value_error(packed: bool) -> None:
    whole = saved({"data": REAL.astype(np.complex64)}, packed=packed)
    refused = 0
    for size in range(len(whole)):
        with pytest.raises(ValueError, match=r"\w"):
            read_matlab_array(whole[:size], "data")
    for _ in range(2000):
        damaged = bytearray(whole)
        for place in RNG.integers(100, len(whole), 3):
            damaged[place] = RNG.integers(0, 256)
        try:
            read_matlab_array(bytes(damaged), "data")
        except ValueError:
            refused += 1
    assert refused > 200
