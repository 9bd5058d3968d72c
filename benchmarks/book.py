#!/usr/bin/env python
"""The book's experiment: one layer and two, three seeds, and the same run on the built-in layer.

Runs `train --preset book` unchanged (250 epochs each), reads the metrics that it wrote, and records the perplexity
every 50 epochs, with medians over the seeds; then 5 epochs on both backends from the same seed, and how far their
losses are apart.

    python benchmarks/book.py [--json FILE] [--jobs 2] [--corpus PATH] [--epochs 250]

The lyrics are downloaded once, or come from $DEEPRNN_CACHE or --corpus; nothing of them is recorded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from tools.arguments import Parser
from tools.study import Recipe, StudyRun, plan, train_all

SEEDS = 3
LAYERS = (1, 2)
SHOWN = (50, 100, 150, 200, 250)
BOUNDS = {1: (1.14, 1.20), 2: (1.25, 1.45)}
"""The range of the median at epoch 250, by layers."""


def measure(given: argparse.Namespace) -> int:
    """Train all, record and print; 1 if a median is outside its range or the backends differ."""
    shown = [epoch for epoch in SHOWN if epoch <= given.epochs] or [given.epochs]

    with tempfile.TemporaryDirectory() as scratch:
        text = {"corpus": given.corpus} if given.corpus else {}
        whole = {**text, "split": "1,0,0", "unknown": False}  # the perplexity of the training text itself
        study = plan(["book"], LAYERS, SEEDS, Path(scratch), whole, {"book": given.epochs})
        pairs = [
            StudyRun.of(
                Recipe.of("book"),
                {**text, "layers": 2, "epochs": 5, "backend": backend, "out": f"{scratch}/{backend}"},
            )
            for backend in ("deeprnn", "gluon")
        ]
        train_all([*study, *pairs], given.jobs)
        metrics = {run.folder: run.metrics for run in (*study, *pairs)}

    perplexities = {(run.layers, run.seed): [row["train_perplexity"] for row in metrics[run.folder]] for run in study}
    seconds = {(run.layers, run.seed): sum(row["seconds"] for row in metrics[run.folder]) for run in study}
    ours, theirs = ([row["train_loss"] for row in metrics[run.folder]] for run in pairs)
    apart = max(abs(a - b) / b for a, b in zip(ours, theirs))
    record: dict[str, Any] = {
        "machine": machine(),
        "threads_per_run": 1,
        "epochs": given.epochs,
        "runs": [
            {
                "layers": layers,
                "seed": seed,
                "seconds": seconds[layers, seed],
                "perplexity": {str(epoch): perplexities[layers, seed][epoch - 1] for epoch in shown},
            }
            for layers in LAYERS
            for seed in range(SEEDS)
        ],
        "median": {
            str(layers): {
                str(epoch): statistics.median(perplexities[layers, seed][epoch - 1] for seed in range(SEEDS))
                for epoch in shown
            }
            for layers in LAYERS
        },
        "backends_apart": apart,
    }
    if given.json:
        write_json_atomic(given.json, record)
    print("layers  " + "".join(f"epoch {epoch:<8}" for epoch in shown) + "seeds at the last")
    missed = not apart <= 1e-4
    for layers in LAYERS:
        last = [perplexities[layers, seed][shown[-1] - 1] for seed in range(SEEDS)]
        low, high = BOUNDS[layers]
        missed |= not low <= statistics.median(last) <= high
        median = record["median"][str(layers)]
        print(f"{layers:<8}" + "".join(f"{median[str(e)]:<14.3f}" for e in shown), ", ".join(f"{p:.3f}" for p in last))
    print(f"losses of the two backends over 5 epochs: at most {apart:.1e} apart")
    return 1 if missed else 0


def main() -> int:
    """Parse and run."""
    parser = Parser(description=__doc__.splitlines()[0], done="as expected", failed="not, or a run failed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="Write the record to this file.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Runs side by side. (default: one a core)")
    parser.add_argument("--corpus", metavar="PATH", help="A copy of the lyrics. (default: downloaded once)")
    parser.add_argument("--epochs", type=int, default=250, help="Epochs of each run.")
    args = parser.parse_args()
    return parser.call(lambda: measure(args))


if __name__ == "__main__":
    raise SystemExit(main())
