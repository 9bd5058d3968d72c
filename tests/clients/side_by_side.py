"""One program, two layers: everything but the class is the same, and so has to be all that comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, Union

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon
from mxnet.gluon import rnn

from deeprnn import DeepGRU, DeepLSTM, DeepRNN
from deeprnn.testing import distance

LAYERS = {"rnn": (rnn.RNN, DeepRNN), "gru": (rnn.GRU, DeepGRU), "lstm": (rnn.LSTM, DeepLSTM)}
every_kind = pytest.mark.parametrize("kind", LAYERS)

Results = Mapping[str, Union[Any, Sequence[Any]]]
Program = Callable[[Any], tuple[gluon.Block, Results]]


def run(program: Program, layer_class: Any, seed: int = 3) -> tuple[list[str], dict[str, list[np.ndarray]]]:
    """The names of the parameters, and as arrays what the program returns and what it left in the parameters."""
    mx.random.seed(seed)
    np.random.seed(seed)
    with mx.name.NameManager():  # blocks are counted from 0, as in a new process
        net, results = program(layer_class)
    parameters = net.collect_params()
    found = {name: list(value) if isinstance(value, (list, tuple)) else [value] for name, value in results.items()}
    found["parameters"] = [parameter.data() for parameter in parameters.values()]
    arrays = {name: [np.asarray(x.asnumpy() if hasattr(x, "asnumpy") else x) for x in xs] for name, xs in found.items()}
    return list(parameters.keys()), arrays


def assert_same(program: Program, kind: str, tolerance: float = 1e-4) -> dict[str, list[np.ndarray]]:
    """Run the program with the built-in layer and with ours; what ours gave."""
    (their_names, theirs), (our_names, ours) = (run(program, layer_class) for layer_class in LAYERS[kind])
    assert our_names == their_names
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert len(ours[name]) == len(expected), name
        worst = max(distance(a, b) for a, b in zip(ours[name], expected))
        assert worst <= tolerance, f"{name}: {worst:.1e} apart"
    return ours


def assert_learns(losses: Sequence[Any]) -> None:
    """A program that computes nothing would be the same with any layer."""
    assert float(losses[-1]) < float(losses[0])


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def symbols(*shape: int, of: int, seed: int = 0) -> np.ndarray:
    """A sequence in which the next symbol follows from the last two, along the second axis."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, of, shape)
    for t in range(2, shape[1]):
        rows[:, t] = (rows[:, t - 1] + rows[:, t - 2]) % of
    return rows.astype("float32")
