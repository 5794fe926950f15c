"""A graph of ONNX while it is written: nodes with short names, and constants that are stored once.

The trackers of the federation are written node by node, because torch's own exporter takes half a minute for each and
turns the GRU into an operator whose results differ in the third decimal (docs/decisions/0054-models-leave-as-onnx.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    raise ValueError(
        "onnx is not installed, which exports need; install the extra with: pip install 'softbeam[export]'"
    ) from None

# Any runtime since 2022 has this version of the operators.
OPSET = 17
IR_VERSION = 8
Shape = Sequence[int | str]


class Graph:
    """A graph that grows by one node at a time; values are known by their names."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._arrays: list[Any] = []
        self._count = 0

    def input(self, name: str, dtype: np.dtype[Any], shape: Shape) -> str:
        """Declare an input; a word in the shape is a length that the caller chooses."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Shape) -> None:
        """Declare a float32 value as an output under a name of its own."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def constant(self, value: Tensor | NDArray[Any] | float | Sequence[int]) -> str:
        """A constant; lists of whole numbers become int64, and a plain number float32. Equal ones are stored once."""
        if isinstance(value, Tensor):
            array = value.detach().numpy()
        elif isinstance(value, float):
            array = np.array(value, np.float32)
        else:
            array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._name()
            self._arrays.append(numpy_helper.from_array(np.ascontiguousarray(array), self._constants[key]))
        return self._constants[key]

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; its name."""
        return self.nodes(operator, *inputs, outputs=1, **attributes)[0]

    def nodes(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs; their names."""
        names = [self._name() for _ in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=names[0], **attributes))
        return names

    def cast(self, value: str) -> str:
        """A value as float32."""
        return self.node("Cast", value, to=TensorProto.FLOAT)

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """A value in another shape; one length may be -1, and 0 stands for the length that is there."""
        return self.node("Reshape", value, self.constant(list(shape)))

    def slice(self, value: str, begin: int, end: int, *, axis: int) -> str:
        """The part of a value from ``begin`` up to ``end`` along an axis."""
        return self.node("Slice", value, *(self.constant([one]) for one in (begin, end, axis)))

    def model(self, *, notes: Mapping[str, str]) -> Any:
        """The whole as a model, which onnx has checked.

        Args:
            notes: key -> text that is stored in the file.
        """
        graph = helper.make_graph(self._nodes, "softbeam", self._inputs, self._outputs, self._arrays)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="softbeam", ir_version=IR_VERSION)
        helper.set_model_props(model, dict(notes))
        onnx.checker.check_model(model, full_check=True)
        return model

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"
