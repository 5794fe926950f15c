"""Reads one numeric array from a MATLAB 5 to 7 file, and refuses a damaged file with an error.

`scipy.io.loadmat` reads beyond the end of a damaged file, which ends the process and with it the conversion of
thousands of intact files. Cells, structures, text and sparse arrays are not read.

Source: MathWorks, "MAT-File Format" (levels 5 and 7; 7.3 is HDF5).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 128
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# This is much larger than any sensor's frame: a damaged length must not fill the memory.
MAX_BYTES = 1 << 28

_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32 = 14, 15, 1, 5, 6
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX_FLAG = 0x08


class _Element(NamedTuple):
    kind: int
    data: memoryview


def read_matlab_array(data: bytes, name: str) -> NDArray[np.generic]:
    """The array with a given name.

    Args:
        data: the content of the whole file.
        name: the name of the variable.

    Returns:
        Real or complex numbers in the shape that MATLAB shows.

    Raises:
        ValueError: there is no such array, the file is of another kind, or it is damaged.
    """
    # A MATLAB 7.3 file begins with 512 bytes of its own.
    if HDF5_MAGIC in (data[:8], data[512:520]):
        raise ValueError("MATLAB 7.3 (HDF5) is not read; save it again with save(..., '-v7')")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER_BYTES])
    if order is None:
        raise ValueError("the header of a MATLAB 5 to 7 file is missing")
    others = []
    for element in _elements(memoryview(data)[HEADER_BYTES:], order):
        inner = _unpacked(element, order) if element.kind == _COMPRESSED else element
        if inner.kind != _MATRIX:
            continue
        parts = list(_elements(inner.data, order))
        if [part.kind for part in parts[:3]] != [_UINT32, _INT32, _INT8]:
            raise ValueError("an array has no flags, shape and name")
        found = bytes(parts[2].data).decode("latin-1")
        if found == name:
            return _array(parts, order)
        others.append(found)
    raise ValueError(f"there is no array named {name!r} in it, only {', '.join(others) or 'nothing'}")


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """The tagged data elements, one after the other; an element that is not complete is an error."""
    start = 0
    while start < len(data):
        if start + 8 > len(data):
            raise ValueError("it is cut off within a tag")
        kind, size = struct.unpack_from(f"{order}II", data, start)
        if kind >> 16:  # This is the short form: eight bytes hold the length, the type and up to four bytes of data.
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, start + 4, 8
            if size > 4:
                raise ValueError("a short element claims more than four bytes")
        else:
            begin, step = start + 8, 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if begin + size > len(data):
            raise ValueError(f"it is cut off: {size} bytes are promised, {len(data) - begin} are there")
        yield _Element(kind, data[begin : begin + size])
        start += step


def _unpacked(element: _Element, order: str) -> _Element:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(element.data, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"its packed data cannot be unpacked ({error})") from None
    if not unpacker.eof:
        raise ValueError("it is cut off within packed data")
    first = next(_elements(memoryview(data), order), None)
    if first is None:
        raise ValueError("its packed data have no content")
    return first


def _array(parts: list[_Element], order: str) -> NDArray[np.generic]:
    flags, shape = _numbers(parts[0], order), tuple(int(n) for n in _numbers(parts[1], order))
    if len(flags) != 2 or min(shape, default=-1) < 0:
        raise ValueError("an array has no flags or no shape")
    word = int(flags[0])
    kind, is_complex = _CLASSES.get(word & 0xFF), bool(word >> 8 & _COMPLEX_FLAG)
    if kind is None:
        raise ValueError("the variable is no array of numbers")
    # MATLAB stores numbers in the smallest type that holds them; only in a damaged file do they not fit.
    with np.errstate(all="ignore"):
        values = [_numbers(part, order).astype(kind) for part in parts[3 : 5 if is_complex else 4]]
    count = int(np.prod(np.array(shape, object)))
    if len(values) != 1 + is_complex or any(len(value) != count for value in values):
        raise ValueError(f"an array of shape {shape} holds another number of values")
    flat = values[0]
    if is_complex:
        flat = np.empty(count, np.complex64 if kind == "f4" else np.complex128)
        flat.real, flat.imag = values
    return flat.reshape(shape, order="F")


def _numbers(part: _Element, order: str) -> NDArray[np.generic]:
    stored = _STORED.get(part.kind)
    if stored is None:
        raise ValueError(f"its numbers have the unknown type {part.kind}")
    dtype = np.dtype(order + stored)
    if len(part.data) % dtype.itemsize:
        raise ValueError("its numbers are cut off within one number")
    return np.frombuffer(part.data, dtype)
