"""States of learners as files: tensors and plain values, with a checksum. Clients and the server use this form."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

BROKEN = ".broken"
"""The ending of the name of a state that could not be read and was set aside."""


def pack_state(state: Mapping[str, Any]) -> bytes:
    """A state as the content of a file.

    It is written to a buffer first, because torch has no single kind of error for a full disk.

    Args:
        state: tensors and plain values, nested in dictionaries and lists.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpack_state(content: bytes) -> dict[str, Any]:
    """The state in the content of a file that :func:`pack_state` made.

    Raises:
        ValueError: a part does not fit its checksum, or the content is not a state.
        Exception: torch raises many kinds of exception, depending on which byte is broken.
    """
    # torch.load does not look at the checksums that torch.save wrote.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} does not fit")
    state = torch.load(io.BytesIO(content), weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("the content is not a state, which is a dictionary")
    return state


def as_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Arrays as tensors, which a state may hold; they are copies."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def as_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """The tensors of a state as arrays."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}
