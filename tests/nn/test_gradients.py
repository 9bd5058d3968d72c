"""The gradient of every number that goes in, against central differences in float64, for each cell and option.

Native, one operator; static, the loop written out; dynamic, the loop operator inside somebody else's hybridized block:
three backward passes, and each is tried.
"""

from __future__ import annotations

from typing import Any, Callable

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from oracles import Config, Parent, deep

from deeprnn import testing
from deeprnn.nn import native

STEP = 1e-5
TOLERANCE = 1e-6
FORMS = ("native", "static", "dynamic")

CELLS: dict[str, dict[str, Any]] = {
    "tanh": {"cell": "rnn", "activation": "tanh"},
    "relu": {"cell": "rnn", "activation": "relu"},
    "gru": {"cell": "gru"},
    "lstm": {"cell": "lstm"},
}
BOTH: dict[str, Any] = {"bidirectional": True, "ragged": True, "layers": 1}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [(name, cell, {}) for name, cell in CELLS.items()]
CASES += [(f"{name}-ragged-bidirectional", {**cell, **BOTH}, {}) for name, cell in CELLS.items()]
CASES += [
    ("NTC", {"layout": "NTC"}, {}),
    ("bidirectional", {"bidirectional": True}, {}),
    ("ragged", {"cell": "gru", "ragged": True}, {}),
    ("projection", {"cell": "lstm", "projection": 1}, {}),
    ("projection-ragged-bidirectional", {"cell": "lstm", "projection": 1, **BOTH}, {}),
    ("clip", {"cell": "lstm", "clip": (-0.3, 0.3)}, {}),
    ("clip-nan", {"cell": "lstm", "clip": (-0.3, 0.3)}, {"state_clip_nan": True}),
    ("dropout", {"cell": "rnn"}, {"dropout": 0.4}),
    ("dropout-variational", {"cell": "rnn"}, {"dropout": 0.4, "dropout_mode": "variational"}),
    ("dropout-variational-NTC", {"cell": "gru", "layout": "NTC"}, {"dropout": 0.4, "dropout_mode": "variational"}),
    ("dropout-bidirectional", {"bidirectional": True}, {"dropout": 0.4}),
]


def central_differences(loss: Callable[[], Any], tensors: list[Any]) -> list[np.ndarray]:
    """(f(x + h) - f(x - h)) / 2h, one number of `tensors` after the other."""
    gradients = []
    for tensor in tensors:
        value = tensor.asnumpy()
        gradient = np.zeros_like(value)
        for index in np.ndindex(*value.shape):
            ends = []
            for h in (STEP, -STEP):
                moved = value.copy()
                moved[index] += h
                tensor[:] = mx.nd.array(moved, dtype="float64")
                ends.append(loss().asscalar())
            gradient[index] = (ends[0] - ends[1]) / (2 * STEP)
        tensor[:] = mx.nd.array(value, dtype="float64")
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize(("options", "more"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_gradient(options: dict[str, Any], more: dict[str, Any]) -> None:
    config = Config(**{"layers": 2, "length": 3, "batch_size": 2, "input_size": 2, "hidden_size": 2, **options})
    layer = deep(config, **more)
    testing.randomize(layer, scale=0.6)

    inputs, states, lengths = config.draw()
    x, *begin = (mx.nd.array(a, dtype="float64") for a in (inputs, *states))
    arguments = [mx.nd.array(a) for a in lengths]
    for tensor in (x, *begin):
        tensor.attach_grad()
    parameters = layer.collect_params()
    names = ["inputs", *(f"state {i}" for i in range(len(begin))), *parameters]
    tensors = [x, *begin, *(p.data() for p in parameters.values())]
    weights: list[Any] = []

    def loss(net: Any) -> Any:
        if more.get("dropout"):
            mx.random.seed(5)  # the same mask each time
        outputs, last = net(x, begin, *arguments)
        if not weights:
            weights.extend(mx.nd.array(np.random.normal(size=t.shape), dtype="float64") for t in (outputs, *last))
        return sum((w * t).sum() for w, t in zip(weights, (outputs, *last)))

    values, gradients = {}, {}
    for form in FORMS:
        with native.switched(form == "native"):
            net = Parent(layer) if form == "dynamic" else layer
            net.hybridize(static_alloc=True)
            with autograd.record():
                total = loss(net)
            total.backward()
            values[form] = total.asscalar()
            gradients[form] = [tensor.grad.asnumpy() for tensor in tensors]
    assert values == {form: pytest.approx(values["native"], rel=1e-12) for form in FORMS}
    layer.hybridize(static_alloc=True)
    with autograd.train_mode():  # in the fastest form: all have the same values
        numeric = central_differences(lambda: loss(layer), tensors)
    distances = {
        (form, name): testing.distance(gradient, expected)
        for form in FORMS
        for name, gradient, expected in zip(names, gradients[form], numeric)
    }
    assert {which: d for which, d in distances.items() if not d <= TOLERANCE} == {}


def test_differences_would_see_a_wrong_gradient() -> None:
    x = mx.nd.array([0.3, -0.7], dtype="float64")
    x.attach_grad()
    with autograd.record():
        total = (x * mx.nd.BlockGrad(x)).sum()  # half of the gradient of x^2
    total.backward()
    (numeric,) = central_differences(lambda: (x * x).sum(), [x])
    assert testing.distance(2 * x.grad, numeric) < TOLERANCE < testing.distance(x.grad, numeric)
