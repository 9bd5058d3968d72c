"""This package's layer and the built-in one, side by side, for one configuration.

Are they the same function? How long does each take? Do they have the same losses from the same weights, step by step?
"""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import date
from typing import Any, Callable, Optional

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

from deeprnn._util.machine import machine
from deeprnn.testing import compare, copy_parameters, distance, run

from .bench import measure
from .clock import ROUNDS
from .contestants import Case, Problem, build
from .native import native_status

__all__ = ["KINDS", "NAMES", "compare_layers", "copy_in_order", "steps"]

KINDS = ("outputs", "states", "gradients", "weights")
NAMES = ("deeprnn", "gluon")

PEERS = (("float32", "gluon"), ("float64", "gluon"), ("float64", "gluon-cells"))
"""The references: the built-in layer, and in float64, where that is partly wrong, Gluon's unfused cells too."""

PEER_NAMES = {"gluon": "the built-in layer", "gluon-cells": "gluon's unfused cells"}

ECHO_SYMBOLS, ECHO_DELAY, ECHO_STEPS, ECHO_RATE = 16, 3, 100, 1e-3


Progress = Callable[[str], Any]


def steps() -> list[str]:
    """What `compare_layers` does, in order; it reports each before it begins."""
    parities = [f"comparing in {dtype} with {PEER_NAMES[peer]}" for dtype, peer in PEERS]
    return [*parities, "timing both", *(f"training {name}" for name in NAMES)]


def compare_layers(
    case: Case,
    *,
    trainer_steps: int = 10,
    rounds: int = ROUNDS,
    seed: int = 0,
    progress: Progress = lambda step: None,
) -> dict[str, Any]:
    """Compare the two layers of one configuration.

    Parameters
    ----------
    case : Case
        The layer and the shape of its inputs.
    trainer_steps : int
        Steps of Adam after which the weights are compared.
    rounds : int
        Samples of each time.
    seed : int
        Of weights, inputs and the task.
    progress
        Called with each of `steps` before it begins.

    Returns
    -------
    dict
        JSON. ``parity``: for each of `PEERS` the largest distance of each of `KINDS`, relative by norm over one tensor
        (None: not finite), and whether it ``counts``; ``same``: whether all that count are within their tolerance;
        ``speed``: from `bench.measure`, None where they are not the same function; ``curves``: losses of both, in nats
        per symbol, training from the same start.
    """
    problem = Problem.draw(case, seed)
    remaining = iter(steps())
    parity = []
    for dtype, peer in PEERS:
        progress(next(remaining))
        parity.append(_parity(problem, dtype, peer, trainer_steps))
    same = all(row["same"] for row in parity if row["counts"])
    progress(next(remaining))
    speed = measure(case, NAMES, rounds=rounds, seed=seed) if same else None
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "native": native_status(),
        "case": asdict(case),
        "trainer_steps": trainer_steps,
        "seed": seed,
        "parity": parity,
        "same": same,
        "speed": speed,
        "curves": _curves(case, seed, lambda: progress(next(remaining))),
    }


def _parity(problem: Problem, dtype: str, peer: str, trainer_steps: int) -> dict[str, Any]:
    runs = []
    for implementation in ("deeprnn", peer):
        layer = build(implementation, problem.case, dtype)
        layer.initialize()
        copy_parameters(problem.layer, layer)
        layer.hybridize(static_alloc=True, static_shape=True)
        states = [state.astype(dtype) for state in problem.states]
        runs.append(run(layer, problem.inputs.astype(dtype), states, trainer_steps=trainer_steps))
    ours, theirs = runs
    result = compare(ours, theirs)
    distances = result.summary()
    return {
        "dtype": dtype,
        "peer": peer,
        "counts": peer != "gluon" or dtype == "float32" or _fused_is_right_in_float64(problem.case),
        "distances": {kind: _finite(distances[kind]) for kind in KINDS if kind in distances},
        "worst": result.worst[0],
        "tolerance": result.tolerance,
        "same": result.same,
    }


def _fused_is_right_in_float64(case: Case) -> bool:
    """Gluon's RNN in float64 leaves gradients of middle layers uninitialized, and computes relu in float32 (CPU)."""
    return case.cell != "rnn" or (case.layers < 3 and case.activation == "tanh")


def _finite(value: float) -> Optional[float]:
    return value if math.isfinite(value) else None


# The loss from the same start.


class _Echo(gluon.Block):
    """Embedding, layer, decoder; learns to name at each step the symbol of `ECHO_DELAY` steps ago."""

    def __init__(self, implementation: str, case: Case) -> None:
        super().__init__()
        with self.name_scope():
            self.embedding = nn.Embedding(ECHO_SYMBOLS, case.input_size)
            self.layer = build(implementation, case)
            self.decoder = nn.Dense(ECHO_SYMBOLS, flatten=False, in_units=case.hidden_size * (1 + case.bidirectional))

    def forward(self, ids: Any) -> Any:
        return self.decoder(self.layer(self.embedding(ids)))


def _curves(case: Case, seed: int, progress: Callable[[], Any]) -> dict[str, Any]:
    """The losses of both, trained on the same batches from the same weights."""
    nets = {name: _Echo(name, case) for name in NAMES}
    mx.random.seed(seed)
    nets["deeprnn"].initialize(mx.init.Xavier())
    nets["gluon"].initialize()
    copy_in_order(nets["deeprnn"], nets["gluon"])
    losses = {}
    for name, net in nets.items():
        progress()
        losses[name] = _train_echo(net, case, seed)
    return {
        "task": f"name which of {ECHO_SYMBOLS} symbols came {ECHO_DELAY} steps ago",
        "optimizer": f"Adam, {ECHO_RATE:g}",
        **losses,
        "difference": _finite(distance(losses["deeprnn"], losses["gluon"])),
    }


def copy_in_order(source: gluon.Block, target: gluon.Block) -> None:
    """Copy the parameters of `source` to those of `target`, which are the same in the same order under other names."""
    for a, b in zip(source.collect_params().values(), target.collect_params().values()):
        b.set_data(a.data().copy())  # where a shape is left open the value is taken later, when `a` may have changed


def _train_echo(net: _Echo, case: Case, seed: int) -> list[float]:
    net.layer.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": ECHO_RATE})
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    generator = np.random.default_rng(seed)
    echoed = np.maximum(np.arange(case.length) - ECHO_DELAY, 0)  # the first steps echo the first symbol
    losses = []
    for _ in range(ECHO_STEPS):
        ids = generator.integers(ECHO_SYMBOLS, size=(case.length, case.batch_size))
        target = ids[echoed]
        if case.layout == "NTC":
            ids, target = ids.T, target.T
        with autograd.record():
            loss = cross_entropy(net(mx.nd.array(ids)), mx.nd.array(target)).mean()
        loss.backward()
        trainer.step(1)
        losses.append(float(loss.asscalar()))
    return losses
