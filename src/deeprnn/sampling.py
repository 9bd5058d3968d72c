"""Sampling: how the next symbols are chosen from a model's logits."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np

from ._util.checks import check_number, check_size

__all__ = ["Sampler", "Samplers", "drawn", "generators", "log_softmax", "new_seed", "repeat_lengths"]

Ids = Union[Sequence[int], np.ndarray]

MOST_PENALIZED = 64
"""Symbols beyond `repetition_length` that count."""


@dataclass(frozen=True)
class Sampler:
    """Sampling of the next symbol from a network's logits.

    Parameters
    ----------
    temperature
        Divides the logits. Below 1, probable symbols become more probable; above 1, less.
    top_k
        Sample from the top_k most probable symbols only; 0: from all.
    top_p
        Sample from the smallest set of most probable symbols with at least this total probability (nucleus sampling),
        after top_k; 1: from all. At least one symbol is kept.
    greedy
        Take the most probable symbol instead of sampling; of equal ones, the one with the lowest id.
    repetition_penalty
        If a symbol would extend a repetition of earlier text, subtract this many nats from its logit for each symbol by
        which the repetition exceeds repetition_length, 64 at the most; 0: no penalty. Applied first, with greedy=True
        as well.
    repetition_length
        Length of a repetition, in symbols, that is not penalized.

    Raises
    ------
    TypeError, ValueError
        For an argument that is out of range, by its name.

    Notes
    -----
    Nucleus sampling: Holtzman et al. 2020. The penalty of Keskar et al. 2019 (arXiv:1909.05858) applies to every symbol
    that has occurred before. That suits words, but of characters all have occurred. Here the length of the repetition
    counts, as in the DRY sampler (p-e-w 2024, oobabooga/text-generation-webui #5677). Its penalty grows exponentially
    with the length, for repetitions of few long tokens; a linear one is enough for many short symbols.

    Examples
    --------
    >>> Sampler(temperature=0.8, top_p=0.9).choose(logits, np.random.default_rng(0))    # logits: (V,)
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False
    repetition_penalty: float = 0.0
    repetition_length: int = 10

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "repetition_penalty"):
            check_number(name, getattr(self, name))
        if not (0 < self.temperature < math.inf):
            raise ValueError(
                f"temperature must be above 0 and finite, got {self.temperature}; "
                "greedy=True takes the most probable symbol"
            )
        check_size("top_k", self.top_k, minimum=0)
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be at least 0 and finite, got {self.repetition_penalty}")
        check_size("repetition_length", self.repetition_length, minimum=0)

    def probabilities(self, logits: np.ndarray, banned: Sequence[int] = (), text: Ids = ()) -> np.ndarray:
        """The probability of each symbol, float64 of the shape of `logits`.

        Parameters
        ----------
        logits
            `(V,)`, or `(N, V)` for N texts.
        banned
            Ids with probability 0.
        text
            All ids so far, for the repetition penalty; `(N, symbols)` for N texts.

        Raises
        ------
        ValueError
            Unless the logits are rows of finite numbers.
        """
        weights = self._weights(logits, banned, text)
        return weights / weights.sum(axis=-1, keepdims=True)

    def _weights(self, logits: np.ndarray, banned: Sequence[int], text: Ids) -> np.ndarray:
        """The probabilities before they are divided by their sum."""
        logits = np.asarray(logits)
        if logits.ndim not in (1, 2):
            raise ValueError(f"logits must be rows of finite numbers, got shape {logits.shape}: {logits}")
        rows = logits.reshape(-1, logits.shape[-1])
        texts = list(np.asarray(text).reshape(len(rows), -1)) if self.repetition_penalty else []
        return Samplers([self]).weights(rows, banned, texts).reshape(logits.shape)

    def choose(
        self,
        logits: np.ndarray,
        rng: np.random.Generator,
        banned: Sequence[int] = (),
        text: Ids = (),
    ) -> int:
        """The id of a symbol, drawn from `probabilities`; `logits` of shape `(V,)`."""
        return int(self.draw(np.asarray(logits)[np.newaxis], [rng], banned, np.asarray(text)[np.newaxis])[0])

    def draw(
        self,
        logits: np.ndarray,
        rngs: Sequence[np.random.Generator],
        banned: Sequence[int] = (),
        text: Ids = (),
    ) -> np.ndarray:
        """The ids of N symbols, each drawn from its row of `probabilities` with one random number of its generator."""
        return drawn(self._weights(logits, banned, text), np.array([rng.random() for rng in rngs]))


