"""Weights in the form of safetensors: a header that says where each tensor lies, then the tensors.

Source: https://github.com/huggingface/safetensors, section "Format": eight bytes with the length of the header, the
header as JSON, padded with spaces, then the values, row by row, least byte first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 8
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}


def pack_tensors(members: Sequence[Mapping[str, Tensor]]) -> bytes:
    """The content of a file with the weights of several trackers; the names of each begin with its number and a dot.

    Raises:
        ValueError: a tensor has a type that this form is not written in here.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, place = [], 0
    for number, weights in enumerate(members):
        for name, value in sorted(weights.items()):
            array = value.detach().cpu().contiguous().numpy()
            kinds = [kind for kind, dtype in _DTYPES.items() if dtype == array.dtype]
            if not kinds:
                raise ValueError(f"{name}: {array.dtype} is not written to safetensors; choose --format torch")
            data = array.astype(_DTYPES[kinds[0]]).tobytes()
            span = [place, place + len(data)]
            header[f"{number}.{name}"] = {"dtype": kinds[0], "shape": list(array.shape), "data_offsets": span}
            parts.append(data)
            place += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def unpack_tensors(content: bytes) -> list[dict[str, Tensor]]:
    """The weights of the trackers in a file that :func:`pack_tensors` made.

    Raises:
        ValueError: the content is not of this form.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        body = memoryview(content)[8 + length :]
        members: dict[int, dict[str, Tensor]] = {}
        for key, about in header.items():
            number, _, name = key.partition(".")
            if not name:
                continue
            begin, end = about["data_offsets"]
            array = np.frombuffer(body[begin:end], _DTYPES[about["dtype"]]).reshape(about["shape"])
            members.setdefault(int(number), {})[name] = torch.from_numpy(array.copy())
        return [members[number] for number in sorted(members)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not weights in the form of safetensors ({error}); export the model again") from None
