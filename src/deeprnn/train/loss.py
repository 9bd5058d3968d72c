"""Cross-entropy of predicted symbols, and its gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
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
    """Cross-entropy of logits `(T, N, V)` and targets `(T, N)`, and its gradient with respect to the logits.

    They may be a part of a batch of `whole` sequences, N of them: what the parts return adds up to the mean loss of the
    batch, in nats per token, and to its gradient.

    Returns the loss, shape `(1,)`, and the gradient, `(T, N, V)`: softmax minus one-hot target, divided by the number
    of tokens in the batch. It is computed here because MXNet's backward of log_softmax evaluates the exponentials one
    by one, which takes a tenth of a training step at 1,000 symbols; softmax is oneDNN's. A block, because a hybridized
    one reuses its memory: allocating megabytes at each step would take as long as computing them.
    """

    _facts: tuple[Any, ...] = ()

    def forward(self, logits: NDArray, target: NDArray, whole: int) -> tuple[NDArray, NDArray]:
        facts = (*logits.shape, whole, logits.dtype)  # a symbol has neither shape nor dtype
        if self._facts != facts:
            self._facts = facts
            self._clear_cached_op()
        return super().forward(logits, target)

    def hybrid_forward(self, F: Operators, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        steps, sequences, vocab_size, whole, dtype = self._facts
        difference = F.softmax(logits) - F.one_hot(target, depth=vocab_size, dtype=np.dtype(dtype).name)
        loss = token_losses(logits, target).mean() * (sequences / whole)
        return loss, difference * (1 / (steps * whole))  # / takes longer
