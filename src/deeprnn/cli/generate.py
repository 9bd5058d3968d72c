"""`deeprnn generate`: a text written by a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from jsonargparse import Namespace

from ..config import GenerateConfig, chosen
from ..generation import Sampler
from .runs import open_run, prefix_ids, use_threads, write

__all__ = ["build_generate"]


def build_generate(given: Namespace) -> Callable[[], int]:
    """Write a text to standard output, and nothing else."""
    config, sampler = chosen(GenerateConfig, vars(given)), chosen(Sampler, vars(given))
    use_threads(0)
    import mxnet as mx
    import numpy as np

    net, vocab, run, _ = open_run(Path(given.run))
    prefix_ids(vocab, run.data.unit, config.prefix, "--prefix")
    rng = np.random.default_rng(config.seed)

    def work() -> int:
        print(write(net, vocab, run.data.unit, config.prefix, config.length, sampler, rng, mx.cpu()), flush=True)
        return 0

    return work
