"""The recurrence as one operator in C++ (kernels/): how it is loaded, when it serves, how it is called.

On a CPU a layer of one of the built-in cells is one call of ``deeprnn_recurrence`` for all of its steps, forward and
backward, for any length, eager or in a graph. Where the library is missing, or this processor has neither AVX2 nor
AVX-512, the cells' own operators serve, with MXNet's gradient: the same numbers, slower. `status` says which, and why.

Environment: ``DEEPRNN_NATIVE=0`` switches the operator off, ``DEEPRNN_NATIVE=avx2`` (or ``avx512``) forces an
instruction set; threads are as many as ``OMP_NUM_THREADS`` says, or as this process may use, where that many help.

MXNet's private names that loading needs are used in this file alone.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from mxnet import autograd
from mxnet.base import _LIB, MXNetError, OpHandle, c_str, check_call
from mxnet.contrib.amp.lists import symbol_bf16, symbol_fp16
from mxnet.ndarray import NDArray
from mxnet.ndarray.register import _make_ndarray_function
from mxnet.symbol.register import _make_symbol_function

from .. import __version__
from .._util.types import Operators, Params, Tensor
from .cells import ElmanCell, GRUCell, LSTMCell, RecurrentCell
from .context import Trace, trace
from .operators import apart

__all__ = ["Status", "library", "recurrence", "serves", "set_instruction_set", "set_threads", "status", "switched"]

LIBRARY = Path(__file__).with_name("_kernels.so")
OPERATOR = "deeprnn_recurrence"
SWITCH = "DEEPRNN_NATIVE"
SUM_CAP, USES = "MXNET_EXEC_INPLACE_GRAD_SUM_CAP", 8
"""From so many uses on, or from as many as the variable says, MXNet adds the gradients of a tensor up in place. A stack
itself uses a tensor three times at most."""


@dataclass(frozen=True)
class Status:
    """Whether the operator serves.

    Attributes
    ----------
    available : bool
    reason : str
        Why not; empty where it does.
    instruction_set : str
        ``'avx2'`` or ``'avx512'``; empty where it does not serve.
    threads : int
        The most that one call takes; 0 where it does not serve.
    """

    available: bool
    reason: str = ""
    instruction_set: str = ""
    threads: int = 0

    def __str__(self) -> str:
        if not self.available:
            return f"native operator: not used, {self.reason}"
        return f"native operator: {self.instruction_set}, up to {self.threads} thread{'s'[: self.threads > 1]}"


class _Operator:
    """The loaded library and the functions that call its operator with arrays and with symbols."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise OSError("the library was not built (it needs a C++ compiler when the package is installed)")
        self.library = ctypes.CDLL(str(path))
        self.library.deeprnn_version.restype = ctypes.c_char_p
        self.library.deeprnn_instruction_set.restype = ctypes.c_char_p
        version = self.library.deeprnn_version().decode()
        if version != __version__:
            raise OSError(f"the library was built for version {version} of this package, not {__version__}")
        if not self.library.deeprnn_instruction_set():
            raise OSError("this processor has neither AVX2 with FMA nor AVX-512")
        forced = os.environ.get(SWITCH, "")
        if forced not in ("", "1"):
            self.set_instruction_set(forced)
        handle = OpHandle()
        try:  # a parent process, or another copy of this module, may have registered it: MXNet takes no second one
            check_call(_LIB.NNGetOpHandle(c_str(OPERATOR), ctypes.byref(handle)))
        except MXNetError:
            # mx.library.load makes the Python functions of every operator anew, for half a second.
            check_call(_LIB.MXLoadLib(c_str(str(path)), ctypes.c_uint(0)))
            check_call(_LIB.NNGetOpHandle(c_str(OPERATOR), ctypes.byref(handle)))
        self.with_arrays: Callable[..., Any] = _make_ndarray_function(handle, OPERATOR, OPERATOR)
        self.with_symbols: Callable[..., Any] = _make_symbol_function(handle, OPERATOR, OPERATOR)
        for narrow in (symbol_bf16, symbol_fp16):  # AMP hands an operator of no list whatever type comes
            if OPERATOR not in narrow.FP32_FUNCS:
                narrow.FP32_FUNCS.append(OPERATOR)

    def set_instruction_set(self, name: str) -> None:
        """Use that of this name, or the best one for an empty name."""
        if not self.library.deeprnn_set_instruction_set(name.encode()):
            raise OSError(f"instruction set {name!r} is not one that this processor has: avx2, avx512")


_lock = threading.Lock()
_operator: Optional[_Operator] = None
_reason: Optional[str] = None
_on = True


def _loaded() -> Optional[_Operator]:
    """The operator, loaded at the first call; None where it cannot serve, with the reason in `_reason`."""
    global _operator, _reason
    if _operator is None and _reason is None:
        with _lock:
            if _operator is None and _reason is None:
                if os.environ.get(SWITCH) == "0":
                    _reason = f"{SWITCH}=0 is set"
                else:
                    try:
                        _operator = _Operator(LIBRARY)
                    except (OSError, AttributeError, MXNetError) as error:  # it may lack a function
                        _reason = str(error).strip().splitlines()[0]
    return _operator


