r"""Back-propagation through time, by hand: a layer in training as one operator.

MXNet derives the gradient of an unrolled layer operator by operator, and so multiplies for the weight's gradient in
each step. All that has to go from step to step is the gradient of the state: a product and a few factors (`step_back`
of a cell). With :math:`A_t` for what the non-linearity is taken of, the rest is one product each for all steps:

.. math::
    \frac{\partial L}{\partial W_{hh}} = \sum_t \frac{\partial L}{\partial A_t}^\top H_{t-1}, \qquad
    \frac{\partial L}{\partial W_{xh}} = \sum_t \frac{\partial L}{\partial A_t}^\top X_t, \qquad
    \frac{\partial L}{\partial X_t} = \frac{\partial L}{\partial A_t} W_{xh}

*Dive into Deep Learning*, "Backpropagation Through Time"; Werbos, 1990. The way there and the way back are two static
graphs, called from MXNet's operator for operators in Python. Long sequences go through both in pieces.

Shapes: T steps, N sequences, C inputs, H hidden units, G = gates * H.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

import mxnet as mx
from mxnet import autograd
from mxnet.ndarray import NDArray

from .._util.types import Operators, Params, Tensor
from .cells import _affine, _Cell
from .context import Target, drawn_for
from .unroll import join, order, per_step, split

__all__ = ["PIECE", "SHORTEST", "layer"]

SHORTEST = 16
"""Steps from which on a gradient is taken here. MXNet hands a layer over to Python twice, half a millisecond each time,
and what that saves grows with the steps: 2 x 64 Elman units take 1.2 of MXNet's own time with 16 steps of 16 sequences,
1.0 with 24 and 0.8 with 50; LSTM and GRU, and 256 units, 1.2 with 8 or less, 0.8 to 1.0 with 16."""

PIECE = 64
"""Steps of a piece: no graph is longer."""

GRAPHS_KEPT = 64
"""Graphs that a formula keeps, two for each length; the one unused for longest goes first."""

FLAGS = [("static_alloc", True), ("static_shape", True)]


def layer(
    F: Operators, cell: _Cell, params: Params, inputs: Tensor, states: list[Tensor], reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    """What `unroll` returns, for any T.

    Parameters
    ----------
    F
        ``mx.nd`` or ``mx.sym``.
    cell, params
        A cell that is `by_hand`, and its parameters by their short names.
    inputs, states
        ``(T, N, C)``, and ``(N, H)`` each.
    reverse : bool
        From the last step to the first.
    """
    arguments = [inputs, params["i2h_weight"], cell.input_bias(F, params), *(params[name] for name in cell.in_step)]
    outputs, *last = F.Custom(*arguments, *states, op_type=OPERATOR, recurrence=_name(cell, reverse))
    return outputs, last


class Recurrence:
    """The way there and the way back through one layer of a formula, in one direction, over arrays.

    The weights are inputs, so layers of one formula and size share it, and its graphs.
    """

    def __init__(self, formula: _Cell, reverse: bool) -> None:
        self.formula = formula
        self.num_states = len(formula.state_info())
        self.arguments = ["inputs", "i2h_weight", "input_bias", *formula.in_step, *self._numbered("first")]
        self.num_sequences = self.num_states + formula.num_kept
        self._reverse = reverse
        self._graphs: OrderedDict[Any, tuple[Any, list[str]]] = OrderedDict()

    def _numbered(self, name: str, count: int = 0) -> list[str]:
        return [f"{name}{i}" for i in range(count or self.num_states)]

    def forward(self, arguments: Sequence[NDArray], sequences: Sequence[NDArray], last: Sequence[NDArray]) -> None:
        """Fill the sequences and the last states.

        Parameters
        ----------
        arguments
            In the order of `arguments`: ``(T, N, C)``, parameters, first states ``(N, H)``.
        sequences
            ``(T, N, H)`` each: the states after each step, and what is kept of it for the way back.
        last
            ``(N, H)`` each.
        """
        given = dict(zip(self.arguments, arguments))
        pieces = self._pieces(len(given["inputs"]))
        for i, (begin, end) in enumerate(pieces):
            states = last if i + 1 == len(pieces) else [_like(state) for state in last]
            piece = {**given, "inputs": _steps(given["inputs"], begin, end)}
            into = [*(_steps(each, begin, end) for each in sequences), *states]
            self._run(("there",), partial(self._there, length=end - begin), piece, into)
            given.update(zip(self._numbered("first"), states))

    def backward(
        self,
        arguments: Sequence[NDArray],
        sequences: Sequence[NDArray],
        outputs: NDArray,
        last: Sequence[NDArray],
        grads: Sequence[NDArray],
        requests: Sequence[str],
    ) -> None:
        """Fill, or add to, the gradients of the arguments, as is asked of each.

        Parameters
        ----------
        arguments, sequences
            As in `forward`, which has filled the sequences.
        outputs, last
            The gradients of the outputs, which are the first sequence, and of the last states.
        grads, requests
            For each argument: where its gradient goes, and ``write``, ``add`` or ``null``.
        """
        given = dict(zip(self.arguments, arguments))
        of = {name: _Gradient(*pair) for name, *pair in zip(self.arguments, grads, requests)}
        firsts = self._numbered("first")
        for begin, end in reversed(self._pieces(len(outputs))):
            there = end if self._reverse else begin - 1  # the step before the piece, if there is one
            inside = 0 <= there < len(outputs)
            of_piece = {**of, "inputs": of["inputs"].part(begin, end)}
            if inside:
                of_piece.update((name, _Gradient(_like(given[name]), "write")) for name in firsts)
            piece = {
                **given,
                **{"inputs": _steps(given["inputs"], begin, end), "outputs": _steps(outputs, begin, end)},
                **dict(zip(self._numbered("last"), last)),
                **{f"sequence{i}": _steps(each, begin, end) for i, each in enumerate(sequences)},
                **{name: sequence[there] for name, sequence in zip(firsts, sequences) if inside},
            }
            wanted = tuple(name for name, gradient in of_piece.items() if gradient.wanted or name in firsts)
            into = [of_piece[name].place() for name in wanted]
            draw = partial(self._back, length=end - begin, input_size=given["inputs"].shape[2], wanted=wanted)
            self._run(("back", *wanted), draw, piece, into)
            for name, result in zip(wanted, into):
                of_piece[name].take(result)
            last = into[-self.num_states :]

    def _pieces(self, length: int) -> list[tuple[int, int]]:
        """Their first steps and their ends, in the order in which they are read."""
        pieces = [(begin, min(begin + PIECE, length)) for begin in range(0, length, PIECE)]
        return pieces[::-1] if self._reverse else pieces

    def _run(
        self, kind: tuple[str, ...], draw: Callable[[Operators], list[Tensor]], inputs: Params, into: list[NDArray]
    ) -> None:
        """The graph of this kind for these shapes, drawn if there is none."""
        like = inputs["inputs"]
        key = (kind, like.shape, like.dtype, like.context)
        if key not in self._graphs:
            with drawn_for(Target(training=False)):  # the gradient is a graph of its own, not MXNet's
                symbol = mx.sym.Group(draw(mx.sym))
            self._graphs[key] = mx.nd.CachedOp(symbol, FLAGS), symbol.list_inputs()
            if len(self._graphs) > GRAPHS_KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        graph, names = self._graphs[key]
        graph(*[inputs[name] for name in names], out=into)

    def _there(self, F: Operators, length: int) -> list[Tensor]:
        var = F.var
        rows = self.formula.h2h_weight.shape[0]
        projected = _affine(F, var("inputs"), var("i2h_weight"), var("input_bias"), rows)
        # Each step reads the parameters from a copy. Of an input MXNet does not know where it will lie the next time,
        # and sets up all operators that read it anew.
        params = {name: F.identity(var(name)) for name in self.formula.in_step}
        states = [var(name) for name in self._numbered("first")]
        inputs = per_step(F, self.formula.apart(F, projected), length)
        steps: list[list[Tensor]] = [[]] * length
        for t in order(length, self._reverse):
            states, kept = self.formula.step(F, inputs[t], states, params)
            steps[t] = [*states, *kept]
        return [*(join(F, sequence) for sequence in zip(*steps)), *(F.identity(state) for state in states)]

    def _back(self, F: Operators, length: int, input_size: int, wanted: Sequence[str]) -> list[Tensor]:
        var, formula = F.var, self.formula
        sequences = [var(name) for name in self._numbered("sequence", self.num_sequences)]
        after, kept = sequences[: self.num_states], sequences[self.num_states :]
        firsts = self._numbered("first")
        before = [self._before(F, var(name), states, length) for name, states in zip(firsts, after)]
        slopes = per_step(F, formula.slopes(F, before, after, kept), length)
        weight = F.transpose(var("h2h_weight"))
        outputs = split(F, var("outputs"), length)
        grads = [var(name) for name in self._numbered("last")]
        steps: list[list[Tensor]] = [[]] * length
        for t in reversed(order(length, self._reverse)):
            hidden = F.broadcast_add(grads[0], outputs[t])
            steps[t], grads = formula.step_back(F, [hidden, *grads[1:]], slopes[t], weight)
        products = formula.products_back(F, [join(F, sequence) for sequence in zip(*steps)], kept)
        # (T, N, gates, H) to (T * N, gates * H). A sum over all steps and sequences is a product; F.sum is slower.
        of_inputs, of_state = (F.reshape(product, shape=(-3, -1)) for product in (products[0], products[-1]))
        inputs, hidden = (F.reshape(x, shape=(-3, 0)) for x in (var("inputs"), before[0]))
        ones = F.ones_like(F.slice_axis(of_inputs, axis=1, begin=0, end=1))
        to_inputs = F.FullyConnected(of_inputs, F.transpose(var("i2h_weight")), num_hidden=input_size, no_bias=True)
        found = {
            "inputs": F.reshape_like(to_inputs, var("inputs")),
            "i2h_weight": F.dot(of_inputs, inputs, transpose_a=True),
            "input_bias": F.reshape(F.dot(of_inputs, ones, transpose_a=True), shape=(-1,)),
            "h2h_weight": F.dot(of_state, hidden, transpose_a=True),
            "h2h_bias": F.reshape(F.dot(of_state, ones, transpose_a=True), shape=(-1,)),
            **dict(zip(firsts, (F.identity(grad) for grad in grads))),
        }
        return [found[name] for name in wanted]

    def _before(self, F: Operators, first: Tensor, states: Tensor, length: int) -> Tensor:
        """The states before each step, from the one before all and those after each."""
        parts = [F.expand_dims(first, axis=0)]
        if length > 1:
            others = F.slice_axis(states, axis=0, begin=int(self._reverse), end=length - int(not self._reverse))
            parts.insert(0 if self._reverse else 1, others)
        return F.concat(*parts, dim=0)


def _like(array: NDArray) -> NDArray:
    return mx.nd.empty(array.shape, array.context, array.dtype)


def _steps(array: NDArray, begin: int, end: int) -> NDArray:
    """A piece of a sequence, in the same memory."""
    return array if end - begin == len(array) else array[begin:end]


_known: weakref.WeakValueDictionary[str, Recurrence] = weakref.WeakValueDictionary()
"""By a name, as a symbol's attributes are text; there for as long as a cell of the formula is."""
_of_cell: weakref.WeakKeyDictionary[_Cell, set[Recurrence]] = weakref.WeakKeyDictionary()


