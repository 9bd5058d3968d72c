r"""Layers on layers, in both directions.

The output of layer l is the input of layer l + 1, and each layer owns its own state:

.. math:: H_t^{(l)} = \phi(H_t^{(l-1)} W_{xh}^{(l)} + H_{t-1}^{(l)} W_{hh}^{(l)} + b^{(l)}), \qquad H_t^{(0)} = X_t

The arithmetic is the cells', the time is `unroll`'s; a stack routes. `DeepRNN`, `DeepGRU` and `DeepLSTM` take the
arguments of `gluon.rnn.RNN`, `GRU` and `LSTM` in their order with their defaults, and return what those return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Optional, Union

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import rnn
from mxnet.ndarray import NDArray
from mxnet.symbol import Symbol
from mxnet.util import is_np_array, is_np_shape

from .._util.checks import check_choice, check_dtype, check_fraction, check_size
from .._util.types import Operators, Tensor
from . import native
from .cells import ACTIVATIONS, ElmanCell, GRUCell, Init, LSTMCell, RecurrentCell
from .context import Trace, trace
from .graphs import AnyLength, known_length
from .unroll import join, split, unroll

__all__ = ["DeepGRU", "DeepLSTM", "DeepRNN", "RecurrentStack", "parameter_name"]

LAYOUTS = ("TNC", "NTC")
DROPOUT_MODES = ("standard", "variational")

Hook = Callable[[int, Tensor], Tensor]


def parameter_name(direction: str, layer: int, name: str) -> str:
    """What gluon calls a cell's parameter in its layer: ``l0_i2h_weight``; direction 'l' forward, 'r' backward."""
    return f"{direction}{layer}_{name}"


class _Cells:
    """The cells of each layer, one or two.

    Not a list: gluon takes a list of blocks for children that were not registered. They are formulas here, and no
    children: the stack owns the parameters, under the names that the built-in layers give them.
    """

    def __init__(self) -> None:
        self.layers: list[list[RecurrentCell]] = []


