r"""How fast: the same work by several implementations, and how fast it could be at all.

One case is a layer and the shape of its inputs. Its contestants get the same weights and inputs, and are timed only
once their results agree. They take turns, in an order that changes from round to round, so that whatever else the
machine does meets all of them alike; the ratio of two is taken round by round, and its median is what counts. Where the
ratios of a case are far apart the machine was busy, and the table says that instead of a number.

Beside each time stands the limit of the machine, measured in the same run:

.. math:: \max\left(\frac{2 \cdot \text{multiply-adds}}{\text{sgemm rate}}, \frac{\text{bytes of weights read}}
    {\text{memory rate}}\right)

The record of a run is plain JSON; tables and pictures are made from records, never from memory.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import math
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import rnn

from ._types import Operators, Tensor
from .cells import ACTIVATIONS
from .checks import check_choice, check_size
from .language_model import CELLS, STACKS
from .parity import TOLERANCE, copy_parameters, distance, randomize
from .stack import LAYOUTS
from .unroll import split

__all__ = [
    "CONTESTANTS",
    "GRID",
    "ONE_STEP",
    "QUICK",
    "WORKS",
    "Case",
    "Spread",
    "build",
    "cost",
    "measure",
    "memory_rate",
    "picture",
    "ratio",
    "sgemm_rate",
    "summary",
    "table",
    "take_turns",
]

WORKS = ("inference", "training")
"""What is timed: a forward pass, and a forward and a backward pass with the gradients of inputs and parameters."""

ROUNDS = 20
SAMPLE_SECONDS = 0.01
"""A sample is the mean of as many calls as fill this time, so that short calls are not lost in the clock's grain."""

ASIDE_SECONDS, ASIDE_ROUNDS = 5.0, 5
"""An aside sits out once it has used so much time and has had so many rounds; a record says how many it had."""

STEADY = 0.15
"""The quartiles of a ratio may lie this share of its median apart; beyond, the machine was busy."""


