"""What the folder of an exported model says about it, in ``model.json``.

L frames of a window, H horizons, B beams.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clients.data.modalities import MODALITIES

FORMAT = 1
FILE = "model.json"
# What the name of a file in ``files`` means. The graphs are ONNX; weights are of torch or safetensors.
WINDOW, STREAM, WINDOW_INT8, STREAM_INT8, WEIGHTS = "window", "stream", "window_int8", "stream_int8", "weights"


@dataclass(frozen=True)
class Input:
    """One sensor of a model.

    Attributes:
        modality: its name, a key of `clients.data.modalities.MODALITIES`.
        frame_shape: the shape of one frame, in raw units: what a recording holds.
        dtype: the type of its values.
        unit: their unit, with the order of colours, rows and columns.
        scales: for each tracker of the model, the ``mean`` and ``spread`` by which it scales its inputs; they are in
            the graph or the weights, so nobody needs to apply them. Empty where a model scales in a way of its own.
    """

    modality: str
    frame_shape: tuple[int, ...]
    dtype: str
    unit: str
    scales: tuple[Mapping[str, list[float]], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """An exported model.

    Attributes:
        name: the name of the client, or ``teacher``.
        kind: ``student``, ``mixture`` or ``teacher``.
        files: what a file is -> its name in the folder.
        inputs: the sensors.
        num_frames: L, the frames of a window, oldest first.
        horizons: the slots ahead that it answers for, from 0, which is the slot of the newest frame.
        labels: the name of each beam; the first counts as 0.
        tolerates_absence: whether it answers without some of its sensors.
        trackers: how each of its trackers is built, for torch.
        temperatures: the temperature that calibrates each of them.
        shares: the weight of each in the answer.
        metrics: its scores on the common test set, for each horizon.
        provenance: where it comes from.
        checks: what was measured when it was exported.
        opset: the version of ONNX's operators; None without a graph.
        licence: the licence of the model.
        sets: what its run guarantees of beam sets: ``within_db``, ``alpha``, ``thresholds``, one for each horizon, and
            ``stand_ins`` (`clients.serving.sweeping`).
    """

    name: str
    kind: str
    files: Mapping[str, str]
    inputs: tuple[Input, ...]
    num_frames: int
    horizons: tuple[int, ...]
    labels: tuple[str, ...]
    tolerates_absence: bool
    trackers: tuple[Mapping[str, Any], ...]
    temperatures: tuple[float, ...]
    shares: tuple[float, ...]
    metrics: Mapping[str, list[float]]
    provenance: Mapping[str, Any]
    checks: Mapping[str, Any] = field(default_factory=dict)
    opset: int | None = None
    licence: str = ""
    sets: tuple[Mapping[str, Any], ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The sensors by name."""
        return tuple(one.modality for one in self.inputs)

    @property
    def num_beams(self) -> int:
        """B, the number of beams."""
        return len(self.labels)

    def to_json(self) -> str:
        """The content of ``model.json``."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def input_of(modality: str, scales: tuple[Mapping[str, list[float]], ...] = ()) -> Input:
    """The input for a modality, as its recordings hold it."""
    row = MODALITIES[modality]
    return Input(modality, row.frame_shape, np.dtype(row.dtype).name, row.unit, scales)


def read_manifest(folder: Path) -> Manifest:
    """What the folder of an exported model says about it.

    Raises:
        ValueError: the folder holds no exported model, or one of another format.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text())
        if values.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        inputs = tuple(
            Input(**{**one, "frame_shape": tuple(one["frame_shape"]), "scales": tuple(one["scales"])})
            for one in values.pop("inputs")
        )
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        manifest = Manifest(**{**values, **lists}, inputs=inputs)
    except FileNotFoundError:
        raise ValueError(f"{path}: not found; name the folder of a model that softbeam export wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the file of an exported model ({error}); export it again") from None
    if unknown := [name for name in manifest.modalities if name not in MODALITIES]:
        raise ValueError(f"{path}: unknown modality {unknown[0]}; known are {', '.join(MODALITIES)}")
    return manifest
