"""A language model by the native kernels alone, without MXNet: for generating and scoring on a CPU.

A step of a small network takes MXNet longer than its matrix products. Here a call is one C++ function for embedding,
layers and decoder (nn/kernels/inference.h), on NumPy arrays, with weights that were laid out for it once. To the last
bit, what a sequence gets does not depend on the others in its batch, nor on how its steps are divided among calls.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import NoReturn, Optional

import numpy as np
from mxnet.ndarray import NDArray

from ..nn import native

__all__ = ["PackedNetwork"]

ERRORS = {1: (ValueError, "ids must be from 0 to {}"), 2: (MemoryError, "there is not enough memory for the call")}
"""By the outcome of a call, see nn/kernels/inference.cc."""


class _Weights:
    """The weights of a packed network, freed with the last copy of it."""

    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self.handle = handle
        freed = weakref.finalize(self, library.deeprnn_network_free, ctypes.c_void_p(handle))
        freed.atexit = False  # a thread may still be inside it then

    def __reduce__(self) -> NoReturn:
        raise TypeError("the weights of a packed network cannot be copied or written: call packed() of the network")


class PackedNetwork:
    """A language model with fixed weights; a `runtimes.Model`, whose states are one array ``(states, L, N, H)``.

    Parameters
    ----------
    cell : {'tanh', 'relu', 'gru', 'lstm'}
        Kind of the layers; for an Elman layer, its non-linearity.
    embedding : NDArray or None
        ``(V, E)``; without one the inputs are one-hot vectors.
    layers : sequence
        ``(i2h_weight, h2h_weight, i2h_bias, h2h_bias)`` of each layer, in gluon's layout.
    decoder : tuple
        Weight ``(V, H)`` and bias ``(V,)``.
    scale : float
        Factor of the embedding.
    residual : bool
        Add the inputs of each layer but the first to its outputs.

    Raises
    ------
    RuntimeError
        Where the native kernels are not available.
    MemoryError
    """

    def __init__(
        self,
        cell: str,
        embedding: Optional[NDArray],
        layers: Sequence[Sequence[NDArray]],
        decoder: Sequence[NDArray],
        *,
        scale: float = 1.0,
        residual: bool = False,
    ) -> None:
        library = native.library()
        self.vocab_size, self.hidden_size = decoder[0].shape
        self.dtype = np.dtype(decoder[0].dtype)
        self._states, self._layers = 1 + (cell == "lstm"), len(layers)
        given = [*([] if embedding is None else [embedding]), *(array for layer in layers for array in layer), *decoder]
        weights = [np.ascontiguousarray(array.asnumpy(), self.dtype) for array in given]
        pointers = (ctypes.c_void_p * len(weights))(*(array.ctypes.data for array in weights))
        library.deeprnn_network.restype = ctypes.c_void_p
        handle = library.deeprnn_network(
            cell.encode(),
            ctypes.c_int(self.dtype == np.float64),
            ctypes.c_int(residual),
            ctypes.c_long(self.vocab_size),
            ctypes.c_long(0 if embedding is None else embedding.shape[1]),
            ctypes.c_long(self.hidden_size),
            ctypes.c_long(len(layers)),
            ctypes.c_double(scale),
            pointers,
        )
        if not handle:
            raise MemoryError("there is not enough memory for the network's weights")
        self._weights = _Weights(library, handle)
        self._run = library.deeprnn_network_run
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long, *[ctypes.c_void_p] * 4]

    def begin(self, batch_size: int) -> np.ndarray:
        """States of zeros."""
        return np.zeros((self._states, self._layers, batch_size, self.hidden_size), self.dtype)

    def __call__(self, ids: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits ``(T, N, V)`` and the next states, from ids ``(T, N)`` and states.

        Raises
        ------
        ValueError
            For ids that are no symbol, for none at all, and for states of another shape or type.
        MemoryError
        """
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        if ids.ndim != 2 or not ids.size:
            raise ValueError(f"ids must have at least one step and one sequence, got shape {ids.shape}")
        steps, batch_size = ids.shape
        if states.shape != (self._states, self._layers, batch_size, self.hidden_size) or states.dtype != self.dtype:
            raise ValueError(f"states must be those of {batch_size} sequences, got {states.dtype} of {states.shape}")
        states = np.ascontiguousarray(states)
        logits, last = np.empty((steps, batch_size, self.vocab_size), self.dtype), np.empty_like(states)
        outcome = self._run(
            self._weights.handle,
            steps,
            batch_size,
            ids.ctypes.data,
            states.ctypes.data,
            last.ctypes.data,
            logits.ctypes.data,
        )
        if outcome:
            error, message = ERRORS[outcome]
            raise error(message.format(self.vocab_size - 1))
        return logits, last

    def arrays(self, states: np.ndarray) -> list[np.ndarray]:
        """The states as arrays ``(L, N, H)``."""
        return list(states)

    def states(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """States from arrays: the inverse of `arrays`."""
        return np.array(arrays)
