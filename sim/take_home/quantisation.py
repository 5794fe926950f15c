"""Graphs with weights and activations of eight bits, by onnxruntime's quantiser.

Products and convolutions take integers; what lies between them stays in float32. Ranges of activations are measured on
windows of the public set. A layer of a few weights stays as it is: positions in eight bits would lose metres, and
nothing would be saved. Nor are outputs rounded that no product takes, such as the logits.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Feeds = Sequence[dict[str, NDArray[Any]]]
OPERATORS = ["Conv", "MatMul", "Gemm"]
# A layer with at most so many weights stays in float32.
FEW_WEIGHTS = 512


def quantised(model: Any, feeds: Feeds) -> Any:
    """A graph in eight bits.

    Args:
        model: the graph in float32; it is not changed.
        feeds: inputs of the graph, of which the ranges of activations are measured.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[dict[str, NDArray[Any]]] = iter(feeds)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._left, None)

    # The quantiser moves the constants of the model that it is given into files.
    copy = onnx.load_from_string(model.SerializeToString())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        with _silence():
            quantize_static(
                copy,
                path,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=OPERATORS,
                nodes_to_exclude=_small_layers(model),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"OpTypesToExcludeOutputQuantization": OPERATORS, "QuantizeBias": False},
            )
        found = onnx.load(path)
    # Shapes of values in between can be computed again, and take as much as a layer.
    del found.graph.value_info[:]
    return found


def _small_layers(model: Any) -> list[str]:
    sizes = {one.name: int(np.prod(one.dims)) for one in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in OPERATORS and max(sizes.get(name, 0) for name in node.input) <= FEW_WEIGHTS
    ]


@contextmanager
def _silence() -> Iterator[None]:
    """The quantiser recommends, for every graph, what these graphs do not need."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
