"""Length is not the caller's worry: one static graph per length, for the block that sees arrays.

A statically unrolled graph is the fast one, but good for a single T, and a symbol does not know its T. The outermost
block of a hybridized net sees arrays, so it does: it draws one graph for each length that comes, says that length to
the layers inside while it draws (`known_length`), and keeps the graphs used last. A layer inside somebody else's
hybridized net sees symbols alone; there `known_length` is None, and the loop operator takes over.

Without a gradient a long sequence is read in pieces, each from the states that the last one left, so that a graph need
not be longer than a piece. With a gradient `bptt` does the same inside of a layer; what it has no part in takes the
loop operator there.
"""

from __future__ import annotations

import inspect
import weakref
from collections import OrderedDict
from contextvars import ContextVar
from typing import Any, Optional

import mxnet as mx
from mxnet import autograd
from mxnet.gluon import Block, HybridBlock
from mxnet.gluon.parameter import ParameterDict
from mxnet.ndarray import NDArray

from .._util.types import Operators, Tensor
from .context import Target, drawn_for

__all__ = ["GRAPHS_KEPT", "PerLength", "known_length"]

GRAPHS_KEPT = 16
"""Graphs that a block keeps, one per length and `Target`; the one unused for longest goes first."""

STATIC_LIMIT = 16_000
"""Operators up to which a graph is drawn statically. MXNet plans a graph in more than linear time: 12,000 operators (8
Elman layers of 512 steps) take 1 s at the first call, 49,000 (8 LSTM layers) 17 s and 1.4 GB. Beyond, a gradient that
`bptt` has no part in takes the loop operator: as fast for the gated cells there, and planned in a second."""

PIECE = 8_000
"""Operators in a piece of a long sequence. 8 LSTM layers of 512 steps take 0.95 s by the loop operator, and in pieces
of 128, 64 and 32 steps 0.58, 0.51 and 0.52 s; the first call takes 1.2, 1.6, 1.0 and 0.8 s. Elman layers take the same
time whole and in pieces, and a third of it at the first call."""

BULK = {"forward_bulk_size": 1000, "backward_bulk_size": 1000}
"""Operators that the engine takes at once in training, unless `hybridize` is told otherwise.

By MXNet's own 15 a step of 64 units takes 7 % longer, one of 256 units 2 %."""

_length: ContextVar[Optional[int]] = ContextVar("length", default=None)


def known_length(inputs: Tensor, time_axis: int = 0) -> Optional[int]:
    """T of `inputs`: read off an array; for a symbol, what the block that draws the graph has said, or None."""
    return inputs.shape[time_axis] if isinstance(inputs, NDArray) else _length.get()


class _Graph(HybridBlock):
    """The graph of one block for one length (None: for any), which gluon draws, runs and exports like any other."""

    def __init__(self, block: PerLength, length: Optional[int], target: Target) -> None:
        super().__init__(prefix=block.prefix)
        self._target = target
        self._owner = weakref.ref(block)  # not a child: the block owns its graphs
        self._length = length

    @property
    def _block(self) -> PerLength:
        block = self._owner()
        if block is None:
            raise ReferenceError("the block of this graph is gone")
        return block

    def collect_params(self, select: Optional[str] = None) -> ParameterDict:
        return self._block.collect_params(select)

    def infer_shape(self, *args: Any) -> None:
        self._block.infer_shape(*args)

    def run(self, x: NDArray, states: Any, *more: Any) -> Any:
        """The call, once drawn: gluon's own looks through all arguments first, for as long as a small step takes."""
        given = [x, *states, *more]
        with x.context:
            y, *states = self._cached_op(*[given[i] if is_input else i.data() for is_input, i in self._cached_op_args])
        return y, states

    def hybrid_forward(self, F: Operators, *args: Any) -> Any:
        token = _length.set(self._length)
        try:
            with drawn_for(self._target):
                return self._block.forward(*args)
        finally:
            _length.reset(token)


