"""One model, and the thread that owns it: requests join and leave between steps, prefixes are read beside running ones.

A step makes a symbol for every text that is being written. Between two steps the thread takes new requests, as long as
there are free slots, and reads from their prefixes, in turn, in chunks whose lengths are powers of two (each length is
a graph of its own), for about as long as a step takes. So neither a long prefix nor many short ones hold up what runs.
How a prefix is cut depends on it alone, and so a seed gives the same text whoever else is served.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from .._util.wording import counted
from ..runtimes import Model
from ..sampling import log_softmax
from .batch import Batch, agreeing_sizes
from .jobs import LIKELIEST, NOT_FINITE, Job, Row, Symbol, Writing

__all__ = ["Busy", "Engine", "Failed"]

CHUNK = 64
"""Symbols of a prefix that are read at once, at most."""

SHARE = 1.0
"""Time for reading prefixes between two steps, of the time of a step."""

PACES = (0.002, 0.001, 1 / 30)
"""Seconds from one notice of news to the next: at least the first, the second for each text, at most the third. To send
a line costs more than to write a symbol, and nobody reads more than 30 changes a second."""

STUCK = 10.0
"""Seconds for one turn after which an engine counts as dead."""


class Busy(Exception):
    """As many requests wait as may."""


class Failed(Exception):
    """The engine does not run, or no more."""


class Engine:
    """Serves one model.

    Parameters
    ----------
    model
        In any runtime; from now on this engine's thread alone uses it.
    vocab_size
        Number of symbols V.
    banned
        Ids that are never written.
    slots
        Texts that are written at the same time.
    waiting
        Requests that may wait for slots.
    notify
        Called in the engine's thread with jobs that have news or are over.

    Attributes
    ----------
    steps, symbols, read
        Counts: steps, symbols written, symbols of prefixes read.
    error
        Why it does not run any more.
    """

    def __init__(
        self,
        model: Model,
        vocab_size: int,
        *,
        banned: Sequence[int] = (),
        slots: int = 64,
        waiting: int = 128,
        notify: Callable[[list[Job]], None],
    ) -> None:
        self.slots, self.most_waiting = slots, waiting
        self.steps = self.symbols = self.read = 0
        self.error = ""
        self._model, self._vocab_size, self._banned, self._notify = model, vocab_size, banned, notify
        self._waiting: deque[Job] = deque()
        self._reading: deque[tuple[Job, int, Any]] = deque()  # with the place that is reached, and the states there
        self._free = slots
        self._changed = threading.Condition()
        self._stopping = self._working = self._ready = False
        self._turned = time.monotonic()
        self._unnotified: dict[Job, None] = {}  # jobs with news, in their order
        self._notified = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin: `ready` is true when the model's graphs have been made."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End before the next step; what is running ends with an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    @property
    def ready(self) -> bool:
        """Whether it serves: it has begun, has not failed, and does not hang."""
        hangs = self._working and time.monotonic() - self._turned > STUCK
        return self._ready and self._thread.is_alive() and not hangs

    @property
    def waiting(self) -> int:
        """Requests that wait for slots."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return self.slots - self._free

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises
        ------
        Busy, Failed
        """
        with self._changed:
            if not self.ready:
                raise Failed(self.error or "the model is not ready")
            if len(self._waiting) >= self.most_waiting:
                raise Busy(f"{counted(self.most_waiting, 'request')} are waiting already")
            self._waiting.append(job)
            self._changed.notify()

    # What follows runs in the engine's thread.

    def _run(self) -> None:
        batch = Batch(self._model, [self.slots], self._banned)
        try:
            batch = Batch(self._model, agreeing_sizes(self._model, self.slots, self._vocab_size), self._banned)
            chunk = CHUNK
            while chunk:  # each length once, so that no request waits for its graph
                self._model(np.zeros((chunk, 1), dtype=np.int64), self._model.begin(1))
                chunk //= 2
            self._ready = True
            while self._wait(batch):
                self._turn(batch)
            self.error = "the service is stopping"
        except BaseException as error:  # whatever a runtime raises
            self.error = f"the model has failed: {type(error).__name__}: {error}"
            raise
        finally:
            with self._changed:
                self._ready = False
                left = [row.job for row in batch.rows] + [job for job, *_ in self._reading] + [*self._waiting]
            for job in left:
                job.end(self.error)
            self._notify([*dict.fromkeys(left)])

    def _wait(self, batch: Batch) -> bool:
        """Wait for work; false at the end."""
        with self._changed:
            self._working = bool(batch.rows or self._reading)
            while not (self._working or self._waiting or self._stopping):
                self._changed.wait()
            self._working, self._turned = True, time.monotonic()
            return not self._stopping

    def _turn(self, batch: Batch) -> None:
        """Take new requests, write a symbol of each text, and read from prefixes."""
        now, news = time.monotonic(), self._take()
        forgotten = [row for row in batch.rows if row.job.cancelled]
        for row in forgotten:
            self._left(row)
        batch.leave(forgotten)
        begun = time.perf_counter()
        if batch.rows:
            news += self._step(batch, now)
        if self._reading:
            news += self._read(batch, now, SHARE * (time.perf_counter() - begun))
        self._unnotified.update(dict.fromkeys(news))
        least, each, most = PACES
        pace = max(least, min(each * len(batch.rows), most))
        if time.perf_counter() - self._notified > pace or any(job.over for job in self._unnotified):
            self._tell()

    def _tell(self) -> None:
        """Notify of all news that nobody has been notified of."""
        unnoticed = [job for job in self._unnotified if not job.noticed]
        for job in unnoticed:
            job.noticed = True
        if unnoticed:
            self._notify(unnoticed)
        self._unnotified, self._notified = {}, time.perf_counter()

    def _take(self) -> list[Job]:
        """Begin with waiting requests, in their order, as long as there are slots for them; returns those given up."""
        with self._changed:
            given_up = [job for job in self._waiting if given_up_by(job)]
            for job in given_up:
                self._waiting.remove(job)
            while self._waiting and self._waiting[0].slots <= self._free:
                job = self._waiting.popleft()
                self._free -= job.slots
                self._reading.append((job, 0, None))
        return given_up

    def _step(self, batch: Batch, now: float) -> list[Job]:
        rows = batch.rows
        symbols, logits, finite = batch.step()
        self.steps, self.symbols = self.steps + 1, self.symbols + len(rows)
        detailed = [i for i, row in enumerate(rows) if row.job.details]
        details = dict(zip(detailed, probabilities(logits[detailed], symbols[detailed]))) if detailed else {}
        ended = []
        for i, (row, symbol) in enumerate(zip(rows, symbols.tolist())):
            job, more = row.job, details.get(i, {})
            if not finite[i]:
                job.end(NOT_FINITE)
                job.cancelled = True  # with all its texts
                continue
            if job.states and row.index == 0:
                more["state"] = batch.states(row)[0]
            added, reason = row.text.add(symbol), ""
            if row.text.stopped:
                reason = "stop"
            elif len(row.ids) == len(job.ids) + job.length:
                reason = "length"
            elif now > job.deadline:
                reason = "time"
            job.written += 1
            job.news.append(Symbol(row.index, added, reason, **more))
            if reason:
                self._left(row)
                ended.append(row)
        batch.leave(ended)
        return [row.job for row in rows]

    def _left(self, row: Row) -> None:
        """Free the slot of a text; with its last one a request is over."""
        self._free += 1
        row.job.rows.remove(row)
        if not row.job.rows:
            row.job.end(row.job.error)

    def _read(self, batch: Batch, now: float, seconds: float) -> list[Job]:
        """Read for so long, and at least one chunk; a request of which everything has been read begins to write."""
        until, over = time.perf_counter() + seconds, []
        newcomers: list[tuple[Row, Sequence[np.ndarray]]] = []
        while True:
            job, place, states = self._reading.popleft()
            states = self._model.begin(1) if states is None else states
            rest = len(job.ids) - 1 - place  # a step reads the last one; of a text to be scored, nobody does
            if rest and not given_up_by(job):
                size = min(CHUNK, 1 << (rest.bit_length() - 1))
                logits, states = self._model(np.asarray(job.ids[place : place + size])[:, np.newaxis], states)
                job.read(place, logits[:, 0])
                self.read += size
                place, rest = place + size, rest - size
            if job.over or (not rest and not isinstance(job, Writing)):
                job.end(job.error)
                self._free += job.slots
                over.append(job)
            elif rest:
                self._reading.append((job, place, states))
            elif isinstance(job, Writing):
                arrays = self._model.arrays(states)
                newcomers += [(row, arrays) for row in job.rows]
            if not self._reading or time.perf_counter() > until:
                batch.join(newcomers)
                return over


def given_up_by(job: Job) -> bool:
    """Whether nobody waits for a job any more that has written nothing yet; it is over then."""
    if job.cancelled or time.monotonic() > job.deadline:
        job.end("the time is up")
        return True
    return False


def probabilities(logits: np.ndarray, symbols: np.ndarray) -> list[dict[str, Any]]:
    """For rows of logits ``(N, V)`` and their symbols, what a `Symbol` tells of probabilities."""
    log_probs = log_softmax(logits)
    likeliest = np.argsort(-log_probs, axis=-1, kind="stable")[:, :LIKELIEST]
    return [
        {"logprob": float(row[symbol]), "likeliest": [*zip(best.tolist(), row[best].tolist())]}
        for row, symbol, best in zip(log_probs, symbols, likeliest)
    ]
