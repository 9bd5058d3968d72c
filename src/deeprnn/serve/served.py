"""A model that is served: its engine, and requests in its symbols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..data.symbols import split_symbols
from ..data.writing import Text, prefix_ids, unknown_ids
from ..runtimes import Model
from ..sampling import Sampler, generators
from .engine import Busy, Engine, Failed
from .errors import RETRY, Refused
from .fields import Stop, stops_of
from .jobs import Job, Scoring, Writing

if TYPE_CHECKING:
    import gluonnlp

__all__ = ["Limits", "Served"]

MOST_STOPS, LONGEST_STOP = 4, 200
"""Stop texts of a request, and characters of one."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many there may be.

    Attributes
    ----------
    slots, waiting
        Texts that a model writes at the same time, and requests that may wait for it.
    max_prefix, max_length, max_samples
        Characters of a prefix or of a text to be scored, symbols of a text, texts of a request.
    max_seconds
        Time for a request, waiting included; texts end there.
    max_body
        Bytes of a request.
    connections
    """

    slots: int
    waiting: int
    max_prefix: int
    max_length: int
    max_samples: int
    max_seconds: float
    max_body: int
    connections: int


class Served:
    """A model with its name, vocabulary and engine.

    Parameters
    ----------
    name, model, vocab, unit, runtime
        As `deeprnn.cli.models.open_model` opens it.
    limits
    """

    def __init__(self, name: str, model: Model, vocab: gluonnlp.Vocab, unit: str, runtime: str, limits: Limits) -> None:
        self.name, self.vocab, self.unit, self.runtime, self.limits = name, vocab, unit, runtime, limits
        self._model, self._banned = model, unknown_ids(vocab)
        self.engine: Engine

    def begin(self, notify: Callable[[list[Job]], None]) -> None:
        """Start an engine; see there."""
        self.engine = Engine(
            self._model,
            len(self.vocab),
            banned=self._banned,
            slots=self.limits.slots,
            waiting=self.limits.waiting,
            notify=notify,
        )
        self.engine.start()

    def write(
        self,
        prefixes: Sequence[str],
        sampler: Sampler,
        seed: int,
        *,
        length: int,
        samples: int,
        stop: Stop,
        names: tuple[str, str, str, str] = ("prefix", "length", "samples", "stop"),
        **options: Any,
    ) -> list[Writing]:
        """Submit texts to be written, a job for each prefix.

        Parameters
        ----------
        names
            What the request calls prefix, length, samples and stop.
        options
            As for `Writing`.

        Raises
        ------
        Refused
        """
        prefix_name, length_name, samples_name, stop_name = names
        for prefix in prefixes:
            self._check(len(prefix), self.limits.max_prefix, prefix_name, "characters")
        self._check(length, self.limits.max_length, length_name)
        most = min(self.limits.max_samples, self.limits.slots)
        self._check(samples * len(prefixes), most, samples_name if len(prefixes) == 1 else prefix_name)
        stops = stops_of(stop)
        self._check(len(stops), MOST_STOPS, stop_name, "texts")
        for each in stops:
            self._check(len(each), LONGEST_STOP, stop_name, "characters")
        if not all(stops):
            raise Refused(422, f"{stop_name} must have at least one character, got ''", stop_name)
        deadline = time.monotonic() + self.limits.max_seconds
        jobs = []
        for prefix in prefixes:
            try:
                ids = prefix_ids(self.vocab, self.unit, prefix, prefix_name)
            except ValueError as error:
                raise Refused(422, str(error), prefix_name) from error
            begin = ids if prefix else []
            texts = [Text(self.vocab, self.unit, begin, stops) for _ in range(samples)]
            rngs = generators(seed, samples)  # as `deeprnn generate`, which so writes the same texts
            options_of = {"length": length, "sampler": sampler, "texts": texts, "rngs": rngs, **options}
            jobs.append(Writing(ids, deadline, **options_of))
        try:
            for job in jobs:
                self.submit(job)
        except Refused:
            for job in jobs:
                job.cancelled = True
            raise
        return jobs

    def score(self, text: str) -> tuple[Scoring, list[str], int]:
        """Submit a text to be scored: the job, the symbols, and how many of these are unknown.

        Raises
        ------
        Refused
        """
        self._check(len(text), self.limits.max_prefix, "text", "characters")
        symbols = split_symbols(text, self.unit)
        missing = [symbol for symbol in symbols if symbol not in self.vocab]
        if missing and self.vocab.unknown_token is None:
            raise Refused(422, f"text has a symbol that the model does not know: {missing[0]!r}", "text")
        if len(symbols) < 2:
            raise Refused(422, f"text must have at least 2 symbols, got {len(symbols)}", "text")
        job = Scoring(self.vocab[symbols], time.monotonic() + self.limits.max_seconds)
        self.submit(job)
        return job, symbols, len(missing)

    def submit(self, job: Job) -> None:
        """Hand a job to the engine, or refuse it."""
        job.listener = asyncio.Event()
        try:
            self.engine.submit(job)
        except Busy as busy:
            raise Refused(429, f"too many requests: {busy}; try again in a second", headers=RETRY) from busy
        except Failed as failed:
            raise Refused(503, str(failed), headers=RETRY) from failed

    def about(self) -> dict[str, Any]:
        """What is known of it, for whoever asks."""
        return {
            "id": self.name,
            "object": "model",
            "owned_by": "deeprnn",
            "unit": self.unit,
            "runtime": self.runtime,
            "vocabulary": len(self.vocab),
            "ready": self.engine.ready,
        }

    @staticmethod
    def _check(value: int, limit: int, name: str, noun: Optional[str] = None) -> None:
        if value > limit:
            what = f"{limit:,} {noun}" if noun else f"{limit:,}"
            be = "have" if noun else "be"
            raise Refused(422, f"{name} must {be} at most {what}, got {value:,}", name)
