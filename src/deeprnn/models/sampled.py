"""Training by the true symbol and a sample of the others, for a large vocabulary: sampled softmax, and NCE.

The logits of V symbols, and the product that makes them, are most of the work and memory of a language model of words.
In training, the softmax over a sample has nearly the same gradient, if each logit is lowered by the logarithm of how
often its symbol is expected in the sample (Bengio and Senecal 2008; Jean et al. 2015, arXiv:1412.2007).
Noise-contrastive estimation takes the same logits, and learns for each alone whether its symbol is the true one or of
the sample (Gutmann and Hyvarinen 2010; Mnih and Teh 2012, arXiv:1206.6426). The layers are gluonnlp's `ISDense` and
`NCEDense`. Evaluation takes the full softmax: these losses, which are of a sample, are not comparable.
"""

from __future__ import annotations

import math
from typing import Any, Callable

import mxnet as mx
import numpy as np
from gluonnlp.model import ISDense, NCEDense
from mxnet import autograd
from mxnet.ndarray import NDArray

from .._util.checks import check_choice, check_size
from .._util.types import Operators, Tensor
from ..nn.context import Trace
from ..nn.graphs import AnyLength
from .language_model import LanguageModel

__all__ = ["LogUniform", "SampledLoss"]

LAYERS = {"sampled": ISDense, "nce": NCEDense}


class LogUniform:
    """Samples of the ids 0 to V - 1, the lower ones more often, as in a vocabulary that is sorted by frequency.

    An id k is drawn with probability ``log((k + 2) / (k + 1)) / log(V + 1)``, until there are so many different ones.

    Parameters
    ----------
    vocab_size : int
        V.
    samples : int
        Different ids of a sample, at most V / 2.

    Raises
    ------
    ValueError
        For more samples: the full softmax takes no more then.
    """

    def __init__(self, vocab_size: int, samples: int) -> None:
        check_size("samples", samples)
        if samples > vocab_size // 2:
            raise ValueError(
                f"samples must be at most half of the vocabulary of {vocab_size:,}, got {samples:,}; use loss='full'"
            )
        self.samples = samples
        self._range = math.log(vocab_size + 1)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """A sample, int64 of shape (samples,), and how many draws it took."""
        drawn = np.empty(0, dtype=np.int64)
        while True:
            more = np.exp(rng.random(4 * self.samples) * self._range).astype(np.int64) - 1
            drawn = np.concatenate([drawn, more])
            ids, first = np.unique(drawn, return_index=True)
            if len(ids) >= self.samples:
                order = np.argsort(first)[: self.samples]
                return ids[order], int(first[order[-1]]) + 1

    def expected(self, ids: np.ndarray, draws: int) -> np.ndarray:
        """How often each of these ids is expected in a sample of so many draws, float32: at most once."""
        once = np.log1p(1 / (ids + 1.0)) / self._range
        return (-np.expm1(draws * np.log1p(-once))).astype(np.float32)


class Outputs(AnyLength):
    """A language model without its decoder: ``ids (T, N) -> (T, N, H)``; it shares the blocks of the model."""

    def __init__(self, net: LanguageModel, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stack, self.embedding = net.stack, net.embedding
        self._model = lambda: net  # it is no child

    def length_free(self, current: Trace) -> bool:
        """As the model."""
        return self._model().length_free(current)

    @property
    def operators_per_step(self) -> int:
        """As the model."""
        return self._model().operators_per_step

    def hybrid_forward(self, F: Operators, ids: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.stack(self._model().inputs(F, ids), states)


class SampledLoss:
    """What a training by samples takes in place of the network and of the full loss.

    Parameters
    ----------
    net : LanguageModel
        Initialized; not tied, as the gradient of its decoder is computed apart from that of its embedding.
    kind : {'sampled', 'nce'}
        Sampled softmax, or noise-contrastive estimation.
    samples : int
        Different symbols in a sample; one sample serves all tokens of a batch.
    seed : int
    step : callable
        The number of updates so far: a sample is a function of seed and step.

    Attributes
    ----------
    outputs : Outputs
        Called with ids and states, for the outputs of the last recurrent layer and the states.

    Raises
    ------
    ValueError
        For a tied network, and for too many samples.
    """

    def __init__(self, net: LanguageModel, kind: str, samples: int, seed: int, step: Callable[[], int]) -> None:
        check_choice("kind", kind, list(LAYERS))
        if net.tied:
            raise ValueError(f"loss={kind!r} needs tied=False")
        self._kind, self._sampler = kind, LogUniform(net.vocab_size, samples)
        self._seed, self._step = seed, step
        units = net.decoder.weight.shape[1]
        self.outputs = Outputs(net)
        self.outputs.hybridize(static_alloc=True, static_shape=True)
        # Dense gradients: those of few rows are clipped and summed by none of MXNet's operators for them.
        # And not hybridized: MXNet's softmax of what that returns ends the process with a segmentation fault.
        self._decoder = LAYERS[kind](net.vocab_size, samples, units, sparse_grad=False, params=net.decoder.params)

    def __call__(self, outputs: NDArray, target: NDArray, whole: int) -> tuple[NDArray, NDArray]:
        """Loss of outputs ``(T, N, H)`` for targets ``(T, N)``, in nats per token, and its gradient by the outputs.

        They may be a part of a batch of `whole` sequences, N of them: what the parts return adds up to the mean loss of
        the batch, and to its gradient. The gradients of the decoder are written to its parameters.
        """
        rng = np.random.default_rng((self._seed, self._step()))
        ids, draws = self._sampler.draw(rng)
        ctx, vocab_size = outputs.context, self._decoder.weight.shape[0]
        # Times V: for NCE, the exponentials of all logits then add up to V, as at first, not to 1. Softmax is the same.
        sampled = [
            mx.nd.array(ids, ctx, "int32"),
            mx.nd.array(vocab_size * self._sampler.expected(ids, draws), ctx),
            mx.nd.array(vocab_size * self._sampler.expected(target.asnumpy(), draws), ctx),
        ]
        outputs = outputs.detach()
        outputs.attach_grad()
        with autograd.record():
            # (T * N, 1 + samples), the true ones first; NCEDense puts labels in one array with numbers of their type.
            logits, _ = self._decoder(outputs, sampled, target.astype("float32"))
        if self._kind == "nce":
            # Minus the logarithms of sigmoid(true logit) and of 1 - sigmoid(each other one).
            loss = mx.nd.Activation(logits, act_type="softrelu").sum() - logits[:, 0].sum()
            gradient = logits.sigmoid()
        else:
            loss = -logits.log_softmax()[:, 0].sum()
            gradient = logits.softmax()
        gradient[:, 0] -= 1
        gradient /= len(target) * whole
        logits.backward(gradient)
        return loss / (len(target) * whole), outputs.grad
