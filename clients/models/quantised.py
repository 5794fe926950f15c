"""Trackers with weights of eight bits: a quarter of the bytes, for nodes that are sent their student over the air.

Batch norms are folded into the convolutions before them. Every row of a weight, which belongs to one output, is kept as
integers -127 .. 127 and one scale; biases, gains and scales have sixteen bits. When it is loaded it computes in
float32, so it needs no kernels of its own; what is saved is storage and transfer, and the work of the batch norms.

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
    """A trained tracker as a small file.

    Args:
        tracker: made by `make_tracker`; it is not changed.
        model: its name there.
    """
    rows, floats = [], []
    for value in _folded(tracker).state_dict().values():
        if value.dim() < 2:
            floats.append(value.numpy().ravel())
            continue
        matrix = value.flatten(1).numpy()
        # Rounded first, so that integers are made with the scale that will be read.
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
    """The tracker in such a file, in evaluation mode; it cannot be trained on, for its batch norms are gone.

    Raises:
        ValueError: it is no such file, or a broken one.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            rows, floats = file["rows"], file["floats"].astype(np.float32)
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}, expected {FORMAT}")
        if rows.dtype != np.int8 or not np.isfinite(floats).all():
            raise ValueError("weights that are no bytes, or scales that are not finite")
        if about["alignment"] not in get_args(Alignment) or about["pixels"] not in PIXEL_SIDES:
            raise ValueError(f"alignment {about['alignment']!r}, pixels {about['pixels']!r}")
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
        raise ValueError(f"not a tracker of eight bits ({' '.join(str(error).split())}); send it again") from None
    return tracker


def _unpacked(shapes: dict[str, Tensor], rows: NDArray[np.int8], floats: NDArray[np.float32]) -> dict[str, Tensor]:
    matrices = [value for value in shapes.values() if value.dim() >= 2]
    wanted = (sum(value.numel() for value in matrices), sum(_num_floats(value) for value in shapes.values()))
    if (rows.shape, floats.shape) != ((wanted[0],), (wanted[1],)):
        raise ValueError(f"{rows.shape} and {floats.shape} numbers, expected {wanted[0]} and {wanted[1]}")
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
    """One scale for each row of a matrix, and every number of a vector."""
    return len(value) if value.dim() >= 2 else value.numel()


def _folded(tracker: StepTracker) -> StepTracker:
    """A copy in evaluation mode without batch norms."""
    folded = copy.deepcopy(tracker).cpu().eval()
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                convolution, norm = module[place], module[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place] = fuse_conv_bn_eval(convolution, norm)
                    module[place + 1] = nn.Identity()
    return folded
