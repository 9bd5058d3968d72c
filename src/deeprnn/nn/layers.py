r"""Layers on layers, in both directions.

The output of layer l is the input of layer l + 1, and each layer owns its own state:

.. math:: H_t^{(l)} = \phi(H_t^{(l-1)} W_{xh}^{(l)} + H_{t-1}^{(l)} W_{hh}^{(l)} + b^{(l)}), \qquad H_t^{(0)} = X_t

The arithmetic is the cells', the time is `unroll`'s; a stack routes. `DeepRNN`, `DeepGRU` and `DeepLSTM` take the
arguments of `gluon.rnn.RNN`, `GRU` and `LSTM` in their order with their defaults, and return what those return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional, Union

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import nn, rnn
from mxnet.ndarray import NDArray

from .._util.checks import check_choice, check_dtype, check_fraction, check_size
from .._util.types import Operators, Tensor
from . import bptt
from .cells import ACTIVATIONS, ElmanCell, GRUCell, Init, LSTMCell, _Cell
from .context import target
from .graphs import PerLength, known_length
from .unroll import join, split, unroll

__all__ = ["DeepGRU", "DeepLSTM", "DeepRNN", "parameter_name"]

LAYOUTS = ("TNC", "NTC")
DROPOUT_MODES = ("standard", "variational")


def parameter_name(direction: str, layer: int, name: str) -> str:
    """What gluon calls a cell's parameter in its layer: ``l0_i2h_weight``; direction 'l' forward, 'r' backward."""
    return f"{direction}{layer}_{name}"


