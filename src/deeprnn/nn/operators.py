"""How formulas are written in MXNet's operators.

Where the engine has several operators for one thing, the choice is made here, with its reason: which is the fast one,
which one is right, which one a CUDA graph allows. Cells, `unroll` and the stack read as formulas.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Optional

from mxnet.ndarray import NDArray

from .._util.types import Operators, Tensor
from .context import trace

__all__ = [
    "affine",
    "apart",
    "join",
    "masked",
    "shaped_like",
    "side_by_side",
    "sigmoid",
    "split",
    "split_gates",
    "tanh",
    "with_axes",
]


def affine(
    F: Operators, x: Tensor, weight: Tensor, bias: Optional[Tensor], num_hidden: int, frozen: bool = False
) -> Tensor:
    """``x @ weight.T + bias`` over the last axis. `FullyConnected` is the one product that runs in oneDNN.

    With a `frozen` weight the bias is added by itself: in float32 MXNet leaves its gradient unwritten where the weight
    asks for none.
    """
    if bias is not None and not frozen:
        return F.FullyConnected(x, weight, bias, num_hidden=num_hidden, flatten=False)
    product = F.FullyConnected(x, weight, num_hidden=num_hidden, no_bias=True, flatten=False)
    return product if bias is None else F.broadcast_add(product, bias)


def split_gates(F: Operators, x: Tensor, num_gates: int, size: int) -> list[Tensor]:
    """The gates, which are side by side on the last axis: ``(..., num_gates * size)`` to as many ``(..., size)``."""
    if trace(x).device == "gpu":  # F.split breaks the capture of a CUDA graph
        return [F.slice_axis(x, axis=-1, begin=i * size, end=(i + 1) * size) for i in range(num_gates)]
    # Split along a middle axis they are copied row by row, along the last one number by number: a third of the time.
    apart = F.reshape(x, shape=(-2, num_gates, -1, -4), reverse=True)  # the last axis into two, whatever comes before
    return list(F.split(apart, num_outputs=num_gates, axis=-2, squeeze_axis=True))


def sigmoid(F: Operators, x: Tensor) -> Tensor:
    """The logistic function, as oneDNN has it: a third of the time of ``F.sigmoid``."""
    return F.Activation(x, act_type="sigmoid")


def tanh(F: Operators, x: Tensor) -> Tensor:
    """The hyperbolic tangent, as oneDNN has it."""
    return F.Activation(x, act_type="tanh")


def split(F: Operators, x: Tensor, num_outputs: int) -> list[Tensor]:
    """The slices of `x` along its first axis."""
    if num_outputs == 1:
        slices = [x]
    elif trace(x).device == "gpu":  # F.split breaks the capture of a CUDA graph
        slices = [F.slice_axis(x, axis=0, begin=i, end=i + 1) for i in range(num_outputs)]
    else:
        return list(F.split(x, num_outputs=num_outputs, axis=0, squeeze_axis=True))
    return [F.reshape(part, shape=(-3, -2)) for part in slices]  # the first axis, of one, into the second: no copy


def join(F: Operators, parts: Sequence[Tensor]) -> Tensor:
    """The inverse of `split`."""
    return F.expand_dims(parts[0], axis=0) if len(parts) == 1 else F.stack(*parts, axis=0)


def masked(F: Operators, x: Tensor, sequence_length: Tensor) -> Tensor:
    """``(T, N, C)`` with zeros past each sequence's end."""
    return F.SequenceMask(x, sequence_length, use_sequence_length=True)


def side_by_side(F: Operators, parts: Sequence[Tensor]) -> Tensor:
    """Two of ``(T, N, H)`` to ``(T, N, 2H)``."""
    # Along the last axis F.concat copies number by number; along one before it F.stack copies row by row.
    return F.reshape(F.stack(*parts, axis=2), shape=(0, 0, -1))


_numbers = itertools.count()


def apart(F: Operators, x: Tensor) -> Tensor:
    """The same by an operator of MXNet's own, for an operator after it that cannot add its gradient to what is there.

    An operator from a library cannot, and `foreach` neither. MXNet asks for it where ``grad_req='add'``, and in a graph
    with static memory for a tensor that is used eight times or more. The number keeps it from making one of several
    operators that are alike, which then would be that tensor.
    """
    return F.identity(x) if isinstance(x, NDArray) else F.identity(x, attr=_numbered())


def _numbered() -> dict[str, str]:
    return {"__number__": str(next(_numbers))}


def with_axes(F: Operators, x: Tensor, axes: int) -> Tensor:
    """The same symbol, `apart` from all others, with its number of axes known to shape inference.

    MXNet sums up the axes of all inputs of an operator from a library, an unknown number as -1, and writes their sizes
    past the end of an array of that length. A call of a hybridized block has all shapes at hand when it infers; a
    symbol of the user's may not.
    """
    like = F._internal._zeros_without_dtype(shape=(-1,) * axes)  # unknown, with numpy's shapes and without
    return shaped_like(F, x, like)


def shaped_like(F: Operators, x: Tensor, like: Tensor) -> Tensor:
    """The same symbol, `apart` from all others, with the shape of `like` as far as one of the two knows it."""
    return F._internal._identity_with_attr_like_rhs(x, like, attr=_numbered())
