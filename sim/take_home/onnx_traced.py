"""Models of a user's own as graphs of ONNX, written by torch's exporter: for whole windows only.

Nothing is known of the inside of such a model, so there is no stream; `clients.serving` keeps the frames of a window
instead. N windows, L frames of a window, M modalities.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from clients.data.modalities import MODALITIES
from clients.models.decider import Decider
from clients.models.own import OwnTracker
from clients.models.tracker import Windows
from sim.take_home.onnx_graph import IR_VERSION

# The lowest version that torch's exporter writes.
TRACED_OPSET = 18


class _Whole(nn.Module):
    """A decider that takes plain tensors: the frames (N, L, ...) of each modality in turn."""

    def __init__(self, decider: Decider) -> None:
        super().__init__()
        self.decider = decider

    def forward(self, *frames: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, B) logits and probabilities."""
        count, length = frames[0].shape[:2]
        rows = torch.arange(count * length).view(count, length)
        flat = {name: one.flatten(0, 1) for name, one in zip(self.decider.modalities, frames, strict=True)}
        logits = self.decider.joined([_logits(member, Windows(flat, rows)) for member in self.decider.members])
        return logits, torch.softmax(logits, dim=-1)


def _logits(member: nn.Module, windows: Windows) -> Tensor:
    """(N, H, B) logits of a tracker, without a length that torch's exporter would take for a constant."""
    if not isinstance(member, OwnTracker):
        found: Tensor = member(windows)
        return found
    raw: Tensor = member.model.classify(member.features(windows))  # type: ignore[operator]
    return raw.reshape(-1, member.task.num_horizons, member.task.num_classes)


def traced_window_graph(decider: Decider, notes: Mapping[str, str]) -> Any:
    """The model of ONNX for whole windows, of any decider; all its sensors must be there.

    Raises:
        ValueError: torch cannot export it, or its exporter is not installed.
    """
    if find_spec("onnxscript") is None:
        raise ValueError("onnxscript is not installed; install the extra with: pip install 'softbeam[export]'")
    names, length = decider.modalities, decider.task.num_frames
    frames = tuple(_zeros(name, length) for name in names)
    batch = torch.export.Dim("N", min=1, max=4096)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Whole(decider).eval(),
                frames,
                dynamo=True,
                input_names=list(names),
                output_names=["logits", "probs"],
                dynamic_shapes=(tuple({0: batch} for _ in names),),
                opset_version=TRACED_OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch has many kinds of errors for this
        reason = next((line for line in f"{error}".splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"{_kinds(decider)}: torch cannot write it as ONNX ({reason}); --format torch takes every model"
        ) from None
    finally:
        logging.disable(level)
    if program is None or not program.model_proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise ValueError(
            f"{_kinds(decider)}: torch takes the number of windows for a constant, so it has no graph; in "
            "the model write x.shape[0] or reshape(-1, ...) in place of len(x); --format torch takes every model"
        )
    model = onnx.load_from_string(program.model_proto.SerializeToString())
    model.ir_version = max(IR_VERSION, min(model.ir_version, 10))
    for node in model.graph.node:
        del node.metadata_props[:]  # where in the source each node comes from
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, dict(notes))
    return model


def _kinds(decider: Decider) -> str:
    return ", ".join(sorted({type(getattr(one, "model", one)).__name__ for one in decider.members}))


def _zeros(name: str, length: int) -> Tensor:
    row = MODALITIES[name]
    return torch.from_numpy(np.zeros((2, length, *row.frame_shape), row.dtype))
