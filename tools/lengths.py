"""Many different lengths in random order: the cost of first and later calls, compared with the built-in layer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, Optional

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from deeprnn.testing import copy_parameters

from .contestants import WORKS, Case, build
from .processes import alone
from .usage import MODES

__all__ = ["BATCH_SIZES", "CASE", "COUNT", "measure_lengths"]

CASE = Case(128, 128, 1, 120, 1, cell="lstm", bidirectional=True)
"""The longest sequences; the others are shorter by whole steps."""
COUNT = 100
BATCH_SIZES = (1, 16)
ROUND_NAMES = ("first", "second")
NAMES = ("deeprnn", "gluon")


def measure_lengths(
    mode: str,
    batch_size: int,
    *,
    case: Case = CASE,
    count: int = COUNT,
    processes: int = 1,
    threads: Optional[int] = None,
) -> dict[str, Any]:
    """Call both layers with `count` different lengths, once each in a round, in new processes.

    Returns
    -------
    dict
        ``mode``, ``batch_size``, ``count``, ``longest``; and by work either ``refused`` (a line by implementation) or
        for the ``first`` and the ``second`` round the ``seconds`` of both, of all calls, and their ``ratio``, from the
        process in which the two are the fastest.
    """
    case = replace(case, batch_size=batch_size)
    taken = [alone(_measure, mode, case, count, threads=threads) for _ in range(processes)]
    result = dict(taken[0])
    for work in WORKS:
        tries = [one[work] for one in taken if "refused" not in one[work]]
        if tries:
            result[work] = {name: min((one[name] for one in tries), key=_sum) for name in ROUND_NAMES}
    return result


def _sum(measured: Mapping[str, Any]) -> float:
    return sum(measured["seconds"].values())


def _measure(mode: str, case: Case, count: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    lengths = 1 + generator.permutation(case.length)[:count]
    result: dict[str, Any] = {
        "mode": mode,
        "batch_size": case.batch_size,
        "count": len(lengths),
        "longest": int(lengths.max()),
    }
    flags = MODES[mode]
    for work in WORKS:  # each with new layers, so that its first round has first calls
        layers = {name: build(name, case) for name in NAMES}
        for layer in layers.values():
            layer.initialize()
            if flags is not None:
                layer.hybridize(**flags)
        copy_parameters(layers["deeprnn"], layers["gluon"])
        calls = {name: _caller(layer, work, case) for name, layer in layers.items()}
        result[work] = {}
        for name in ROUND_NAMES:
            try:
                result[work][name] = _round(calls, generator.permutation(lengths).tolist())
            except Exception as error:  # of any kind: this mode does not support these lengths
                result[work] = {"refused": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
                break
    return result


def _caller(layer: gluon.Block, work: str, case: Case) -> Callable[[int], None]:
    inputs = mx.nd.random.normal(shape=(case.length, case.batch_size, case.input_size))
    states = layer.begin_state(case.batch_size)

    def call(length: int) -> None:
        x = inputs[:length]
        if work == "inference":
            layer(x, states)
        else:
            with autograd.record():
                outputs, _ = layer(x, states)
            outputs.backward()
        mx.nd.waitall()

    return call


def _round(calls: Mapping[str, Callable[[int], None]], lengths: Sequence[int]) -> dict[str, Any]:
    """All lengths once; the two layers take turns, each first in half of the rounds."""
    seconds = dict.fromkeys(calls, 0.0)
    for number, length in enumerate(lengths):
        for name in sorted(calls, reverse=bool(number % 2)):
            mx.nd.waitall()
            begun = time.perf_counter()
            calls[name](length)
            seconds[name] += time.perf_counter() - begun
    return {"seconds": seconds, "ratio": seconds["deeprnn"] / seconds["gluon"]}
