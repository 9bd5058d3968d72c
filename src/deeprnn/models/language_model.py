"""A language model: embedding, recurrent layers, decoder; and the registry of its cells."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional, Union

import mxnet as mx
from mxnet.gluon import nn, rnn
from mxnet.initializer import Initializer
from mxnet.ndarray import NDArray

from .._util.checks import check_choice, check_dtype, check_size, dtype_name
from .._util.types import Operators, Tensor
from ..nn import native
from ..nn.arrays import Kind, classic, complete_states
from ..nn.cells import ACTIVATIONS, RecurrentCell
from ..nn.context import Trace, may_be_frozen
from ..nn.graphs import AnyLength
from ..nn.initializers import DepthScaled
from ..nn.layers import DeepGRU, DeepLSTM, DeepRNN
from ..nn.operators import affine
from ..nn.stack import RecurrentStack, parameter_name
from .packed import PackedNetwork

__all__ = ["BACKENDS", "CELLS", "STACKS", "LanguageModel", "cells", "register_cell"]

Stack = Callable[..., Any]

STACKS: dict[str, dict[str, Stack]] = {
    "deeprnn": {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM},
    "gluon": {"rnn": rnn.RNN, "gru": rnn.GRU, "lstm": rnn.LSTM},
}
BACKENDS = tuple(STACKS)
CELLS = tuple(STACKS["deeprnn"])
"""The built-in cells."""


def cells() -> tuple[str, ...]:
    """Names of all cells: the built-in ones and those that have been registered."""
    return tuple(STACKS["deeprnn"])


def register_cell(name: str, cell: Stack) -> None:
    """Make a cell available to `LanguageModel` as ``cell=name``.

    Parameters
    ----------
    name
        An identifier; not that of a built-in cell. Registering a name again replaces its cell.
    cell
        A subclass of `RecurrentCell`, of which a stack is made. Or, for layers of another kind, a class or function
        that returns them. It is called as ``cell(hidden_size, num_layers, dropout=..., input_size=..., dtype=...)``,
        and with ``residual``, ``layer_norm`` and ``zoneout`` if they are used. The result is a block with the interface
        of `DeepRNN`: called with inputs ``(T, N, C)`` and states, it returns ``(T, N, H)`` and states; it has
        `state_info` and `begin_state`.

    Raises
    ------
    ValueError, TypeError
        For a name that is built in or no identifier, and for a cell that cannot be called.

    Examples
    --------
    >>> register_cell("mgu", MGUCell)
    >>> net = LanguageModel(vocab_size=65, hidden_size=256, num_layers=2, cell="mgu")
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name must be an identifier, got {name!r}")
    if name in CELLS:
        raise ValueError(f"name must not be that of a built-in cell ({', '.join(CELLS)}), got {name!r}")
    if not callable(cell):
        raise TypeError(f"cell must be a RecurrentCell or a class or function that makes layers, got {cell!r}")
    if isinstance(cell, type) and issubclass(cell, RecurrentCell):
        cell = partial(_layers_of, cell)
    STACKS["deeprnn"][name] = cell


def _layers_of(cell: type[RecurrentCell], hidden_size: int, num_layers: int, **options: Any) -> RecurrentStack:
    return RecurrentStack(partial(cell, hidden_size), num_layers, **options)


