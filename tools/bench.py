r"""How fast: the same work by several implementations, and how fast it could be at all.

The `contestants` of a case are timed only once their results agree. They take turns, in an order that changes from
round to round, so that whatever else the machine does meets all of them alike; the ratio of two is taken round by
round, and its median is what counts. Where the ratios of a case are far apart the machine was busy: the case is
measured again, and if that does not help the table says so instead of a number.

Beside each time stands the limit of the machine, measured in the same run:

.. math:: \max\left(\frac{2 \cdot \text{multiply-adds}}{\text{sgemm rate}}, \frac{\text{bytes of weights read}}
    {\text{memory rate}}\right)

What is not a matrix product, such as the activations, is not counted. What limits instead is in the `profile` of a
case. The record of a run is plain JSON; tables and pictures are made from records, never from memory (`bench_report`).
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import mxnet as mx
import numpy as np

from deeprnn.nn import bptt
from deeprnn.testing import TOLERANCE, distance

from .contestants import ASIDES, CONTESTANTS, Case, Contestant, Here, Problem, Torch, build, installed, memory

__all__ = [
    "CONTESTANTS",
    "GRID",
    "ONE_STEP",
    "QUICK",
    "ROUNDS",
    "WORKS",
    "Case",
    "Problem",
    "Spread",
    "alone",
    "build",
    "busy",
    "cost",
    "installed",
    "measure",
    "memory_rate",
    "profile",
    "ratio",
    "sgemm_rate",
    "steadiest",
    "take_turns",
]

WORKS = ("inference", "training")
"""What is timed: a forward pass, and a forward and a backward pass with the gradients of inputs and parameters."""

ROUNDS, LEAST_ROUNDS, SECONDS = 20, 5, 20.0
"""Rounds of a work: the first number, but once they have taken so many seconds no more than the second. A record says
how many there were."""

SAMPLE_SECONDS = 0.05
"""A sample is the mean of as many calls as fill this time: short calls are not lost in the clock's grain, nor in the
few milliseconds for which a system lets another process have the core."""

ASIDE_SECONDS = 5.0
"""An aside sits out once it has used so much time and has had `LEAST_ROUNDS`."""

STEADY = 0.15
"""The quartiles of a ratio may lie this share of its median apart; beyond, the machine was busy. Just within, the
median of 20 samples is good to 3 %, that of 5 to 6 % (one standard error, were they normal)."""

TRIES = 3
"""How often a work is measured where the machine is busy; the steadiest try counts."""

PROFILED_SECONDS = 1.0
"""A profile is of as many calls as fill this time."""


GRID = (
    (64, 64, 2, 50, 16),
    (128, 128, 3, 100, 100),
    (256, 256, 1, 35, 32),
    (256, 256, 2, 35, 32),
    (256, 256, 4, 35, 32),
    (256, 256, 2, 35, 1),
    (256, 256, 2, 1, 1),
    (512, 512, 2, 35, 64),
    (512, 512, 8, 35, 32),
    (1024, 1024, 2, 35, 1),
    (1024, 1024, 2, 35, 128),
    (128, 128, 8, 512, 16),
)
"""Input size, hidden size, layers, steps, sequences."""

ONE_STEP = (256, 256, 2, 1, 1)
"""The case that stands apart: one step of one sequence, as in generating text. In no mean."""

QUICK = ((64, 64, 2, 50, 16), (256, 256, 2, 35, 32), ONE_STEP)


# The clock.


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
    """Of the times of two contestants, round by round; one that sat out has only its own rounds."""
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
        Names of those that may sit out once they have used `ASIDE_SECONDS`.

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


# The limits.


def sgemm_rate(size: int = 1024) -> float:
    """Floating-point operations a second of a large float32 matrix product in MXNet, at best."""
    a, b = (mx.nd.random.normal(shape=(size, size)) for _ in range(2))
    return 2 * size**3 / _best(lambda: mx.nd.FullyConnected(a, b, no_bias=True, num_hidden=size).wait_to_read())


def memory_rate(size: int) -> float:
    """Bytes a second, at best, of a matrix-vector product over `size` bytes: from the caches where they fit there."""
    columns = 256
    rows = max(size // 4, 2**16) // columns  # of a smaller one the time would be the call's, not the memory's
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


# The measurement.


def measure(
    case: Case,
    contestants: Sequence[str] = tuple(CONTESTANTS),
    works: Sequence[str] = WORKS,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any]:
    """Time one case.

    Returns
    -------
    dict
        ``case`` and its ``name``; ``differences`` of each contestant's results from those of the built-in layer, or of
        the first where that takes no part; and by work the ``seconds`` and the ``ratios`` of the first contestant to
        each other, as `Spread`, how many ``tries`` that took, the ``rates`` of the machine (``flops``, ``bytes``, a
        second), and the ``limit`` in seconds that follows from them.

    Raises
    ------
    RuntimeError
        If two contestants do not compute the same function: then there is nothing to time.
    """
    problem = Problem.draw(case, seed)
    entered: dict[str, Contestant] = {}
    try:
        for name in installed(contestants):
            entered[name] = CONTESTANTS[name](problem)
        torch = entered.get("pytorch")
        return {
            "case": asdict(case),
            "name": case.name,
            "differences": _differences(case, entered),
            **({"pytorch": {"version": torch.version, "threads": torch.threads}} if isinstance(torch, Torch) else {}),
            **{work: _race(case, work, entered, rounds) for work in works},
        }
    finally:
        for contestant in entered.values():
            contestant.close()


def _race(case: Case, work: str, entered: Mapping[str, Contestant], rounds: int) -> dict[str, Any]:
    before = _rates(case)
    samples, tries = steadiest({name: _timer(contestant, work) for name, contestant in entered.items()}, rounds, ASIDES)
    # The machine may have been slower at the one end than at the other: the limit is what it can do.
    flops, rate = map(max, before, _rates(case))
    first = next(iter(entered))
    return {
        "seconds": {name: asdict(Spread.of(times)) for name, times in samples.items()},
        "ratios": {name: asdict(ratio(samples[first], times)) for name, times in samples.items() if name != first},
        "tries": tries,
        "rates": {"flops": flops, "bytes": rate},
        "limit": case.limit(work, flops, rate),
    }


def busy(measured: Mapping[str, Any]) -> bool:
    """Whether a work of a record of `measure` is without a verdict, see `STEADY`; asides do not count."""
    return not all(Spread(**spread).steady for name, spread in measured["ratios"].items() if name not in ASIDES)


def _rates(case: Case) -> tuple[float, float]:
    """Of products, and of reading again and again the recurrent weights of one layer, all that a step needs."""
    return sgemm_rate(), memory_rate(4 * case.weights[1] // case.layers)


def _timer(contestant: Contestant, work: str) -> Callable[[int], float]:
    return lambda calls: contestant.time(work, calls)


def _differences(case: Case, entered: Mapping[str, Contestant]) -> dict[str, float]:
    """The largest relative distance of each contestant's results from the reference's."""
    results = {name: contestant.results() for name, contestant in entered.items()}
    reference = "gluon" if "gluon" in results else next(iter(results))
    differences = {}
    for name in results:
        if name == reference:
            continue
        distances = {key: distance(results[name][key], value) for key, value in results[reference].items()}
        worst = max(distances, key=lambda key: distances[key])
        differences[name] = distances[worst]
        if distances[worst] > TOLERANCE["float32"]:
            raise RuntimeError(
                f"{case.name}: {name} and {reference} are not the same function: {worst} differs by "
                f"{distances[worst]:.1e}, relative by norm, and {TOLERANCE['float32']:.0e} is allowed; not timed"
            )
    return differences


def cost(case: Case, contestants: Sequence[str] = tuple(CONTESTANTS)) -> dict[str, dict[str, Optional[float]]]:
    """What training costs once: each contestant in a new process.

    Returns
    -------
    dict
        By name, ``first_call``: seconds of the first forward and backward pass, the building of the graph included, and
        ``memory``: bytes at the peak of three passes less those after import (None where the system does not tell).
    """
    return {name: alone(_cost, case, name) for name in installed(contestants)}


def _cost(case: Case, name: str) -> dict[str, Optional[float]]:
    before = memory("self", "VmRSS")
    contestant = CONTESTANTS[name](Problem.draw(case))
    gc.collect()  # what was drawn has been handed over: the peak is to be the contestant's own
    try:
        first_call = contestant.time("training", 1)
        contestant.time("training", 2)
        if isinstance(contestant, Torch):
            before, peak = contestant.memory_before, contestant.memory()
        else:
            peak = memory("self", "VmHWM")
    finally:
        contestant.close()
    return {"first_call": first_call, "memory": None if peak is None or before is None else peak - before}


def profile(case: Case, work: str) -> dict[str, Any]:
    """What this package's graph of a case spends its time on, by `mx.profiler`, in a new process.

    Without static_shape, with which MXNet runs its operators in bulk and so times them in bulk. The operators inside of
    `bptt.layer` are told as those of its way there and its way back.

    Returns
    -------
    dict
        Of one call: its ``seconds`` under the profiler, and the ``operators``, longest first: ``name``, ``count``,
        ``milliseconds`` and ``share`` of the time of all of them.
    """
    return alone(_profile, case, work)


def _profile(case: Case, work: str) -> dict[str, Any]:
    bptt.FLAGS[:] = [("static_alloc", True)]  # this process is for nothing else
    contestant = Here("deeprnn", Problem.draw(case), {"static_alloc": True})
    contestant.time(work, 1)
    calls = max(1, round(PROFILED_SECONDS / contestant.time(work, 1)))
    with tempfile.TemporaryDirectory() as folder:
        mx.profiler.set_config(aggregate_stats=True, profile_all=True, filename=str(Path(folder) / "trace.json"))
        mx.profiler.set_state("run")
        seconds = contestant.time(work, calls)
        mx.profiler.set_state("stop")
        by_domain = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"]
        mx.profiler.dump()  # or it would be written at the end of the process, when the folder is gone
    times = by_domain["operator"]
    times.pop("DeleteVariable", None)  # the engine's, not the graph's
    for name, of in by_domain.get("Custom Operator", {}).items():  # what runs inside of `bptt.layer`
        layer, _, operator = name.partition("::")
        if operator != "pure_python":  # which draws, calls and waits
            times[f"{operator}, way back" if layer.startswith("_backward") else f"{operator}, way there"] = of
    total = sum(of["Total"] for of in times.values())
    operators = [
        {
            "name": name,
            "count": of["Count"] / calls,
            "milliseconds": of["Total"] / calls,
            "share": of["Total"] / total,
        }
        for name, of in sorted(times.items(), key=lambda item: -item[1]["Total"])
    ]
    return {"seconds": seconds, "operators": operators}


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """What `function` returns in a new process."""
    # spawn, not fork: a child that inherits MXNet's threads and memory would be measured with them.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args).result()
