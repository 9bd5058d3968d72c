"""The tracing context: what a graph is traced for.

A symbol knows neither its device, nor its length, nor whether a gradient will be asked of it. The block that sees
arrays knows all three and sets them while it traces (`tracing`); cells and `unroll` ask (`trace`) where one formula has
several forms. All forms give the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Optional

from mxnet import Context, autograd
from mxnet.gluon import Parameter
from mxnet.ndarray import NDArray

from .._util.checks import check_choice
from .._util.types import Tensor

__all__ = ["DEVICES", "Trace", "in_a_foreign_graph", "may_be_frozen", "trace", "traced_here", "tracing"]

DEVICES = ("cpu", "gpu")


@dataclass(frozen=True)
class Trace:
    """What a graph is traced for. The defaults are right inside a block that sets no context.

    Parameters
    ----------
    device : {'cpu', 'gpu'}
    training : bool
        Whether a gradient may be asked of the graph.
    portable : bool
        Whether the graph has to hold MXNet's own operators alone, as an exported one does.
    adds_to_parameters, adds_to_inputs : bool
        Whether the gradient of a parameter, or of the inputs and states, may have to be added to what is there
        (``grad_req='add'``).
    frozen : tuple of bool
        Which parameters ask for no gradient, where one is asked for at all.
    length : int, optional
        The number of steps, where the graph is for one length.

    Raises
    ------
    ValueError
        For another device.
    """

    device: str = "cpu"
    training: bool = True
    portable: bool = False
    adds_to_parameters: bool = True
    adds_to_inputs: bool = True
    frozen: tuple[bool, ...] = ()
    length: Optional[int] = None

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)

    @classmethod
    def of(
        cls,
        ctx: Context,
        adds_to_parameters: bool = False,
        adds_to_inputs: bool = False,
        frozen: tuple[bool, ...] = (),
    ) -> Trace:
        """The trace of a call on this device, now, for any length."""
        return _of_call(ctx.device_type == "gpu", autograd.is_recording(), adds_to_parameters, adds_to_inputs, frozen)

    def for_length(self, length: int) -> Trace:
        """The same for one length."""
        return replace(self, length=length)


@lru_cache(maxsize=128)
def _of_call(
    gpu: bool, training: bool, adds_to_parameters: bool, adds_to_inputs: bool, frozen: tuple[bool, ...]
) -> Trace:
    return Trace("gpu" if gpu else "cpu", training, False, adds_to_parameters, adds_to_inputs, frozen)


_trace: ContextVar[Optional[Trace]] = ContextVar("trace", default=None)


def trace(*inputs: object) -> Trace:
    """The trace that is being made; without one, what `inputs` say if the first is an array, else the defaults."""
    current = _trace.get()
    if current is not None:
        return current
    return Trace.of(inputs[0].ctx, True, True) if inputs and isinstance(inputs[0], NDArray) else Trace()


def traced_here() -> bool:
    """Whether a block of this package traces the graph, and not somebody else's around it."""
    return _trace.get() is not None


def in_a_foreign_graph(x: object) -> bool:
    """Whether `x` is a symbol of somebody else's graph: of a hybridized block around ours, or of an executor."""
    return not isinstance(x, NDArray) and not traced_here()


def may_be_frozen(parameter: Parameter, x: Tensor) -> bool:
    """Whether a parameter that is used with `x` asks for no gradient, or may ask for none in a later call.

    A block of this package traces a new graph when another set of parameters is frozen; somebody else's block keeps the
    graph that it has.
    """
    return parameter.grad_req == "null" or in_a_foreign_graph(x)


@contextmanager
def tracing(current: Trace) -> Iterator[None]:
    """Graphs traced inside are for `current`."""
    token = _trace.set(current)
    try:
        yield
    finally:
        _trace.reset(token)
