#!/usr/bin/env python
"""Does depth pay under a budget of parameters, and does a deep Elman stack reach an LSTM?

On held-out text, tinyshakespeare cut 80/10/10 by position, every network of 120,000 parameters within 3 %:

1. stacks: one Elman layer, 2, 4 and 6 residual ones, 2, 3 and 4 plain ones, at a learning rate of 0.01, seed 0. The
   deep one with the lowest validation loss goes on.
2. trials: one Elman layer, the deep Elman stack and one LSTM layer each get the same `TRIALS`, seed 0, the same epochs.
   The lowest validation loss chooses.
3. seeds: the chosen three with seeds 0, 1, 2. Their test losses, and no others, are read, once.

    python benchmarks/budget.py --corpus PATH --out FOLDER [--json FILE] [--epochs N] [--jobs 2]

Each run is a `deeprnn train --preset deep` in a process of its own; the same command continues after a stop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from tools.arguments import Parser
from tools.study import Recipe, StudyRun, train_all

BUDGET, WITHIN = 120_000, 0.03
SYMBOLS = 66  # 65 of the text, and the unknown one
EMBEDDING = 64
SEEDS = (0, 1, 2)
RATE = 1e-2
TRIALS = (5e-3, RATE)
"""The search space of each kind: learning rates. Twice the larger is too much for Elman layers. After 4 epochs dropout,
zoneout and layer normalisation had helped neither Elman stack."""

SHOWN = ("cell", "layers", "hidden_size", "residual", "lr", "seed", "epochs")
"""Options of a run that its result names."""


def parameters(cell: str, layers: int, hidden_size: int) -> int:
    """Of embedding, stack and decoder, as `LanguageModel` has them."""
    gates = {"rnn": 1, "lstm": 4}[cell]
    inputs = EMBEDDING + (layers - 1) * hidden_size
    stack = gates * hidden_size * (inputs + layers * (hidden_size + 2))
    return SYMBOLS * EMBEDDING + stack + SYMBOLS * (hidden_size + 1)


def width(cell: str, layers: int) -> int:
    """The hidden size that comes closest to the budget."""
    size = min(range(8, 1024), key=lambda size: abs(parameters(cell, layers, size) - BUDGET))
    assert abs(parameters(cell, layers, size) / BUDGET - 1) <= WITHIN
    return size


class Family(NamedTuple):
    """A stack."""

    cell: str
    layers: int
    residual: bool = True

    def __str__(self) -> str:
        if self.layers == 1:
            return f"one {NAMES[self.cell]} layer"
        return f"{self.layers} {'residual' if self.residual else 'plain'} {NAMES[self.cell]} layers"


NAMES = {"rnn": "Elman", "lstm": "LSTM"}
STACKS = (*(Family("rnn", layers) for layers in (1, 2, 4, 6)), *(Family("rnn", layers, False) for layers in (2, 3, 4)))


def planned(args: argparse.Namespace, kind: Family, seed: int, lr: float = RATE) -> StudyRun:
    """One training."""
    options = {
        **{"corpus": args.corpus, "max_chars": None, "split": "0.8,0.1,0.1", "unknown": True},
        **{**kind._asdict(), "hidden_size": width(kind.cell, kind.layers), "embedding_size": EMBEDDING, "lr": lr},
        **{"batch_size": 64, "seq_len": 64, "epochs": args.epochs, "seed": seed, "sample_every": 0},
    }
    return StudyRun.of(Recipe.of("deep"), {**options, "out": args.out / f"{kind}-{lr:g}-{seed}".replace(" ", "-")})


def result(run: StudyRun, test: bool = False) -> dict[str, Any]:
    """What a run measured; its test loss only if asked for."""
    options = run.config.to_mapping()
    found = {**{name: options[name] for name in SHOWN}, "diverged": run.diverged}
    if run.diverged is not None:
        return {**found, "valid_loss": None}
    summary = run.summary
    measured = ("parameters", "valid_loss", *(["test_loss"] if test else []))
    seconds = sum(row["seconds"] for row in run.metrics)
    return {**found, "seconds": seconds, **{name: summary[name] for name in measured}}


def best(runs: Mapping[Any, StudyRun]) -> Any:
    """The one with the lowest validation loss."""
    losses = {name: result(run)["valid_loss"] for name, run in runs.items()}
    return min((name for name in losses if losses[name] is not None), key=losses.__getitem__)


def measure(args: argparse.Namespace) -> int:
    """Train stage by stage, record and print; 1 if depth does not pay."""
    stacks = {kind: planned(args, kind, seed=0) for kind in STACKS}
    train_all(list(stacks.values()), args.jobs)
    deep = best({kind: run for kind, run in stacks.items() if kind.layers > 1})
    families = (Family("rnn", 1), deep, Family("lstm", 1))
    trials = {kind: {lr: planned(args, kind, 0, lr) for lr in TRIALS} for kind in families}
    train_all([run for runs in trials.values() for run in runs.values()], args.jobs)
    finals = {kind: [planned(args, kind, seed, best(trials[kind])) for seed in SEEDS] for kind in families}
    train_all([run for runs in finals.values() for run in runs], args.jobs)

    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "threads_per_run": 1,
        "jobs": args.jobs,
        "corpus_sha256": stacks[deep].summary["corpus_sha256"],
        "stacks": {str(kind): result(run) for kind, run in stacks.items()},
        "trials": {str(kind): [result(run) for run in runs.values()] for kind, runs in trials.items()},
        "finals": {str(kind): [result(run, test=True) for run in runs] for kind, runs in finals.items()},
    }
    medians = {name: statistics.median(run["test_loss"] for run in runs) for name, runs in record["finals"].items()}
    record["test_medians"] = medians
    if args.json:
        write_json_atomic(args.json, record)

    for name, run in record["stacks"].items():
        print(f"{name} of {run['hidden_size']}: {run['parameters']:,} parameters, valid {run['valid_loss']:.4f}")
    for name, runs in record["finals"].items():
        losses = ", ".join(f"{run['test_loss']:.4f}" for run in runs)
        it = runs[0]
        print(
            f"{name}: {it['hidden_size']} units, {it['parameters']:,} parameters, lr {it['lr']:g}, "
            f"{it['epochs']} epochs, {it['seconds']:.0f} s: test {medians[name]:.4f} nats per character ({losses})"
        )
    one, stack, lstm = medians.values()
    print(f"depth gains {one - stack:.4f} nats; the deep stack less the LSTM: {stack - lstm:+.4f}")
    return 0 if one - stack >= 0.03 else 1


def main() -> int:
    """Parse and run."""
    parser = Parser(description=__doc__.splitlines()[0], done="as expected", failed="not, or a run failed")
    parser.add_argument("--corpus", required=True, metavar="PATH", help="tinyshakespeare, by name or path.")
    parser.add_argument("--out", required=True, metavar="FOLDER", type=Path, help="Folder of the runs.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="Write the record to this file.")
    parser.add_argument("--epochs", type=int, default=16, help="Epochs of each run.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Runs side by side. (default: one a core)")
    args = parser.parse_args()
    return parser.call(lambda: measure(args))


if __name__ == "__main__":
    raise SystemExit(main())
