#!/usr/bin/env python
"""Time of the operators that a step can be made of: the reason for the choices in nn/operators.py.

Each operator is repeated a hundred times in one static graph, forward and then backward, so that what is measured
is a step's share: the operator, its set-up by the engine, and in the backward pass the sum over all steps for what they
share. Microseconds, the median of several calls.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/operators.py [--json FILE] [--into docs/speed.md]

A minute, on a machine that does nothing else.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Callable

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mxnet as mx
from mxnet import autograd

from deeprnn._util.files import write_json_atomic, write_text_atomic
from deeprnn._util.machine import machine
from deeprnn.nn.graphs import BULK
from tools.arguments import Parser
from tools.contestants import STATIC
from tools.tables import fill, markdown_table

SIZES = ((1, 256), (16, 64), (16, 128), (100, 128), (32, 256), (64, 512))
"""Sequences and units."""
REPEATED, CALLS = 100, 15
FLAGS = {**STATIC, **BULK}

F = mx.sym
Operator = Callable[[Any, Any, Any, int], Any]
OPERATORS: Mapping[str, Operator] = {
    "FullyConnected": lambda h, p, w, units: F.FullyConnected(h, w, num_hidden=units, no_bias=True, flatten=False),
    "dot": lambda h, p, w, units: F.dot(h, w, transpose_b=True),
    "linalg_gemm, with the addition": lambda h, p, w, units: F.linalg_gemm(h, w, p, transpose_b=True),
    "elemwise_add": lambda h, p, w, units: h + p,
    "broadcast_add": lambda h, p, w, units: F.broadcast_add(h, p),
    "elemwise_mul": lambda h, p, w, units: h * p,
    "Activation, tanh": lambda h, p, w, units: F.Activation(h, act_type="tanh"),
    "tanh": lambda h, p, w, units: F.tanh(h),
    "Activation, sigmoid": lambda h, p, w, units: F.Activation(h, act_type="sigmoid"),
    "sigmoid": lambda h, p, w, units: F.sigmoid(h),
    "Activation, relu": lambda h, p, w, units: F.Activation(h, act_type="relu"),
}
"""From the last state, the projected input and the recurrent weight."""


def microseconds(operator: Operator, sequences: int, units: int) -> tuple[float, float, float]:
    """Of one operator: in inference, in a forward pass that is recorded, and in the backward pass."""
    symbol = h = F.var("h")
    p, w = F.var("p"), F.var("w")
    for _ in range(REPEATED):
        symbol = operator(symbol, p, w, units)
    shapes = {"h": (sequences, units), "p": (sequences, units), "w": (units, units)}
    names = symbol.list_inputs()
    arrays = [mx.nd.random.uniform(-0.1, 0.1, shape=shapes[name]) for name in names]
    for array in arrays:
        array.attach_grad()
    data, rest = [names.index(h.name)], [i for i, name in enumerate(names) if name != h.name]
    call = mx.nd.CachedOp(symbol, list({"data_indices": data, "param_indices": rest, **FLAGS}.items()))

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        begun = time.perf_counter()
        result = work()
        mx.nd.waitall()
        return 1e6 * (time.perf_counter() - begun) / REPEATED, result

    def recorded() -> Any:
        with autograd.record():
            return call(*arrays)

    # One kind of call after the other: a graph that is called for both is set up anew at each change.
    inference = [timed(lambda: call(*arrays))[0] for _ in range(CALLS)]
    forward, backward = [], []
    for _ in range(CALLS):
        seconds, y = timed(recorded)
        forward.append(seconds)
        backward.append(timed(y.backward)[0])
    return statistics.median(inference), statistics.median(forward), statistics.median(backward)


def report(record: Mapping[str, Any]) -> str:
    """As Markdown: inference; forward + backward."""
    rows = [["sequences x units", *(f"{sequences} x {units}" for sequences, units in record["sizes"])]]
    for name, times in record["microseconds"].items():
        rows.append([name, *(f"{i:.1f}; {f:.1f} + {b:.1f}" for i, f, b in times)])
    return markdown_table(rows)


def main() -> None:
    """Measure, print, record."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="Write the record to this file.")
    parser.add_argument("--into", metavar="FILE.md", type=Path, help="Put the table into this page, between its marks.")
    args = parser.parse_args()
    record = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "sizes": SIZES,
        "microseconds": {name: [microseconds(made, *size) for size in SIZES] for name, made in OPERATORS.items()},
    }
    if args.json:
        write_json_atomic(args.json, record)
    if args.into:
        write_text_atomic(args.into, fill(args.into.read_text(encoding="utf-8"), "operators", report(record)))
    print(report(record))


if __name__ == "__main__":
    main()
