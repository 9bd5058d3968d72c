#!/usr/bin/env python
"""What a long deep stack costs beside its speed: peak memory in training, and the first call, which builds the graph.

T = 512, 8 layers, 128 units, 16 sequences, for each kind of layer, against the built-in layer. Both are hybridized with
static_alloc and static_shape; each is measured in a process of its own, its memory less what is held after import.

    python benchmarks/first_call_and_memory.py [--json FILE] [--cells rnn gru lstm] [--rounds 5]

Exit code 1 if a target is missed: memory at most 0.6 (gated cells: 0.8) times the built-in layer's, the first call at
most 0.5 s.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from deeprnn.models.language_model import CELLS
from tools.arguments import Parser
from tools.bench import cost, measure
from tools.contestants import WORKS, Case
from tools.tables import terminal_table

MEMORY, FIRST_CALL = {"rnn": 0.6, "gru": 0.8, "lstm": 0.8}, 0.5
"""The targets: times the built-in layer's peak, and seconds."""

BOTH = ("deeprnn", "gluon")
SIZES = {"input_size": 128, "hidden_size": 128, "layers": 8, "length": 512, "batch_size": 16}


def record(cell: str, rounds: int) -> dict[str, Any]:
    """One kind of layer: bytes, seconds, and the medians of the ratios of time, ours to the built-in layer's."""
    case = Case(**SIZES, cell=cell)
    once = cost(case, BOTH)
    ours, theirs = (once[name]["memory"] for name in BOTH)
    result: dict[str, Any] = {
        "cell": cell,
        "memory": {name: once[name]["memory"] for name in BOTH},
        "memory_ratio": ours / theirs if ours and theirs else None,
        "first_call": {name: once[name]["first_call"] for name in BOTH},
    }
    if rounds:
        measured = measure(case, BOTH, rounds=rounds)
        result["ratios"] = {work: measured[work]["ratios"]["gluon"] for work in WORKS}
    return result


def report(records: list[dict[str, Any]]) -> str:
    """The records for a terminal."""
    heads = ["memory (MB): ours", "theirs", "ratio", "first call (s): ours", "theirs"]
    rows = [["cell", *heads, *(f"{work}: ours/theirs" for work in WORKS)]]
    for r in records:
        cells = [f"{m / 2**20:.0f}" if m else "-" for m in r["memory"].values()]
        cells += ["-" if r["memory_ratio"] is None else f"{r['memory_ratio']:.2f}"]
        cells += [f"{s:.2f}" for s in r["first_call"].values()]
        cells += [f"{r['ratios'][work]['median']:.2f}" if "ratios" in r else "-" for work in WORKS]
        rows.append([r["cell"], *cells])
    return terminal_table(rows)


def missed(records: list[dict[str, Any]]) -> list[str]:
    """What is above its target."""
    lines = []
    for r in records:
        most = MEMORY[r["cell"]]
        if r["memory_ratio"] is not None and r["memory_ratio"] > most:
            lines.append(f"{r['cell']}: memory is {r['memory_ratio']:.2f} times the built-in layer's, above {most}")
        if r["first_call"]["deeprnn"] > FIRST_CALL:
            lines.append(f"{r['cell']}: the first call takes {r['first_call']['deeprnn']:.2f} s, above {FIRST_CALL} s")
    return lines


def main() -> int:
    """Measure, print, write; the exit code."""
    parser = Parser(description=__doc__.splitlines()[0], done="within the targets", failed="a target is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the record to this file.")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="Kinds of layer.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds of timing; 0: memory and first call alone.")
    arguments = parser.parse_args()
    records = [record(cell, arguments.rounds) for cell in arguments.cells]
    print(report(records))
    for line in missed(records):
        print(line)
    if arguments.json:
        write_json_atomic(arguments.json, {"case": SIZES, "machine": machine(), "cells": records})
    return 1 if missed(records) else 0


if __name__ == "__main__":
    sys.exit(main())
