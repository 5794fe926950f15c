"""Trackers with weights of eight bits: a quarter of the bytes, for nodes that receive their student over the air.

Batch norms are folded into the convolutions before them. Every row of a weight, which belongs to one output, is stored
as integers -127 .. 127 and one scale; biases, gains and scales have sixteen bits. A loaded tracker computes in float32,
so it needs no kernels of its own; the form saves storage and transfer, and the work of the batch norms.

Source: symmetric quantisation per output channel, arXiv 1806.08342, section 3.
"""

from __future__ import annotations

import copy
import io
import json
import zipfile
import zlib
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from clients.models.registry import make_tracker
from clients.models.step_tracker import PIXEL_SIDES, Alignment, StepTracker
from configs.schema import Task

LARGEST = 127
FORMAT = 1


def encode_int8(tracker: StepTracker, model: str) -> bytes:
    """A trained tracker as the content of a small file.

    Args:
        tracker: a tracker that `make_tracker` made; it is not changed.
        model: the name by which `make_tracker` makes it.
    """
    rows, floats = [], []
    for value in _folded(tracker).state_dict().values():
        if value.dim() < 2:
            floats.append(value.numpy().ravel())
            continue
        matrix = value.flatten(1).numpy()
        # The scales are rounded first, so that the integers are made with the scale that will be read.
        scales = (np.abs(matrix).max(axis=1, keepdims=True) / LARGEST).astype(np.float16).astype(np.float32)
        scales = np.where(scales > 0, scales, 1.0)
        rows.append(np.clip(np.rint(matrix / scales), -LARGEST, LARGEST).astype(np.int8).ravel())
        floats.append(scales.ravel())
    about = {
        "format": FORMAT,
        "model": model,
        "task": tracker.task.model_dump(),
        "pixels": tracker.pixels,
        "alignment": tracker.alignment,
    }
    file = io.BytesIO()
    np.savez_compressed(
        file,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        rows=np.concatenate(rows),
        floats=np.concatenate(floats).astype(np.float16),
    )
    return file.getvalue()


def decode_int8(data: bytes) -> StepTracker:
    """The tracker in a file that :func:`encode_int8` made, in evaluation mode.

    It cannot be trained further, because its batch norms are gone.

    Raises:
        ValueError: the file has another form, or is broken.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            rows, floats = file["rows"], file["floats"].astype(np.float32)
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}, expected {FORMAT}")
        if rows.dtype != np.int8 or not np.isfinite(floats).all():
            raise ValueError("the weights are not int8, or the scales are not finite")
        if about["alignment"] not in get_args(Alignment) or about["pixels"] not in PIXEL_SIDES:
            raise ValueError(f"alignment {about['alignment']!r} or pixels {about['pixels']!r} is not known")
        fresh = make_tracker(
            about["model"],
            Task(**about["task"]),
            seed=0,
            pixels=int(about["pixels"]),
            alignment=about["alignment"],
        )
        tracker = _folded(fresh)
        tracker.load_state_dict(_unpacked(tracker.state_dict(), rows, floats))
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"the file is not a tracker of eight bits ({text}); send it again") from None
    return tracker


def _unpacked(shapes: dict[str, Tensor], rows: NDArray[np.int8], floats: NDArray[np.float32]) -> dict[str, Tensor]:
    matrices = [value for value in shapes.values() if value.dim() >= 2]
    wanted = (sum(value.numel() for value in matrices), sum(_num_floats(value) for value in shapes.values()))
    if (rows.shape, floats.shape) != ((wanted[0],), (wanted[1],)):
        raise ValueError(
            f"the file holds {rows.shape} integers and {floats.shape} floats, expected {wanted[0]} and {wanted[1]}"
        )
    state, row, place = {}, 0, 0
    for name, value in shapes.items():
        count = _num_floats(value)
        part = floats[place : place + count]
        place += count
        if value.dim() >= 2:
            part = rows[row : row + value.numel()].reshape(count, -1).astype(np.float32) * part[:, None]
            row += value.numel()
        state[name] = torch.from_numpy(np.ascontiguousarray(part)).reshape(value.shape)
    return state


def _num_floats(value: Tensor) -> int:
    """How many floats a value takes: one scale for each row of a matrix, or every number of a vector."""
    return len(value) if value.dim() >= 2 else value.numel()


def _folded(tracker: StepTracker) -> StepTracker:
    """A copy of a tracker in evaluation mode, without batch norms."""
    folded = copy.deepcopy(tracker).cpu().eval()
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                convolution, norm = module[place], module[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place] = fuse_conv_bn_eval(convolution, norm)
                    module[place + 1] = nn.Identity()
    return folded
