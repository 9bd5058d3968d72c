"""Trains a tiny model for many steps: memory, open files and speed must not change.

    python -m tools.faults.endurance [STEPS]

Batches of varying length, a checkpoint now and then, a validation after each epoch. The second tenth of the steps is
compared with the last one. With ``DEEPRNN_NATIVE=0`` the native operator is off.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from deeprnn._util.machine import keep_freed_memory, machine
from deeprnn.config import TrainConfig
from deeprnn.data.batches import Batches
from deeprnn.models.language_model import LanguageModel
from deeprnn.nn import native
from deeprnn.train.keeping import Keeper
from deeprnn.train.loop import fit, make_trainer
from deeprnn.train.saving import Checkpoints
from deeprnn.train.signals import Signals

__all__ = ["endured"]

VOCABULARY, EPOCH = 20, 500
LENGTHS = (5, 7, 9, 10)
FACTS: dict[str, Any] = {"seed": 0, "config": {}, "vocabulary": [], "versions": {}}


class Varying:
    """Batches of random lengths."""

    batch_size, carries_state = 4, True

    def __len__(self) -> int:
        return EPOCH

    def epoch(self, number: int) -> Iterator[tuple[mx.nd.NDArray, mx.nd.NDArray]]:
        """Batches of random symbols."""
        rng = np.random.default_rng(number)
        for _ in range(EPOCH):
            ids = rng.integers(VOCABULARY, size=(int(rng.choice(LENGTHS)) + 1, self.batch_size))
            yield mx.nd.array(ids[:-1], dtype="int32"), mx.nd.array(ids[1:], dtype="int32")


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def endured(steps: int, folder: Path) -> dict[str, Any]:
    """Train for `steps` steps; measures memory, open files and seconds of the second tenth and of the last."""
    keep_freed_memory()
    net = LanguageModel(VOCABULARY, 8, 2, cell="lstm", embedding_size=8, dropout=0.1)
    net.initialize(mx.init.Xavier(), ctx=mx.cpu())
    net.hybridize(static_alloc=True, static_shape=True)
    options = TrainConfig(epochs=steps // EPOCH, checkpoint_steps=1000, lr=1e-3)
    trainer = make_trainer(net, options, steps)
    checkpoints = Checkpoints(folder)
    valid = Batches(np.random.default_rng(0).integers(VOCABULARY, size=2000).astype("int32"), 4, 10, keep_last=True)
    tenth = steps // 10
    samples: dict[int, list[tuple[int, int, float]]] = {1: [], 9: []}

    def observe(report: Any) -> None:
        which = (report.step - 1) // tenth
        if which in samples:
            samples[which].append((resident(), len(os.listdir("/proc/self/fd")), time.process_time()))

    def write(position: Any, report: Any) -> None:
        checkpoints.save(net, trainer, position, FACTS, is_best=bool(report and report.is_best))

    with Signals() as signals:
        keeper = Keeper(write, minutes=0, steps=options.checkpoint_steps, signals=signals)
        fit(net, Varying(), valid, options, ctx=mx.cpu(), trainer=trainer, keeper=keeper, on_epoch=observe)
    result: dict[str, Any] = {"steps": steps, "native": native.status().available}
    for name, which in (("second tenth", 1), ("last tenth", 9)):
        memory, files, clock = zip(*samples[which])
        seconds = (clock[-1] - clock[0]) / max(len(clock) - 1, 1)
        result[name] = {
            "resident_bytes": round(sum(memory) / len(memory)),
            "open_files": max(files),
            "processor_seconds_per_epoch": round(seconds, 4),
        }
    before, after = result["second tenth"], result["last tenth"]
    result["memory"] = round(after["resident_bytes"] / before["resident_bytes"], 4)
    result["time"] = round(after["processor_seconds_per_epoch"] / before["processor_seconds_per_epoch"], 4)
    return result


def main() -> int:
    """Prints the result as JSON."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as work:
        record = {"script": "tools/faults/endurance.py", **endured(steps, Path(work)), "machine": machine()}
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
