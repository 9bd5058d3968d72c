r"""Weights for deep stacks.

Drawn from N(0, 0.01), as the book draws them, a layer of H units passes on :math:`0.01 \sqrt H` of its signal and of
its gradient: 0.16 at 256 units, layer after layer and step after step. The initializers here keep both from shrinking
or growing: over the steps by orthogonal (or identical) recurrent weights, over the layers by the variance of the input
weights.
"""

from __future__ import annotations

import math
import re
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.initializer import Initializer, Normal, Xavier
from mxnet.ndarray import NDArray

from .._util.checks import check_choice
from .arrays import classic
from .cells import ACTIVATIONS

__all__ = ["INITIALIZERS", "DepthScaled", "RecurrentIdentity", "RecurrentOrthogonal", "initializer"]


class _Recurrent(Initializer):
    """Square blocks :math:`W_{hh}`, one a gate, by `_block`; every other weight by `_other`."""

    def __init__(self, gain: float, **arguments: Any) -> None:
        super().__init__(gain=gain, **arguments)  # what gluon writes down of an initializer
        self._gain = gain

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr = classic(arr)
        rows, columns = arr.shape if len(arr.shape) == 2 else (0, 1)
        if not name.endswith("h2h_weight") or rows % columns:
            self._other(name, arr)
            return
        blocks = [self._gain * self._block(columns) for _ in range(rows // columns)]
        arr[:] = mx.nd.array(np.concatenate(blocks), dtype=arr.dtype)

    def _block(self, size: int) -> np.ndarray:
        raise NotImplementedError

    def _other(self, name: str, arr: NDArray) -> None:
        Xavier()._init_weight(name, arr)


@mx.init.register
class RecurrentOrthogonal(_Recurrent):
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
        super().__init__(gain)

    def _block(self, size: int) -> np.ndarray:
        """Drawn evenly from the orthogonal matrices: the Q of a Gaussian matrix, its signs set by R's diagonal."""
        gaussian = mx.nd.random.normal(shape=(size, size)).asnumpy()  # MXNet's, so that mx.random.seed governs it
        q, r = np.linalg.qr(gaussian.astype("float64"))
        return q * np.sign(np.diag(r))


@mx.init.register
class DepthScaled(RecurrentOrthogonal):
    r"""Orthogonal recurrent weights, and input weights that bring a signal of the same spread to every layer.

    .. math:: W_{xh}^{(l)} \sim N\Big(0, \frac{g^2}{C \, v_l}\Big)

    with C inputs. In a residual stack the input of layer l (from 1) is the sum of the n = l - 1 outputs below it, whose
    size grows with their number: :math:`v_l = n` for tanh, and :math:`n (1 + (n - 1) / \pi)` for relu, whose outputs
    have a mean in common. Divided by it, layer 16 is as far from saturation as layer 2. Elsewhere :math:`v_l = 1`. The
    gain g is that of the non-linearity, :math:`\sqrt 2` for relu, which lets half of the variance through (He et al.
    2015, arXiv:1502.01852), and 1 for tanh and for gates.

    An embedding is drawn from N(0, 1): it is the input of the first layer, and Glorot's rule, which looks at the size
    of the vocabulary, would make it small. Every other weight is from N(0, 1 / C).

    Parameters
    ----------
    activation : {'tanh', 'relu'}
        The non-linearity of the layers; gated cells count as tanh.
    residual : bool
        Whether the stack is residual.
    gain : float
        Factor of the orthogonal recurrent blocks.

    Raises
    ------
    ValueError
        For an activation that there is not.

    Examples
    --------
    >>> layer = DeepRNN(256, 16, "tanh", residual=True)
    >>> layer.initialize(DepthScaled("tanh", residual=True))
    """

    def __init__(self, activation: str = "tanh", residual: bool = False, gain: float = 1.0) -> None:
        super(RecurrentOrthogonal, self).__init__(gain, activation=activation, residual=residual)
        self._relu = check_choice("activation", activation, ACTIVATIONS) == "relu"
        self._residual = residual

    def _other(self, name: str, arr: NDArray) -> None:
        variance = 1 / arr.shape[-1]
        layer = re.search(r"(?:^|_)[lr](\d+)_i2h_weight$", name)
        if layer:
            variance *= (2 if self._relu else 1) / self._growth(int(layer[1]))
        elif re.search(r"embedding\d*_weight$", name):
            variance = 1
        mx.nd.random.normal(0, variance**0.5, dtype=np.dtype(arr.dtype).name, out=arr)

    def _growth(self, below: int) -> float:
        """The mean square of the sum of the outputs of so many layers, over that of one."""
        if not self._residual or below == 0:
            return 1
        return below * (1 + (below - 1) / math.pi) if self._relu else below


@mx.init.register
class RecurrentIdentity(_Recurrent):
    """Recurrent weights that begin as the identity, for relu: a state is kept as it is until something is learnt.

    Le, Jaitly and Hinton 2015 (arXiv:1504.00941), whose input weights are from N(0, 0.001); a stack needs more than
    that to reach its upper layers, so here they are by Glorot's rule. With relu the state can grow without bound: the
    paper clips the gradient and keeps the learning rate low.

    Parameters
    ----------
    gain : float
        Factor of the identity; below 1 the state fades.

    Examples
    --------
    >>> layer = DeepRNN(100, activation="relu")
    >>> layer.initialize(RecurrentIdentity())
    """

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(gain)

    def _block(self, size: int) -> np.ndarray:
        return np.eye(size)


INITIALIZERS: dict[str, Any] = {
    "deep": DepthScaled,
    "orthogonal": lambda activation, residual: RecurrentOrthogonal(),
    "identity": lambda activation, residual: RecurrentIdentity(),
    "normal": lambda activation, residual: Normal(0.01),
    "xavier": lambda activation, residual: Xavier(),
}


def initializer(name: str, activation: str = "tanh", residual: bool = False) -> Initializer:
    """The initializer of this name, for a stack of this non-linearity and routing.

    ``deep`` (`DepthScaled`), ``orthogonal``, ``identity``, ``normal`` (the book's N(0, 0.01)) or ``xavier``.

    Raises
    ------
    ValueError
        For a name that is not one of these, or an activation that `DepthScaled` does not know.
    """
    return INITIALIZERS[check_choice("init", name, tuple(INITIALIZERS))](activation, residual)