class RecurrentStack(AnyLength):
    """Layers of one kind of cell on each other: what `DeepRNN`, `DeepGRU` and `DeepLSTM` have in common.

    Parameters
    ----------
    new_cell : callable
        Makes a cell from ``input_size``, ``prefix``, ``layer_norm`` and ``dtype``, all by keyword; for instance
        ``functools.partial(ElmanCell, 256)``.
    num_layers, layout, dropout, bidirectional, dtype
        As for `DeepRNN`, and so are the keyword-only arguments.
    input_size : int
        Inputs C; 0 or None leaves it to the first call.
    """

    def __init__(
        self,
        new_cell: Callable[..., RecurrentCell],
        num_layers: int = 1,
        layout: str = "TNC",
        dropout: float = 0,
        bidirectional: bool = False,
        input_size: Optional[int] = 0,
        dtype: str = "float32",
        *,
        use_sequence_length: bool = False,
        dropout_mode: str = "standard",
        residual: bool = False,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        unroll_length: Optional[int] = None,
        prefix: Optional[str] = None,
        params: Any = None,
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self.num_layers = check_size("num_layers", num_layers)
        self.layout = check_choice("layout", layout, LAYOUTS)
        self.time_axis, self.batch_axis = layout.index("T"), layout.index("N")
        self.dropout = check_fraction("dropout", dropout)
        self.dropout_mode = check_choice("dropout_mode", dropout_mode, DROPOUT_MODES)
        self.residual = residual
        self.zoneout = check_fraction("zoneout", zoneout)
        self.directions = "lr" if bidirectional else "l"
        self.dtype = check_dtype(dtype)
        self.use_sequence_length = use_sequence_length
        self.unroll_length = None if unroll_length is None else check_size("unroll_length", unroll_length)
        self._hook: Optional[Hook] = None
        self._cells = _Cells()
        size = check_size("input_size", input_size or 0, minimum=0)
        for layer in range(num_layers):
            cells = []
            for direction in self.directions:
                with self.name_scope():
                    cell = new_cell(input_size=size, prefix=f"{direction}{layer}_", layer_norm=layer_norm, dtype=dtype)
                self.params.update(cell.params)
                for name, parameter in cell._reg_params.items():
                    setattr(self, parameter_name(direction, layer, name), parameter)
                cells.append(cell)
            self._cells.layers.append(cells)
            size = cells[0].state_info()[0]["shape"][-1] * len(cells)

    # What gluon's own code and that of others reads of a recurrent layer.

    @property
    def cell(self) -> RecurrentCell:
        """The formula of all layers."""
        return self._cells.layers[0][0]

    @property
    def hidden_size(self) -> int:
        """Units H of each layer and direction."""
        return self.cell.hidden_size

    @property
    def input_size(self) -> int:
        """Inputs C; 0 before the first call if it was left to that."""
        return getattr(self, parameter_name("l", 0, "i2h_weight")).shape[1]

    @property
    def _mode(self) -> str:
        return self._alias()

    _dir = property(lambda self: len(self.directions))
    _hidden_size = property(lambda self: self.hidden_size)
    _num_layers = property(lambda self: self.num_layers)
    _input_size = property(lambda self: self.input_size)
    _layout = property(lambda self: self.layout)
    _dropout = property(lambda self: self.dropout)
    _dtype = property(lambda self: self.dtype)
    _use_sequence_length = property(lambda self: self.use_sequence_length)

    def _collect_params_with_prefix(self, prefix: str = "") -> dict[str, Any]:
        # The keys of a .params file, as the built-in layers write them.
        prefix = f"{prefix}." if prefix else ""
        return {
            f"{prefix}_unfused.{layer}.{f'{direction}_cell.' if len(cells) == 2 else ''}{name}": self._reg_params[
                parameter_name(direction, layer, name)
            ]
            for layer, cells in enumerate(self._cells.layers)
            for direction, cell in zip(self.directions, cells)
            for name in cell._reg_params
        }

    def infer_shape(self, inputs: NDArray, *_: Any) -> None:
        """Complete the one shape that is left open: the first layer's inputs."""
        for direction in self.directions:
            weight = getattr(self, parameter_name(direction, 0, "i2h_weight"))
            weight.shape = (weight.shape[0], inputs.shape[-1])

    def cast(self, dtype: Union[str, type, np.dtype]) -> None:
        """Gluon's `cast`; the states follow."""
        self.dtype = check_dtype(dtype)
        for cells in self._cells.layers:
            for cell in cells:
                cell.dtype = self.dtype
        super().cast(self.dtype)

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape, layout and dtype of each state tensor: ``(num_layers * directions, batch_size, hidden_size)``."""
        rows = self.num_layers * len(self.directions)
        return [
            {"shape": (rows, *info["shape"]), "__layout__": "LNC", "dtype": self.dtype}
            for info in self.cell.state_info(batch_size)
        ]

    def begin_state(
        self, batch_size: int = 0, func: Callable[..., Tensor] = mx.nd.zeros, **kwargs: Any
    ) -> list[Tensor]:
        """Initial states, by default zeros; ``mx.np`` arrays where ``npx.set_np`` is on.

        Parameters
        ----------
        batch_size : int
            N; may stay 0 for symbols.
        func : callable
            What makes a tensor of them: ``mx.nd.zeros``, ``mx.nd.ones``, ``mx.sym.zeros``, ``mx.sym.var``, ...
        **kwargs
            Passed on to `func`, such as ``ctx``.
        """
        states = [
            func(name=f"{self.prefix}h0_{i}", **{**info, **kwargs})
            for i, info in enumerate(self.state_info(batch_size))
        ]
        return [state.as_np_ndarray() for state in states] if is_np_array() else states

    def __call__(
        self,
        inputs: Tensor,
        states: Union[Tensor, Sequence[Tensor], None] = None,
        sequence_length: Optional[Tensor] = None,
    ) -> Any:
        """The outputs; with `states` given, the outputs and the list of the last states.

        Parameters
        ----------
        inputs : NDArray, mx.np.ndarray or Symbol
            ``(sequence_length, batch_size, input_size)`` in layout TNC.
        states : optional
            As from `begin_state`; zeros by default.
        sequence_length : optional
            ``(batch_size,)``, the number of steps of each sequence that count. Needed and allowed with
            ``use_sequence_length=True`` alone.
        """
        given = states is not None
        if not isinstance(inputs, (NDArray, Symbol)):
            raise TypeError(f"inputs must be an NDArray or a Symbol, got {type(inputs).__name__}")
        batch_size = self._checked_shape(inputs)[self.batch_axis] if isinstance(inputs, NDArray) else 0
        states = complete_states(self, states, inputs, batch_size)
        self._check_sequence_length(inputs, sequence_length)
        arguments = [] if sequence_length is None else [sequence_length]
        outputs, states = super().__call__(inputs, states, *arguments)
        if given and not self._active and isinstance(outputs, NDArray) and autograd.is_recording():
            outputs, *states = _one_node([outputs, *states])
        return (outputs, states) if given else outputs

    def hybrid_forward(
        self,
        F: Operators,
        inputs: Tensor,
        states: list[Tensor],
        sequence_length: Optional[Tensor] = None,
        **params: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        # The graph always returns both: what a call returns must not depend on an earlier one.
        as_given = _Kind(inputs)
        inputs, *states = map(_classic, (inputs, *states))
        sequence_length = None if sequence_length is None else _classic(sequence_length)
        length = self.unroll_length or known_length(inputs, self.time_axis)
        if isinstance(inputs, Symbol) and not self.length_free(trace()):
            self.check_foreign_flags(trace())
        x = self._time_major(F, inputs)  # (T, N, C)
        begin = zip(*(split(F, state, self.num_layers * len(self.directions)) for state in states))
        last = []
        for layer, cells in enumerate(self._cells.layers):
            if self._hook is not None:
                x = self._hook(layer, x)
            below, outputs = x, []
            if layer > 0:
                x = self._dropped(F, x)
            for direction, cell in zip(self.directions, cells):
                y, end = unroll(
                    F,
                    cell,
                    {name: _classic(params[parameter_name(direction, layer, name)]) for name in cell._reg_params},
                    x,
                    list(next(begin)),
                    length=length,
                    reverse=direction == "r",
                    zoneout=self.zoneout,
                    sequence_length=sequence_length,
                )
                outputs.append(y)
                last.append(end)
            x = outputs[0] if len(outputs) == 1 else _side_by_side(F, outputs)
            if self.residual and layer > 0:
                x = x + below
        if self._hook is not None:
            x = self._hook(self.num_layers, x)
        return as_given(self._time_major(F, x)), [as_given(join(F, state)) for state in zip(*last)]

    @contextmanager
    def hooked(self, hook: Hook) -> Iterator[None]:
        """Let `hook` see, and change, what goes from layer to layer.

        It gets the number of a layer, from 0, and what is about to enter it, ``(T, N, C)``, and at last the number of
        layers and the outputs; it returns what goes on. For a stack that is not hybridized.
        """
        before, self._hook = self._hook, hook
        try:
            yield
        finally:
            self._hook = before

    def length_free(self, current: Trace) -> bool:
        """Whether the native operator serves all layers, for this trace."""
        return not self.zoneout and native.serves(self.cell, current)

    @property
    def operators_per_step(self) -> int:
        """Operators that one more step adds to a static graph: about 6 a gate and layer."""
        return self.num_layers * len(self.directions) * (3 if len(self.cell.gates) == 1 else 14)

    def _time_major(self, F: Operators, x: Tensor) -> Tensor:
        """From the layout to TNC, and back: the two differ by one exchange of axes."""
        return x if self.layout == "TNC" else F.transpose(x, axes=(1, 0, 2))

    def _dropped(self, F: Operators, x: Tensor) -> Tensor:
        """The output of a layer as the next one gets it in training."""
        if not self.dropout:
            return x
        axes = (0,) if self.dropout_mode == "variational" else ()  # variational: one mask for all steps
        return F.Dropout(x, p=self.dropout, axes=axes)

    def _checked_shape(self, inputs: NDArray) -> tuple[int, ...]:
        shape = inputs.shape  # each look at an array is a call into the library
        if len(shape) != 3:
            raise ValueError(f"inputs must have 3 axes, {self.layout}, got shape {shape}")
        if 0 in shape:
            raise ValueError(f"inputs must hold at least one step, sequence and feature, got shape {shape}")
        if np.dtype(inputs.dtype) != self.dtype:
            came = np.dtype(inputs.dtype).name
            raise TypeError(f"inputs must be {self.dtype}, as the layer is, got {came}; cast one of the two")
        if self.dtype == "float16" and inputs.context.device_type != "gpu":
            raise TypeError("float16 needs a GPU: MXNet has no float16 matrix product on the CPU; cast to float32")
        size = self.input_size
        if size > 0 and size != shape[2]:  # 0, or -1 under np_shape: not known yet
            raise ValueError(f"inputs must have input_size {size} on their last axis, got shape {shape}")
        length = shape[self.time_axis]
        if self.unroll_length not in (None, length):
            raise ValueError(f"inputs must have unroll_length {self.unroll_length} steps, got {length}")
        return shape

    def _check_sequence_length(self, inputs: Tensor, sequence_length: Optional[Tensor]) -> None:
        if self.use_sequence_length != (sequence_length is not None):
            raise ValueError(
                "use_sequence_length=True needs a sequence_length with each call"
                if self.use_sequence_length
                else "sequence_length needs a layer built with use_sequence_length=True"
            )
        if sequence_length is not None and type(sequence_length) is not type(inputs):
            raise TypeError(
                f"sequence_length must be a {type(inputs).__name__}, as inputs are, "
                f"got {type(sequence_length).__name__}"
            )
        if isinstance(sequence_length, NDArray) and isinstance(inputs, NDArray):
            batch_size = inputs.shape[self.batch_axis]
            if sequence_length.shape != (batch_size,):
                raise ValueError(f"sequence_length must have shape {(batch_size,)}, got {sequence_length.shape}")

    def _unfuse(self) -> Any:
        """Gluon's unfused cells with the parameters of this stack, as the built-in layers give them."""
        if self.residual or self.zoneout or self.dropout_mode != "standard" or native.kernel_of(self.cell) is None:
            raise ValueError("gluon has no cells for residual, layer_norm, zoneout or dropout_mode='variational'")
        new_cell = {
            ElmanCell: lambda **kwargs: rnn.RNNCell(self.hidden_size, activation=self.cell.activation, **kwargs),
            GRUCell: lambda **kwargs: rnn.GRUCell(self.hidden_size, **kwargs),
            LSTMCell: lambda **kwargs: rnn.LSTMCell(self.hidden_size, **kwargs),
        }[type(self.cell)]
        stack = rnn.HybridSequentialRNNCell(prefix=self.prefix, params=self.params)
        with stack.name_scope():
            size = self.input_size
            for layer in range(self.num_layers):
                cells = [new_cell(prefix=f"{direction}{layer}_", input_size=size) for direction in self.directions]
                stack.add(rnn.BidirectionalCell(*cells) if len(cells) == 2 else cells[0])
                if self.dropout and layer + 1 < self.num_layers:
                    stack.add(rnn.DropoutCell(self.dropout))
                size = self.hidden_size * len(cells)
        return stack

    def __repr__(self) -> str:
        parts = [f"{self.input_size or None} -> {self.hidden_size}", self.layout]
        if self.num_layers != 1:
            parts.append(f"num_layers={self.num_layers}")
        if self.dropout != 0:
            parts.append(f"dropout={self.dropout}")
        if len(self.directions) == 2:
            parts.append("bidirectional")
        return f"{type(self).__name__}({', '.join(parts)})"


def complete_states(
    layer: Any, states: Union[Tensor, Sequence[Tensor], None], inputs: Tensor, batch_size: int
) -> list[Tensor]:
    """The states that a layer is called with, as a list: zeros where there are none, and else what `state_info` says.

    That is, of the kind of the inputs (NDArray or Symbol), and for arrays of its shape and dtype. For symbols
    `batch_size` is 0.
    """
    kind = type(inputs)
    if states is None:
        if isinstance(inputs, NDArray):
            states = layer.begin_state(batch_size, ctx=inputs.context)
        else:
            # Left to the shape of the inputs: an unknown size is -1 where numpy's shapes are on, else 0.
            states = layer.begin_state(-1 if is_np_shape() else 0, func=mx.sym.zeros)
        return [_Kind(inputs)(_classic(state)) for state in states]
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
        if np.dtype(state.dtype) != info["dtype"]:
            raise TypeError(f"states[{i}] must be {info['dtype']}, got {np.dtype(state.dtype).name}")
    return states


def _is_np(x: Tensor) -> bool:
    """Whether an array or symbol is one of ``mx.np``."""
    return isinstance(x, (mx.np.ndarray, mx.sym.numpy._Symbol))


def _classic(x: Tensor) -> Tensor:
    """The same as an ``mx.nd`` array or symbol: all formulas are written for those."""
    return x.as_nd_ndarray() if _is_np(x) else x


class _Kind:
    """Results of the same kind as an input: ``mx.nd`` or ``mx.np``."""

    def __init__(self, like: Tensor) -> None:
        self._np = _is_np(like)

    def __call__(self, x: Tensor) -> Tensor:
        return x.as_np_ndarray() if self._np else x


def _one_node(tensors: list[NDArray]) -> list[NDArray]:
    """The same values as the outputs of one operator, so that a backward pass from any of them lets go of them all.

    The book means to cut the gradient between batches, and calls `detach` but drops what that returns. With the
    built-in layer it does no harm: outputs and states are one operator's, which the first backward pass frees. States
    that this pass left behind would lead the second one into a graph that is gone.
    """
    as_given = _Kind(tensors[0])
    copies = mx.sym.Group([mx.sym.identity(mx.sym.var(f"x{i}")) for i in range(len(tensors))])
    results = mx.nd.CachedOp(copies, [("inline_limit", 0)])(
        *map(_classic, tensors)
    )  # inlined, they would be many again
    return [as_given(result) for result in results]


def _side_by_side(F: Operators, parts: Sequence[Tensor]) -> Tensor:
    """Two of ``(T, N, H)`` to ``(T, N, 2H)``."""
    # Along the last axis F.concat copies number by number; along one before it F.stack copies row by row.
    return F.reshape(F.stack(*parts, axis=2), shape=(0, 0, -1))


class DeepRNN(RecurrentStack):
    r"""A deep Elman network: `gluon.rnn.RNN`, written by hand.

    .. math:: H_t^{(l)} = \phi(H_t^{(l-1)} W_{xh}^{(l)} + H_{t-1}^{(l)} W_{hh}^{(l)} + b^{(l)}), \qquad H_t^{(0)} = X_t

    *Dive into Deep Learning*, "Deep Recurrent Neural Networks"; Elman 1990, Pascanu et al. 2014 (arXiv:1312.6026).

    Parameters
    ----------
    hidden_size : int
        Units H of each layer and direction.
    num_layers : int
        Layers L.
    activation : {'relu', 'tanh'}
        The non-linearity :math:`\phi`. As in the built-in layer the default is relu; the cells' is tanh.
    layout : {'TNC', 'NTC'}
        Of inputs and outputs; states are ``(L, N, H)`` in both.
    dropout : float
        Share of a layer's outputs that are set to zero in training on their way to the next layer.
    bidirectional : bool
        A second cell in each layer reads from the end; outputs are ``(T, N, 2H)`` and states ``(2L, N, H)``.
    i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer : str or Initializer
        For the weights ``(H, C)`` and ``(H, H)`` and the biases ``(H,)`` of each layer.
    input_size : int
        Inputs C; 0 or None leaves it to the first call.
    dtype : {'float32', 'float64', 'float16'}
        Of parameters, inputs and states; float16 on a GPU only.
    use_sequence_length : bool, keyword-only
        Each call brings a `sequence_length`: outputs past it are zero, final states are those at it, the backward
        direction starts at it.
    dropout_mode : {'standard', 'variational'}, keyword-only
        A mask for each step, or one for all steps of a sequence (Gal and Ghahramani 2016, arXiv:1512.05287).
    residual : bool, keyword-only
        Each layer from the second on adds its input to its output: its share of the signal and of the gradient goes
        past it unchanged (He et al. 2015, arXiv:1512.03385).
    layer_norm : bool, keyword-only
        Normalised products in each cell, see `ElmanCell`.
    zoneout : float, keyword-only
        Probability with which a unit keeps its state in a step of training; in inference the expectation (Krueger et
        al. 2016, arXiv:1606.01305).
    unroll_length : int, keyword-only
        For use inside another hybridized block with ``static_shape=True``: the one length that is drawn statically.
    prefix, params : keyword-only
        As for every gluon block; ``params=other.params`` shares those of another layer, built-in ones included.

    Raises
    ------
    ValueError, TypeError
        Where an argument, or the shape or dtype of an input, is not as described: with what was expected and what came.

    Examples
    --------
    >>> layer = DeepRNN(256, num_layers=2, activation="tanh")
    >>> layer.initialize()
    >>> layer.hybridize(static_alloc=True, static_shape=True)
    >>> x = mx.nd.random.normal(shape=(35, 32, 100))                         # (T, N, C)
    >>> layer(x).shape
    (35, 32, 256)
    >>> outputs, states = layer(x, layer.begin_state(32))
    >>> states[0].shape                                                      # (L, N, H)
    (2, 32, 256)
    """

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 1,
        activation: str = "relu",
        layout: str = "TNC",
        dropout: float = 0,
        bidirectional: bool = False,
        i2h_weight_initializer: Init = None,
        h2h_weight_initializer: Init = None,
        i2h_bias_initializer: Init = "zeros",
        h2h_bias_initializer: Init = "zeros",
        input_size: Optional[int] = 0,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        new_cell = partial(
            ElmanCell,
            hidden_size,
            i2h_weight_initializer=i2h_weight_initializer,
            h2h_weight_initializer=h2h_weight_initializer,
            i2h_bias_initializer=i2h_bias_initializer,
            h2h_bias_initializer=h2h_bias_initializer,
            activation=check_choice("activation", activation, ACTIVATIONS),
        )
        super().__init__(new_cell, num_layers, layout, dropout, bidirectional, input_size, dtype, **kwargs)

    def _alias(self) -> str:
        return "rnn"

    @property
    def _mode(self) -> str:
        return f"rnn_{self.cell.activation}"


class DeepGRU(RecurrentStack):
    """A deep gated recurrent network: `gluon.rnn.GRU`, written by hand. The formula is that of `GRUCell`.

    Parameters, shapes and errors are those of `DeepRNN`, without ``activation`` and in the order of the built-in layer.
    """

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 1,
        layout: str = "TNC",
        dropout: float = 0,
        bidirectional: bool = False,
        input_size: Optional[int] = 0,
        i2h_weight_initializer: Init = None,
        h2h_weight_initializer: Init = None,
        i2h_bias_initializer: Init = "zeros",
        h2h_bias_initializer: Init = "zeros",
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        new_cell = partial(
            GRUCell,
            hidden_size,
            i2h_weight_initializer=i2h_weight_initializer,
            h2h_weight_initializer=h2h_weight_initializer,
            i2h_bias_initializer=i2h_bias_initializer,
            h2h_bias_initializer=h2h_bias_initializer,
        )
        super().__init__(new_cell, num_layers, layout, dropout, bidirectional, input_size, dtype, **kwargs)

    def _alias(self) -> str:
        return "gru"


class DeepLSTM(RecurrentStack):
    """A deep long short-term memory: `gluon.rnn.LSTM`, written by hand. The formula is that of `LSTMCell`.

    Parameters, shapes and errors are those of `DeepRNN`, without ``activation`` and in the order of the built-in layer,
    and those that `LSTMCell` has besides. The two states are hidden, ``(L, N, H)``, or ``(L, N, P)`` with a projection,
    and cell ``(L, N, H)``.
    """

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 1,
        layout: str = "TNC",
        dropout: float = 0,
        bidirectional: bool = False,
        input_size: Optional[int] = 0,
        i2h_weight_initializer: Init = None,
        h2h_weight_initializer: Init = None,
        i2h_bias_initializer: Init = "zeros",
        h2h_bias_initializer: Init = "zeros",
        projection_size: Optional[int] = None,
        h2r_weight_initializer: Init = None,
        state_clip_min: Optional[float] = None,
        state_clip_max: Optional[float] = None,
        state_clip_nan: bool = False,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        new_cell = partial(
            LSTMCell,
            hidden_size,
            i2h_weight_initializer=i2h_weight_initializer,
            h2h_weight_initializer=h2h_weight_initializer,
            i2h_bias_initializer=i2h_bias_initializer,
            h2h_bias_initializer=h2h_bias_initializer,
            projection_size=projection_size,
            h2r_weight_initializer=h2r_weight_initializer,
            state_clip_min=state_clip_min,
            state_clip_max=state_clip_max,
            state_clip_nan=state_clip_nan,
        )
        super().__init__(new_cell, num_layers, layout, dropout, bidirectional, input_size, dtype, **kwargs)

    def _alias(self) -> str:
        return "lstm"
