"""Types of `hybrid_forward`: its tensors are arrays in eager mode and symbols while a graph is traced."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Union

import mxnet as mx

Tensor = Union[mx.nd.NDArray, mx.sym.Symbol]
Params = Mapping[str, Tensor]
"""The parameters of one cell by their short names: ``i2h_weight``, ``h2h_weight``, ``i2h_bias``, ``h2h_bias``, ..."""
Operators = ModuleType
"""``mx.nd`` or ``mx.sym``: the `F` of `hybrid_forward`."""