class _Stack(PerLength):
    """What the three have in common: everything but the cell."""

    _tap: Optional[Callable[[int, Tensor], Tensor]] = None
    """Where a diagnosis looks in: gets the number of a layer and what is about to enter it, at last the outputs, and
    returns what goes on."""
    _one_length = ", or build the layer with unroll_length=T for one length"

    def __init__(
        self,
        new_cell: Callable[..., _Cell],
        hidden_size: int,
        num_layers: int,
        layout: str,
        dropout: float,
        bidirectional: bool,
        input_size: int,
        dtype: str,
        *,
        output_size: Optional[int] = None,
        use_sequence_length: bool = False,
        dropout_mode: str = "standard",
        residual: bool = False,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        unroll_length: Optional[int] = None,
        prefix: Optional[str] = None,
        params: Any = None,
        i2h_weight_initializer: Init = None,
        h2h_weight_initializer: Init = None,
        i2h_bias_initializer: Init = "zeros",
        h2h_bias_initializer: Init = "zeros",
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self._hidden_size = check_size("hidden_size", hidden_size)
        self._num_layers = check_size("num_layers", num_layers)
        self._layout = check_choice("layout", layout, LAYOUTS)
        self._time_axis = layout.index("T")
        self._dropout = check_fraction("dropout", dropout)
        self._dropout_mode = check_choice("dropout_mode", dropout_mode, DROPOUT_MODES)
        self._residual = residual
        self._zoneout = check_fraction("zoneout", zoneout)
        self._directions = "lr" if bidirectional else "l"
        self._input_size = check_size("input_size", input_size, minimum=0)
        self._dtype = check_dtype(dtype)
        self._use_sequence_length = use_sequence_length
        self._unroll_length = None if unroll_length is None else check_size("unroll_length", unroll_length)
        self._any_length = unroll_length is None
        self._in_order = not bidirectional and not use_sequence_length
        with self.name_scope():
            # The attribute's name is the first word of every key in a .params file, as the built-in layers write them.
            self._unfused = nn.HybridSequential(prefix="")
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else (output_size or hidden_size) * len(self._directions)
            with self.name_scope():
                cells = [
                    new_cell(
                        hidden_size,
                        input_size=inputs,
                        prefix=f"{d}{layer}_",
                        layer_norm=layer_norm,
                        dtype=dtype,
                        i2h_weight_initializer=i2h_weight_initializer,
                        h2h_weight_initializer=h2h_weight_initializer,
                        i2h_bias_initializer=i2h_bias_initializer,
                        h2h_bias_initializer=h2h_bias_initializer,
                    )
                    for d in self._directions
                ]
                self._unfused.add(rnn.BidirectionalCell(*cells) if bidirectional else cells[0])
            for direction, cell in zip(self._directions, cells):
                self.params.update(cell.params)
                for name, parameter in cell._reg_params.items():
                    setattr(self, parameter_name(direction, layer, name), parameter)

        self._operators_per_step = sum(cell.operators for cells in self._layers() for cell in cells)
        plain = not zoneout and not use_sequence_length
        self._by_hand = plain and all(cell.by_hand for cells in self._layers() for cell in cells)

    def _layers(self) -> Iterator[list[_Cell]]:
        """The cells of each layer, one or two."""
        for child in self._unfused:
            yield list(child._children.values()) if isinstance(child, rnn.BidirectionalCell) else [child]

    def _collect_params_with_prefix(self, prefix: str = "") -> dict[str, Any]:
        # The stack's own attributes are second names for the cells' parameters: in a file each stands once.
        return self._unfused._collect_params_with_prefix((prefix + "." if prefix else "") + "_unfused")

    def infer_shape(self, inputs: NDArray, *_: Any) -> None:
        """Complete the one shape that is left open: the first layer's inputs."""
        for direction in self._directions:
            weight = getattr(self, parameter_name(direction, 0, "i2h_weight"))
            weight.shape = (weight.shape[0], inputs.shape[-1])

    def cast(self, dtype: Union[str, type, np.dtype]) -> None:
        self._dtype = check_dtype(dtype)
        super().cast(self._dtype)

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape, layout and dtype of each state tensor: ``(num_layers * directions, batch_size, hidden_size)``."""
        rows = self._num_layers * len(self._directions)
        first = next(iter(self._layers()))[0]
        return [
            {"shape": (rows, *info["shape"]), "__layout__": "LNC", "dtype": self._dtype}
            for info in first.state_info(batch_size)
        ]

    def begin_state(
        self, batch_size: int = 0, func: Callable[..., Tensor] = mx.nd.zeros, **kwargs: Any
    ) -> list[Tensor]:
        """Initial states, by default zeros.

        Parameters
        ----------
        batch_size : int
            N; may stay 0 for symbols.
        func : callable
            What makes a tensor of them: ``mx.nd.zeros``, ``mx.nd.ones``, ``mx.sym.zeros``, ``mx.sym.var``, ...
        **kwargs
            Passed on to `func`, such as ``ctx``.
        """
        return [
            func(name=f"{self.prefix}h0_{i}", **{**info, **kwargs})
            for i, info in enumerate(self.state_info(batch_size))
        ]

    def __call__(
        self,
        inputs: Tensor,
        states: Union[Tensor, Sequence[Tensor], None] = None,
        sequence_length: Optional[Tensor] = None,
    ) -> Any:
        """The outputs; with `states` given, the outputs and the list of the last states.

        Parameters
        ----------
        inputs : NDArray or Symbol
            ``(sequence_length, batch_size, input_size)`` in layout TNC.
        states : optional
            As from `begin_state`; zeros by default.
        sequence_length : optional
            ``(batch_size,)``, the number of steps of each sequence that count. Needed and allowed with
            ``use_sequence_length=True`` alone.
        """
        given = states is not None
        if not isinstance(inputs, (NDArray, mx.sym.Symbol)):
            raise TypeError(f"inputs must be an NDArray or a Symbol, got {type(inputs).__name__}")
        batch_size = self._checked_shape(inputs)[self._layout.index("N")] if isinstance(inputs, NDArray) else 0
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
        length = self._unroll_length or known_length(inputs, self._time_axis)
        x = self._time_major(F, inputs)  # (T, N, C)
        alive = None if sequence_length is None else _alive(F, x, sequence_length)  # (T, N)
        x = _masked(F, x, sequence_length)
        rows = self._num_layers * len(self._directions)
        begin = zip(*(split(F, state, rows) for state in states))
        by_hand = self._by_hand and target().by_hand and length is not None and length >= bptt.SHORTEST
        last = []
        for layer, cells in enumerate(self._layers()):
            if self._tap is not None:
                x = self._tap(layer, x)
            below, outputs = x, []
            if layer > 0:
                x = self._dropped(F, x)
            for direction, cell in zip(self._directions, cells):
                names = {name: params[parameter_name(direction, layer, name)] for name in cell._reg_params}
                if by_hand:
                    y, end = bptt.layer(F, cell, names, x, list(next(begin)), reverse=direction == "r")
                else:
                    y, end = unroll(
                        F,
                        cell,
                        names,
                        x,
                        list(next(begin)),
                        length=length,
                        reverse=direction == "r",
                        zoneout=self._zoneout,
                        alive=alive,
                    )
                outputs.append(_masked(F, y, sequence_length))
                last.append(end)
            x = outputs[0] if len(outputs) == 1 else _side_by_side(F, outputs)
            if self._residual and layer > 0:
                x = x + below
        if self._tap is not None:
            x = self._tap(self._num_layers, x)
        return self._time_major(F, x), [join(F, state) for state in zip(*last)]

    def _time_major(self, F: Operators, x: Tensor) -> Tensor:
        """From the layout to TNC, and back: the two differ by one exchange of axes."""
        return x if self._layout == "TNC" else F.transpose(x, axes=(1, 0, 2))

    def _dropped(self, F: Operators, x: Tensor) -> Tensor:
        """The output of a layer as the next one gets it in training."""
        if not self._dropout:
            return x
        axes = (0,) if self._dropout_mode == "variational" else ()  # variational: one mask for all steps
        return F.Dropout(x, p=self._dropout, axes=axes)

    def _checked_shape(self, inputs: NDArray) -> tuple[int, ...]:
        if isinstance(inputs, mx.np.ndarray):
            raise TypeError("inputs must be an mx.nd.NDArray, got an mx.np.ndarray; use inputs.as_nd_ndarray()")
        shape = inputs.shape  # each look at an array is a call into the library
        if len(shape) != 3:
            raise ValueError(f"inputs must have 3 axes, {self._layout}, got shape {shape}")
        if 0 in shape:
            raise ValueError(f"inputs must hold at least one step, sequence and feature, got shape {shape}")
        if inputs.dtype is not np.dtype(self._dtype).type:
            came = np.dtype(inputs.dtype).name
            raise TypeError(f"inputs must be {self._dtype}, as the layer is, got {came}; cast one of the two")
        if self._dtype == "float16" and inputs.context.device_type != "gpu":
            raise TypeError("float16 needs a GPU: MXNet has no float16 matrix product on the CPU; cast to float32")
        size = getattr(self, parameter_name("l", 0, "i2h_weight")).shape[1]
        if size not in (0, shape[2]):
            raise ValueError(f"inputs must have input_size {size} on their last axis, got shape {shape}")
        length = shape[self._time_axis]
        if self._unroll_length not in (None, length):
            raise ValueError(f"inputs must have unroll_length {self._unroll_length} steps, got {length}")
        return shape

    def _check_sequence_length(self, inputs: Tensor, sequence_length: Optional[Tensor]) -> None:
        if self._use_sequence_length != (sequence_length is not None):
            raise ValueError(
                "use_sequence_length=True needs a sequence_length with each call"
                if self._use_sequence_length
                else "sequence_length needs a layer built with use_sequence_length=True"
            )
        if sequence_length is not None and type(sequence_length) is not type(inputs):
            raise TypeError(
                f"sequence_length must be a {type(inputs).__name__}, as inputs are, "
                f"got {type(sequence_length).__name__}"
            )
        if isinstance(sequence_length, NDArray) and isinstance(inputs, NDArray):
            batch_size = inputs.shape[self._layout.index("N")]
            if sequence_length.shape != (batch_size,):
                raise ValueError(f"sequence_length must have shape {(batch_size,)}, got {sequence_length.shape}")

    def __repr__(self) -> str:
        cell = next(iter(self._layers()))[0]
        rows, inputs = cell.i2h_weight.shape
        parts = [f"{inputs or None} -> {rows // len(cell.gates)}", self._layout]
        if self._num_layers != 1:
            parts.append(f"num_layers={self._num_layers}")
        if self._dropout != 0:
            parts.append(f"dropout={self._dropout}")
        if len(self._directions) == 2:
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
    if states is None and not isinstance(inputs, NDArray):
        return layer.begin_state(batch_size, func=mx.sym.zeros)
    if states is None:
        return layer.begin_state(batch_size, ctx=inputs.context)
    states = [states] if isinstance(states, (NDArray, mx.sym.Symbol)) else list(states)
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
        if state.dtype is not np.dtype(info["dtype"]).type:
            raise TypeError(f"states[{i}] must be {info['dtype']}, got {np.dtype(state.dtype).name}")
    return states


def _one_node(tensors: list[NDArray]) -> list[NDArray]:
    """The same values as the outputs of one operator, so that a backward pass from any of them lets go of them all.

    The book means to cut the gradient between batches, and calls `detach` but drops what that returns. With the
    built-in layer it does no harm: outputs and states are one operator's, which the first backward pass frees. States
    that this pass left behind would lead the second one into a graph that is gone.
    """
    copies = mx.sym.Group([mx.sym.identity(mx.sym.var(f"x{i}")) for i in range(len(tensors))])
    return mx.nd.CachedOp(copies, [("inline_limit", 0)])(*tensors)  # inlined, they would be many nodes again


def _masked(F: Operators, x: Tensor, sequence_length: Optional[Tensor]) -> Tensor:
    """``(T, N, C)`` with zeros past each sequence's end, so that nothing there, not even NaN, is seen or learnt."""
    return x if sequence_length is None else F.SequenceMask(x, sequence_length, use_sequence_length=True)


def _alive(F: Operators, x: Tensor, sequence_length: Tensor) -> Tensor:
    """``(T, N)``: one where the sequence has not ended, else zero."""
    ones = F.ones_like(F.slice_axis(x, axis=2, begin=0, end=1))
    return F.squeeze(_masked(F, ones, sequence_length), axis=2)


def _side_by_side(F: Operators, parts: Sequence[Tensor]) -> Tensor:
    """Two of ``(T, N, H)`` to ``(T, N, 2H)``."""
    # Along the last axis F.concat copies number by number; along one before it F.stack copies row by row.
    return F.reshape(F.stack(*parts, axis=2), shape=(0, 0, -1))


class DeepRNN(_Stack):
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
        Inputs C; 0 leaves it to the first call.
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
        input_size: int = 0,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        self._activation = check_choice("activation", activation, ACTIVATIONS)

        def new_cell(hidden_size: int, **arguments: Any) -> ElmanCell:
            return ElmanCell(hidden_size, activation=activation, **arguments)

        super().__init__(
            new_cell,
            hidden_size,
            num_layers,
            layout,
            dropout,
            bidirectional,
            input_size,
            dtype,
            i2h_weight_initializer=i2h_weight_initializer,
            h2h_weight_initializer=h2h_weight_initializer,
            i2h_bias_initializer=i2h_bias_initializer,
            h2h_bias_initializer=h2h_bias_initializer,
            **kwargs,
        )


class DeepGRU(_Stack):
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
        input_size: int = 0,
        i2h_weight_initializer: Init = None,
        h2h_weight_initializer: Init = None,
        i2h_bias_initializer: Init = "zeros",
        h2h_bias_initializer: Init = "zeros",
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            GRUCell,
            hidden_size,
            num_layers,
            layout,
            dropout,
            bidirectional,
            input_size,
            dtype,
            i2h_weight_initializer=i2h_weight_initializer,
            h2h_weight_initializer=h2h_weight_initializer,
            i2h_bias_initializer=i2h_bias_initializer,
            h2h_bias_initializer=h2h_bias_initializer,
            **kwargs,
        )


class DeepLSTM(_Stack):
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
        input_size: int = 0,
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
        def new_cell(hidden_size: int, **arguments: Any) -> LSTMCell:
            return LSTMCell(
                hidden_size,
                projection_size=projection_size,
                h2r_weight_initializer=h2r_weight_initializer,
                state_clip_min=state_clip_min,
                state_clip_max=state_clip_max,
                state_clip_nan=state_clip_nan,
                **arguments,
            )

        super().__init__(
            new_cell,
            hidden_size,
            num_layers,
            layout,
            dropout,
            bidirectional,
            input_size,
            dtype,
            output_size=projection_size,
            i2h_weight_initializer=i2h_weight_initializer,
            h2h_weight_initializer=h2h_weight_initializer,
            i2h_bias_initializer=i2h_bias_initializer,
            h2h_bias_initializer=h2h_bias_initializer,
            **kwargs,
        )
