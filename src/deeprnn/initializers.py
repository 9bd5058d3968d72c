r"""Weights for deep stacks.

Drawn from N(0, 0.01), as the book draws them, a layer of H units passes on :math:`0.01 \sqrt H` of its signal and of
its gradient: 0.16 at 256 units, layer after layer and step after step. `RecurrentOrthogonal` keeps the recurrent
product from shrinking or growing anything, and the others at the variance of their input.
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
from mxnet.initializer import Initializer, Normal, Xavier
from mxnet.ndarray import NDArray

from .checks import check_choice

__all__ = ["INITIALIZERS", "RecurrentOrthogonal", "initializer"]


@mx.init.register
class RecurrentOrthogonal(Initializer):
    r"""Orthogonal recurrent weights, one square block :math:`W_{hh}` per gate; every other weight by Glorot's rule.

    An orthogonal matrix keeps the length of what it multiplies, so that neither the state nor its gradient shrinks or
    grows over the steps by the linear part. Saxe et al. 2014 (arXiv:1312.6120); for the input weights Glorot and Bengio
    2010.

    Parameters
    ----------
    gain : float
        Factor of the orthogonal blocks.

    Examples
    --------
    >>> layer = DeepRNN(256, 2)
    >>> layer.initialize(RecurrentOrthogonal())
    """

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(gain=gain)
        self._gain = gain
        self._other = Xavier()

    def _init_weight(self, name: str, arr: NDArray) -> None:
        rows, columns = arr.shape if len(arr.shape) == 2 else (0, 1)
        if not name.endswith("h2h_weight") or rows % columns:
            self._other._init_weight(name, arr)
            return
        blocks = [self._gain * _orthogonal(columns) for _ in range(rows // columns)]
        arr[:] = mx.nd.array(np.concatenate(blocks), dtype=arr.dtype)


def _orthogonal(size: int) -> np.ndarray:
    """Drawn evenly from the orthogonal matrices: the Q of a Gaussian matrix, its signs set by R's diagonal."""
    gaussian = mx.nd.random.normal(shape=(size, size)).asnumpy().astype("float64")  # so that mx.random.seed governs it
    q, r = np.linalg.qr(gaussian)
    return q * np.sign(np.diag(r))


INITIALIZERS: dict[str, Any] = {
    "orthogonal": RecurrentOrthogonal,
    "normal": lambda: Normal(0.01),
    "xavier": Xavier,
}


def initializer(name: str) -> Initializer:
    """The initializer that the command line calls `name`: orthogonal, normal (the book's N(0, 0.01)) or xavier."""
    return INITIALIZERS[check_choice("init", name, tuple(INITIALIZERS))]()
