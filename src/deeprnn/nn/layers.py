"""The layers: `DeepRNN`, `DeepGRU` and `DeepLSTM`.

They take the arguments of `gluon.rnn.RNN`, `GRU` and `LSTM` in their order with their defaults, and return what those
return. Each is a `RecurrentStack` of one kind of cell; here are their signatures.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Optional

from .._util.checks import check_choice
from .cells import ACTIVATIONS, ElmanCell, GRUCell, Init, LSTMCell
from .stack import RecurrentStack

__all__ = ["DeepGRU", "DeepLSTM", "DeepRNN"]


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
        The one length of all calls, for which the graph is unrolled. Needed inside another block that is hybridized
        with ``static_shape=True``, where the C++ operator does not serve.
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
