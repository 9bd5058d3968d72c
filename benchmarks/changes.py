#!/usr/bin/env python
"""From the book's recipe to one that depth pays under: each change alone, all together, and all but one.

The book's protocol (`--preset book`) at several depths, with no change, with each of `CHANGES` alone, with all of them
(that is, `--preset deep`), and with all but each one.

    python benchmarks/changes.py --out FOLDER [--corpus PATH] [--json FILE] [--layers 2,8] [--epochs 25] [--seeds 3]

Each run is a `deeprnn train --preset book` in a process of its own; the same command continues after a stop. Nothing of
the lyrics is recorded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from tools.arguments import Parser
from tools.study import Recipe, StudyRun, train_all
from tools.study_record import spread
from tools.tables import markdown_table

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


def planned(args: argparse.Namespace, way: str, layers: int, seed: int) -> StudyRun:
    """One training."""
    options: dict[str, Any] = {"layers": layers, "seed": seed, "epochs": args.epochs}
    options |= {"sample_every": 0, "sample_prefix": ""}  # the book's own prefix may not be in this text
    if args.corpus:
        options["corpus"] = args.corpus
    for name in WAYS[way]:
        options |= CHANGES[name]
    return StudyRun.of(Recipe.of("book"), {**options, "out": args.out / f"{way}-{layers}-{seed}".replace(" ", "-")})


def report(record: Mapping[str, Any]) -> str:
    """The medians as Markdown."""
    depths = list(next(iter(record["perplexity"].values())))
    rows = [[f"perplexity after {record['epochs']} epochs", *(f"{depth} layers" for depth in depths)]]
    for way, found in record["perplexity"].items():
        values = [found[depth]["median"] for depth in depths]
        rows.append([way, *("diverged" if value is None else f"{value:.4g}" for value in values)])
    return markdown_table(rows)


def measure(args: argparse.Namespace) -> int:
    """Train, record and print."""
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
        last = [None if run.diverged else run.metrics[-1]["train_perplexity"] for run in group]
        record["perplexity"][way][str(layers)] = {"median": spread(last)["median"], "seeds": last}
    if args.json:
        write_json_atomic(args.json, record)
    print(report(record))
    return 0


def main() -> int:
    """Parse and run."""
    parser = Parser(description=__doc__.splitlines()[0], done="as expected", failed="not, or a run failed")
    parser.add_argument("--out", required=True, metavar="FOLDER", type=Path, help="Folder of the runs.")
    parser.add_argument("--corpus", metavar="PATH", help="A copy of the lyrics. (default: downloaded once)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="Write the record to this file.")
    parser.add_argument("--layers", default="2,8", help="Depths.")
    parser.add_argument("--epochs", type=int, default=25, help="Epochs of each run.")
    parser.add_argument("--seeds", type=int, default=3, help="Runs of each, with seeds 0, 1, ...")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Runs side by side. (default: one a core)")
    args = parser.parse_args()
    return parser.call(lambda: measure(args))


if __name__ == "__main__":
    raise SystemExit(main())
