r"""One layer, one time step.

A cell has two parts, and its `hybrid_forward` is the one after the other:

- ``project(F, inputs, params)``, the input part :math:`X_t W_{xh} + b`. There is no time in it, so it takes one step
  ``(N, C)`` or all of them ``(T, N, C)`` at once, as one matrix product. What a step needs apart it gives apart.
- ``step(F, projected, states, params)``, the recurrent part: the product with the last state, and the non-linearity.

Parameters are passed along, never fetched, so the same two functions draw a graph, run eagerly, or sit in a loop
operator. A new kind of layer is one more class here.

Shapes: T steps, N sequences, C inputs, H hidden units, P projected units.
"""

from __future__ import annotations

from typing import Any, Optional, Union

from mxnet.gluon.rnn import HybridRecurrentCell
from mxnet.initializer import Initializer

from .._util.checks import check_choice, check_dtype, check_size
from .._util.types import Operators, Params, Tensor
from .context import target

__all__ = ["ACTIVATIONS", "ElmanCell", "GRUCell", "LSTMCell"]

Init = Union[str, Initializer, None]
Step = tuple[list[Tensor], list[Tensor]]
"""The next states, the first of which is the output, and what else of the step its derivative needs."""
StepBack = tuple[list[Tensor], list[Tensor]]
"""What the gradients of the weights need, and the gradients of the last states."""

ACTIVATIONS = ("relu", "tanh")
"""The non-linearities of an Elman layer, by the names that `Activation` knows them under."""


def _affine(F: Operators, x: Tensor, weight: Tensor, bias: Optional[Tensor], num_hidden: int) -> Tensor:
    """``x @ weight.T + bias`` over the last axis. `FullyConnected` is the one product that runs in oneDNN."""
    arguments = [x, weight] if bias is None else [x, weight, bias]
    return F.FullyConnected(*arguments, num_hidden=num_hidden, no_bias=bias is None, flatten=False)


def _sum(F: Operators, a: Tensor, b: Tensor) -> Tensor:
    """``a + b`` of one shape."""
    # MXNet's own addition costs half of what oneDNN's does; with a backward pass it is one operator more.
    aim = target()
    return a + b if aim.device == "gpu" or aim.training else F.broadcast_add(a, b)


def _through(F: Operators, act_type: str, gradient: Tensor, value: Tensor) -> Tensor:
    """Back through a non-linearity of this value: times its derivative, which for all three follows from the value."""
    return getattr(F._internal, f"_backward_{act_type}")(gradient, value)  # one operator, where a formula has three


def _split(F: Operators, x: Tensor, num_gates: int, size: int) -> list[Tensor]:
    """The gates, which lie side by side on the last axis: ``(..., gates * size)`` to as many ``(..., size)``."""
    if target().device == "gpu":  # F.split breaks the capture of a CUDA graph
        return [F.slice_axis(x, axis=-1, begin=i * size, end=(i + 1) * size) for i in range(num_gates)]
    # Split along a middle axis they are copied row by row, along the last one number by number: a third of the time.
    apart = F.reshape(x, shape=(-2, num_gates, -1, -4), reverse=True)  # the last axis into two, whatever comes before
    return list(F.split(apart, num_outputs=num_gates, axis=-2, squeeze_axis=True))