class Samplers:
    """A sampler for each of N texts, in operations on all of them.

    A row's result does not depend on the other rows: it is what its sampler alone makes of it, to the last bit.

    Parameters
    ----------
    samplers
        N of them, or one for all texts.

    Examples
    --------
    >>> weights = Samplers([Sampler(temperature=0.8), Sampler(greedy=True)]).weights(logits)    # logits: (2, V)
    >>> ids = drawn(weights, np.array([rng.random() for rng in rngs]))
    """

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        def column(name: str) -> np.ndarray:
            return np.array([getattr(sampler, name) for sampler in samplers]).reshape(-1, 1)

        self._samplers = samplers
        # Below this an exponent could overflow, for the same result: only the most probable symbols are left.
        self._temperature = np.maximum(column("temperature").astype(np.float64), 1e-200)
        self._top_k, self._top_p = column("top_k"), column("top_p")
        self._greedy = column("greedy")[:, 0].astype(bool)
        # Each operation costs microseconds, and most texts need few of them.
        self._any_penalized = any(sampler.repetition_penalty for sampler in samplers)
        self._any_cut = any(sampler.top_k or sampler.top_p < 1 for sampler in samplers)
        self._any_greedy = any(sampler.greedy for sampler in samplers)

    def weights(
        self, logits: np.ndarray, banned: Sequence[int] = (), texts: Union[Sequence[Ids], np.ndarray] = ()
    ) -> np.ndarray:
        """The probability of each symbol times some number, a number for each text: float64 of the shape of `logits`.

        Parameters
        ----------
        logits
            `(N, V)`.
        banned
            Ids with probability 0.
        texts
            All ids so far of each text, for the repetition penalty.

        Raises
        ------
        ValueError
            For logits that are not finite, and where all symbols are banned.
        """
        logits = np.array(logits, dtype=np.float64)
        if not math.isfinite(logits.sum()) and not np.isfinite(logits).all():  # a sum may overflow, too
            raise ValueError(f"logits must be rows of finite numbers, got shape {logits.shape}: {logits}")
        if self._any_penalized:
            self._penalize(logits, texts)
        if banned:
            logits[:, list(banned)] = -np.inf
        best = logits.max(axis=-1, keepdims=True)
        if banned and np.isneginf(best).any():
            raise ValueError(f"banned has all {logits.shape[-1]} symbols: there is nothing to choose from")
        weights = logits - best
        weights /= self._temperature
        np.exp(weights, out=weights)
        if self._any_cut:
            self._cut(logits, weights)
        if self._any_greedy:
            rows = np.flatnonzero(np.broadcast_to(self._greedy, len(logits)))
            weights[rows] = 0
            weights[rows, logits[rows].argmax(axis=-1)] = 1
        return weights

    def _penalize(self, logits: np.ndarray, texts: Union[Sequence[Ids], np.ndarray]) -> None:
        each = self._samplers if len(self._samplers) == len(logits) else [*self._samplers] * len(logits)
        for row, text, sampler in zip(logits, texts, each):
            if sampler.repetition_penalty:
                free = sampler.repetition_length
                beyond = repeat_lengths(text, len(row), free + MOST_PENALIZED) - free
                row -= sampler.repetition_penalty * np.maximum(beyond, 0)

    def _cut(self, logits: np.ndarray, weights: np.ndarray) -> None:
        """Set to zero what is not among the top_k, or in the nucleus."""
        size = logits.shape[-1]
        fewer = (self._top_k > 0) & (self._top_k < size)
        cut = np.broadcast_to((fewer | (self._top_p < 1))[:, 0], len(logits))
        if not cut.any():
            return
        top_k, top_p = (np.broadcast_to(each, (len(logits), 1))[cut] for each in (self._top_k, self._top_p))
        order = np.argsort(-logits[cut], axis=-1, kind="stable")  # ties by id
        falling = np.take_along_axis(weights[cut], order, axis=-1)
        falling[np.arange(size) >= np.where(top_k, top_k, size)] = 0
        share = np.cumsum(falling, axis=-1)
        before = share - falling  # the share of those that are more probable
        falling[(before >= top_p * share[:, -1:]) & (top_p < 1)] = 0
        kept = np.empty_like(falling)
        np.put_along_axis(kept, order, falling, axis=-1)
        weights[cut] = kept


def new_seed() -> int:
    """A seed that nobody has chosen."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def generators(seed: int, count: int) -> list[np.random.Generator]:
    """A random generator for each of `count` texts: the first as for a single text, none dependent on the count."""
    return [np.random.default_rng((seed, i) if i else seed) for i in range(count)]


def drawn(weights: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The ids of N symbols, by weights `(N, V)` and a number from 0 to 1 for each, `(N,)`."""
    shares = weights.cumsum(axis=-1)
    # Some share is always above: a number below 1 times the last share is rounded to less than that.
    return (shares > (numbers * shares[:, -1])[:, np.newaxis]).argmax(axis=-1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of the probabilities, float64, of rows of logits."""
    shares = logits.astype(np.float64)
    shares -= shares.max(axis=-1, keepdims=True)
    shares -= np.log(np.exp(shares).sum(axis=-1, keepdims=True))
    return shares


def repeat_lengths(text: Ids, vocab_size: int, most: int = sys.maxsize) -> np.ndarray:
    """For each symbol, the length of the longest repetition of earlier text that it would complete as the next symbol.

    Parameters
    ----------
    text
        The ids so far.
    vocab_size
        V.
    most
        Longer ones count as this: in a text that repeats itself throughout, each length takes as long as the text.

    Returns
    -------
    numpy.ndarray
        int64 of shape `(V,)`; 0 for a symbol that is not in `text`.

    Examples
    --------
    After ``abcab``, ``c`` would complete a repetition of ``abc``, while ``a`` and ``b`` would only repeat themselves:

    >>> repeat_lengths([0, 1, 2, 0, 1], 3)
    array([1, 1, 3])
    """
    ids = np.asarray(text, dtype=np.int64)
    lengths = np.zeros(vocab_size, dtype=np.int64)
    ends = np.arange(len(ids))  # where the last `length - 1` symbols of the text occurred before
    for length in range(1, min(len(ids), most) + 1):
        lengths[ids[ends]] = length
        ends = ends[ends >= length]
        ends = ends[ids[ends - length] == ids[-length]]
        if not len(ends):
            break
    return lengths
