r"""Speed: the same layer by several implementations, and the limit of the machine.

The `contestants` of a case are timed only if their results agree (`measure`), in several new processes, of which the
fastest counts for each pair (`fastest`): a process may be slow for all of its life, perhaps because of where its memory
is.

Beside each time is the limit of the machine, measured in the same process:

.. math:: \max\left(\frac{2 \cdot \text{multiply-adds}}{\text{sgemm rate}}, \frac{\text{bytes of weights read}}
    {\text{memory rate}}\right)

The sgemm rate is that of MXNet's product of two square matrices of 1,024 rows with as many threads. Only
matrix products count; what takes the rest of the time is in the `profiling` of a case. A record is plain JSON, from
which tables and pictures are made (`bench_report`).
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Callable, Optional

from deeprnn.testing import TOLERANCE, distance

from .clock import ROUNDS, Spread, memory_rate, ratio, sgemm_rate, steadiest, take_turns
from .contestants import ASIDES, CONTESTANTS, WORKS, Case, Contestant, Here, Problem, Torch, installed, memory
from .processes import alone

__all__ = [
    "GRIDS",
    "ONE_STEP",
    "PROCESSES",
    "QUICK",
    "busy",
    "cost",
    "fastest",
    "fastest_of",
    "measure",
    "scaling",
]

MAIN = (
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
ODD = (
    (100, 200, 2, 35, 20),
    (650, 650, 2, 35, 20),
    (768, 768, 1, 20, 8),
    (48, 48, 3, 60, 4),
    (384, 384, 2, 35, 3),
    (96, 96, 12, 40, 20),
    (300, 150, 1, 128, 50),
    (64, 64, 1, 200, 128),
)
GRIDS = {"main": MAIN, "odd": ODD}
"""Cases by input size, hidden size, layers, steps, sequences. The odd ones were chosen before anything was measured on
them, and nothing is tuned on them."""

ONE_STEP = (256, 256, 2, 1, 1)
"""One step of one sequence, as in generating text: a case of its own, in no mean."""

QUICK = ((64, 64, 2, 50, 16), (256, 256, 2, 35, 32), ONE_STEP)

PROCESSES = 3
"""New processes in which a case is measured."""


def fastest(
    case: Case,
    contestants: Sequence[str] = tuple(CONTESTANTS),
    works: Sequence[str] = WORKS,
    rounds: int = ROUNDS,
    *,
    processes: int = PROCESSES,
    threads: Optional[int] = None,
) -> dict[str, Any]:
    """`measure` a case in several new processes, one after the other; see `fastest_of` for the result.

    Parameters
    ----------
    processes : int
        How many.
    threads : int, optional
        Threads and cores of each, see `processes.alone`.
    """
    return fastest_of([alone(measure, case, contestants, works, rounds, threads=threads) for _ in range(processes)])


def fastest_of(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One record from those that `measure` returned in several processes.

    Of each contestant the process counts in which its median time is the smallest. The ratio of a pair is taken within
    one process: that in which the two medians have the smallest sum, among those with a steady ratio if there are any.
    ``processes`` has the medians of all ratios.
    """
    first, *_ = measured
    result = dict(first)
    result["differences"] = {name: max(each["differences"][name] for each in measured) for name in first["differences"]}
    for work in WORKS:
        if work in first:
            result[work] = _fastest_work(Case(**first["case"]), work, [each[work] for each in measured])
    return result


def _fastest_work(case: Case, work: str, tries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ours, *others = tries[0]["seconds"]

    def pair(name: str) -> Callable[[Mapping[str, Any]], tuple[bool, float]]:
        return lambda one: (
            not Spread(**one["ratios"][name]).steady,
            one["seconds"][ours]["median"] + one["seconds"][name]["median"],
        )

    rates = {kind: max(one["rates"][kind] for one in tries) for kind in ("flops", "bytes")}
    return {
        "seconds": {
            name: min((one["seconds"][name] for one in tries), key=lambda spread: spread["median"])
            for name in tries[0]["seconds"]
        },
        "ratios": {name: min(tries, key=pair(name))["ratios"][name] for name in others},
        "processes": {name: [one["ratios"][name]["median"] for one in tries] for name in others},
        "tries": sum(one["tries"] for one in tries),
        "rates": rates,
        "limit": case.limit(work, rates["flops"], rates["bytes"]),
    }


def measure(
    case: Case,
    contestants: Sequence[str] = tuple(CONTESTANTS),
    works: Sequence[str] = WORKS,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any]:
    """Time one case in this process.

    Returns
    -------
    dict
        ``case`` and its ``name``; ``differences`` of each contestant's results from those of the built-in layer, or
        without it of the first contestant; and by work the ``seconds`` and the ``ratios`` of the first contestant to
        each other, as `Spread`, how many ``tries`` that took, the ``rates`` of the machine (``flops``, ``bytes``, a
        second), and the ``limit`` in seconds that follows from them.

    Raises
    ------
    RuntimeError
        If two contestants do not compute the same function; nothing is timed then.
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
    # Before and after: the machine may be slower at one of the two times.
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
    """Whether the times of one work are too far apart for a verdict, see `clock.STEADY`; asides do not count."""
    return not all(Spread(**spread).steady for name, spread in measured["ratios"].items() if name not in ASIDES)


def _rates(case: Case) -> tuple[float, float]:
    """Rates of matrix products, and of reading the recurrent weights of one layer again and again, as steps do."""
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


def cost(
    case: Case, contestants: Sequence[str] = tuple(CONTESTANTS), threads: Optional[int] = None
) -> dict[str, dict[str, Optional[float]]]:
    """What training costs once, for each contestant in a new process.

    Returns
    -------
    dict
        By name, ``first_call``: seconds of the first forward and backward pass, the building of the graph included, and
        ``memory``: bytes at the peak of three passes less those after import (None if the system does not report it).
    """
    return {name: alone(_cost, case, name, threads=threads) for name in installed(contestants)}


def _cost(case: Case, name: str) -> dict[str, Optional[float]]:
    before = memory("self", "VmRSS")
    contestant = CONTESTANTS[name](Problem.draw(case))
    gc.collect()  # the problem's arrays, so that the peak is the contestant's own
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


def scaling(
    case: Case, threads: int, works: Sequence[str] = WORKS, rounds: int = ROUNDS, processes: int = PROCESSES
) -> dict[str, Any]:
    """How many times as fast this package's layer is with several threads as with one.

    Returns
    -------
    dict
        ``threads``, and by work, and for the matrix ``product`` itself: ``one`` and ``several``, the seconds of the
        fastest of `processes` processes each, which take turns, and ``times_as_fast``.
    """
    samples: dict[int, list[dict[str, float]]] = {1: [], threads: []}
    for _ in range(processes):
        for count, taken in samples.items():
            taken.append(alone(_own_seconds, case, works, rounds, threads=count))
    result: dict[str, Any] = {"threads": threads}
    for work in (*works, "product"):
        one, several = (min(each[work] for each in samples[count]) for count in (1, threads))
        result[work] = {"one": one, "several": several, "times_as_fast": one / several}
    return result


def _own_seconds(case: Case, works: Sequence[str], rounds: int) -> dict[str, float]:
    contestant = Here("deeprnn", Problem.draw(case))
    medians = {work: Spread.of(take_turns({work: _timer(contestant, work)}, rounds)[work]).median for work in works}
    return {**medians, "product": 1 / sgemm_rate()}
