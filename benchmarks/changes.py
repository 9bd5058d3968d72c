#!/usr/bin/env python
"""From the book's recipe to one that depth pays under: each change alone, all together, and all but one.

The book's protocol (`--preset book`) at several depths, with no change, with each of `CHANGES` alone, with all of them
(that is, `--preset deep`), and with all but each one.

    python benchmarks/changes.py --out FOLDER [--corpus PATH] [--json FILE] [--layers 2,8] [--epochs 25] [--seeds 3]

Each run is a `deeprnn train --preset book` in a process of its own; the same command goes on after a stop. Nothing of
the lyrics is recorded.
"""

from __future__ import annotations

import argparse
import os
import statistics
from datetime import date
from pathlib import Path
from typing import Any

from deeprnn.files import write_json_atomic
from deeprnn.machine import machine
from deeprnn.report import read_metrics
from deeprnn.study import Run, train_all

CHANGES = {
    "weights": {"init": "deep"},
    "optimizer": {"optimizer": "adam", "lr": 0.005, "schedule": "cosine", "clip": 1.0},
    "residual": {"residual": True},
    "embedding": {"embedding_size": 256},
}
WAYS = {
    "the book": (),
    **{f"{name} alone": (name,) for name in CHANGES},
    **{f"all but {name}": tuple(other for other in CHANGES if other != name) for name in CHANGES},
    "all": tuple(CHANGES),
}


def planned(args: argparse.Namespace, way: str, layers: int, seed: int) -> Run:
    """One training."""
    options: dict[str, Any] = {"layers": layers, "seed": seed, "epochs": args.epochs, "sample_every": 0}
    if args.corpus:
        options["corpus"] = args.corpus
    for name in WAYS[way]:
        options.update(CHANGES[name])
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    return Run.of(
        "book", [*flags, "--sample-prefix=", f"--out={args.out / f'{way}-{layers}-{seed}'.replace(' ', '-')}"]
    )


def main() -> int:
    """Train, record and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, metavar="FOLDER", type=Path)
    parser.add_argument("--corpus", metavar="PATH", help="a copy of the lyrics (default: downloaded once)")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--layers", default="2,8")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side (default: one a core)")
    args = parser.parse_args()

    depths = [int(count) for count in args.layers.split(",")]
    runs = {
        (way, layers): [planned(args, way, layers, seed) for seed in range(args.seeds)]
        for layers in depths
        for way in WAYS
    }
    train_all([run for group in runs.values() for run in group], args.jobs)

    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "epochs": args.epochs,
        "changes": CHANGES,
        "perplexity": {way: {} for way in WAYS},
    }
    for (way, layers), group in runs.items():
        last = [
            None if run.diverged else read_metrics(run.folder / "metrics.jsonl")[-1]["train_perplexity"]
            for run in group
        ]
        known = [float("inf") if value is None else value for value in last]
        median = statistics.median(known)
        record["perplexity"][way][str(layers)] = {"median": None if median == float("inf") else median, "seeds": last}
    if args.json:
        write_json_atomic(args.json, record)
    print(
        "| " + " | ".join([f"perplexity after {args.epochs} epochs", *(f"{count} layers" for count in depths)]) + " |"
    )
    print("|---|" + "---:|" * len(depths))
    for way, found in record["perplexity"].items():
        values = [found[str(count)]["median"] for count in depths]
        print("| " + " | ".join([way, *("diverged" if value is None else f"{value:.4g}" for value in values)]) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
