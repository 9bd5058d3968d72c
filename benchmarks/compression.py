#!/usr/bin/env python
"""What MXNet's gradient compression costs in loss: two workers on this machine, 2,000 updates with and without.

python benchmarks/compression.py measure [STEPS]    trains; writes benchmarks/compression.json
python benchmarks/compression.py                    prints the table

With type 2bit, a worker sends for each gradient 1, 0 or -1 times a threshold, keeps what that leaves out, and adds it
to the next one; sums come back in float32. `deeprnn train` does not offer it, see docs/several_processes.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.machine import machine
from deeprnn._util.shares import shares
from deeprnn.cli.launch import environments
from tools.records import measured_or_shown
from tools.tables import markdown_table

RECORD = Path(__file__).parent / "compression.json"
SOURCES = Path(__file__).resolve().parents[1] / "src"
MODEL: dict[str, Any] = {"hidden_size": 128, "num_layers": 1, "cell": "lstm", "embedding_size": 32}
WORKERS, BATCH, SEQ_LEN, EPOCHS, STEPS = 2, 16, 20, 4, 2000
CHECKED = 20_000
"""Characters for validation."""
THRESHOLDS = (None, 0.5, 0.01, 0.001, 0.0001)
"""Without compression; MXNet's default; smaller ones, as the gradient of a mean is small."""


def work(threshold: Optional[float], steps: int) -> float:
    """As one of the workers: train, and find the validation loss."""
    import mxnet as mx

    from deeprnn.config import TrainConfig
    from deeprnn.data.batches import Batches
    from deeprnn.data.text import load_corpus
    from deeprnn.distributed.workers import Alone
    from deeprnn.models.language_model import LanguageModel
    from deeprnn.train.loop import fit, make_trainer

    store = mx.kv.create("dist_sync")
    if threshold is not None:
        store.set_gradient_compression({"type": "2bit", "threshold": threshold})

    class Worker(Alone):
        """One that keeps its losses for itself: the store would compress them too."""

        number, count = store.rank, WORKERS

        def share(self, sequences: int) -> slice:
            return shares(sequences, WORKERS)[self.number]

    symbols = BATCH * (SEQ_LEN * (steps // EPOCHS) + 1)
    corpus = load_corpus("pydoc", max_chars=symbols + CHECKED, split=(1, 0, 0))
    train = Batches(corpus.train[:symbols], BATCH, SEQ_LEN, share=Worker().share)
    valid = Batches(corpus.train[symbols:], BATCH, SEQ_LEN, keep_last=True)
    mx.random.seed(0)
    net = LanguageModel(len(corpus.vocab), **MODEL)
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True, static_shape=True)
    config = TrainConfig(epochs=EPOCHS)
    trainer = make_trainer(net, config, EPOCHS * len(train), store)

    def exchange() -> None:
        for key, parameter in enumerate(trainer._params):
            store.push(key, parameter.list_grad(), priority=-key)
            store.pull(key, parameter.list_grad(), priority=-key)

    trainer._allreduce_grads = exchange  # gluon's calls pushpull, which MXNet refuses where gradients are compressed
    history = fit(net, train, valid, config, ctx=mx.cpu(), trainer=trainer, workers=Worker())
    loss = history.epochs[-1].valid_loss
    assert loss is not None
    return loss


def trained(threshold: Optional[float], steps: int) -> dict[str, Any]:
    """Train by two workers, each a process on a core of its own if there are so many: the loss that they end with."""
    command = [sys.executable, "-W", "ignore", __file__, "work", json.dumps(threshold), str(steps)]
    processes = [
        subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(SOURCES), **variables}, stdout=subprocess.PIPE, text=True
        )
        for variables in environments(WORKERS, 1).values()
    ]
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"a training with threshold {threshold} has failed")
    first, second = (json.loads(line) for line in printed if line)
    if first != second:
        raise RuntimeError(f"the workers ended with different losses: {first} and {second}")
    print(f"threshold {threshold}: validation loss {first:.4f}", flush=True)
    return {"type": None if threshold is None else "2bit", "threshold": threshold, "valid_loss": first}


def measure(steps: int) -> dict[str, Any]:
    """Train with each of the thresholds."""
    sizes = {**MODEL, "batch_size": BATCH, "seq_len": SEQ_LEN, "optimizer": "adam", "clip": 1.0}
    losses = [trained(threshold, steps) for threshold in THRESHOLDS]
    return {"machine": machine(), "model": sizes, "workers": WORKERS, "updates": steps, "losses": losses}


def table(record: dict[str, Any]) -> str:
    """Of the record: the loss, and the bits of a gradient that a worker sends."""
    rows = [["compression", "bits a gradient to the server", "back", "validation loss"]]
    for row in record["losses"]:
        name = f"2bit, threshold {row['threshold']:g}" if row["type"] else "none"
        rows.append([name, "2" if row["type"] else "32", "32", f"{row['valid_loss']:.3f}"])
    return markdown_table(rows)


def main(arguments: list[str]) -> int:
    """Measure, if asked to, and print the table."""
    if arguments[:1] == ["work"]:
        import mxnet  # noqa: F401  # which serves here, and does not return, in the roles of server and scheduler

        print(work(json.loads(arguments[1]), int(arguments[2])))
        return 0

    def measured() -> dict[str, Any]:
        return measure(int(arguments[1]) if arguments[1:] else STEPS)

    return measured_or_shown(arguments[:1], __doc__, RECORD, measured, table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
