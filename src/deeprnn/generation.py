"""A network and a prefix in, new symbols out: how the next symbol is chosen, and the loop that feeds it back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from ._util.checks import check_size

__all__ = ["Sampler", "generate", "repeat_lengths"]

Ids = Union[Sequence[int], np.ndarray]


@dataclass(frozen=True)
class Sampler:
    """How a symbol is chosen from a network's logits: drawn from ``softmax(logits / temperature)``, or the largest.

    Parameters
    ----------
    temperature
        Below 1 the likely becomes likelier, above 1 the unlikely does; towards 0 only the largest logit is left.
    top_k
        Draw from the `top_k` most probable symbols alone; 0: from all.
    top_p
        Draw from the fewest most probable symbols that have at least this probability together (Holtzman et al.
        2020), after `top_k`; 1: from all. One symbol is always left.
    greedy
        Take the symbol with the largest logit, and of several the one with the lowest id.
    repetition_penalty
        Nats off the logit of a symbol that would make a repeat of the text so far, for each symbol that this is longer
        than `repetition_length`; 0: none. Before all else, so greedy too does not go round in circles.
    repetition_length
        Symbols that may be repeated freely.

    Notes
    -----
    Keskar et al. 2019 (arXiv:1909.05858) penalise every symbol that was there before. Words bear that; of characters
    all were there before, and must come again. What must not is a long row of them, so the row's length counts, as in
    the DRY sampler (p-e-w 2024, oobabooga/text-generation-webui #5677), whose penalty grows exponentially with it,
    made for rows of few long tokens; in proportion is enough for many short ones.

    Raises
    ------
    TypeError, ValueError
        For an option out of its range, by its flag.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False
    repetition_penalty: float = 0.0
    repetition_length: int = 10

    def __post_init__(self) -> None:
        for name, value in (
            ("--temperature", self.temperature),
            ("--top-p", self.top_p),
            ("--repetition-penalty", self.repetition_penalty),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, got {value!r}")
        if not (0 < self.temperature < math.inf):
            raise ValueError(
                f"--temperature must be above 0 and finite, got {self.temperature}; "
                "--greedy takes the most probable symbol"
            )
        check_size("--top-k", self.top_k, minimum=0)
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.repetition_penalty < math.inf:
            raise ValueError(f"--repetition-penalty must be at least 0 and finite, got {self.repetition_penalty}")
        check_size("--repetition-length", self.repetition_length, minimum=0)

    def probabilities(self, logits: np.ndarray, never: Sequence[int] = (), text: Ids = ()) -> np.ndarray:
        """The probability `(V,)`, in float64, of each symbol.

        Parameters
        ----------
        logits
            `(V,)`.
        never
            Ids that are not chosen.
        text
            All ids so far; for the repetition penalty.
        """
        logits = np.array(logits, dtype=np.float64)
        if logits.ndim != 1 or not np.isfinite(logits).all():
            raise ValueError(f"logits must be one row of finite numbers, got shape {logits.shape}: {logits}")
        if self.repetition_penalty:
            beyond = repeat_lengths(text, logits.size) - self.repetition_length
            logits -= self.repetition_penalty * np.maximum(beyond, 0)
        logits[list(never)] = -np.inf
        if self.greedy:
            return np.eye(1, logits.size, int(logits.argmax()))[0]
        with np.errstate(over="ignore"):  # to -inf, whose exponential is the 0 that it should be
            weights = np.exp((logits - logits.max()) / self.temperature)
        order = np.argsort(-logits, kind="stable")  # equal ones by id
        keep = self.top_k or logits.size
        if self.top_p < 1:
            share = np.cumsum(weights[order[:keep]])
            keep = int(np.searchsorted(share, self.top_p * share[-1])) + 1
        weights[order[keep:]] = 0
        return weights / weights.sum()

    def choose(
        self,
        logits: np.ndarray,
        rng: np.random.Generator,
        never: Sequence[int] = (),
        text: Ids = (),
    ) -> int:
        """One symbol's id, drawn with its `probabilities`."""
        return int(rng.choice(len(logits), p=self.probabilities(logits, never, text)))


def repeat_lengths(text: Ids, vocab_size: int) -> np.ndarray:
    """For each symbol, as the next one: how long the longest row that it ends is, of those that are in `text` already.

    Parameters
    ----------
    text
        Ids.
    vocab_size
        V; the lengths are `(V,)`, 0 for a symbol that is not in `text`.

    Examples
    --------
    After ``abcab`` an ``a`` would end a row of 1 that was there, ``b`` too, and ``c`` one of 3, ``abc``.

    >>> repeat_lengths([0, 1, 2, 0, 1], 3)
    array([1, 1, 3])
    """
    ids = np.asarray(text, dtype=np.int64)
    lengths = np.zeros(vocab_size, dtype=np.int64)
    ends = np.arange(len(ids))  # of the earlier rows, each as long as `length`, that the text's own end begins
    for length in range(1, len(ids) + 1):
        lengths[ids[ends]] = length
        ends = ends[ends >= length]
        ends = ends[ids[ends - length] == ids[-length]]
        if not len(ends):
            break
    return lengths


def generate(
    net: Any,
    prefix: Sequence[int],
    length: int,
    *,
    sampler: Sampler,
    rng: np.random.Generator,
    never: Sequence[int] = (),
    ctx: Any = None,
) -> list[int]:
    """Go on after `prefix`: the ids of `length` new symbols, each chosen knowing all before it.

    The prefix goes in as one sequence; from there on it is one step, with the states of the step before, for each
    symbol.

    Parameters
    ----------
    net
        Called with ids `(T, 1)` and states, returns logits `(T, 1, V)` and states; makes its `begin_state`.
    prefix
        Ids, at least one.
    length
        Symbols to generate; they alone are returned.
    rng
        The same state of the generator gives the same text. (MXNet's own can be seeded only, not saved.)
    never
        Ids that are not chosen, such as that of the unknown token, which stands for no text.
    ctx : mx.Context, optional
        Where `net` is; by default MXNet's current context.

    Raises
    ------
    ValueError
        For an empty prefix, a negative length, or logits that are not finite.
    """
    if len(prefix) == 0:
        raise ValueError("--prefix is empty: give at least one symbol to go on from")
    check_size("--length", length, minimum=0)
    import mxnet as mx  # here, so that a `Sampler` can be made from flags before mxnet is loaded

    ctx = ctx or mx.current_context()
    states = net.begin_state(1, ctx=ctx)
    text = np.zeros(len(prefix) + length, dtype=np.int64)
    text[: len(prefix)] = prefix
    begin = 0
    for end in range(len(prefix), len(text)):
        ids = mx.nd.array(text[begin:end], ctx=ctx, dtype="int32").reshape((-1, 1))
        logits, states = net(ids, states)
        text[end] = sampler.choose(logits[-1, 0].asnumpy(), rng, never, text[:end])
        begin = end
    return text[len(prefix) :].tolist()