class Dense(nn.Dense):
    """Gluon's, with the correct gradient of the bias if the weight is frozen, see `affine`."""

    def hybrid_forward(self, F: Operators, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        frozen = may_be_frozen(self.weight, x)
        return Kind(x)(affine(F, classic(x), classic(weight), classic(bias), self._units, frozen))


class LanguageModel(AnyLength):
    """A recurrent language model.

    ``ids (T, N) -> embedding (T, N, E) -> recurrent layers (T, N, H) -> decoder (T, N, V)``

    Parameters
    ----------
    vocab_size : int
        Number of symbols V.
    hidden_size, num_layers : int
        Hidden units H of each recurrent layer, and number of layers.
    cell : str, keyword-only
        'rnn', 'gru', 'lstm', or a registered name, see `register_cell`.
    activation : {'tanh', 'relu'}, keyword-only
        For ``cell='rnn'``; other cells have their own.
    embedding_size : int, keyword-only
        Size E of the embedding; 0: one-hot vectors, as in the book's `RNNModel`.
    dropout : float, keyword-only
        Probability of dropping a value between two recurrent layers during training.
    residual, layer_norm, zoneout : keyword-only
        Options for deep stacks, see `DeepRNN`.
    tied : bool, keyword-only
        Share one weight between embedding and decoder (Press and Wolf 2017, arXiv:1608.05859); E must equal H. The
        embedding is multiplied by the square root of E, as the weights of a decoder are too small for an input (Vaswani
        et al. 2017, arXiv:1706.03762).
    backend : {'deeprnn', 'gluon'}, keyword-only
        The layers of this package, or MXNet's built-in ones, for comparison.
    dtype : str, keyword-only

    Raises
    ------
    ValueError, TypeError
        For an invalid argument, and for ``backend='gluon'`` with dropout on a machine without a GPU, where the built-in
        layers ignore dropout.

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
        self.vocab_size = check_size("vocab_size", vocab_size)
        self.embedding_size = check_size("embedding_size", embedding_size, minimum=0)
        check_dtype(dtype)
        check_size("hidden_size", hidden_size)
        check_size("num_layers", num_layers)
        check_choice("activation", activation, ACTIVATIONS)
        stacks = STACKS[check_choice("backend", backend, BACKENDS)]
        stack = stacks[check_choice("cell", cell, tuple(stacks))]
        if backend == "gluon" and dropout and not mx.context.num_gpus():
            raise ValueError("backend 'gluon' ignores dropout on the CPU; use backend 'deeprnn', or dropout 0")
        if tied and embedding_size != hidden_size:
            raise ValueError(f"tied needs embedding_size equal to hidden_size, got {embedding_size} and {hidden_size}")
        arguments: dict[str, Any] = {"activation": activation} if cell == "rnn" else {}
        deep = {"residual": residual, "layer_norm": layer_norm, "zoneout": zoneout}
        if backend == "deeprnn":
            arguments.update(deep if cell in CELLS else {name: value for name, value in deep.items() if value})
        elif any(deep.values()):
            raise ValueError(f"backend 'gluon' has no {', '.join(name for name, value in deep.items() if value)}")
        self.draws_random = dropout > 0 or zoneout > 0
        self.tied = tied
        self._initializer = DepthScaled(activation if cell == "rnn" else "tanh", residual)
        with self.name_scope():
            self.stack = stack(
                hidden_size,
                num_layers,
                dropout=dropout,
                input_size=embedding_size or vocab_size,
                dtype=dtype,
                **arguments,
            )
            self.decoder = Dense(vocab_size, flatten=False, in_units=hidden_size, dtype=dtype)
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
        """Initial states of `batch_size` sequences, by default zeros: ``[(L, N, H)]``, for an LSTM two of them."""
        return self.stack.begin_state(batch_size, func=func, **kwargs)

    def __call__(self, ids: Tensor, states: Union[Tensor, list[Tensor], None] = None) -> tuple[Tensor, list[Tensor]]:
        """Compute logits ``(T, N, V)`` and the last states from ids ``(T, N)`` and states (by default zeros)."""
        if not isinstance(ids, (NDArray, mx.sym.Symbol)):
            raise TypeError(f"ids must be an NDArray or a Symbol, got {type(ids).__name__}")
        batch_size = 0
        if isinstance(ids, NDArray):
            shape = ids.shape
            if len(shape) != 2 or 0 in shape:
                raise ValueError(f"ids must have shape (sequence_length, batch_size), got {shape}")
            batch_size = shape[1]
        return super().__call__(ids, complete_states(self.stack, states, ids, batch_size))

    def inputs(self, F: Operators, ids: Tensor) -> Tensor:
        """The inputs `(T, N, E)` of the recurrent layers."""
        if self.embedding is None:
            dtype = dtype_name(self.decoder.weight.dtype)
            return Kind(ids)(F.one_hot(classic(ids), depth=self.vocab_size, dtype=dtype))
        inputs = self.embedding(ids)
        return inputs * self.embedding_size**0.5 if self.tied else inputs

    def hybrid_forward(self, F: Operators, ids: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        outputs, states = self.stack(self.inputs(F, ids), states)
        return self.decoder(outputs), states

    def packed(self, ctx: Optional[mx.Context] = None) -> PackedNetwork:
        """This network, with the weights that it has now, by the native kernels alone: for generating and scoring.

        Raises
        ------
        ValueError
            Where they do not serve: for layers without a kernel, on a GPU, or without the library.
        """
        stack = self.stack
        kernel = native.kernel_of(stack.cell) if type(stack) in (DeepRNN, DeepGRU, DeepLSTM) else None
        if type(self) is not LanguageModel or kernel is None or stack.zoneout:
            raise ValueError(f"there is no kernel for {self._without_kernel()}")
        ctx = ctx or mx.current_context()
        if ctx.device_type != "cpu":
            raise ValueError(f"the kernels are for the CPU, and the network is to run on {ctx}")

        names = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")
        layers = [
            [getattr(stack, parameter_name("l", layer, name)).data(ctx) for name in names]
            for layer in range(stack.num_layers)
        ]
        try:
            return PackedNetwork(
                kernel["cell"],
                None if self.embedding is None else self.embedding.weight.data(ctx),
                layers,
                (self.decoder.weight.data(ctx), self.decoder.bias.data(ctx)),
                scale=self.embedding_size**0.5 if self.tied else 1.0,
                residual=stack.residual,
            )
        except RuntimeError as error:  # there is no library
            raise ValueError(str(error)) from error

    def _without_kernel(self) -> str:
        """What of this network the native kernels do not compute."""
        stack = self.stack
        if type(self) is not LanguageModel:
            return f"a network of the class {type(self).__name__}"
        if type(stack) in STACKS["gluon"].values():
            return "backend='gluon'"
        if type(stack) not in (DeepRNN, DeepGRU, DeepLSTM):
            return f"the cell {type(getattr(stack, 'cell', stack)).__name__}"
        options = {"layer_norm": stack.cell.layer_norm, "zoneout": stack.zoneout}
        found = [f"{name}={value}" for name, value in options.items() if value]
        return ", ".join(found) or f"dtype={stack.cell.dtype!r}"

    def cast(self, dtype: Any) -> None:
        super().cast(check_dtype(dtype))

    def initialize(
        self,
        init: Union[str, Initializer, None] = None,
        ctx: Optional[Any] = None,
        verbose: bool = False,
        force_reinit: bool = False,
    ) -> None:
        """Gluon's `initialize`; by default with `DepthScaled` for this activation and ``residual``."""
        super().initialize(init or self._initializer, ctx, verbose, force_reinit)
