"""A layer that a hybridized net of the user's calls many times, and a tensor that many layers read.

From eight uses on MXNet adds the gradients of a tensor up in place, if the graph has static memory, and asks each
operator for that. Neither an operator from a library nor MXNet's own loop does it.
"""

from __future__ import annotations

from typing import Any, Callable

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, testing
from deeprnn.nn import native

T, N, C = 3, 2, 4
FLAGS = [{}, {"static_alloc": True}, {"static_alloc": True, "static_shape": True}]
LAYERS: dict[str, Callable[..., Any]] = {
    "rnn": lambda **options: DeepRNN(C, 2, "tanh", input_size=C, **options),
    "gru": lambda **options: DeepGRU(C, input_size=C, **options),
    "lstm": lambda **options: DeepLSTM(C, input_size=C, **options),
    "layer_norm": lambda **options: DeepGRU(C, input_size=C, layer_norm=True, **options),
    "zoneout": lambda **options: DeepRNN(C, activation="tanh", input_size=C, zoneout=0.1, **options),
}
BUILT_IN: dict[str, Callable[..., Any]] = {
    "rnn": lambda **options: gluon.rnn.RNN(C, 2, "tanh", input_size=C, **options),
    "gru": lambda **options: gluon.rnn.GRU(C, input_size=C, **options),
    "lstm": lambda **options: gluon.rnn.LSTM(C, input_size=C, **options),
}


class Net(gluon.HybridBlock):
    """A dense layer before a recurrent one, and another for the states, so that both have a producer."""

    def __init__(self, make: Callable[..., Any], uses: int) -> None:
        super().__init__()
        self.uses = uses
        self.before, self.begin = (gluon.nn.Dense(C, flatten=False, in_units=C) for _ in range(2))
        self.layer = make(dtype="float32")

    def hybrid_forward(self, F: Any, x: Any, *states: Any) -> Any:
        return F.add_n(*self.called(self.before(x), [self.begin(state) for state in states]))

    def called(self, x: Any, states: list[Any]) -> list[Any]:
        """The outputs of all uses, one after the other; each subclass is a way of using the layer."""
        raise NotImplementedError


class Chained(Net):
    """Each call reads what the one before has returned, as a decoder does."""

    def called(self, x: Any, states: list[Any]) -> list[Any]:
        outputs = []
        for _ in range(self.uses):
            x, states = self.layer(x, states)
            outputs.append(x)
        return outputs


class Repeated(Net):
    """All calls read one tensor, and start from the same states."""

    def called(self, x: Any, states: list[Any]) -> list[Any]:
        return [(i + 1) * self.layer(x, states)[0] for i in range(self.uses)]


class SideBySide(Net):
    """As many layers read one tensor."""

    def __init__(self, make: Callable[..., Any], uses: int) -> None:
        super().__init__(make, uses)
        self.others = gluon.nn.HybridSequential()
        self.others.add(*(make(dtype="float32") for _ in range(uses - 1)))

    def called(self, x: Any, states: list[Any]) -> list[Any]:
        return [layer(x, states)[0] for layer in [self.layer, *self.others]]


def inputs_of(net: Net) -> list[mx.nd.NDArray]:
    draw = np.random.default_rng(3)
    shapes = [(T, N, C), *(state["shape"] for state in net.layer.state_info(N))]
    return [mx.nd.array(draw.normal(size=shape)) for shape in shapes]


def gradients(net: Net) -> dict[str, np.ndarray]:
    inputs = inputs_of(net)
    for x in inputs:
        x.attach_grad()
    with autograd.record(train_mode=False):
        loss = (net(*inputs) ** 2).sum()
    loss.backward()
    found = {f"input {i}": x.grad.asnumpy() for i, x in enumerate(inputs)}
    return {**found, **{name: p.grad().asnumpy() for name, p in net._collect_params_with_prefix().items()}}


def net_of(way: type[Net], make: Callable[..., Any], uses: int) -> Net:
    net = way(make, uses)
    net.initialize()
    testing.randomize(net)
    return net


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert testing.distance(found[name], value) < 1e-5, name


# Where the native operator does not serve, static_shape is refused.
@pytest.mark.parametrize(
    "kind, flags", [(k, f) for k in LAYERS for f in FLAGS if k in BUILT_IN or "static_shape" not in f], ids=str
)
@pytest.mark.parametrize("way", [Chained, Repeated, SideBySide])
def test_gradients_of_many_uses(kind, way, flags):
    for uses in (4, 8, 11):
        net = net_of(way, LAYERS[kind], uses)
        expected = gradients(net)
        if kind in BUILT_IN:
            theirs = net_of(way, BUILT_IN[kind], uses)
            for name, parameter in net._collect_params_with_prefix().items():
                theirs._collect_params_with_prefix()[name].set_data(parameter.data())
            check(expected, gradients(theirs))
        net.hybridize(**flags)
        check(gradients(net), expected)
        with native.switched(False):
            net.hybridize(**{name: on for name, on in flags.items() if name != "static_shape"})
            check(gradients(net), expected)


@pytest.mark.parametrize("way", [Chained, Repeated])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_many_uses_in_an_executor(kind, way):
    """As `Module` has it."""
    net = net_of(way, LAYERS[kind], 9)
    inputs, parameters = inputs_of(net), net._collect_params_with_prefix()
    names = [f"input {i}" for i in range(len(inputs))]
    arguments = {**dict(zip(names, inputs)), **{p.name: p.data() for p in parameters.values()}}
    graph = net(*map(mx.sym.var, names))
    executor = graph.bind(mx.cpu(), arguments, {name: mx.nd.zeros_like(x) for name, x in arguments.items()})
    (output,) = executor.forward(is_train=True)
    executor.backward(2 * output)
    found = {name: executor.grad_dict[name].asnumpy() for name in names}
    found.update({name: executor.grad_dict[p.name].asnumpy() for name, p in parameters.items()})
    check(found, gradients(net))
