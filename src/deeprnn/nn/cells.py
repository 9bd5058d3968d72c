r"""One layer, one time step.

A cell has two parts, and its `hybrid_forward` is the one after the other:

- ``project(F, inputs, params)``, the input projection :math:`X_t W_{xh} + b_{xh}`. There is no time in it, so it takes
  one step ``(N, C)`` or all of them ``(T, N, C)`` at once, as one matrix product.
- ``step(F, projected, states, params)``, the recurrent part: the formula of one step.

Parameters are passed as arguments, so the same two functions trace a graph, run eagerly, or sit in a loop
operator. A new kind of layer is one more subclass of `RecurrentCell`; docs/cells.md has a worked example.

On a CPU the built-in cells run as one C++ operator for all steps (native.py); what is here is its definition, what it
is tested against, and what an exported graph holds.

Shapes: T steps, N sequences, C inputs, H hidden units, P projected units, G = gates * H.
"""

from __future__ import annotations

from typing import Any, Optional, Union

from mxnet.gluon.rnn import HybridRecurrentCell
from mxnet.initializer import Initializer

from .._util.checks import check_bounds, check_choice, check_dtype, check_size, dtype_name
from .._util.types import Operators, Params, Tensor
from .context import may_be_frozen
from .operators import affine, sigmoid, split_gates, tanh

__all__ = ["ACTIVATIONS", "ElmanCell", "GRUCell", "Init", "LSTMCell", "RecurrentCell"]

Init = Union[str, Initializer, None]

ACTIVATIONS = ("relu", "tanh")
"""The non-linearities of an Elman layer, by the names that `Activation` knows them under."""


class RecurrentCell(HybridRecurrentCell):
    """The base of all cells: two products with gluon's parameter names and shapes, and `step` after `project`.

    A subclass names its `gates`, the rows of its weights in order, and writes `step`. One with more states than the
    output overrides `state_info`; one with more parameters adds them in its ``__init__`` with `add_parameter`.

    Parameters
    ----------
    hidden_size : int
        Units H.
    i2h_weight_initializer, h2h_weight_initializer : str or Initializer, optional
        For the weights ``(G, C)`` and ``(G, H)``.
    i2h_bias_initializer, h2h_bias_initializer : str or Initializer
        For the two biases ``(G,)``.
    input_size : int
        Inputs C; 0 leaves it to the first call.
    prefix, params : optional
        As for every gluon block.
    layer_norm : bool, keyword-only
        Normalise each of the two products over its units (Ba et al. 2016, arXiv:1607.06450): two more parameters,
        ``i2h_gamma`` and ``h2h_gamma``, and the biases become the shifts.
    dtype : str, keyword-only
        Of the parameters and of `begin_state`.

    Raises
    ------
    ValueError, TypeError
        For a size below 1 or an unknown dtype.
    """

    gates: tuple[str, ...] = ("h",)
    """The gates in the order of their rows in the weights: MXNet's, which is also that of cuDNN and PyTorch."""

    kind: str = ""
    """``rnn``, ``gru`` or ``lstm``; empty for a cell of your own."""

    def __init__(
        self,
        hidden_size: int,
        i2h_weight_initializer: Init = None,
        h2h_weight_initializer: Init = None,
        i2h_bias_initializer: Init = "zeros",
        h2h_bias_initializer: Init = "zeros",
        input_size: int = 0,
        prefix: Optional[str] = None,
        params: Any = None,
        *,
        layer_norm: bool = False,
        dtype: str = "float32",
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self._first_dtype = check_dtype(dtype)
        self.layer_norm = layer_norm
        check_size("input_size", input_size, minimum=0)
        rows = len(self.gates) * hidden_size
        self.add_parameter("i2h_weight", (rows, input_size), i2h_weight_initializer)
        self.add_parameter("h2h_weight", (rows, self.state_info()[0]["shape"][1]), h2h_weight_initializer)
        self.add_parameter("i2h_bias", (rows,), i2h_bias_initializer)
        self.add_parameter("h2h_bias", (rows,), h2h_bias_initializer)
        if layer_norm:
            self.add_parameter("i2h_gamma", (rows,), "ones")
            self.add_parameter("h2h_gamma", (rows,), "ones")

    def add_parameter(self, name: str, shape: tuple[int, ...], init: Init) -> None:
        """Give the cell a parameter of this short name, under which `step` finds it in ``params``."""
        dtype = self._first_dtype
        setattr(self, name, self.params.get(name, shape=shape, init=init, dtype=dtype, allow_deferred_init=True))

    @property
    def dtype(self) -> str:
        """Of the parameters: a file may bring its own, by ``load_parameters(..., dtype_source="saved")``."""
        return dtype_name(self.i2h_weight.dtype)

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape, layout and dtype of each state; the first is the output."""
        return [{"shape": (batch_size, self.hidden_size), "__layout__": "NC", "dtype": self.dtype}]

    def _alias(self) -> str:
        return self.kind or super()._alias()

    def cast(self, dtype: Any) -> None:
        """Gluon's `cast`; the states follow."""
        super().cast(check_dtype(dtype))

    def project(self, F: Operators, inputs: Tensor, params: Params) -> Tensor:
        """The input projection, ``(..., C) -> (..., G)``."""
        return self.dense(F, inputs, "i2h", params)

    def step(self, F: Operators, projected: Tensor, states: list[Tensor], params: Params) -> list[Tensor]:
        """The states after one step, the first of which is the output.

        Parameters
        ----------
        F
            ``mx.nd`` or ``mx.sym``; use only its operators, and no shape.
        projected : Tensor
            ``(N, G)``, the input projection of this step.
        states : list of Tensor
            As `state_info` describes them.
        params : mapping
            The parameters by their short names.
        """
        raise NotImplementedError

    def dense(self, F: Operators, x: Tensor, part: str, params: Params) -> Tensor:
        """``x @ weight.T + bias`` over the last axis with the parameters of a part, ``'i2h'`` or ``'h2h'``.

        With `layer_norm` the product is normalised, and the bias is the shift.
        """
        weight, bias = params[f"{part}_weight"], params[f"{part}_bias"]
        rows = len(self.gates) * self.hidden_size
        if not self.layer_norm:
            frozen = may_be_frozen(getattr(self, f"{part}_weight"), x)
            return affine(F, x, weight, bias, rows, frozen)
        return F.LayerNorm(affine(F, x, weight, None, rows), params[f"{part}_gamma"], bias, axis=-1)

    def hybrid_forward(self, F: Operators, inputs: Tensor, states: list[Tensor], **params: Tensor) -> Any:
        """One step: the output ``(N, H)`` and the list of states."""
        states = self.step(F, self.project(F, inputs, params), states, params)
        return states[0], states

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.i2h_weight.shape[1] or None} -> {self.hidden_size})"