def status() -> Status:
    """Whether the operator serves the layers on a CPU, and if not, why."""
    operator = _loaded()
    if operator is None:
        return Status(False, _reason or "")
    if not _on:
        return Status(False, "it is switched off")
    library = operator.library
    return Status(True, "", library.deeprnn_instruction_set().decode(), library.deeprnn_threads())


@contextmanager
def switched(on: bool) -> Iterator[None]:
    """Layers traced or called inside use the operator, or do not; for comparing. Hybridized ones keep their graphs."""
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before


def set_threads(count: int) -> None:
    """The most threads that one call takes; 0 for as many as at first.

    Raises
    ------
    RuntimeError
        Where the operator does not serve.
    """
    _needed().library.deeprnn_set_threads(count)


def set_instruction_set(name: str) -> None:
    """``'avx2'``, ``'avx512'``, or ``''`` for the best one.

    Raises
    ------
    RuntimeError
        Where the operator does not serve.
    OSError
        Where this processor has not that one.
    """
    _needed().set_instruction_set(name)


def library() -> ctypes.CDLL:
    """The library, for functions that need nothing of MXNet.

    Raises
    ------
    RuntimeError
        Where the operator does not serve.
    """
    if not status().available:
        raise RuntimeError(str(status()))
    return _needed().library


def _needed() -> _Operator:
    operator = _loaded()
    if operator is None:
        raise RuntimeError(str(status()))
    return operator


def kernel_of(cell: RecurrentCell) -> Optional[dict[str, Any]]:
    """The operator's attributes for a cell that has a kernel, else None. This is the one list of those that do."""
    if cell.layer_norm or cell.dtype not in ("float32", "float64"):
        return None
    if type(cell) is ElmanCell:
        return {"cell": cell.activation, "hidden_size": cell.hidden_size}
    if type(cell) is GRUCell:
        return {"cell": "gru", "hidden_size": cell.hidden_size}
    if type(cell) is LSTMCell:
        attributes: dict[str, Any] = {"cell": "lstm", "hidden_size": cell.hidden_size}
        if cell.projection_size:
            attributes["projection_size"] = cell.projection_size
        if cell.clip is not None:
            low, high = cell.clip
            attributes.update(clip_min=repr(low), clip_max=repr(high), clip_nan=int(cell.clip_nan))
        return attributes
    return None


def serves(cell: RecurrentCell, current: Trace) -> bool:
    """Whether a layer of this cell is one call of the operator: on a CPU, in a graph that stays in this process."""
    if not _on or current.device != "cpu" or current.portable or kernel_of(cell) is None:
        return False
    return _loaded() is not None and not _on_a_gpu(cell)


def _on_a_gpu(cell: RecurrentCell) -> bool:
    """Whether the parameters are on a GPU: inside a foreign graph nothing else says so."""
    weight = cell.h2h_weight
    contexts = list(weight._data or ()) and weight.list_ctx()
    return any(context.device_type == "gpu" for context in contexts)


def recurrence(
    F: Operators,
    cell: RecurrentCell,
    params: Params,
    inputs: Tensor,
    states: list[Tensor],
    reverse: bool,
    sequence_length: Optional[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """`unroll.unroll` by the operator."""
    operator = _needed()
    attributes = kernel_of(cell) or {}
    arrays = isinstance(inputs, NDArray)
    recording = autograd.is_recording() if arrays else trace(inputs).training
    if recording:
        attributes["save"] = 1
    if reverse:
        attributes["reverse"] = 1
    if sequence_length is not None:
        attributes["lengths"] = 1
    names = ["i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias", "h2r_weight"]
    parameters = [params[name] for name in names if name in params]
    data = [inputs, *states, *([] if sequence_length is None else [sequence_length])]
    if recording:
        # MXNet does not hand an operator from a library the request, write or add: its gradients are always written.
        current = trace(inputs)
        if current.adds_to_parameters:
            parameters = [apart(F, x) if _is_variable(x) else x for x in parameters]
        if not arrays and int(os.environ.get(SUM_CAP) or USES) < USES:
            data = [apart(F, x) for x in data]
        elif current.adds_to_inputs:
            data = [apart(F, x) if _is_variable(x) else x for x in data]
    call = operator.with_arrays if arrays else operator.with_symbols
    outputs, *rest = call(data[0], *parameters, *data[1:], **attributes)
    return outputs, rest[: len(states)]


def _is_variable(x: Tensor) -> bool:
    """Whether the gradient of `x` goes straight to where it is kept. Those of an operator's result are added up."""
    return x.grad is not None if isinstance(x, NDArray) else x.get_children() is None