class _Graphs:
    """The graphs used last. Not itself a dict: gluon takes a dict of blocks for children that were not registered."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[Any, _Graph] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: Any) -> Optional[_Graph]:
        if key in self._by_key:
            self._by_key.move_to_end(key)
        return self._by_key.get(key)

    def keep(self, key: Any, graph: _Graph) -> None:
        self._by_key[key] = graph
        if len(self) > GRAPHS_KEPT:
            self._drop(self._by_key.popitem(last=False)[1])

    def clear(self) -> None:
        while self._by_key:
            self._drop(self._by_key.popitem()[1])

    def _drop(self, graph: _Graph) -> None:
        # A gluon block is part of a circle, so that Python would free what it planned, megabytes, at some later time.
        graph._clear_cached_op()


class PerLength(HybridBlock):
    """A `HybridBlock` from ``(x, states, ...)`` to ``(y, states)`` that takes any length of x, hybridized or not."""

    _time_axis = 0
    """Of x, and of y where it is read in pieces."""
    _operators_per_step = 0
    """How many operators one more step adds to a static graph."""
    _by_hand = False
    """Whether `bptt` has the gradient of its layers, which takes a graph of few operators for any length."""
    _in_order = True
    """Whether the steps are read one after the other, so that the states say all that a later piece has to know."""
    _any_length = True
    """False for a block that is good for one length alone, and so needs no loop operator in somebody else's graph."""
    _one_length = ""
    """How to make it one, as the end of an error's sentence."""

    def __init__(self, **kwargs: Any) -> None:
        self._graphs = _Graphs()
        self._graph_flags: dict[str, Any] = {}
        self._example: Optional[tuple[Any, ...]] = None
        super().__init__(**kwargs)

    def forward(self, x: Tensor, states: Any, *more: Any) -> Any:
        if not (self._active and isinstance(x, NDArray)):
            return super().forward(x, states, *more)
        length, target = x.shape[self._time_axis], Target.of(x)
        operators = length * self._operators_per_step
        learning = target.training or autograd.is_training()
        if operators > PIECE and self._in_order and self._any_length and not learning:
            return self._read_in_pieces(target, x, states, length)
        static = operators <= STATIC_LIMIT or not self._any_length or (self._by_hand and target.by_hand)
        return self._run(length if static else None, target, x, states, *more)

    def _read_in_pieces(self, target: Target, x: NDArray, states: Any, length: int) -> Any:
        # A power of two: of whatever length, a sequence is some of the same piece and one that is shorter.
        steps = 1 << max(PIECE // self._operators_per_step, 1).bit_length() - 1
        outputs = []
        for begin in range(0, length, steps):
            end = min(begin + steps, length)
            piece = x.slice_axis(axis=self._time_axis, begin=begin, end=end)
            output, states = self._run(end - begin, target, piece, states)
            outputs.append(output)
        return mx.nd.concat(*outputs, dim=self._time_axis), states

    def _run(self, length: Optional[int], target: Target, x: NDArray, states: Any, *more: Any) -> Any:
        """Call the graph for this length (None: for any), drawn if there is none."""
        # A graph partitioned for a backend returns gradients of zero, silently: what is recorded gets a plain one.
        backend = None if target.training else self._backend
        key = (length, target, backend)
        graph = self._graphs.find(key)
        if graph is None:
            graph = self._draw(*key)
            self._graphs.keep(key, graph)
            self._example = _detached((x.detach().slice_axis(axis=self._time_axis, begin=0, end=1), states, *more))
            return graph(x, states, *more)
        return graph.run(x, states, *more)

    def _draw(self, length: Optional[int], target: Target, backend: Optional[str] = None) -> _Graph:
        graph = _Graph(self, length, target)
        options = {**BULK, **self._graph_flags, **(self._backend_opts if backend else {})}
        if length is None:
            options.pop("static_shape", None)  # the loop operator fails under it
        graph.hybridize(True, backend=backend, **options)
        if self._callback:
            graph.register_op_hook(self._callback, self._monitor_all)
        return graph

    def _clear_cached_op(self) -> None:
        super()._clear_cached_op()
        self._graphs.clear()

    def hybridize(self, active: bool = True, backend: Optional[str] = None, clear: bool = True, **flags: Any) -> None:
        """Gluon's `hybridize`.

        Raises
        ------
        ValueError
            Through a hybridized parent that is not one of this package's: with ``static_shape=True``, as the block
            needs MXNet's loop operator there, and that returns wrong results or fails under this flag; and in
            `optimize_for`, after which gradients are zero without a word.
        """
        parents = _hybridizing_parents() if active else []
        fault = None
        if parents and flags.get("static_shape") and self._any_length:
            fault = (
                "cannot take static_shape=True: its graph is for any length, and MXNet's loop operator fails under "
                f"it. Use static_alloc=True alone{self._one_length}"
            )
        elif parents and parents[0]._backend:
            fault = (
                "cannot be optimized for a backend: MXNet returns gradients of zero after it. For inference, export "
                "the net and call optimize_for on what SymbolBlock.imports returns"
            )
        if fault:
            parents[-1].hybridize(False)  # they have taken the flags already
            raise ValueError(f"{type(self).__name__} inside a hybridized {type(parents[0]).__name__} {fault}")
        known = ("static_alloc", "static_shape", "inline_limit", "forward_bulk_size", "backward_bulk_size")
        self._graph_flags = {name: flags[name] for name in known if name in flags}
        super().hybridize(active, backend, clear, **flags)

    def optimize_for(self, x: NDArray, *args: Any, backend: Optional[str] = None, **options: Any) -> None:
        """Gluon's `optimize_for`, for inference; what `autograd` records has a graph of its own, unpartitioned."""
        if not backend:
            raise ValueError("optimize_for needs the name of a backend, such as backend='MKLDNN'")
        options.pop("clear", None)
        self.hybridize(True, backend=backend, **options)
        self(x, *args)

    def register_op_hook(self, callback: Any, monitor_all: bool = False) -> None:
        super().register_op_hook(callback, monitor_all)
        self._graphs.clear()

    def export(self, path: str, epoch: int = 0, remove_amp_cast: bool = True) -> None:
        """Write ``path-symbol.json`` and ``path-0000.params`` for `SymbolBlock.imports`, good for any length.

        Inputs are called ``data0``, ``data1``, ...; outputs are the flat list of the output and the states.
        """
        if self._example is None:
            raise RuntimeError("call hybridize() and then the block itself once before export")
        graph = self._draw(None, Target())
        with autograd.pause():
            graph(*self._example)
        graph.export(path, epoch, remove_amp_cast)


def _hybridizing_parents() -> list[HybridBlock]:
    """The foreign blocks whose own `hybridize` has led to this one's, the nearest first.

    Gluon hands the call down to each child with the same flags and says nothing of the parent, so the frames are asked.
    """
    parents: list[HybridBlock] = []
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name in ("hybridize", "_hybridizing_parents"):
        if frame.f_code is Block.hybridize.__code__:
            parent = frame.f_locals["self"]
            if isinstance(parent, PerLength):
                break  # this package's own: it draws the graph, and has looked at its parents itself
            if isinstance(parent, HybridBlock):
                parents.append(parent)
        frame = frame.f_back
    return parents


def _detached(arguments: Any) -> Any:
    """The same arrays without the graph that they came from."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(map(_detached, arguments))
    return arguments.detach()
