"""What an engine is asked for: texts to be written, a text to be scored."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from ..sampling import Sampler, log_softmax

if TYPE_CHECKING:
    from ..data.writing import Text

__all__ = ["LIKELIEST", "NOT_FINITE", "Job", "Row", "Scoring", "Symbol", "TokenScores", "Writing"]

LIKELIEST = 5
"""Likeliest symbols that are listed with each one."""

NOT_FINITE = "the model returned logits that are not finite"


@dataclass(frozen=True)
class Symbol:
    """A symbol that has been written.

    Attributes
    ----------
    index
        Of its text among those of the request.
    text
        The characters that it adds.
    reason
        Why the text ends with it: length, stop or time; empty if it does not.
    logprob
        The logarithm of its probability by the model alone: at temperature 1, without any cut or penalty.
    likeliest
        The ids that were likeliest there, and the logarithms of their probabilities.
    state
        The hidden state ``(layers, units)`` from which it was predicted.
    """

    index: int
    text: str
    reason: str = ""
    logprob: float = math.nan
    likeliest: Sequence[tuple[int, float]] = ()
    state: Optional[np.ndarray] = None


class Job:
    """A request, on its way through an engine.

    Parameters
    ----------
    ids
        What is read first.
    slots
        How many it takes.
    deadline
        Time, of `time.monotonic`, at which it ends.

    Attributes
    ----------
    news
        What the engine has made and nobody has fetched yet. The engine appends; who fetches takes from the left.
    over
        Whether there will be no more news.
    error
        What went wrong, if anything has.
    written
        Symbols written.
    cancelled
        Set it where nobody wants the answer any more: the engine forgets the job before its next step.
    noticed
        Whether the engine has called `notify` since the news were fetched last. Who fetches clears it, before.
    listener
        Belongs to who waits for the news.
    """

    def __init__(self, ids: Sequence[int], slots: int, deadline: float) -> None:
        self.ids, self.slots, self.deadline = ids, slots, deadline
        self.news: deque[Any] = deque()
        self.over = self.cancelled = self.noticed = False
        self.listener: Any = None
        self.error = ""
        self.written = 0

    def end(self, error: str = "") -> None:
        """There are no more news."""
        self.error, self.over = error, True

    def read(self, begin: int, logits: np.ndarray) -> None:
        """The logits ``(T, V)`` of the ids from place `begin` on, as they are read."""


@dataclass(eq=False)
class Row:
    """A text that is being written.

    Attributes
    ----------
    job, index
        The request, and which of its texts this is.
    ids
        All so far, with the prefix; the last one is what the next step reads.
    text
        The characters.
    numbers
        A random number for each symbol to come.
    """

    job: Writing
    index: int
    ids: list[int]
    text: Text
    numbers: Iterator[float]


class Writing(Job):
    """Texts to be written: the news are each `Symbol`.

    Parameters
    ----------
    prefix, deadline
        See `Job`.
    length
        Symbols of each text.
    sampler
    texts
        The texts to generate.
    rngs
        Random numbers for each text.
    details, states
        Whether symbols come with probabilities, and those of the first text with the hidden state.
    """

    def __init__(
        self,
        prefix: Sequence[int],
        deadline: float,
        *,
        length: int,
        sampler: Sampler,
        texts: Sequence[Text],
        rngs: Sequence[np.random.Generator],
        details: bool = False,
        states: bool = False,
    ) -> None:
        super().__init__(prefix, len(texts), deadline)
        self.length, self.sampler, self.details, self.states = length, sampler, details, states
        self.texts = tuple(texts)  # `rows` has those that are still written
        self.rows = [Row(self, i, list(prefix), text, numbers(rng)) for i, (text, rng) in enumerate(zip(texts, rngs))]


@dataclass(frozen=True)
class TokenScores:
    """What a model thinks of a text.

    Attributes
    ----------
    losses
        Of each symbol but the first, in nats.
    expected, logprobs
        The likeliest symbol in its place, and the logarithm of its probability.
    """

    losses: np.ndarray
    expected: np.ndarray
    logprobs: np.ndarray


class Scoring(Job):
    """A text to be scored: the news are one `TokenScores`."""

    def __init__(self, ids: Sequence[int], deadline: float) -> None:
        super().__init__(ids, 1, deadline)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def read(self, begin: int, logits: np.ndarray) -> None:
        if not np.isfinite(logits).all():
            self.end(NOT_FINITE)
            return
        log_probs, came = log_softmax(logits), self.ids[begin + 1 : begin + 1 + len(logits)]
        rows, expected = np.arange(len(logits)), log_probs.argmax(axis=-1)
        self._parts.append((-log_probs[rows, came], expected, log_probs[rows, expected]))
        if begin + len(logits) == len(self.ids) - 1:
            self.news.append(TokenScores(*map(np.concatenate, zip(*self._parts))))


def numbers(rng: np.random.Generator) -> Iterator[float]:
    """Random numbers, drawn many at a time; they are those that would be drawn one by one."""
    while True:
        yield from rng.random(128).tolist()
