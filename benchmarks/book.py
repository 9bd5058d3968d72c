#!/usr/bin/env python
"""The book's experiment: one layer and two, three seeds, and the same run on the built-in layer.

Runs `train --preset book` as it stands (250 epochs each), reads the metrics that it wrote, and records the perplexity
every 50 epochs, with medians over the seeds; then 5 epochs on both backends from the same seed, and how far their
losses are apart.

    python benchmarks/book.py [--json FILE] [--jobs 2] [--corpus PATH] [--epochs 250]

The lyrics are downloaded once, or come from $DEEPRNN_CACHE or --corpus; nothing of them is recorded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

from deeprnn.files import write_json_atomic
from deeprnn.machine import machine
from deeprnn.report import read_metrics

SEEDS = (0, 1, 2)
LAYERS = (1, 2)
SHOWN = (50, 100, 150, 200, 250)
BOUNDS = {1: (1.14, 1.20), 2: (1.25, 1.45)}
"""Between which the median at epoch 250 should lie, by layers."""


def train(folder: Path, corpus: Optional[str], **options: Any) -> list[dict[str, Any]]:
    """One run of the preset in a process of its own, one thread; its metrics, a line an epoch."""
    flags = [f"--{name}={value}" for name, value in {**options, **({"corpus": corpus} if corpus else {})}.items()]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "deeprnn",
        "train",
        "--preset",
        "book",
        "--out",
        str(folder),
        *flags,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return read_metrics(folder / "metrics.jsonl")


def main() -> int:
    """Train them all, record and print; 1 if a median is out of its bounds or the backends differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side (default: one a core)")
    parser.add_argument("--corpus", metavar="PATH", help="a copy of the lyrics")
    parser.add_argument("--epochs", type=int, default=250)
    given = parser.parse_args()
    shown = [epoch for epoch in SHOWN if epoch <= given.epochs] or [given.epochs]

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(given.jobs) as pool:
        runs = {
            (layers, seed): pool.submit(
                train, Path(scratch, f"{layers}-{seed}"), given.corpus, layers=layers, seed=seed, epochs=given.epochs
            )
            for layers in reversed(LAYERS)
            for seed in SEEDS
        }
        pairs = {
            backend: pool.submit(
                train, Path(scratch, backend), given.corpus, layers=2, seed=0, epochs=5, backend=backend
            )
            for backend in ("deeprnn", "gluon")
        }
        perplexities = {run: [row["train_perplexity"] for row in metrics.result()] for run, metrics in runs.items()}
        seconds = {run: sum(row["seconds"] for row in metrics.result()) for run, metrics in runs.items()}
        losses = {backend: [row["train_loss"] for row in metrics.result()] for backend, metrics in pairs.items()}

    apart = max(abs(a - b) / b for a, b in zip(losses["deeprnn"], losses["gluon"]))
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
            for seed in SEEDS
        ],
        "median": {
            str(layers): {
                str(epoch): statistics.median(perplexities[layers, seed][epoch - 1] for seed in SEEDS)
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
        last = [perplexities[layers, seed][shown[-1] - 1] for seed in SEEDS]
        low, high = BOUNDS[layers]
        missed |= not low <= statistics.median(last) <= high
        median = record["median"][str(layers)]
        print(f"{layers:<8}" + "".join(f"{median[str(e)]:<14.3f}" for e in shown), ", ".join(f"{p:.3f}" for p in last))
    print(f"losses of the two backends over 5 epochs: at most {apart:.1e} apart")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
