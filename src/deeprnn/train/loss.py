"""Cross-entropy of predicted symbols, and its gradient."""

from __future__ import annotations

import math

from mxnet import gluon
from mxnet.ndarray import NDArray

from .._util.types import Operators, Tensor

__all__ = ["CrossEntropy", "perplexity", "token_losses"]


def token_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each prediction, `(T, N, V)` against `(T, N)`, in nats; shape `(T, N)`."""
    return -logits.log_softmax().pick(target)


def perplexity(loss: float) -> float:
    """`exp(loss)` of a loss in nats per token; infinite where that exceeds the range of a float."""
    return math.exp(loss) if loss < 709 else math.inf


class CrossEntropy(gluon.HybridBlock):
    """Mean cross-entropy of logits `(T, N, V)` and targets `(T, N)`, in nats per token, and its gradient by the logits.

    Returns the loss, shape `(1,)`, and the gradient, `(T, N, V)`: softmax minus one-hot target, divided by the number
    of tokens. It is computed here because MXNet's backward of log_softmax evaluates the exponentials one by one, which
    takes a tenth of a training step at 1,000 symbols; softmax is oneDNN's. A block, because a hybridized one reuses its
    memory: allocating megabytes at each step would take as long as computing them.
    """

    _shape: tuple[int, ...] = ()

    def forward(self, logits: NDArray, target: NDArray) -> tuple[NDArray, NDArray]:
        if self._shape != logits.shape:  # symbols have no shape
            self._shape = logits.shape
            self._clear_cached_op()
        return super().forward(logits, target)

    def hybrid_forward(self, F: Operators, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        *steps, vocab_size = self._shape
        gradient = (F.softmax(logits) - F.one_hot(target, depth=vocab_size)) * (1 / math.prod(steps))  # / takes longer
        return token_losses(logits, target).mean(), gradient
