"""Frozen parameters: the gradients of the others are those of the unfrozen net, whatever was in their arrays before.

In float32: there `FullyConnected` leaves the gradient of its bias unwritten where its weight asks for none, and float64
takes another way through the engine.
"""

from __future__ import annotations

import itertools
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, LanguageModel, testing
from deeprnn.nn.context import Trace

T, N, C = 2, 3, 4
MARK = {"write": 4e32, "add": 0.5}
"""What is in the array of a gradient before the pass."""

LAYERS = {
    "tanh": lambda: DeepRNN(C, activation="tanh", input_size=C),
    "relu": lambda: DeepRNN(C, activation="relu", input_size=C),
    "gru": lambda: DeepGRU(C, input_size=C),
    "lstm": lambda: DeepLSTM(C, input_size=C),
}
MORE = {
    "projection": lambda: DeepLSTM(C, projection_size=3, input_size=C),
    "layer norm": lambda: DeepLSTM(C, layer_norm=True, input_size=C),
    "embedding and decoder": lambda: LanguageModel(6, C, cell="gru", embedding_size=3),
    "embedding, decoder and layer norm": lambda: LanguageModel(6, C, embedding_size=3, layer_norm=True),
    "tied": lambda: LanguageModel(6, C, cell="lstm", embedding_size=C, tied=True),
}
FLAGS: dict[str, Any] = {
    "eager": None,
    "hybridized": {},
    "static": {"static_alloc": True, "static_shape": True},
}
each_form = pytest.mark.parametrize("flags", ["eager", "static", pytest.param("hybridized", marks=pytest.mark.slow)])
each_place = pytest.mark.parametrize("foreign", [False, True], ids=["alone", "in a foreign block"])


class Foreign(gluon.HybridBlock):
    """Somebody else's net; once traced it does not ask again what is frozen."""

    def __init__(self, inner: gluon.HybridBlock) -> None:
        super().__init__()
        with self.name_scope():
            self.inner = inner

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.inner(x)
        return y[0] if isinstance(y, (list, tuple)) else y


def gradients(net: gluon.Block, x: Any, frozen: tuple[int, ...], request: str) -> list[Any]:
    """Of all parameters but the frozen ones, added to nothing."""
    parameters = list(net.collect_params().values())
    for i, parameter in enumerate(parameters):
        parameter.grad_req = "null" if i in frozen else request
        if i not in frozen:
            parameter.grad()[:] = MARK[request]
    with autograd.record():
        y = net(x)
        y = y[0] if isinstance(y, (list, tuple)) else y
        total = (y * y).sum()
    if len(frozen) < len(parameters):
        total.backward()
    before = MARK["add"] if request == "add" else 0
    return [None if i in frozen else p.grad() - before for i, p in enumerate(parameters)]


def assert_frozen_ones_change_nothing(inner: gluon.Block, flags: str, foreign: bool, subsets: Any) -> None:
    inner.initialize()
    testing.randomize(inner)
    net = Foreign(inner) if foreign else inner
    options = FLAGS[flags]
    if options is not None:
        # MXNet's loop operator in somebody else's graph has no static shape.
        loops = foreign and not inner.length_free(Trace())
        net.hybridize(**({"static_alloc": True} if loops and options else options))
    rng = np.random.default_rng(0)
    is_model = isinstance(inner, LanguageModel)
    x = mx.nd.array(rng.integers(0, 6, (T, N)) if is_model else rng.normal(size=(T, N, C)))
    expected = gradients(net, x, (), "write")
    for frozen in subsets(len(expected)):
        for request in ("write", "add")[: 1 + (len(frozen) == 1)]:
            for a, b in zip(gradients(net, x, frozen, request), expected):
                assert a is None or testing.distance(a, b) <= 1e-5, (frozen, request)


def every_subset(count: int) -> Any:
    return [s for size in range(1, count + 1) for s in itertools.combinations(range(count), size)]


def pairs(count: int) -> Any:
    return [s for size in (1, 2) for s in itertools.combinations(range(count), size)]


@pytest.mark.parametrize("kind", LAYERS)
@each_form
@each_place
def test_every_subset_of_a_layer(implementation: str, kind: str, flags: str, foreign: bool) -> None:
    assert_frozen_ones_change_nothing(LAYERS[kind](), flags, foreign, every_subset)


@pytest.mark.parametrize("what", [pytest.param(w, marks=[pytest.mark.slow] * (w == "layer norm")) for w in MORE])
@each_form
@each_place
def test_every_pair_of_a_model(implementation: str, what: str, flags: str, foreign: bool) -> None:
    assert_frozen_ones_change_nothing(MORE[what](), flags, foreign, pairs)
