r"""Layers on layers, in both directions.

The output of layer l is the input of layer l + 1, and each layer owns its own state:

.. math:: H_t^{(l)} = \phi(H_t^{(l-1)} W_{xh}^{(l)} + H_{t-1}^{(l)} W_{hh}^{(l)} + b^{(l)}), \qquad H_t^{(0)} = X_t

The arithmetic is the cells', the time is `unroll`'s; a stack routes, in `hybrid_forward`. The other methods are what
gluon, and code written for its layers, asks of a recurrent layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Callable, Optional, Union

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.ndarray import NDArray
from mxnet.symbol import Symbol
from mxnet.util import is_np_array

from .._util.checks import check_choice, check_dtype, check_fraction, check_size
from .._util.types import Operators, Tensor
from . import native
from .arrays import DefaultStates, Kind, check_sequence_length, checked_shape, classic, complete_states, one_node
from .cells import RecurrentCell
from .context import Trace, trace, traced_here
from .graphs import AnyLength, known_length
from .operators import join, side_by_side, split, with_axes
from .unfused import unfused
from .unroll import unroll

__all__ = ["RecurrentStack", "parameter_name"]

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
        self.residual = bool(residual)
        self.zoneout = check_fraction("zoneout", zoneout)
        self.directions = "lr" if bidirectional else "l"
        check_dtype(dtype)
        self.use_sequence_length = bool(use_sequence_length)
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
    def dtype(self) -> str:
        """Of the parameters, and so of inputs, states and outputs."""
        return self.cell.dtype

    @property
    def input_size(self) -> int:
        """Inputs C; 0 before the first call if it was left to that."""
        return self.l0_i2h_weight.shape[1]

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
        super().cast(check_dtype(dtype))

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
        """Call the layer.

        Parameters
        ----------
        inputs : NDArray, mx.np.ndarray or Symbol
            ``(sequence_length, batch_size, input_size)`` in layout TNC.
        states : optional
            As from `begin_state`; zeros by default.
        sequence_length : optional
            ``(batch_size,)``, the number of steps of each sequence that count. Needed and allowed with
            ``use_sequence_length=True`` alone.

        Returns
        -------
        Tensor, or tuple of Tensor and list of Tensor
            The outputs; with `states` given, the outputs and the list of the last states.

        Raises
        ------
        ValueError, TypeError
            For arguments that do not fit the layer or each other.
        """
        if not isinstance(inputs, (NDArray, Symbol)):
            raise TypeError(f"inputs must be an NDArray or a Symbol, got {type(inputs).__name__}")
        batch_size = checked_shape(self, inputs)[self.batch_axis] if isinstance(inputs, NDArray) else 0
        states = complete_states(self, states, inputs, batch_size)
        check_sequence_length(self, inputs, sequence_length)
        arguments = [] if sequence_length is None else [sequence_length]
        return super().__call__(inputs, states, *arguments)

    def forward(self, inputs: Tensor, states: list[Tensor], *more: Tensor) -> Any:
        """The call itself, around which gluon calls its hooks: they see what the caller gets."""
        with nullcontext() if self._active or self._shapes_known() else self._graphs.lock:
            outputs, last = super().forward(inputs, states, *more)
        if isinstance(states, DefaultStates):
            return outputs
        if not self._active and isinstance(outputs, NDArray) and autograd.is_recording():
            outputs, *last = one_node([outputs, *last])
        return outputs, last

    def _shapes_known(self) -> bool:
        """False before the first call of all, which completes them, and for which other threads wait."""
        return getattr(self, parameter_name(self.directions[-1], 0, "i2h_weight"))._data is not None

    def hybrid_forward(
        self,
        F: Operators,
        inputs: Tensor,
        states: list[Tensor],
        sequence_length: Optional[Tensor] = None,
        **params: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        # The graph always returns both: what a call returns must not depend on an earlier one.
        as_given = Kind(inputs)
        inputs, *states = map(classic, (inputs, *states))
        sequence_length = None if sequence_length is None else classic(sequence_length)
        length = self.unroll_length or known_length(inputs, self.time_axis)
        if isinstance(inputs, Symbol):
            if not self.length_free(trace()):
                self.check_foreign_flags()
            elif not traced_here():
                inputs, *states = (with_axes(F, x, 3) for x in (inputs, *states))
                sequence_length = None if sequence_length is None else with_axes(F, sequence_length, 1)
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
                    {name: classic(params[parameter_name(direction, layer, name)]) for name in cell._reg_params},
                    x,
                    list(next(begin)),
                    length=length,
                    reverse=direction == "r",
                    zoneout=self.zoneout,
                    sequence_length=sequence_length,
                )
                outputs.append(y)
                last.append(end)
            x = outputs[0] if len(outputs) == 1 else side_by_side(F, outputs)
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
        """Operators that one more step adds to a static graph: about 3 for a cell of one gate, 14 for others."""
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

    def _unfuse(self) -> Any:
        """Gluon's unfused cells with the parameters of this stack, as the built-in layers give them."""
        return unfused(self)

    def __repr__(self) -> str:
        parts = [f"{self.input_size or None} -> {self.hidden_size}", self.layout]
        if self.num_layers != 1:
            parts.append(f"num_layers={self.num_layers}")
        if self.dropout != 0:
            parts.append(f"dropout={self.dropout}")
        if len(self.directions) == 2:
            parts.append("bidirectional")
        return f"{type(self).__name__}({', '.join(parts)})"
