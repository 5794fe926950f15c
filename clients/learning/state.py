"""States of learners as files: tensors and plain values, with a checksum. Clients and server keep theirs this way."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

BROKEN = ".broken"
"""Ends the name of a state that could not be read and was set aside."""


def pack_state(state: Mapping[str, Any]) -> bytes:
    """A state as the content of a file.

    It goes through a buffer, since torch answers a full disk with whatever its archive writer happens to raise.

    Args:
        state: tensors and plain values, nested in dictionaries and lists.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpack_state(content: bytes) -> dict[str, Any]:
    """The state that :func:`pack_state` made.

    Raises:
        ValueError: a part of it does not fit its checksum, or it is no state.
        Exception: whatever torch raises at the broken byte that it happens to hit.
    """
    # torch.load does not look at the checksums that torch.save wrote.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} does not fit")
    state = torch.load(io.BytesIO(content), weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("not a state")
    return state


def as_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Arrays as tensors of their own, which a state may hold."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def as_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors of a state as arrays."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}
