"""States of learners as files: tensors and plain values, with a checksum. Clients and the server use this form.

A client reads and writes its state in every message, so the form is flat: no archive, no pickle, one buffer.

    bytes 0-7     `MAGIC`
    bytes 8-11    CRC-32 of all that follows, little endian
    bytes 12-19   length of the description, little endian
    then          the description: JSON in UTF-8, which names type, shape and place of each tensor
    then          the tensors, each at a multiple of `ALIGNMENT` bytes from the first one, which begins at such a place

The description writes a mapping as a list of pairs, because keys may be numbers.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

BROKEN = ".broken"
"""The ending of the name of a state that could not be read and was set aside."""
SUFFIX = ".state"
"""The ending of the name of a state."""
MAGIC = b"SOFTBEAM"
# Vector instructions read fastest from such places.
ALIGNMENT = 64

_HEAD = struct.Struct("<8sIQ")
_CHECKED_FROM = 12
# The types of which numpy can make tensors in place, which takes a quarter of the time.
_OF_NUMPY = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}
_PLAIN = (bool, int, float, str, type(None))
_PLAIN_TYPES = frozenset(_PLAIN)


def pack_state(state: Mapping[str, Any]) -> bytes:
    """A state as the content of a file.

    Args:
        state: dense tensors and plain values (numbers, texts, bytes, None), nested in mappings, lists and tuples.

    Raises:
        TypeError: the state holds something else.
    """
    tensors: list[torch.Tensor] = []
    ends: list[int] = []
    description = json.dumps(_described(state, tensors, ends)).encode()
    parts: list[bytes | memoryview] = [struct.pack("<Q", len(description)), description]
    size = _HEAD.size + len(description)
    parts.append(bytes(-size % ALIGNMENT))
    written = 0
    for tensor, end in zip(tensors, ends, strict=True):
        content = _content(tensor)
        parts.append(content)
        if padding := end - written - content.nbytes:
            parts.append(bytes(padding))
        written = end
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([MAGIC, struct.pack("<I", checksum), *parts])


def _content(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor, in order."""
    tensor = tensor.detach()
    if tensor.dtype in _OF_NUMPY and tensor.is_cpu and tensor.numel() > 1 and tensor.is_contiguous():
        return tensor.numpy().data.cast("B")
    dense = tensor.cpu().contiguous()
    # One row of a broadcast tensor counts as contiguous, whatever its stride.
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy().data


def unpack_state(content: bytes | memoryview) -> dict[str, Any]:
    """The state in the content of a file that :func:`pack_state` made.

    Args:
        content: the content. Of bytes the tensors are copies. Of a view that may be written to they are parts, so
            nobody else may use it afterwards.

    Raises:
        ValueError: the content is not a state, or was damaged.
    """
    if len(content) < _HEAD.size or content[: len(MAGIC)] != MAGIC:
        raise ValueError("the content is not a state: it does not begin as one")
    _, checksum, length = _HEAD.unpack_from(content)
    if zlib.crc32(memoryview(content)[_CHECKED_FROM:]) != checksum:
        raise ValueError("the checksum does not fit")
    if isinstance(content, bytes):
        copy = room_for(len(content))
        copy[:] = content
        content = copy
    description = json.loads(bytes(content[_HEAD.size : _HEAD.size + length]))
    begin = _HEAD.size + length
    state = _restored(description, np.frombuffer(content, np.uint8)[begin + -begin % ALIGNMENT :])
    if not isinstance(state, dict):
        raise ValueError("the content is not a state, which is a mapping")
    return state


def room_for(num_bytes: int) -> memoryview:
    """Room for the content of a file, at a place from which vector instructions read fastest."""
    return torch.empty(num_bytes, dtype=torch.uint8).numpy().data


def _described(value: Any, tensors: list[torch.Tensor], ends: list[int]) -> Any:
    """A value as JSON takes it; its tensors are added to ``tensors``, and where each ends to ``ends``."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise TypeError("a state holds dense tensors only")
        begin = ends[-1] if ends else 0
        size = value.numel() * value.element_size()
        tensors.append(value)
        ends.append(begin + size + -size % ALIGNMENT)
        return {"tensor": [str(value.dtype).removeprefix("torch."), list(value.shape), begin]}
    if isinstance(value, (list, tuple)) and _PLAIN_TYPES.issuperset(map(type, value)):
        return {"tuple": value} if isinstance(value, tuple) else value
    if isinstance(value, Mapping):
        return {"mapping": [[_key(key), _described(part, tensors, ends)] for key, part in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_described(part, tensors, ends) for part in value]}
    if isinstance(value, list):
        return [_described(part, tensors, ends) for part in value]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    raise TypeError(f"a state holds tensors and plain values, not {type(value).__name__}")


def _key(key: Any) -> Any:
    if not isinstance(key, _PLAIN):
        raise TypeError(f"a mapping of a state has plain keys, not {type(key).__name__}")
    return key


def _restored(value: Any, body: NDArray[np.uint8]) -> Any:
    if isinstance(value, list):
        return [_restored(part, body) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "tensor":
        name, shape, begin = parts
        dtype = getattr(torch, name)
        if dtype in _OF_NUMPY and 0 not in shape:
            return torch.from_numpy(np.ndarray(shape, _OF_NUMPY[dtype], body, begin))
        part = body[begin : begin + math.prod(shape) * dtype.itemsize]
        return torch.from_numpy(part).view(dtype).view(shape)
    if kind == "bytes":
        return bytes.fromhex(parts)
    if kind == "tuple":
        return tuple(_restored(part, body) for part in parts)
    return {key: _restored(part, body) for key, part in parts}


def as_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Arrays as tensors, which a state may hold; they are copies."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def as_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """The tensors of a state as arrays."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}