@dataclass(frozen=True)
class Case:
    """A layer and the shape of its inputs."""

    input_size: int
    hidden_size: int
    layers: int
    length: int
    batch_size: int
    cell: str = "rnn"
    activation: str = "tanh"
    bidirectional: bool = False
    layout: str = "TNC"

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "layers", "length", "batch_size"):
            check_size(name, getattr(self, name))
        check_choice("cell", self.cell, CELLS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("layout", self.layout, LAYOUTS)

    @property
    def name(self) -> str:
        """Its five sizes: input, hidden, layers, T, N."""
        return f"{self.input_size},{self.hidden_size},{self.layers},{self.length},{self.batch_size}"

    @property
    def weights(self) -> tuple[int, int]:
        """Elements of all input weights, and of all recurrent weights."""
        directions, gates = 1 + self.bidirectional, {"rnn": 1, "gru": 3, "lstm": 4}[self.cell]
        rows = directions * gates * self.hidden_size
        inputs = self.input_size + (self.layers - 1) * directions * self.hidden_size
        return rows * inputs, rows * self.layers * self.hidden_size

    def multiply_adds(self, work: str) -> int:
        """Of all matrix products: two more of the same size per weight in the backward pass."""
        return self.length * self.batch_size * sum(self.weights) * (3 if work == "training" else 1)

    def bytes_read(self, work: str) -> int:
        """Of float32 weights, at least: recurrent ones at each step, the others once; again in the backward pass."""
        inputs, recurrent = self.weights
        return 4 * (inputs + self.length * recurrent) * (2 if work == "training" else 1)

    def limit(self, work: str, flops: float, bytes_per_second: float) -> float:
        """Seconds that the work takes at best, at these rates."""
        return max(2 * self.multiply_adds(work) / flops, self.bytes_read(work) / bytes_per_second)


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


# The contestants.


class Contestant(Protocol):
    """One implementation, set up for one case."""

    def results(self) -> dict[str, np.ndarray]:
        """Outputs, states and gradients, under the names of `parity.Run`."""

    def time(self, work: str, calls: int) -> float:
        """Seconds for one call of the work, the mean over `calls`."""

    def close(self) -> None:
        """End what was set up."""


@dataclass(frozen=True)
class Problem:
    """What all contestants of a case are given: the layer with the weights, inputs, states, the outputs' gradient."""

    case: Case
    layer: gluon.Block
    inputs: np.ndarray
    states: Sequence[np.ndarray]
    head: np.ndarray

    @classmethod
    def draw(cls, case: Case, seed: int = 0) -> Problem:
        """Weights at which signal and gradient neither explode nor die out, so that the results can be compared."""
        layer = build("deeprnn", case)
        layer.initialize()
        randomize(layer, seed, scale=(3 * case.hidden_size) ** -0.5)
        generator = np.random.default_rng(seed)

        def normal(*shape: int) -> np.ndarray:
            return generator.normal(size=shape).astype("float32")

        outer = (case.length, case.batch_size) if case.layout == "TNC" else (case.batch_size, case.length)
        states = [normal(*info["shape"]) for info in layer.state_info(case.batch_size)]
        width = case.hidden_size * (1 + case.bidirectional)
        return cls(case, layer, normal(*outer, case.input_size), states, normal(*outer, width))


class Unfused(gluon.HybridBlock):
    """Gluon's own cells, one layer after the other, called like a layer: for one length."""

    def __init__(self, case: Case, dtype: str = "float32") -> None:
        super().__init__()
        self._length, self._layout = case.length, case.layout
        self._rows = case.layers * (1 + case.bidirectional)
        new_cell = {"rnn": rnn.RNNCell, "gru": rnn.GRUCell, "lstm": rnn.LSTMCell}[case.cell]
        options = {"activation": case.activation} if case.cell == "rnn" else {}
        with self.name_scope():
            self.cells = rnn.HybridSequentialRNNCell(prefix="")
            for layer in range(case.layers):
                inputs = case.hidden_size * (1 + case.bidirectional) if layer else case.input_size
                pair = [
                    new_cell(case.hidden_size, input_size=inputs, prefix=f"{direction}{layer}_", **options)
                    for direction in ("lr" if case.bidirectional else "l")
                ]
                self.cells.add(rnn.BidirectionalCell(*pair) if case.bidirectional else pair[0])
        self.cast(dtype)

    def hybrid_forward(self, F: Operators, inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        rows = zip(*(split(F, state, self._rows) for state in states))
        begin = [state for row in rows for state in row]
        outputs, last = self.cells.unroll(self._length, inputs, begin, layout=self._layout, merge_outputs=True)
        return outputs, [F.stack(*last[i :: len(states)], axis=0) for i in range(len(states))]


def build(implementation: str, case: Case, dtype: str = "float32") -> gluon.HybridBlock:
    """The layer of a case by ``deeprnn``, ``gluon`` (the built-in layer), or ``gluon-cells``; not initialized yet."""
    if implementation == "gluon-cells":
        return Unfused(case, dtype)
    options = {"activation": case.activation} if case.cell == "rnn" else {}
    return STACKS[implementation][case.cell](
        case.hidden_size,
        case.layers,
        layout=case.layout,
        bidirectional=case.bidirectional,
        input_size=case.input_size,
        dtype=dtype,
        **options,
    )


class Here:
    """A Gluon block in this process."""

    def __init__(self, implementation: str, problem: Problem, hybridize: bool = True) -> None:
        self._block = build(implementation, problem.case)
        self._block.initialize()
        copy_parameters(problem.layer, self._block)
        if hybridize:
            self._block.hybridize(static_alloc=True, static_shape=True)
        self._inputs, self._head = mx.nd.array(problem.inputs), mx.nd.array(problem.head)
        self._states = [mx.nd.array(state) for state in problem.states]
        self._inputs.attach_grad()

    def inference(self) -> tuple[Any, list[Any]]:
        return self._block(self._inputs, self._states)

    def training(self) -> tuple[Any, list[Any]]:
        with autograd.record():
            outputs, last = self._block(self._inputs, self._states)
        outputs.backward(self._head)
        return outputs, last

    def results(self) -> dict[str, np.ndarray]:
        self.inference()  # so that what is compared has gone through both kinds of call, in the order of use
        outputs, last = self.training()
        results = {"outputs": outputs, "d inputs": self._inputs.grad}
        results.update({f"state {i}": state for i, state in enumerate(last)})
        for name, parameter in self._block.collect_params().items():
            results[f"d {name[len(self._block.prefix) :]}"] = parameter.grad()
        return {name: array.asnumpy() for name, array in results.items()}

    def time(self, work: str, calls: int) -> float:
        function = getattr(self, work)
        mx.nd.waitall()
        begun = time.perf_counter()
        for _ in range(calls):
            function()
            mx.nd.waitall()
        return (time.perf_counter() - begun) / calls

    def close(self) -> None:
        pass


class Torch:
    """PyTorch's layer, in a process of its own."""

    def __init__(self, problem: Problem) -> None:
        path = str(Path(__file__).with_name("torch_worker.py"))
        program = f"import runpy; runpy.run_path({path!r}, run_name='__main__')"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process alone, which then ends that one
        )
        self.version = self._answer()["version"]
        self.memory_before = _memory(self._process.pid, "VmRSS")
        parameters = {name[len(problem.layer.prefix) :]: p for name, p in problem.layer.collect_params().items()}
        self._names = {f"d {_torch_name(name)}": f"d {name}" for name in parameters}
        arrays = {_torch_name(name): p.data().asnumpy() for name, p in parameters.items()}
        arrays.update({f"state {i}": state for i, state in enumerate(problem.states)})
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "problem.npz")
            np.savez(file, inputs=problem.inputs, head=problem.head, **arrays)
            self._order(do="load", case=asdict(problem.case), path=file)

    def results(self) -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "results.npz")
            self._order(do="results", path=file)
            with np.load(file) as arrays:
                return {self._names.get(name, name): arrays[name] for name in arrays.files}

    def time(self, work: str, calls: int) -> float:
        return float(self._order(do="time", work=work, calls=calls))

    def memory(self) -> Optional[int]:
        return _memory(self._process.pid, "VmHWM")

    def close(self) -> None:
        self._process.communicate()

    def _order(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the PyTorch process ended with exit code {self._process.wait()}; it says why above")
        return json.loads(line)


def _torch_name(name: str) -> str:
    """``r0_i2h_weight`` -> ``weight_ih_l0_reverse``."""
    place, part, kind = name.split("_")
    return f"{kind}_{part[0]}h_l{place[1:]}" + ("_reverse" if place[0] == "r" else "")


CONTESTANTS: Mapping[str, Callable[[Problem], Contestant]] = {
    "deeprnn": lambda problem: Here("deeprnn", problem),
    "gluon": lambda problem: Here("gluon", problem),
    "pytorch": Torch,
    "gluon-eager": lambda problem: Here("gluon", problem, hybridize=False),
    "gluon-cells": lambda problem: Here("gluon-cells", problem),
}
"""By name; those of Gluon are hybridized with static_alloc and static_shape, all but ``gluon-eager``."""

ASIDES = ("gluon-eager", "gluon-cells")
"""Contestants for orientation: they may sit out rounds of long work."""


def installed(names: Iterable[str]) -> list[str]:
    """Those of the contestants that can take part here."""
    names = [check_choice("contestants", name, tuple(CONTESTANTS)) for name in names]
    return [name for name in names if name != "pytorch" or importlib.util.find_spec("torch")]


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
    def steady(self) -> bool:
        """Whether the quartiles are close enough together for a verdict, see `STEADY`."""
        return self.count > 1 and self.high - self.low <= STEADY * self.median


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of the times of two contestants, round by round; one that sat out has only its own rounds."""
    return Spread.of([a / b for a, b in zip(ours, theirs)])


def take_turns(
    timers: Mapping[str, Callable[[int], float]], rounds: int = ROUNDS, asides: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Time each of several things `rounds` times, in turns.

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
    order, shuffle = list(timers), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            done = samples[name]
            if name in asides and len(done) >= ASIDE_ROUNDS and sum(done) * calls[name] > ASIDE_SECONDS:
                continue
            done.append(timers[name](calls[name]))
    return samples


# The limits.


def sgemm_rate(size: int = 2048) -> float:
    """Floating-point operations a second of a large float32 matrix product in MXNet, at best."""
    a, b = (mx.nd.random.normal(shape=(size, size)) for _ in range(2))
    return 2 * size**3 / _best(lambda: mx.nd.FullyConnected(a, b, no_bias=True, num_hidden=size).wait_to_read())


def memory_rate(size: int) -> float:
    """Bytes a second, at best, of a matrix-vector product over `size` bytes: from the caches where they fit there."""
    columns = 256
    matrix = np.ones((max(size // 4 // columns, 1), columns), dtype="float32")
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
        ``case`` and its ``name``; ``rates`` of the machine (``flops``, ``bytes``, a second); ``differences`` of each
        contestant's results from those of the built-in layer, or of the first where that takes no part; and by work the
        ``limit``, the ``seconds`` and the ``ratios`` of the first contestant to each other, as `Spread`.

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
        differences = _differences(case, entered)
        flops, rate = sgemm_rate(), memory_rate(4 * sum(case.weights))
        record: dict[str, Any] = {}
        first = next(iter(entered))
        for work in works:
            timers = {name: _timer(contestant, work) for name, contestant in entered.items()}
            samples = take_turns(timers, rounds, ASIDES)
            record[work] = {
                "seconds": {name: asdict(Spread.of(times)) for name, times in samples.items()},
                "ratios": {
                    name: asdict(ratio(samples[first], times)) for name, times in samples.items() if name != first
                },
            }
        # The machine may have been slower at the one end than at the other: the limit is what it can do.
        flops, rate = max(flops, sgemm_rate()), max(rate, memory_rate(4 * sum(case.weights)))
        for work in works:
            record[work]["limit"] = case.limit(work, flops, rate)
        torch = entered.get("pytorch")
        return {
            "case": asdict(case),
            "name": case.name,
            "rates": {"flops": flops, "bytes": rate},
            "differences": differences,
            **({"pytorch": torch.version} if isinstance(torch, Torch) else {}),
            **record,
        }
    finally:
        for contestant in entered.values():
            contestant.close()


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
    costs = {}
    for name in installed(contestants):
        # spawn, not fork: a child that inherits MXNet's threads and memory would be measured with them.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            costs[name] = process.submit(_cost, case, name).result()
    return costs


def _cost(case: Case, name: str) -> dict[str, Optional[float]]:
    before = _memory("self", "VmRSS")
    contestant = CONTESTANTS[name](Problem.draw(case))
    gc.collect()  # what was drawn has been handed over: the peak is to be the contestant's own
    try:
        first_call = contestant.time("training", 1)
        contestant.time("training", 2)
        if isinstance(contestant, Torch):
            before, peak = contestant.memory_before, contestant.memory()
        else:
            peak = _memory("self", "VmHWM")
    finally:
        contestant.close()
    return {"first_call": first_call, "memory": None if peak is None or before is None else peak - before}


def _memory(process: Any, field: str) -> Optional[int]:
    """Bytes that a process holds (VmRSS) or held at most (VmHWM). Unlike `ru_maxrss`, not those of its parent."""
    status = Path(f"/proc/{process}/status")
    if not status.is_file():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return None


# What is made of records.


def summary(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The means that a verdict is made of, by work and by the contestant that ours is compared with.

    Returns
    -------
    dict
        By work: ``ratios`` (by name: ``mean``, geometric, over all cases but `ONE_STEP`; ``worst`` and the case of it;
        ``one_step``; ``busy``, the cases in the mean whose ratios are too far apart for a verdict) and
        ``share_of_limit``, the geometric mean over the cases of 512 and more units at batch 32 and more, or None.
    """
    one_step = Case(*ONE_STEP).name
    result: dict[str, Any] = {}
    for work in WORKS:
        done = [case for case in cases if work in case]
        names = list(dict.fromkeys(name for case in done for name in case[work]["ratios"]))
        ratios = {}
        for name in names:
            of = {case["name"]: Spread(**case[work]["ratios"][name]) for case in done if name in case[work]["ratios"]}
            medians = {case: spread.median for case, spread in of.items() if case != one_step}
            worst = max(medians, key=lambda case: medians[case], default=None)
            ratios[name] = {
                "mean": _geometric_mean(medians.values()),
                "worst": None if worst is None else {"case": worst, "ratio": medians[worst]},
                "one_step": of[one_step].median if one_step in of else None,
                "busy": [case for case, spread in of.items() if case in medians and not spread.steady],
            }
        large = [
            case[work]["limit"] / next(iter(case[work]["seconds"].values()))["median"]
            for case in done
            if case["case"]["hidden_size"] >= 512 and case["case"]["batch_size"] >= 32
        ]
        if done:
            result[work] = {"ratios": ratios, "share_of_limit": _geometric_mean(large)}
    return result


def _geometric_mean(values: Iterable[float]) -> Optional[float]:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def table(record: Mapping[str, Any]) -> str:
    """One record as Markdown, as far as it goes: times and ratios, first calls and memory, the language model."""
    cases = record["cases"]
    parts = [f"**{record['cell']}** ({_where(record)})"]
    for work, title in (("inference", "Inference"), ("training", "Forward + backward")):
        done = [case for case in cases if work in case]
        if not done:
            continue
        first = next(iter(done[0][work]["seconds"]))
        peers = list(dict.fromkeys(name for case in done for name in case[work]["ratios"]))
        head = f"{title}: input, hidden, layers, T, N"
        rows = [[head, f"{first}, ms", *(f"/ {name}" for name in peers), "of the limit"]]
        for case in done:
            seconds = case[work]["seconds"][first]["median"]
            rows.append(
                [
                    case["name"].replace(",", ", "),
                    f"{1e3 * seconds:.3g}",
                    *(_ratio(case[work]["ratios"].get(name)) for name in peers),
                    f"{case[work]['limit'] / seconds:.0%}",
                ]
            )
        means = summary(cases)[work]["ratios"]
        rows.append(["geometric mean, without the one step", "", *(_mean(means[name]) for name in peers), ""])
        parts.append(_markdown(rows))
    costs = [case for case in cases if "cost" in case]
    if costs:
        names = list(costs[0]["cost"])
        rows = [["First call, s; peak memory, MB", *names]]
        for case in costs:
            rows.append([case["name"].replace(",", ", "), *(_once(case["cost"].get(name)) for name in names)])
        parts.append(_markdown(rows))
    model = record.get("language_model")
    if model:
        rows = [[f"Training a language model, {model['shape']}", "characters/s", "speed / the book's loop"]]
        for name, speed in model["characters_per_second"].items():
            rows.append([name, f"{speed:,.0f}", _ratio(model["ratios"].get(name))])
        rows.append(["the limit", f"{model['limit']:,.0f}", ""])
        parts.append(_markdown(rows))
    return "\n\n".join(parts) + "\n"


def _where(record: Mapping[str, Any]) -> str:
    it = record["machine"]
    torch = record["cases"][0].get("pytorch") if record["cases"] else None
    threads = f", OMP_NUM_THREADS={it['threads']}" if it["threads"] else ""
    versions = f"mxnet {it['mxnet']}" + (f", PyTorch {torch}" if torch else "")
    return f"{it['processor']}, {it['cores']} cores, {it['instruction_set']}{threads}; {versions}; {record['date']}"


def _ratio(spread: Optional[Mapping[str, Any]]) -> str:
    if spread is None:
        return ""
    it = Spread(**spread)
    return f"{it.median:.2f}" if it.steady else f"busy: {it.low:.2f} to {it.high:.2f}"


def _mean(of: Mapping[str, Any]) -> str:
    if of["mean"] is None:
        return ""
    return f"busy in {len(of['busy'])}" if of["busy"] else f"{of['mean']:.2f}"


def _once(cost: Optional[Mapping[str, Any]]) -> str:
    if cost is None:
        return ""
    return f"{cost['first_call']:.2f}; " + ("?" if cost["memory"] is None else f"{cost['memory'] / 1e6:.0f}")


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table that also reads well as it is; the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))] for row in rows]
    lines.insert(1, ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def picture(record: Mapping[str, Any], path: Any) -> None:
    """The ratio of times in each case, with its quartiles, as a PNG file; hollow where the machine was busy."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    works = [work for work in WORKS if any(work in case for case in record["cases"])]
    figure = Figure(figsize=(10, 1.8 + 0.42 * len(record["cases"])), layout="constrained")
    panels = figure.subplots(1, len(works), sharey=True, squeeze=False)[0]
    for panel, work in zip(panels, works):
        cases = [case for case in record["cases"] if work in case]
        peers = list(dict.fromkeys(name for case in cases for name in case[work]["ratios"]))
        for i, name in enumerate(peers):
            for row, case in enumerate(cases):
                if name not in case[work]["ratios"]:
                    continue
                spread = Spread(**case[work]["ratios"][name])
                y = row + 0.5 * ((i + 0.5) / len(peers) - 0.5)
                panel.plot([spread.low, spread.high], [y, y], color=f"C{i}", linewidth=2)
                panel.plot(
                    spread.median,
                    y,
                    "o",
                    color=f"C{i}",
                    markerfacecolor=f"C{i}" if spread.steady else "white",
                    label=name if row == 0 else None,
                )
        panel.axvline(1, color="0.4", linewidth=1)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_yticks(range(len(cases)), [case["name"].replace(",", " · ") for case in cases])
        panel.set_title({"inference": "inference", "training": "forward + backward"}[work])
        panel.set_xlabel("time of deeprnn / time of the other: left of 1 is faster")
        panel.grid(axis="x", color="0.9")
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    panels[0].invert_yaxis()
    panels[0].set_ylabel("input · hidden · layers · T · N")
    # Under the axis: the padding is in lines of text, so the place does not depend on the number of cases.
    panels[0].legend(loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=3.5, ncols=2, frameon=False)
    figure.suptitle(f"{record['cell']}: {_where(record)}", fontsize=8)
    figure.savefig(path, dpi=150)