class ElmanCell(RecurrentCell):
    r"""Elman's recurrent layer, one step: the formula of the book.

    .. math:: H_t = \phi(X_t W_{xh} + H_{t-1} W_{hh} + b), \qquad b = b_{i2h} + b_{h2h}

    Elman, *Finding structure in time*, 1990; *Dive into Deep Learning*, "Deep Recurrent Neural Networks". A drop-in
    for `gluon.rnn.RNNCell`, whose arguments, parameter names and shapes it has; like that cell, and unlike the layer,
    it defaults to tanh.

    Parameters
    ----------
    hidden_size : int
        Units H.
    activation : {'tanh', 'relu'}
        The non-linearity :math:`\phi`.
    others
        As for `RecurrentCell`. With `layer_norm` this cell is normalised as the
        gated ones are in its source.

    Raises
    ------
    ValueError, TypeError
        For a size below 1 or an unknown activation.

    Examples
    --------
    >>> cell = ElmanCell(4)
    >>> cell.initialize()
    >>> output, states = cell(mx.nd.ones((2, 3)), cell.begin_state(2))   # (N, C) -> (N, H), [(N, H)]
    """

    kind = "rnn"

    def __init__(
        self,
        hidden_size: int,
        activation: str = "tanh",
        i2h_weight_initializer: Init = None,
        h2h_weight_initializer: Init = None,
        i2h_bias_initializer: Init = "zeros",
        h2h_bias_initializer: Init = "zeros",
        input_size: int = 0,
        prefix: Optional[str] = None,
        params: Any = None,
        *,
        layer_norm: bool = False,
        dtype: str = "float32",
    ) -> None:
        self.activation = check_choice("activation", activation, ACTIVATIONS)
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
            layer_norm=layer_norm,
            dtype=dtype,
        )

    def step(self, F: Operators, projected: Tensor, states: list[Tensor], params: Params) -> list[Tensor]:
        (hidden,) = states
        recurrent = self.dense(F, hidden, "h2h", params)  # H_(t-1) W_hh + b_h2h
        preactivation = projected + recurrent  # projected: X_t W_xh + b_i2h
        return [F.Activation(preactivation, act_type=self.activation)]  # phi


class GRUCell(RecurrentCell):
    r"""Gated recurrent unit, one step, as MXNet, cuDNN and PyTorch have it: the reset gate comes after the product.

    .. math::
        R_t &= \sigma(X_t W_{xr} + b_{xr} + H_{t-1} W_{hr} + b_{hr}) \\
        Z_t &= \sigma(X_t W_{xz} + b_{xz} + H_{t-1} W_{hz} + b_{hz}) \\
        \tilde H_t &= \tanh(X_t W_{xh} + b_{xh} + R_t \odot (H_{t-1} W_{hh} + b_{hh})) \\
        H_t &= Z_t \odot H_{t-1} + (1 - Z_t) \odot \tilde H_t

    Cho et al., 2014 (arXiv:1406.1078), with the reset gate as in that paper's appendix. Arguments, names and shapes of
    `gluon.rnn.GRUCell`; see `RecurrentCell` for them. The weights are ``(3H, C)`` and ``(3H, H)``.
    """

    gates = ("r", "z", "h")
    kind = "gru"

    def step(self, F: Operators, projected: Tensor, states: list[Tensor], params: Params) -> list[Tensor]:
        hidden = states[0]
        input_r, input_z, input_h = split_gates(F, projected, 3, self.hidden_size)
        state_r, state_z, state_h = split_gates(F, self.dense(F, hidden, "h2h", params), 3, self.hidden_size)
        reset = sigmoid(F, input_r + state_r)
        update = sigmoid(F, input_z + state_z)
        candidate = tanh(F, input_h + reset * state_h)
        return [candidate + update * (hidden - candidate)]  # the last line above, with one product less


