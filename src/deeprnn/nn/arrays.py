"""What a layer is called with: arrays or symbols, ``mx.nd`` or ``mx.np``, with states or without; and its checks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Optional, Union

import mxnet as mx
from mxnet.ndarray import NDArray
from mxnet.symbol import Symbol
from mxnet.util import is_np_shape

from .._util.checks import dtype_name
from .._util.types import Tensor
from .context import trace
from .operators import shaped_like

__all__ = ["DefaultStates", "Kind", "check_sequence_length", "checked_shape", "classic", "complete_states", "one_node"]


def checked_shape(layer: Any, inputs: NDArray) -> tuple[int, ...]:
    """The shape of the inputs of a recurrent layer; raises ValueError or TypeError if they do not fit the layer."""
    shape = inputs.shape  # each look at an array is a call into the library
    if len(shape) != 3:
        raise ValueError(f"inputs must have 3 axes, {layer.layout}, got shape {shape}")
    if 0 in shape:
        raise ValueError(f"inputs must hold at least one step, sequence and feature, got shape {shape}")
    dtype, came = layer.dtype, dtype_name(inputs.dtype)
    if came != dtype:
        raise TypeError(f"inputs must be {dtype}, as the layer is, got {came}; cast one of the two")
    if dtype == "float16" and inputs.ctx.device_type != "gpu":
        raise TypeError("float16 needs a GPU: MXNet has no float16 matrix product on the CPU; cast to float32")
    size = layer.input_size
    if size > 0 and size != shape[2]:  # 0, or -1 under np_shape: not known yet
        raise ValueError(f"inputs must have input_size {size} on their last axis, got shape {shape}")
    length = shape[layer.time_axis]
    if layer.unroll_length not in (None, length):
        raise ValueError(f"inputs must have unroll_length {layer.unroll_length} steps, got {length}")
    return shape


def check_sequence_length(layer: Any, inputs: Tensor, sequence_length: Optional[Tensor]) -> None:
    """Raise ValueError or TypeError for lengths that are missing, not expected, or of another kind or shape."""
    if layer.use_sequence_length != (sequence_length is not None):
        raise ValueError(
            "use_sequence_length=True needs a sequence_length with each call"
            if layer.use_sequence_length
            else "sequence_length needs a layer built with use_sequence_length=True"
        )
    if sequence_length is not None and type(sequence_length) is not type(inputs):
        raise TypeError(
            f"sequence_length must be a {type(inputs).__name__}, as inputs are, got {type(sequence_length).__name__}"
        )
    if isinstance(sequence_length, NDArray) and isinstance(inputs, NDArray):
        batch_size = inputs.shape[layer.batch_axis]
        if sequence_length.shape != (batch_size,):
            raise ValueError(f"sequence_length must have shape {(batch_size,)}, got {sequence_length.shape}")
        name = dtype_name(sequence_length.dtype)
        if name in ("float16", "bool"):
            raise TypeError(f"sequence_length must be whole numbers, float32 or float64, got {name}")


class DefaultStates(list[Tensor]):
    """The states of a call that gave none, and so gets none back."""


def complete_states(
    layer: Any, states: Union[Tensor, Sequence[Tensor], None], inputs: Tensor, batch_size: int
) -> list[Tensor]:
    """The states of a call as a list: those given, checked; zeros, as `DefaultStates`, where none are given.

    For symbols `batch_size` is 0, and shape inference completes it.

    Raises
    ------
    ValueError, TypeError
        For given states that differ from `state_info` in number, shape or dtype, or from the inputs in kind.
    """
    kind = type(inputs)
    if states is None:
        if isinstance(inputs, NDArray):
            states = layer.begin_state(batch_size, ctx=inputs.ctx)
        elif _needs_shapes(layer):
            states = _zeros_for(layer, inputs)
        else:
            # Left to the shape of the inputs: an unknown size is -1 where numpy's shapes are on, else 0.
            states = layer.begin_state(-1 if is_np_shape() else 0, func=mx.sym.zeros)
        return DefaultStates(Kind(inputs)(classic(state)) for state in states)
    states = [states] if isinstance(states, (NDArray, Symbol)) else list(states)
    expected = layer.state_info(batch_size)
    if len(states) != len(expected):
        raise ValueError(f"states must be {len(expected)} tensor(s), got {len(states)}")
    for i, (state, info) in enumerate(zip(states, expected)):
        if type(state) is not kind:
            raise TypeError(f"states[{i}] must be a {kind.__name__}, as inputs are, got {type(state).__name__}")
        if not isinstance(state, NDArray):
            continue
        if state.shape != info["shape"]:
            raise ValueError(f"states[{i}] must have shape {info['shape']}, got {state.shape}")
        if dtype_name(state.dtype) != info["dtype"]:
            raise TypeError(f"states[{i}] must be {info['dtype']}, got {dtype_name(state.dtype)}")
    if isinstance(inputs, Symbol) and _needs_shapes(layer):
        states = [
            # A constant, such as begin_state(func=F.zeros), has no batch size yet.
            state if state.list_arguments() else Kind(inputs)(shaped_like(mx.sym, classic(state), zeros))
            for state, zeros in zip(states, _zeros_for(layer, inputs))
        ]
    return states


def _needs_shapes(layer: Any) -> bool:
    """Whether states have to take their shape from the inputs: MXNet's own operators hand none back to them."""
    return hasattr(layer, "length_free") and not layer.length_free(trace())


def _zeros_for(layer: Any, inputs: Symbol) -> list[Symbol]:
    zeros = layer.begin_state(1, func=mx.sym.zeros)
    like, axes = classic(inputs), {"lhs_axes": (1,), "rhs_axes": (layer.batch_axis,)}
    return [mx.sym.broadcast_like(classic(state), like, **axes) for state in zeros]


def _is_np(x: Tensor) -> bool:
    """Whether an array or symbol is one of ``mx.np``."""
    return isinstance(x, (mx.np.ndarray, mx.sym.numpy._Symbol))


def classic(x: Tensor) -> Tensor:
    """The same as an ``mx.nd`` array or symbol: all formulas are written for those."""
    return x.as_nd_ndarray() if _is_np(x) else x


class Kind:
    """Results of the same kind as an input: ``mx.nd`` or ``mx.np``."""

    def __init__(self, like: Tensor) -> None:
        self._np = _is_np(like)

    def __call__(self, x: Tensor) -> Tensor:
        return x.as_np_ndarray() if self._np else x


def one_node(tensors: list[NDArray]) -> list[NDArray]:
    """The same values as the outputs of one operator, so that a backward pass from any of them frees them all.

    The book means to cut the gradient between batches, and calls `detach` but drops what that returns. With the
    built-in layer it does no harm: outputs and states are one operator's, which the first backward pass frees. States
    that this pass left behind would lead the second one into a graph that is gone.
    """
    as_given = Kind(tensors[0])
    return [as_given(result) for result in _copies(len(tensors))(*map(classic, tensors))]


@lru_cache(maxsize=16)
def _copies(count: int) -> mx.nd.CachedOp:
    """An operator from so many arrays to as many copies."""
    copies = mx.sym.Group([mx.sym.identity(mx.sym.var(f"x{i}")) for i in range(count)])
    return mx.nd.CachedOp(copies, [("inline_limit", 0)])  # inlined, they would be many again
