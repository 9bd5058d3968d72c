r"""Timing: samples of several things taken in turns, their spread, and the rates of the machine.

Things to compare take turns, in an order that changes from round to round, so that whatever else the machine does
affects all alike; the ratio of two is taken round by round, and its median counts. If the ratios are far apart the
machine was busy: the measurement is repeated, and if that does not help there is no verdict.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

import mxnet as mx
import numpy as np

__all__ = [
    "ROUNDS",
    "SECONDS",
    "TRIES",
    "Spread",
    "memory_rate",
    "ratio",
    "seconds_per_call",
    "sgemm_rate",
    "steadiest",
    "take_turns",
]

ROUNDS, LEAST_ROUNDS, SECONDS = 20, 5, 20.0
"""Rounds of a measurement, the least number of rounds, and the seconds after which no more than these are made. A
record has the number of rounds that were made."""

SAMPLE_SECONDS = 0.05
"""A sample is the mean of as many calls as fill this time, so that neither the resolution of the clock matters to short
calls nor the few milliseconds for which the system gives the core to another process."""

ASIDE_SECONDS = 5.0
"""An aside skips the rounds after it has used this time and had `LEAST_ROUNDS`."""

STEADY = 0.15
"""The largest distance of the quartiles of a ratio, as a share of its median, at which the machine was not busy. At
this distance the standard error of the median is 3 % with 20 samples and 6 % with 5, if they are normal."""

TRIES = 3
"""How often a measurement is taken if the machine is busy; the steadiest try counts."""


@dataclass(frozen=True)
class Spread:
    """The median of some samples, their quartiles, and their number."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        low, median, high = np.percentile(samples, (25, 50, 75))
        return cls(float(median), float(low), float(high), len(samples))

    @property
    def width(self) -> float:
        """How far the quartiles are apart, as a share of the median."""
        return (self.high - self.low) / self.median

    @property
    def steady(self) -> bool:
        """Whether the quartiles are close enough together for a verdict, see `STEADY`."""
        return self.count > 1 and self.width <= STEADY


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The ratio of the times of two contestants, round by round; only rounds in which both took part count."""
    return Spread.of([a / b for a, b in zip(ours, theirs)])


def take_turns(
    timers: Mapping[str, Callable[[int], float]], rounds: int = ROUNDS, asides: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Time each of several things `rounds` times, in turns; long work less often, see `SECONDS`.

    Parameters
    ----------
    timers
        By name, a function of the number of calls that returns seconds per call, and returns when the work is done.
    rounds : int
        Samples of each.
    asides
        Names of those that may skip rounds once they have used `ASIDE_SECONDS`.

    Returns
    -------
    dict
        Seconds per call by name; sample i of each is from the same round.
    """
    calls = {}
    for name, timer in timers.items():
        timer(1)  # warm-up: the first call builds the graph
        calls[name] = max(1, round(SAMPLE_SECONDS / max(timer(1), 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in timers}
    used = dict.fromkeys(timers, 0.0)
    order, shuffle = list(timers), random.Random(0).shuffle
    for number in range(rounds):
        if number >= LEAST_ROUNDS and sum(used[name] for name in timers if name not in asides) > SECONDS:
            break
        shuffle(order)
        for name in order:
            if name in asides and number >= LEAST_ROUNDS and used[name] > ASIDE_SECONDS:
                continue
            samples[name].append(timers[name](calls[name]))
            used[name] += samples[name][-1] * calls[name]
    return samples


def steadiest(
    timers: Mapping[str, Callable[[int], float]], rounds: int = ROUNDS, asides: Sequence[str] = ()
) -> tuple[dict[str, list[float]], int]:
    """`take_turns`, up to `TRIES` times until the ratios of the first to the others are steady; asides do not count.

    Returns
    -------
    dict, int
        The samples of the try whose widest ratio is the narrowest, and how many tries there were.
    """
    first = next(iter(timers))
    tried: list[tuple[float, dict[str, list[float]]]] = []
    while len(tried) < TRIES:
        samples = take_turns(timers, rounds, asides)
        ratios = [ratio(samples[first], samples[name]) for name in timers if name != first and name not in asides]
        tried.append((max((each.width for each in ratios), default=0.0), samples))
        if all(each.steady for each in ratios):
            break
    return min(tried, key=lambda each: each[0])[1], len(tried)


def seconds_per_call(function: Callable[[], Any], calls: int) -> float:
    """The mean time of `calls` calls, each of which MXNet finishes before the next."""
    mx.nd.waitall()
    begun = time.perf_counter()
    for _ in range(calls):
        function()
        mx.nd.waitall()
    return (time.perf_counter() - begun) / calls


def sgemm_rate(size: int = 1024) -> float:
    """Floating-point operations per second of a large float32 matrix product in MXNet, at best."""
    a, b = (mx.nd.random.normal(shape=(size, size)) for _ in range(2))
    return 2 * size**3 / _best(lambda: mx.nd.FullyConnected(a, b, no_bias=True, num_hidden=size).wait_to_read())


def memory_rate(size: int) -> float:
    """Bytes per second, at best, of a matrix-vector product over `size` bytes, which come from a cache if they fit."""
    columns = 256
    rows = max(size // 4, 2**16) // columns  # a smaller one would measure the call, not the memory
    matrix = np.ones((rows, columns), dtype="float32")
    vector, out = np.ones(columns, dtype="float32"), np.empty(len(matrix), dtype="float32")
    return matrix.nbytes / _best(lambda: np.dot(matrix, vector, out=out))


def _best(work: Callable[[], Any], repeat: int = 5) -> float:
    """Seconds of the fastest of some runs, each of as many calls as fill `SAMPLE_SECONDS`."""
    calls = 1

    def once() -> float:
        begun = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - begun) / calls

    once()
    calls = max(1, round(SAMPLE_SECONDS / once()))
    return min(once() for _ in range(repeat))