class LSTMCell(RecurrentCell):
    r"""Long short-term memory, one step; with a projection if asked for.

    .. math::
        I_t, F_t, O_t &= \sigma(X_t W_{xi} + H_{t-1} W_{hi} + b_i), \; \ldots \\
        \tilde C_t &= \tanh(X_t W_{xc} + H_{t-1} W_{hc} + b_c) \\
        C_t &= \mathrm{clip}(F_t \odot C_{t-1} + I_t \odot \tilde C_t) \\
        H_t &= (O_t \odot \tanh(C_t)) \, W_{hr}

    Hochreiter and Schmidhuber, 1997; the projection :math:`W_{hr}` is that of Sak et al., 2014 (arXiv:1402.1128).
    Without ``projection_size`` and ``state_clip_*`` the last factor and the clip are not there. Arguments, names and
    shapes of `gluon.rnn.LSTMCell`; see `RecurrentCell` for them. The rows of the weights are in the order input,
    forget, candidate, output: ``(4H, C)`` and ``(4H, H)``, or ``(4H, P)`` with a projection ``h2r_weight`` of
    ``(P, H)``.

    Parameters
    ----------
    projection_size : int, optional, keyword-only
        Units P of the output and of the hidden state; the cell state keeps H.
    h2r_weight_initializer : str or Initializer, optional, keyword-only
    state_clip_min, state_clip_max : float, optional, keyword-only
        The cell state is kept between them; both or neither.
    state_clip_nan : bool, keyword-only
        With the clip: a NaN in the cell state becomes ``state_clip_min`` instead of travelling on.
    layer_norm : bool, keyword-only
        As in `RecurrentCell`; the cell state is normalised too, on its way to the output.
    """

    gates = ("i", "f", "c", "o")
    kind = "lstm"

    def __init__(
        self,
        hidden_size: int,
        i2h_weight_initializer: Init = None,
        h2h_weight_initializer: Init = None,
        i2h_bias_initializer: Init = "zeros",
        h2h_bias_initializer: Init = "zeros",
        input_size: int = 0,
        prefix: Optional[str] = None,
        params: Any = None,
        *,
        projection_size: Optional[int] = None,
        h2r_weight_initializer: Init = None,
        state_clip_min: Optional[float] = None,
        state_clip_max: Optional[float] = None,
        state_clip_nan: bool = False,
        layer_norm: bool = False,
        dtype: str = "float32",
    ) -> None:
        self.clip = check_bounds("state_clip_min", state_clip_min, "state_clip_max", state_clip_max)
        self.clip_nan = state_clip_nan
        self.projection_size = check_size("projection_size", projection_size) if projection_size else None
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
            layer_norm=layer_norm,
            dtype=dtype,
        )
        if self.projection_size:
            self.add_parameter("h2r_weight", (self.projection_size, hidden_size), h2r_weight_initializer)
        if layer_norm:
            self.add_parameter("cell_gamma", (hidden_size,), "ones")
            self.add_parameter("cell_beta", (hidden_size,), "zeros")

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        (hidden,), (cell,) = super().state_info(batch_size), super().state_info(batch_size)
        return [{**hidden, "shape": (batch_size, self.projection_size or self.hidden_size)}, cell]

    def step(self, F: Operators, projected: Tensor, states: list[Tensor], params: Params) -> list[Tensor]:
        hidden, cell = states
        i, f, c, o = split_gates(F, projected + self.dense(F, hidden, "h2h", params), 4, self.hidden_size)
        cell = self._clipped(F, sigmoid(F, f) * cell + sigmoid(F, i) * tanh(F, c))
        seen = F.LayerNorm(cell, params["cell_gamma"], params["cell_beta"], axis=-1) if self.layer_norm else cell
        hidden = sigmoid(F, o) * tanh(F, seen)
        if self.projection_size:
            hidden = affine(F, hidden, params["h2r_weight"], None, self.projection_size)
        return [hidden, cell]

    def _clipped(self, F: Operators, cell: Tensor) -> Tensor:
        if self.clip is None:
            return cell
        low, high = self.clip
        if self.clip_nan:
            cell = F.where(cell == cell, cell, F.ones_like(cell) * low)  # only a NaN differs from itself
        return F.minimum(F.maximum(cell, low), high)  # F.clip keeps its bounds in float32, whatever the dtype
