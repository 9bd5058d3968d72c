"""Generation: the loop that feeds the chosen symbols back into the model, and the search for the most probable text.

Logits are rounded to `DECIMALS` before a symbol is chosen. Their sixth digit depends on runtime and batch size; after
rounding, a seed gives the same text in all of them, except in the rare step in which a logit lies on the border between
two rounded values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ._util.checks import check_size
from .runtimes import Model, model_of
from .sampling import Sampler, Samplers, drawn, log_softmax

__all__ = ["DECIMALS", "Sampler", "beam_search", "generate", "rounded", "samples"]

DECIMALS = 4
"""Decimals of rounded logits: the probability of a symbol changes by at most a ten-thousandth of itself."""

NEVER = -1e18
"""The logarithm of a probability of 0, in gluonnlp's search too."""


def samples(
    model: Model,
    prefix: Sequence[int],
    length: int,
    *,
    sampler: Sampler,
    rngs: Sequence[np.random.Generator],
    banned: Sequence[int] = (),
) -> Iterator[np.ndarray]:
    """Generate `length` symbols after `prefix`, for N texts at once: an iterator over their next symbols, `(N,)` each.

    The prefix is one call; after that, each symbol is one step from the states of the step before.

    Parameters
    ----------
    model
        In any runtime.
    prefix
        At least one id.
    length
        Number of symbols to generate.
    sampler
        Chooses each symbol.
    rngs
        One random generator for each text; the same state gives the same text. (NumPy's, as MXNet's state cannot be
        saved.) The numbers for all symbols are drawn at the start.
    banned
        Ids that are never generated, such as that of the unknown token.

    Raises
    ------
    ValueError
        For an empty prefix, no generator, a negative length, or logits that are not finite.
    """
    if len(rngs) == 0:
        raise ValueError("rngs is empty: give a generator for each text, at least one")
    text = np.zeros((len(rngs), _checked(prefix) + check_size("length", length, minimum=0)), dtype=np.int64)
    text[:, : len(prefix)] = prefix

    def symbols() -> Iterator[np.ndarray]:
        states, begin, samplers = model.begin(len(rngs)), 0, Samplers([sampler])
        numbers = np.array([rng.random(length) for rng in rngs])
        for end in range(len(prefix), text.shape[1]):
            logits, states = model(text[:, begin:end].T, states)
            weights = samplers.weights(rounded(logits[-1]), banned, text[:, :end])
            text[:, end] = drawn(weights, numbers[:, end - len(prefix)])
            yield text[:, end]
            begin = end

    return symbols()


def generate(
    net: Any,
    prefix: Sequence[int],
    length: int,
    *,
    sampler: Sampler,
    rng: np.random.Generator,
    banned: Sequence[int] = (),
    ctx: Any = None,
) -> list[int]:
    """Generate `length` symbols after `prefix` with a gluon network.

    Parameters
    ----------
    net
        Called with ids `(T, 1)` and states, it returns logits `(T, 1, V)` and states; it has a `begin_state`.
    ctx : mx.Context, optional
        Device of `net`; by default MXNet's current context.
    prefix, length, sampler, rng, banned
        As for `samples`.

    Returns
    -------
    list of int
        The new ids, without the prefix.

    Raises
    ------
    ValueError
        As `samples`.

    Examples
    --------
    >>> ids = generate(net, encode(vocab, "The "), 200, sampler=Sampler(top_p=0.9), rng=np.random.default_rng(0))
    >>> decode(vocab, ids)
    """
    steps = samples(model_of(net, ctx), prefix, length, sampler=sampler, rngs=[rng], banned=banned)
    return [int(symbol[0]) for symbol in steps]


def beam_search(
    model: Model, prefix: Sequence[int], length: int, *, beam: int, vocab_size: int, banned: Sequence[int] = ()
) -> list[tuple[list[int], float]]:
    """The `beam` most probable continuations that a beam search of that width finds, the best first.

    At each step every text is continued by every symbol, and the `beam` most probable texts are kept.

    Parameters
    ----------
    model, prefix, length, banned
        As for `samples`.
    beam : int
        Texts kept at each step.
    vocab_size : int
        Number of symbols V.

    Returns
    -------
    list of tuple
        The new ids of each, and the logarithm of their probability.

    Raises
    ------
    ValueError
        For an empty prefix, and for a length or beam below 1.
    """
    import mxnet as mx  # only here, so that a `Sampler` can be made, and its arguments checked, without loading MXNet
    from gluonnlp.model import BeamSearchSampler, BeamSearchScorer

    def batch_first(states: Any) -> list[mx.nd.NDArray]:
        arrays = [np.swapaxes(array, 0, 1) for array in model.arrays(states)]
        return [mx.nd.array(array, dtype=array.dtype) for array in arrays]

    def decoder(symbols: mx.nd.NDArray, states: list[mx.nd.NDArray]) -> tuple[mx.nd.NDArray, list[mx.nd.NDArray]]:
        before = model.states([np.swapaxes(state.asnumpy(), 0, 1) for state in states])
        logits, after = model(symbols.asnumpy()[np.newaxis], before)
        shares = log_softmax(rounded(logits[0]))
        shares[:, list(banned)] = NEVER
        return mx.nd.array(shares), batch_first(after)

    states, steps = model.begin(1), check_size("length", length)
    if _checked(prefix) > 1:
        _, states = model(np.asarray(prefix[:-1])[:, np.newaxis], states)
    # No symbol ends a text, so the id after the last one serves for that. All texts have one length: no length penalty.
    search = BeamSearchSampler(
        check_size("beam", beam), decoder, eos_id=vocab_size, scorer=BeamSearchScorer(alpha=0), max_length=steps
    )
    found, scores, _ = search(mx.nd.array(prefix[-1:], dtype="int32"), batch_first(states))
    texts = found[0].asnumpy()[:, 1 : 1 + steps]
    return [(text.tolist(), float(score)) for text, score in zip(texts, scores[0].asnumpy()) if score > NEVER / 2]


def _checked(prefix: Sequence[int]) -> int:
    """The length of a prefix, which is at least 1."""
    if len(prefix) == 0:
        raise ValueError("prefix is empty: give at least one symbol")
    return len(prefix)


def rounded(logits: np.ndarray) -> np.ndarray:
    """Logits of float64, rounded alike in every runtime."""
    return logits.astype(np.float64).round(DECIMALS)
