"""Embedding, recurrent stack, decoder: the logits of each next symbol."""

from __future__ import annotations

from typing import Any, Callable, Optional, Union

import mxnet as mx
from mxnet.gluon import nn, rnn
from mxnet.initializer import Initializer
from mxnet.ndarray import NDArray

from .._util.checks import check_choice, check_dtype, check_size
from .._util.types import Operators, Tensor
from ..nn.arrays import Kind, classic, complete_states
from ..nn.cells import ACTIVATIONS
from ..nn.context import Trace
from ..nn.graphs import AnyLength
from ..nn.initializers import DepthScaled
from ..nn.layers import DeepGRU, DeepLSTM, DeepRNN

__all__ = ["BACKENDS", "CELLS", "LanguageModel"]

STACKS: dict[str, dict[str, Callable[..., Any]]] = {
    "deeprnn": {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM},
    "gluon": {"rnn": rnn.RNN, "gru": rnn.GRU, "lstm": rnn.LSTM},
}
BACKENDS = tuple(STACKS)
CELLS = tuple(STACKS["deeprnn"])


class LanguageModel(AnyLength):
    """A recurrent language model over ids.

    ``ids (T, N) -> embedding (T, N, E) -> stack (T, N, H) -> decoder (T, N, V)``

    Parameters
    ----------
    vocab_size : int
        Symbols V.
    hidden_size, num_layers : int
        Of the stack.
    cell : {'rnn', 'gru', 'lstm'}, keyword-only
    activation : {'tanh', 'relu'}, keyword-only
        For ``cell='rnn'``; gated cells have theirs in their formula.
    embedding_size : int, keyword-only
        E; 0 feeds one-hot vectors, as the book's `RNNModel` does.
    dropout : float, keyword-only
        Between the layers of the stack.
    residual, layer_norm, zoneout : keyword-only
        Options of the stack that help it to be deep, see `DeepRNN`.
    tied : bool, keyword-only
        Embedding and decoder share their weight (Press and Wolf 2017, arXiv:1608.05859); E must equal H. What is read
        is multiplied by the root of E, as a decoder's weights are too small for an input (Vaswani et al. 2017,
        arXiv:1706.03762).
    backend : {'deeprnn', 'gluon'}, keyword-only
        This package's stack, or the built-in layer for comparing.
    dtype : str, keyword-only

    Raises
    ------
    ValueError, TypeError
        For an argument that is not as described; for ``backend='gluon'`` with dropout on a machine without a GPU, where
        the built-in layer ignores it.

    Examples
    --------
    >>> net = LanguageModel(vocab_size=65, hidden_size=256, num_layers=2, embedding_size=64)
    >>> net.initialize()
    >>> net.hybridize(static_alloc=True, static_shape=True)
    >>> logits, states = net(ids, net.begin_state(batch_size=32))    # ids (T, 32), any T
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        cell: str = "rnn",
        activation: str = "tanh",
        embedding_size: int = 0,
        dropout: float = 0.0,
        residual: bool = False,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        tied: bool = False,
        backend: str = "deeprnn",
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._vocab_size = check_size("vocab_size", vocab_size)
        self._embedding_size = check_size("embedding_size", embedding_size, minimum=0)
        self._dtype = check_dtype(dtype)
        check_size("hidden_size", hidden_size)
        check_size("num_layers", num_layers)
        check_choice("activation", activation, ACTIVATIONS)
        stack = STACKS[check_choice("backend", backend, BACKENDS)][check_choice("cell", cell, CELLS)]
        if backend == "gluon" and dropout and not mx.context.num_gpus():
            raise ValueError("backend 'gluon' ignores dropout on the CPU; use backend 'deeprnn', or dropout 0")
        if tied and embedding_size != hidden_size:
            raise ValueError(f"tied needs embedding_size equal to hidden_size, got {embedding_size} and {hidden_size}")
        arguments: dict[str, Any] = {"activation": activation} if cell == "rnn" else {}
        deep = {"residual": residual, "layer_norm": layer_norm, "zoneout": zoneout}
        if backend == "deeprnn":
            arguments.update(deep)
        elif any(deep.values()):
            raise ValueError(f"backend 'gluon' has no {', '.join(name for name, value in deep.items() if value)}")
        self.draws_random = dropout > 0 or zoneout > 0
        self._tied = tied
        self._initializer = DepthScaled(activation, residual)
        with self.name_scope():
            self.stack = stack(
                hidden_size,
                num_layers,
                dropout=dropout,
                input_size=embedding_size or vocab_size,
                dtype=dtype,
                **arguments,
            )
            self.decoder = nn.Dense(vocab_size, flatten=False, in_units=hidden_size, dtype=dtype)
            shared = self.decoder.params if tied else None
            self.embedding = (
                nn.Embedding(vocab_size, embedding_size, dtype=dtype, params=shared) if embedding_size else None
            )

    def length_free(self, current: Trace) -> bool:
        """Whether one graph serves any length; the built-in layer is one operator."""
        return not isinstance(self.stack, AnyLength) or self.stack.length_free(current)

    @property
    def operators_per_step(self) -> int:
        """Operators that one more step adds to a static graph."""
        return self.stack.operators_per_step

    def begin_state(self, batch_size: int, func: Callable[..., Tensor] = mx.nd.zeros, **kwargs: Any) -> list[Tensor]:
        """Zero states for `batch_size` sequences, ``[(L, N, H)]``, two of them for an LSTM."""
        return self.stack.begin_state(batch_size, func=func, **kwargs)

    def __call__(self, ids: Tensor, states: Union[Tensor, list[Tensor], None] = None) -> tuple[Tensor, list[Tensor]]:
        """Logits ``(T, N, V)`` and the last states, from ids ``(T, N)`` and states (zeros by default)."""
        if not isinstance(ids, (NDArray, mx.sym.Symbol)):
            raise TypeError(f"ids must be an NDArray or a Symbol, got {type(ids).__name__}")
        batch_size = 0
        if isinstance(ids, NDArray):
            shape = ids.shape
            if len(shape) != 2 or 0 in shape:
                raise ValueError(f"ids must have shape (sequence_length, batch_size), got {shape}")
            batch_size = shape[1]
        return super().__call__(ids, complete_states(self.stack, states, ids, batch_size))

    def hybrid_forward(self, F: Operators, ids: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if self.embedding is None:
            inputs = Kind(ids)(F.one_hot(classic(ids), depth=self._vocab_size, dtype=self._dtype))
        else:
            inputs = self.embedding(ids)
        if self._tied:
            inputs = inputs * self._embedding_size**0.5
        outputs, states = self.stack(inputs, states)
        return self.decoder(outputs), states

    def cast(self, dtype: Any) -> None:
        self._dtype = check_dtype(dtype)
        super().cast(self._dtype)

    def initialize(
        self,
        init: Union[str, Initializer, None] = None,
        ctx: Optional[Any] = None,
        verbose: bool = False,
        force_reinit: bool = False,
    ) -> None:
        """Gluon's `initialize`, by default with the `DepthScaled` that fits the stack."""
        super().initialize(init or self._initializer, ctx, verbose, force_reinit)
