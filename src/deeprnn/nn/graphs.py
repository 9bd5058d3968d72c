"""Length is not the caller's worry: which graph a hybridized block runs.

Where the native operator serves, one graph is good for any length. Where it does not, a static graph is good for a
single T, and a symbol does not know its T. The outermost block of a hybridized net sees arrays, so it does: it traces
one graph for each length, sets that length for the layers inside while it traces, and keeps the graphs used last. A
layer inside somebody else's hybridized net sees symbols alone, and takes MXNet's loop operator there.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Callable, Optional

import numpy as np
from mxnet import Context, autograd
from mxnet.gluon import Block, HybridBlock, Parameter
from mxnet.gluon.block import _regroup
from mxnet.gluon.parameter import ParameterDict
from mxnet.ndarray import NDArray

from .._util.types import Tensor
from .arrays import Kind, classic
from .context import Trace, trace, traced_here, tracing

__all__ = ["GRAPHS_KEPT", "AnyLength", "known_length", "portable"]

GRAPHS_KEPT = 16
"""Graphs that a block keeps; the one unused for longest goes first."""

STATIC_LIMIT = 16_000
"""Operators up to which a graph is unrolled statically. MXNet plans a graph in more than linear time: 12,000 operators
(8 Elman layers of 512 steps) take 1 s at the first call, 49,000 (8 LSTM layers) 17 s and 1.4 GB. Beyond, the loop
operator is as fast for the gated cells, and planned in a second."""

BULK = {"forward_bulk_size": 1000, "backward_bulk_size": 1000}
"""Operators that the engine takes at once in training, unless `hybridize` is given others.

By MXNet's own 15 a step of 64 units takes 7 % longer, one of 256 units 2 %."""


def known_length(inputs: Tensor, time_axis: int = 0) -> Optional[int]:
    """T of `inputs`: read off an array; for a symbol, that of the trace, or None."""
    return inputs.shape[time_axis] if isinstance(inputs, NDArray) else trace().length


class _Graph(HybridBlock):
    """The graph of one block for one `Trace`, which gluon traces, runs and exports like any other."""

    def __init__(self, block: AnyLength, current: Trace) -> None:
        super().__init__(prefix=block.prefix)
        self._trace = current
        self._owner = weakref.ref(block)  # not a child: the block owns its graphs

    @property
    def _block(self) -> AnyLength:
        block = self._owner()
        if block is None:
            raise ReferenceError("the block of this graph is gone")
        return block

    def collect_params(self, select: Optional[str] = None) -> ParameterDict:
        return self._block.collect_params(select)

    def infer_shape(self, *args: Any) -> None:
        self._block.infer_shape(*args)

    def run(self, ctx: Context, x: NDArray, states: Any, *more: Any) -> Any:
        """The call, once traced: gluon's own looks through all arguments first, for as long as a small step takes."""
        call = self._cached_op
        if call is None:  # another thread has called with many lengths meanwhile
            return self._block(x, states, *more)
        given = [x, *states, *more]
        y, *states = call(*[given[i] if is_input else i.data(ctx) for is_input, i in self._cached_op_args])
        return y, states

    def hybrid_forward(self, F: Any, *args: Any) -> Any:
        with tracing(self._trace):
            return self._block.forward(*args)


class _Graphs:
    """The graphs used last, and the lock under which they are made.

    Not itself a dict: gluon takes a dict of blocks for children that were not registered. A copy of a block starts
    without graphs.
    """

    def __init__(self) -> None:
        self._by_key: OrderedDict[Any, _Graph] = OrderedDict()
        self.lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._by_key)

    def __reduce__(self) -> Any:
        return _Graphs, ()

    def find(self, key: Any) -> Optional[_Graph]:
        graph = self._by_key.get(key)
        if graph is not None and len(self._by_key) > 1:
            with self.lock:
                if key in self._by_key:
                    self._by_key.move_to_end(key)
        return graph

    def keep(self, key: Any, graph: _Graph) -> None:
        self._by_key[key] = graph
        if len(self) > GRAPHS_KEPT:
            self._drop(self._by_key.popitem(last=False)[1])

    def clear(self) -> None:
        with self.lock:
            while self._by_key:
                self._drop(self._by_key.popitem()[1])

    def _drop(self, graph: _Graph) -> None:
        # A gluon block is part of a circle, so that Python would free what it planned, megabytes, at some later time.
        graph._clear_cached_op()


