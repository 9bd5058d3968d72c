"""An ONNX graph under construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

__all__ = ["Graph"]


class Graph:
    """A graph under construction: its nodes, and the arrays that they use.

    With `outer` it is the body of a loop: it has its own nodes, and shares the arrays of the graph around it.
    """

    def __init__(self, onnx: Any, dtype: str, outer: Optional[Graph] = None) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.nodes: list[Any] = []
        self.initializers: list[Any] = outer.initializers if outer else []
        self._names: dict[str, int] = outer._names if outer else {}

    def add(self, operator: str, *inputs: str, name: Optional[str] = None, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or the list of names of several."""
        name = name or self.fresh(operator.lower())
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def fresh(self, stem: str) -> str:
        """A name that is not used yet."""
        self._names[stem] = self._names.get(stem, 0) + 1
        return f"{stem}_{self._names[stem]}"

    def array(self, value: Any, name: Optional[str] = None, dtype: Optional[str] = None) -> str:
        """Add an array to the initializers, by default in the dtype of the network; returns its name."""
        name = name or self.fresh("constant")
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype or self.dtype), name))
        return name

    def value(self, each: Mapping[str, Any]) -> Any:
        """The description of an input or output."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(each["dtype"]))
        return self.onnx.helper.make_tensor_value_info(each["name"], kind, each["shape"])

    def parts(self, x: str, count: int) -> list[str]:
        """Equal parts along the first axis."""
        return [x] if count == 1 else self.add("Split", x, outputs=count, axis=0, num_outputs=count)

    def joined(self, parts: Sequence[str], axis: int = 0) -> str:
        """The inverse of `parts`."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=axis)
