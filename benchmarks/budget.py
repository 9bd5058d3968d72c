#!/usr/bin/env python
"""Does depth pay under a budget of parameters, and does a deep Elman stack reach an LSTM?

On held-out text, tinyshakespeare cut 80/10/10 by position, every network of 120,000 parameters within 3 %:

1. depths: Elman stacks of 1, 2, 3, 4 and 6 layers at a learning rate of 0.01, seed 0. The deep one with the lowest
   validation loss goes on.
2. trials: one Elman layer, the deep Elman stack and one LSTM layer each get the same `TRIALS`, seed 0, the same epochs.
   The lowest validation loss chooses.
3. seeds: the chosen three with seeds 0, 1, 2. Their test losses, and no others, are read, once.

    python benchmarks/budget.py --corpus PATH --out FOLDER [--json FILE] [--epochs N] [--jobs 2]

Each run is a `deeprnn train --preset deep` in a process of its own; the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from deeprnn.config import spelled
from deeprnn.files import write_json_atomic
from deeprnn.machine import machine
from deeprnn.study import Run, train_all

BUDGET, WITHIN = 120_000, 0.03
SYMBOLS = 66  # 65 of the text, and the unknown one
EMBEDDING = 64
DEPTHS = (1, 2, 3, 4, 6)
SEEDS = (0, 1, 2)
TRIALS: tuple[Mapping[str, Any], ...] = (
    {"lr": 5e-3},
    {"lr": 1e-2},
    {"lr": 1e-2, "dropout": 0.1},  # between layers: for one layer this is the trial before, and gives the same loss
    {"lr": 1e-2, "layer_norm": True},
    {"lr": 1e-2, "zoneout": 0.05},
)
"""The search space: what differs from the recipe."""

SHOWN = ("cell", "layers", "hidden_size", "lr", "dropout", "layer_norm", "zoneout", "seed", "epochs")
"""Options of a run that its result names."""


def parameters(cell: str, layers: int, hidden_size: int, layer_norm: bool = False) -> int:
    """Of embedding, stack and decoder, as `LanguageModel` has them."""
    gates = {"rnn": 1, "lstm": 4}[cell]
    inputs = EMBEDDING + (layers - 1) * hidden_size
    stack = gates * hidden_size * (inputs + layers * (hidden_size + 2))
    norms = layers * hidden_size * (2 * gates + 2 * (cell == "lstm")) if layer_norm else 0
    return SYMBOLS * EMBEDDING + stack + norms + SYMBOLS * (hidden_size + 1)


def width(cell: str, layers: int, layer_norm: bool = False) -> int:
    """The hidden size that comes closest to the budget."""
    size = min(range(8, 1024), key=lambda size: abs(parameters(cell, layers, size, layer_norm) - BUDGET))
    assert abs(parameters(cell, layers, size, layer_norm) / BUDGET - 1) <= WITHIN
    return size


def planned(args: argparse.Namespace, cell: str, layers: int, seed: int, trial: Mapping[str, Any]) -> Run:
    """One training."""
    options = {
        **{"corpus": args.corpus, "max_chars": None, "split": "0.8,0.1,0.1", "unknown": True},
        **{"cell": cell, "layers": layers, "hidden_size": width(cell, layers, trial.get("layer_norm", False))},
        **{"batch_size": 64, "seq_len": 64, "epochs": args.epochs, "seed": seed, "embedding_size": EMBEDDING},
        **{"sample_every": 0, **trial},
    }
    name = "-".join([cell, str(layers), *(f"{key}={value}" for key, value in trial.items()), str(seed)])
    return Run.of("deep", spelled({**options, "out": args.out / name}))


def result(run: Run, test: bool = False) -> dict[str, Any]:
    """What a run came to; its test loss only if it is asked for."""
    options, summary = run.config.to_mapping(), run.summary
    found = {**{name: options[name] for name in SHOWN}, "diverged": run.diverged}
    if run.diverged is not None:
        return {**found, "valid_loss": None}
    measured = ("parameters", "valid_loss", *(["test_loss"] if test else []))
    seconds = sum(row["seconds"] for row in run.metrics)
    return {**found, "seconds": seconds, **{name: summary[name] for name in measured}}


def in_words(it: Mapping[str, Any]) -> str:
    """The options of a `result` that the trials differ in."""
    named = [f"{name} {it[name]:g}" for name in ("dropout", "zoneout") if it[name]]
    return ", ".join([f"lr {it['lr']:g}", *named, *(["layer_norm"] if it["layer_norm"] else [])])


def best(runs: Sequence[Run]) -> Run:
    """By validation loss."""
    losses = [(result(run)["valid_loss"], index) for index, run in enumerate(runs)]
    return runs[min((loss, index) for loss, index in losses if loss is not None)[1]]


def main() -> int:
    """Train stage by stage, record and print; 1 if depth does not pay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, metavar="PATH", help="tinyshakespeare, by name or path")
    parser.add_argument("--out", required=True, metavar="FOLDER", type=Path)
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side (default: one a core)")
    args = parser.parse_args()

    depths = [planned(args, "rnn", layers, 0, TRIALS[1]) for layers in DEPTHS]
    train_all(depths, args.jobs)
    deep = best(depths[1:]).layers
    families = {"one Elman layer": ("rnn", 1), f"{deep} Elman layers": ("rnn", deep), "one LSTM layer": ("lstm", 1)}
    trials = {
        name: [planned(args, cell, layers, 0, trial) for trial in TRIALS] for name, (cell, layers) in families.items()
    }
    train_all([run for runs in trials.values() for run in runs], args.jobs)
    finals = {}
    for name, (cell, layers) in families.items():
        chosen = TRIALS[trials[name].index(best(trials[name]))]
        finals[name] = [planned(args, cell, layers, seed, chosen) for seed in SEEDS]
    train_all([run for runs in finals.values() for run in runs], args.jobs)

    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "threads_per_run": 1,
        "jobs": args.jobs,
        "corpus_sha256": depths[0].summary["corpus_sha256"],
        "depths": [result(run) for run in depths],
        "trials": {name: [result(run) for run in runs] for name, runs in trials.items()},
        "finals": {name: [result(run, test=True) for run in runs] for name, runs in finals.items()},
    }
    medians = {name: statistics.median(run["test_loss"] for run in runs) for name, runs in record["finals"].items()}
    record["test_medians"] = medians
    if args.json:
        write_json_atomic(args.json, record)

    for run in record["depths"]:
        print(
            f"{run['layers']} x {run['hidden_size']}: {run['parameters']:,} parameters, valid {run['valid_loss']:.4f}"
        )
    for name, runs in record["finals"].items():
        losses = ", ".join(f"{run['test_loss']:.4f}" for run in runs)
        it = runs[0]
        print(
            f"{name}: {it['hidden_size']} units, {it['parameters']:,} parameters, {in_words(it)}, "
            f"{it['epochs']} epochs, {it['seconds']:.0f} s: test {medians[name]:.4f} nats per character ({losses})"
        )
    one, stack, lstm = medians.values()
    print(f"depth gains {one - stack:.4f} nats; the deep stack less the LSTM: {stack - lstm:+.4f}")
    return 0 if one - stack >= 0.03 else 1


if __name__ == "__main__":
    raise SystemExit(main())
