"""How long training waits for checkpoints.

    python -m tools.faults.waiting [SECONDS]

Two measurements: the default (a checkpoint every five minutes and at the end of each epoch) with the default network,
and a checkpoint every 100 steps with 2 layers of 1,024 units. The share is of the time between the first step and the
last.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from deeprnn._util.machine import machine
from deeprnn.config import RunConfig
from deeprnn.data.batches import Batches
from deeprnn.models.language_model import LanguageModel
from deeprnn.nn.initializers import initializer
from deeprnn.train.keeping import Keeper
from deeprnn.train.loop import Stopped, fit, make_trainer
from deeprnn.train.saving import Checkpoints
from deeprnn.train.signals import Signals

__all__ = ["waited"]

VOCABULARY = 1000


class Clock(Signals):
    """Ends training after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise `Stopped` when the time is over."""
        if time.monotonic() > self._end:
            raise Stopped(15)


def waited(config: RunConfig, seconds: float, folder: Path) -> dict[str, Any]:
    """Train for so many seconds on random symbols; measures the share of the time that was spent on checkpoints."""
    model, options = config.model, config.train
    ids = np.random.default_rng(0).integers(VOCABULARY, size=1_000_000).astype("int32")
    batches = Batches(ids, config.data.batch_size, config.data.seq_len)
    net = LanguageModel(VOCABULARY, model.hidden_size, model.layers, **model.network_options)
    net.initialize(initializer(model.init, model.activation, model.residual), ctx=mx.cpu())
    net.hybridize(static_alloc=True, static_shape=True)
    trainer = make_trainer(net, options, options.epochs * len(batches))
    checkpoints = Checkpoints(folder)
    facts = {"seed": 0, "config": config.to_mapping(), "vocabulary": list(map(chr, range(VOCABULARY))), "versions": {}}
    saved = 0

    def write(position: Any, report: Any) -> None:
        nonlocal saved
        checkpoints.save(net, trainer, position, facts, is_best=bool(report and report.is_best))
        saved += 1

    keeper = Keeper(write, minutes=options.checkpoint_minutes, steps=options.checkpoint_steps, signals=Clock(seconds))
    begun = time.monotonic()
    with contextlib.suppress(Stopped):
        fit(net, batches, None, options, ctx=mx.cpu(), trainer=trainer, keeper=keeper)
    passed = time.monotonic() - begun
    size = sum(path.stat().st_size for path in folder.iterdir()) / saved if saved else 0
    return {
        "checkpoints": saved,
        "seconds": round(passed, 1),
        "waited": round(keeper.seconds, 3),
        "share": round(keeper.seconds / passed, 4),
        "bytes_in_folder": round(size * saved),
    }


def main() -> int:
    """Both measurements; prints them as JSON."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 620
    default = RunConfig()
    large = replace(
        default,
        model=replace(default.model, hidden_size=1024, embedding_size=1024),
        train=replace(default.train, checkpoint_steps=100),
    )
    with tempfile.TemporaryDirectory() as work:
        record = {
            "script": "tools/faults/waiting.py",
            "default": waited(default, seconds, Path(work) / "default"),
            "2 x 1024, every 100 steps": waited(large, seconds, Path(work) / "large"),
            "machine": machine(),
        }
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