def _name(cell: _Cell, reverse: bool) -> str:
    """The name of the recurrence of this cell."""
    name = f"{cell.formula_name}, {'reverse' if reverse else 'forward'}"
    recurrence = _known.get(name)
    if recurrence is None:
        recurrence = _known[name] = Recurrence(cell.formula(), reverse)
    _of_cell.setdefault(cell, set()).add(recurrence)
    return name


OPERATOR = "deeprnn_layer"


class _Layer(mx.operator.CustomOp):
    """The operator: one layer, with its gradient. MXNet calls it in a thread of its own, and waits for its results."""

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self._recurrence = recurrence
        self._kept: list[NDArray] = []

    def forward(self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
        outputs, *last = out_data
        if not self._kept or self._kept[0].shape != outputs.shape:
            self._kept = [_like(outputs) for _ in range(self._recurrence.num_sequences - 1)]
        with autograd.pause():
            self._recurrence.forward(in_data, [outputs, *self._kept], last)

    def backward(self, req: Any, out_grad: Any, in_data: Any, out_data: Any, in_grad: Any, aux: Any) -> None:
        sequences = [out_data[0], *self._kept]
        with autograd.pause():
            self._recurrence.backward(in_data, sequences, out_grad[0], out_grad[1:], in_grad, req)


class _Gradient:
    """An array that a gradient goes to, and how: ``write``, ``add``, or ``null`` for not at all."""

    def __init__(self, array: NDArray, request: str) -> None:
        self._array = array
        self._request = request

    @property
    def wanted(self) -> bool:
        return self._request != "null"

    def part(self, begin: int, end: int) -> _Gradient:
        return _Gradient(_steps(self._array, begin, end), self._request)

    def place(self) -> NDArray:
        """Where the result is to be put that `take` is then told of: the array itself, if it is the first."""
        return self._array if self._request in ("write", "inplace") else _like(self._array)

    def take(self, result: NDArray) -> None:
        if self._request == "add":
            self._array += result
        elif self.wanted:
            self._request = "add"


@mx.operator.register(OPERATOR)
class _LayerProperties(mx.operator.CustomOpProp):
    """What MXNet asks of the operator."""

    def __init__(self, recurrence: str) -> None:
        super().__init__(need_top_grad=True)
        self._recurrence = _known[recurrence]

    def list_arguments(self) -> list[str]:
        return self._recurrence.arguments

    def list_outputs(self) -> list[str]:
        return ["outputs", *(f"last{i}" for i in range(self._recurrence.num_states))]

    def infer_shape(self, in_shape: Any) -> Any:
        length, batch_size, size = in_shape[0]
        formula, states = self._recurrence.formula, self._recurrence.num_states
        rows, hidden = formula.h2h_weight.shape
        parameters = [[rows, size], [rows], *(list(getattr(formula, name).shape) for name in formula.in_step)]
        ends = [[batch_size, hidden]] * states
        return [in_shape[0], *parameters, *ends], [[length, batch_size, hidden], *ends], []

    def create_operator(self, ctx: Any, in_shapes: Any, in_dtypes: Any) -> _Layer:
        return _Layer(self._recurrence)