class _Cell(HybridRecurrentCell):
    """What the cells share: four parameters with gluon's names and shapes, and ``step`` after ``project``."""

    gates: tuple[str, ...]
    """The gates in the order of their rows in the weights: MXNet's, which is also that of cuDNN and PyTorch."""
    in_step: tuple[str, ...] = ("h2h_weight",)
    """The parameters of the step: what is constant in time is added to the input part, once."""
    num_kept: int
    """Sequences that `step` keeps for the way back."""
    _operators: int
    _norms = 1

    def __init__(
        self,
        hidden_size: int,
        i2h_weight_initializer: Init,
        h2h_weight_initializer: Init,
        i2h_bias_initializer: Init,
        h2h_bias_initializer: Init,
        input_size: int,
        prefix: Optional[str],
        params: Any,
        layer_norm: bool,
        dtype: str,
        state_size: Optional[int] = None,
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self._hidden_size = check_size("hidden_size", hidden_size)
        self._input_size = check_size("input_size", input_size, minimum=0)
        self._dtype = check_dtype(dtype)
        rows = len(self.gates) * hidden_size
        self._add("i2h_weight", (rows, input_size), i2h_weight_initializer)
        self._add("h2h_weight", (rows, state_size or hidden_size), h2h_weight_initializer)
        self._add("i2h_bias", (rows,), i2h_bias_initializer)
        self._add("h2h_bias", (rows,), h2h_bias_initializer)
        self._layer_norm = layer_norm
        if layer_norm:
            self._add("i2h_gamma", (rows,), "ones")
            self._add("h2h_gamma", (rows,), "ones")

    def _add(self, name: str, shape: tuple[int, ...], init: Init) -> None:
        setattr(self, name, self.params.get(name, shape=shape, init=init, dtype=self._dtype, allow_deferred_init=True))

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        return [{"shape": (batch_size, self._hidden_size), "__layout__": "NC", "dtype": self._dtype}]

    def cast(self, dtype: Any) -> None:
        self._dtype = check_dtype(dtype)
        super().cast(self._dtype)

    @property
    def operators(self) -> int:
        """Operators in one step, which is what a small network costs."""
        return self._operators + (self._norms if self._layer_norm else 0)

    def project(self, F: Operators, inputs: Tensor, params: Params) -> list[Tensor]:
        """The input part, ``(..., C) -> (..., gates * H)``, in one piece or several."""
        return self.apart(F, self._product(F, inputs, params, "i2h", self.input_bias(F, params)))

    def apart(self, F: Operators, projected: Tensor) -> list[Tensor]:
        """The product of `project` in the pieces that `step` takes: what it would split in each step is split once."""
        return [projected]

    def input_bias(self, F: Operators, params: Params) -> Tensor:
        """That of the input part."""
        if "h2h_bias" in self.in_step:
            return params["i2h_bias"]
        # Elementwise addition hands one and the same gradient to the two, and under grad_req="add" MXNet then adds that
        # twice to the second.
        return F.broadcast_add(params["i2h_bias"], params["h2h_bias"])

    def recur(self, F: Operators, state: Tensor, params: Params) -> Tensor:
        """The product with the last state, ``(N, H) -> (N, gates * H)``."""
        bias = params["h2h_bias"] if "h2h_bias" in self.in_step else None
        return self._product(F, state, params, "h2h", bias)

    def _product(self, F: Operators, x: Tensor, params: Params, part: str, bias: Optional[Tensor]) -> Tensor:
        """One of the two products, plain or normalised; in layer normalisation its bias becomes the shift."""
        rows = len(self.gates) * self._hidden_size
        weight = params[f"{part}_weight"]
        if bias is not None and not self._layer_norm:
            return _affine(F, x, weight, bias, rows)
        product = _affine(F, x, weight, None, rows)
        if not self._layer_norm:
            return product
        return F.LayerNorm(product, params[f"{part}_gamma"], params[f"{part}_bias"], axis=-1)

    def step(self, F: Operators, projected: list[Tensor], states: list[Tensor], params: Params) -> Step:
        """The recurrent part of one step, from ``(N, gates * H)``, as `project` gives it, and the last states."""
        raise NotImplementedError

    # The derivative of a step, for `bptt`. Where a step is a product with the last state and then elementwise, so is
    # the way back: elementwise with factors that are known for all steps before the first is taken, then a product.

    @property
    def by_hand(self) -> bool:
        """Whether the derivative stands here; without it MXNet finds its own, which takes longer."""
        return not self._layer_norm

    @property
    def formula_name(self) -> str:
        """The same for cells of one formula and size."""
        options = ", ".join(f"{name}={value}" for name, value in self._formula.items())
        return f"{type(self).__name__} {self._hidden_size} {options}"

    def formula(self) -> _Cell:
        """A cell of the same formula and size without weights of its own."""
        return type(self)(self._hidden_size, **self._formula, prefix="")

    @property
    def _formula(self) -> dict[str, Any]:
        """The options that the formula depends on, where it is `by_hand`."""
        return {}

    def slopes(self, F: Operators, before: list[Tensor], after: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        """The factors of `step_back`, for all steps at once.

        From the states before and after each step and what `step` kept, ``(T, N, H)`` each.
        """
        raise NotImplementedError

    def step_back(self, F: Operators, grads: list[Tensor], slopes: list[Tensor], weight: Tensor) -> StepBack:
        """One step back: the gradients of the states after it to those of the states before it.

        Besides it gives, first, the gradient of the product with the last state. `weight` is that of the product,
        transposed.
        """
        raise NotImplementedError

    def products_back(self, F: Operators, steps: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        """The gradients of the products with the inputs and with the last state, ``(T, N, gates, H)``.

        From what `step_back` gave besides; one for both where the two products are simply added.
        """
        return steps

    def _back(self, F: Operators, product: Tensor, weight: Tensor) -> Tensor:
        """Back through the product of `recur`."""
        return F.FullyConnected(product, weight, num_hidden=self._hidden_size, no_bias=True)

    def hybrid_forward(self, F: Operators, inputs: Tensor, states: list[Tensor], **params: Tensor) -> Any:
        states, _ = self.step(F, self.project(F, inputs, params), states, params)
        return states[0], states

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.i2h_weight.shape[1] or None} -> {self._hidden_size})"


class ElmanCell(_Cell):
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
    i2h_weight_initializer, h2h_weight_initializer : str or Initializer, optional
        For the weights ``(H, C)`` and ``(H, H)``.
    i2h_bias_initializer, h2h_bias_initializer : str or Initializer
        For the two biases ``(H,)``.
    input_size : int
        Inputs C; 0 leaves it to the first call.
    prefix, params : optional
        As for every gluon block.
    layer_norm : bool, keyword-only
        Normalise each of the two products over its units before they are added (Ba et al. 2016, arXiv:1607.06450, as
        that paper has it for gated cells): two more parameters, ``i2h_gamma`` and ``h2h_gamma``, and the biases become
        the shifts.
    dtype : str, keyword-only
        Of the parameters and of `begin_state`.

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

    gates = ("h",)
    num_kept = 0
    _operators = 3

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
        self._activation = check_choice("activation", activation, ACTIVATIONS)
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
            layer_norm,
            dtype,
        )

    def _alias(self) -> str:
        return "rnn"

    @property
    def _formula(self) -> dict[str, Any]:
        return {"activation": self._activation}

    def step(self, F: Operators, projected: list[Tensor], states: list[Tensor], params: Params) -> Step:
        hidden = F.Activation(_sum(F, projected[0], self.recur(F, states[0], params)), act_type=self._activation)
        return [hidden], []

    def slopes(self, F: Operators, before: list[Tensor], after: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        return after

    def step_back(self, F: Operators, grads: list[Tensor], slopes: list[Tensor], weight: Tensor) -> StepBack:
        product = _through(F, self._activation, grads[0], slopes[0])
        return [product], [self._back(F, product, weight)]


class GRUCell(_Cell):
    r"""Gated recurrent unit, one step, as MXNet, cuDNN and PyTorch have it: the reset gate comes after the product.

    .. math::
        R_t &= \sigma(X_t W_{xr} + b_{xr} + H_{t-1} W_{hr} + b_{hr}) \\
        Z_t &= \sigma(X_t W_{xz} + b_{xz} + H_{t-1} W_{hz} + b_{hz}) \\
        \tilde H_t &= \tanh(X_t W_{xh} + b_{xh} + R_t \odot (H_{t-1} W_{hh} + b_{hh})) \\
        H_t &= Z_t \odot H_{t-1} + (1 - Z_t) \odot \tilde H_t

    Cho et al., 2014 (arXiv:1406.1078), with the reset gate as in that paper's appendix. Arguments, names and shapes of
    `gluon.rnn.GRUCell`; see `ElmanCell` for them. The weights are ``(3H, C)`` and ``(3H, H)``.
    """

    gates = ("r", "z", "h")
    in_step = ("h2h_weight", "h2h_bias")  # the candidate's stands inside the product with the reset gate
    num_kept = 4
    _operators = 13

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
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
            layer_norm,
            dtype,
        )

    def _alias(self) -> str:
        return "gru"

    def apart(self, F: Operators, projected: Tensor) -> list[Tensor]:
        return _split(F, projected, 3, self._hidden_size)

    def step(self, F: Operators, projected: list[Tensor], states: list[Tensor], params: Params) -> Step:
        hidden = states[0]
        input_r, input_z, input_h = projected
        recurrent = self.recur(F, hidden, params)
        state_r, state_z, state_h = _split(F, recurrent, 3, self._hidden_size)
        reset = F.Activation(_sum(F, input_r, state_r), act_type="sigmoid")
        update = F.Activation(_sum(F, input_z, state_z), act_type="sigmoid")
        candidate = F.Activation(_sum(F, input_h, reset * state_h), act_type="tanh")
        hidden = _sum(F, candidate, update * (hidden - candidate))  # the last line above, with one product less
        return [hidden], [reset, update, candidate, state_h]

    def slopes(self, F: Operators, before: list[Tensor], after: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        reset, update, candidate, state_h = kept
        to_candidate = _through(F, "tanh", 1 - update, candidate)
        through_r = _through(F, "sigmoid", to_candidate * state_h, reset)
        through_z = _through(F, "sigmoid", before[0] - candidate, update)
        return [F.stack(through_r, through_z, to_candidate * reset, axis=2), update]

    def step_back(self, F: Operators, grads: list[Tensor], slopes: list[Tensor], weight: Tensor) -> StepBack:
        hidden, (gates, update) = grads[0], slopes
        product = F.stack(hidden, hidden, hidden, axis=1) * gates
        return [product, hidden], [_sum(F, self._back(F, product, weight), hidden * update)]

    def products_back(self, F: Operators, steps: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        product, hidden = steps
        _, update, candidate, _ = kept
        through_r, through_z, _ = F.split(product, num_outputs=3, axis=2, squeeze_axis=True)
        through_h = hidden * _through(F, "tanh", 1 - update, candidate)
        return [F.stack(through_r, through_z, through_h, axis=2), product]


class LSTMCell(_Cell):
    r"""Long short-term memory, one step; with a projection if asked for.

    .. math::
        I_t, F_t, O_t &= \sigma(X_t W_{xi} + H_{t-1} W_{hi} + b_i), \; \ldots \\
        \tilde C_t &= \tanh(X_t W_{xc} + H_{t-1} W_{hc} + b_c) \\
        C_t &= \mathrm{clip}(F_t \odot C_{t-1} + I_t \odot \tilde C_t) \\
        H_t &= (O_t \odot \tanh(C_t)) \, W_{hr}

    Hochreiter and Schmidhuber, 1997; the projection :math:`W_{hr}` is that of Sak et al., 2014 (arXiv:1402.1128).
    Without ``projection_size`` and ``state_clip_*`` the last factor and the clip are not there. Arguments, names and
    shapes of `gluon.rnn.LSTMCell`; see `ElmanCell` for them. The rows of the weights are in the order input, forget,
    candidate, output: ``(4H, C)`` and ``(4H, H)``, or ``(4H, P)`` with a projection ``h2r_weight`` of ``(P, H)``.

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
        As in `ElmanCell`; the cell state is normalised besides, on its way to the output.
    """

    gates = ("i", "f", "c", "o")
    num_kept = 5
    _operators = 13
    _norms = 2

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
        self._clip = _check_clip(state_clip_min, state_clip_max)
        self._clip_nan = state_clip_nan
        self._projection_size = check_size("projection_size", projection_size) if projection_size else None
        super().__init__(
            hidden_size,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            input_size,
            prefix,
            params,
            layer_norm,
            dtype,
            state_size=self._projection_size,
        )
        if self._projection_size:
            self._add("h2r_weight", (self._projection_size, hidden_size), h2r_weight_initializer)
        if layer_norm:
            self._add("cell_gamma", (hidden_size,), "ones")
            self._add("cell_beta", (hidden_size,), "zeros")

    def _alias(self) -> str:
        return "lstm"

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        (hidden,), (cell,) = super().state_info(batch_size), super().state_info(batch_size)
        return [{**hidden, "shape": (batch_size, self._projection_size or self._hidden_size)}, cell]

    @property
    def by_hand(self) -> bool:
        return super().by_hand and self._projection_size is None and self._clip is None

    def step(self, F: Operators, projected: list[Tensor], states: list[Tensor], params: Params) -> Step:
        hidden, cell = states
        gates = _split(F, _sum(F, projected[0], self.recur(F, hidden, params)), 4, self._hidden_size)
        inputs, forget, output = (F.Activation(gates[i], act_type="sigmoid") for i in (0, 1, 3))
        candidate = F.Activation(gates[2], act_type="tanh")
        cell = self._clipped(F, _sum(F, forget * cell, inputs * candidate))
        seen = F.LayerNorm(cell, params["cell_gamma"], params["cell_beta"], axis=-1) if self._layer_norm else cell
        seen = F.Activation(seen, act_type="tanh")
        hidden = output * seen
        if self._projection_size:
            hidden = _affine(F, hidden, params["h2r_weight"], None, self._projection_size)
        return [hidden, cell], [inputs, forget, candidate, output, seen]

    def slopes(self, F: Operators, before: list[Tensor], after: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        inputs, forget, candidate, output, seen = kept
        gates = [
            _through(F, "sigmoid", candidate, inputs),
            _through(F, "sigmoid", before[1], forget),
            _through(F, "tanh", inputs, candidate),
            _through(F, "sigmoid", seen, output),
        ]
        return [F.stack(*gates, axis=2), _through(F, "tanh", output, seen), forget]

    def step_back(self, F: Operators, grads: list[Tensor], slopes: list[Tensor], weight: Tensor) -> StepBack:
        (hidden, cell), (gates, to_cell, forget) = grads, slopes
        cell = _sum(F, cell, hidden * to_cell)
        product = F.stack(cell, cell, cell, hidden, axis=1) * gates
        return [product], [self._back(F, product, weight), cell * forget]

    def _clipped(self, F: Operators, cell: Tensor) -> Tensor:
        if self._clip is None:
            return cell
        if self._clip_nan:
            cell = F.where(cell == cell, cell, F.ones_like(cell) * self._clip[0])  # only a NaN differs from itself
        low, high = self._clip
        return F.minimum(F.maximum(cell, low), high)  # F.clip keeps its bounds in float32, whatever the dtype


def _check_clip(low: Optional[float], high: Optional[float]) -> Optional[tuple[float, float]]:
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise ValueError(
            f"state_clip_min and state_clip_max go together, got state_clip_min={low}, state_clip_max={high}"
        )
    for name, bound in (("state_clip_min", low), ("state_clip_max", high)):
        if isinstance(bound, bool) or not isinstance(bound, (int, float)):
            raise TypeError(f"{name} must be a number, got {bound!r}")
    if not low <= high:
        raise ValueError(f"state_clip_min must not exceed state_clip_max, got {low} and {high}")
    return float(low), float(high)