class AnyLength(HybridBlock):
    """A `HybridBlock` from ``(x, states, ...)`` to ``(y, states)`` that takes any length of x, hybridized or not."""

    time_axis = 0
    """Of x."""
    unroll_length: Optional[int] = None
    """The one length that the block is for, if it is."""

    def __init__(self, **kwargs: Any) -> None:
        self._graphs = _Graphs()
        self._graph_flags: dict[str, Any] = {}
        self._example: Optional[tuple[Any, ...]] = None
        super().__init__(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # For copy and pickle. A name scope remembers the one around it, which may be that of a graph.
        self.apply(lambda block: setattr(block._scope, "_old_scope", None))
        return {**self.__dict__, "_cached_graph": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # MXNet copies a gradient, but not that it is the gradient of the array beside it.
        self.__dict__.update(state)
        for parameter in _parameters(self):
            if parameter._grad is not None:
                autograd.mark_variables(parameter.list_data(), parameter.list_grad(), parameter.grad_req)

    def length_free(self, current: Trace) -> bool:
        """Whether a graph for this trace is good for any length as it is, without the loop operator."""
        raise NotImplementedError

    @property
    def operators_per_step(self) -> int:
        """Operators that one more step adds to a static graph, where it is not `length_free`."""
        raise NotImplementedError

    def forward(self, x: Tensor, states: Any, *more: Any) -> Any:
        if not isinstance(x, NDArray):
            return super().forward(x, states, *more)
        ctx = x.ctx  # each look at an array is a call into the library
        current = Trace.of(ctx)
        if current.training:
            current = Trace.of(ctx, *self._gradients_asked_for(x, states))
        if not self._active:
            with tracing(current):
                return super().forward(x, states, *more)
        key, graph = self._find(current, x)
        if graph is None:
            return self._first_call(key, x, states, *more)
        if not self._graph_flags.get("static_alloc"):
            return graph.run(ctx, x, states, *more)
        with self._graphs.lock:  # two threads in one graph with static memory overwrite each other's results in MXNet
            return graph.run(ctx, x, states, *more)

    def _find(self, current: Trace, x: NDArray) -> tuple[tuple[Any, ...], Optional[_Graph]]:
        """The key of the graph for a call, and the graph if there is one."""
        # A graph partitioned for a backend returns gradients of zero, silently: what is recorded gets a plain one.
        backend = None if current.training else self._backend
        key: tuple[Any, ...] = (current, backend)
        graph = self._graphs.find(key)
        if graph is None and not self.length_free(current):
            length = x.shape[self.time_axis]
            if self.unroll_length or length * self.operators_per_step <= STATIC_LIMIT:
                key = (current.for_length(length), backend)
            else:
                key = (current, backend, "loop")  # not for the shorter ones, which are faster without it
            graph = self._graphs.find(key)
        return key, graph

    def bound(self, x: NDArray, states: Any) -> Callable[[NDArray, Any], Any]:
        """This call without its checks, for loops of small steps outside `autograd.record`.

        Returns a function from arrays like these, of the same shapes, to ``(y, states)``, which keeps its graph and the
        parameters' arrays, but not their values. A block that is not hybridized is returned as it is.
        """
        if not self._active:
            return self
        ctx, lock = x.ctx, self._graphs.lock
        graph = self._find(Trace.of(ctx), x)[1]
        if graph is None:
            self(x, states)
            graph = self._find(Trace.of(ctx), x)[1]
        run = graph and graph._cached_op  # not the graph, which loses it when it is dropped
        if graph is None or run is None:  # others have called it with many lengths meanwhile
            return self
        arguments = [i if is_input else i.data(ctx) for is_input, i in graph._cached_op_args]

        def call(x: NDArray, states: Any) -> Any:
            given = [x, *states]
            with lock:
                y, *after = run(*[given[each] if type(each) is int else each for each in arguments])
            return y, after

        return call

    def _gradients_asked_for(self, x: NDArray, states: Any) -> tuple[bool, bool, tuple[bool, ...]]:
        """Whether a parameter's gradient, or an input's, may be added to what is there; which parameters ask for none.

        How an input's gradient was asked for, MXNet does not tell.
        """
        requests = [parameter.grad_req for parameter in _parameters(self)]
        frozen = tuple(request == "null" for request in requests) if "null" in requests else ()
        return "add" in requests, any(array.grad is not None for array in (x, *states)), frozen

    def _first_call(self, key: tuple[Any, ...], x: NDArray, states: Any, *more: Any) -> Any:
        """Trace the graph, call it, and keep it if that went well."""
        with self._graphs.lock:
            graph = self._graphs.find(key) or self._new_graph(*key[:2])
            results = graph(x, states, *more)
            self._graphs.keep(key, graph)
            if key[0].length is None and len(key) == 2:
                self._cached_graph = graph._cached_graph  # where AMP looks for the symbol of a block
            one_step = classic(x.detach()).slice_axis(axis=self.time_axis, begin=0, end=1)
            self._example = _detached((Kind(x)(one_step), states, *more))
            return results

    def _new_graph(self, current: Trace, backend: Optional[str] = None) -> _Graph:
        graph = _Graph(self, current)
        options = {**BULK, **self._graph_flags, **(self._backend_opts if backend else {})}
        if current.length is None and not self.length_free(current):
            options.pop("static_shape", None)  # the loop operator fails under it
        graph.hybridize(True, backend=backend, **options)
        if self._callback:
            graph.register_op_hook(self._callback, self._monitor_all)
        return graph

    def check_foreign_flags(self) -> None:
        """Refuse to trace the loop operator for a graph in which it would be wrong.

        Raises
        ------
        ValueError
            In somebody else's block that is hybridized with ``static_shape=True``, where the native operator does not
            serve: MXNet's loop operator returns wrong results or fails under this flag.
        """
        if traced_here() or self.unroll_length or ("static_shape", True) not in self._flags:
            return  # our own graphs leave the flag out
        raise ValueError(
            f"{type(self).__name__} inside a block hybridized with static_shape=True needs MXNet's loop operator here, "
            "which fails under that flag. Hybridize with static_alloc=True alone, or build the layer with "
            "unroll_length=T for one length"
        )

    def _clear_cached_op(self) -> None:
        super()._clear_cached_op()
        self._graphs.clear()

    def load_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Gluon's `load_parameters`. A file may bring another dtype, so graphs are traced anew."""
        super().load_parameters(*args, **kwargs)
        self._clear_cached_op()

    def hybridize(self, active: bool = True, backend: Optional[str] = None, clear: bool = True, **flags: Any) -> None:
        """Gluon's `hybridize`."""
        known = ("static_alloc", "static_shape", "inline_limit", "forward_bulk_size", "backward_bulk_size")
        self._graph_flags = {name: flags[name] for name in known if name in flags}
        super().hybridize(active, backend, clear, **flags)

    def optimize_for(self, x: NDArray, *args: Any, backend: Optional[str] = None, **options: Any) -> None:
        """Gluon's `optimize_for`, for inference; what `autograd` records has a graph of its own, unpartitioned.

        Raises ValueError without the name of a backend.
        """
        if not backend:
            raise ValueError("optimize_for needs the name of a backend, such as backend='MKLDNN'")
        options.pop("clear", None)
        self.hybridize(True, backend=backend, **options)
        self(x, *args)

    def register_op_hook(self, callback: Any, monitor_all: bool = False) -> None:
        """Gluon's `register_op_hook`."""
        super().register_op_hook(callback, monitor_all)
        self._graphs.clear()

    def export(self, path: str, epoch: int = 0, remove_amp_cast: bool = True) -> None:
        """Write ``path-symbol.json`` and ``path-0000.params`` for `SymbolBlock.imports`, good for any length.

        Inputs are called ``data0``, ``data1``, ...; outputs are the flat list of the output and the states. The graph
        holds MXNet's own operators alone.

        Raises
        ------
        RuntimeError
            Before the block has been hybridized and called.
        """
        if self._example is None:
            raise RuntimeError("call hybridize() and then the block itself once before export")
        graph = self._new_graph(Trace(portable=True))
        parameter = next(_parameters(self))  # it may have been moved, or cast, since the call
        with autograd.pause():
            graph(*_moved(self._example, parameter.list_ctx()[0], parameter.dtype))
        graph.export(path, epoch, remove_amp_cast)


def portable(net: HybridBlock) -> HybridBlock:
    """Trace a net with layers of this package inside anew, with MXNet's own operators alone, for its `export`.

    A hybridized net that was called holds the native operator, and so does what it exports: such a file loads only
    where this package is imported. Call ``portable(net).export(path)`` instead. ``net.hybridize()`` brings the native
    operator back.

    Raises
    ------
    RuntimeError
        Before the net has been hybridized and called.

    Examples
    --------
    >>> net.hybridize()
    >>> net(x)
    >>> deeprnn.portable(net).export("model")
    """
    if isinstance(net, AnyLength):  # exports that way already
        return net
    if not net._cached_graph:
        raise RuntimeError("call hybridize() and then the net itself once before portable")
    inputs = _regroup(list(net._cached_graph[0]), net._in_format)
    net._clear_cached_op()
    with tracing(Trace(portable=True)):
        net._build_cache(*inputs)
    return net


def _parameters(block: Block) -> Iterator[Parameter]:
    """Those of a block and its children: `collect_params` takes as long as a small step."""
    yield from block._reg_params.values()
    for child in block._children.values():
        yield from _parameters(child)


def _moved(arguments: Any, ctx: Context, dtype: Any) -> Any:
    """The same arrays on a device, those of floats in a dtype."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(_moved(each, ctx, dtype) for each in arguments)
    moved = arguments.as_in_context(ctx)
    return moved.astype(dtype, copy=False) if np.dtype(moved.dtype).kind == "f" else moved


def _detached(arguments: Any) -> Any:
    """The same arrays without the graph that they came from."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(map(_detached, arguments))
    return arguments.detach()
