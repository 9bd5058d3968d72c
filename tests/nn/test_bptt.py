"""Back-propagation through time by hand: the gradients of MXNet's own and of differences, for whatever is asked."""

from __future__ import annotations

import gc
import json

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, LanguageModel
from deeprnn.nn import bptt
from deeprnn.nn.cells import ElmanCell
from deeprnn.nn.context import Target, drawn_for
from deeprnn.testing import copy_parameters, distance, randomize

C, H, L, N = 3, 4, 2, 2
KINDS = {
    "tanh": lambda **options: DeepRNN(H, L, "tanh", input_size=C, dtype="float64", **options),
    "relu": lambda **options: DeepRNN(H, L, "relu", input_size=C, dtype="float64", **options),
    "gru": lambda **options: DeepGRU(H, L, input_size=C, dtype="float64", **options),
    "lstm": lambda **options: DeepLSTM(H, L, input_size=C, dtype="float64", **options),
}
STATIC = {"static_alloc": True, "static_shape": True}
every_kind = pytest.mark.parametrize("kind", KINDS)
SHORTEST = bptt.SHORTEST


@pytest.fixture(autouse=True)
def whatever_is_faster(monkeypatch):
    monkeypatch.setattr(bptt, "SHORTEST", 2)


def pair(kind, **options):
    """A hybridized stack, and one of the same weights whose gradients are MXNet's own, as it is not hybridized."""
    ours, theirs = KINDS[kind](**options), KINDS[kind](**options)
    for layer in (ours, theirs):
        layer.initialize()
    randomize(ours)
    copy_parameters(ours, theirs)
    ours.hybridize(**STATIC)
    return ours, theirs


def gradients(layer, length, *, wanted=True, grad_req="write", passes=1, seed=1):
    """Outputs, states, and the gradients of all that goes in, by name."""
    rng = np.random.default_rng(seed)
    inputs = mx.nd.array(rng.normal(size=(length, N, C)), dtype="float64")
    states = [mx.nd.array(rng.normal(size=i["shape"]), dtype="float64") for i in layer.state_info(N)]
    weights = [mx.nd.array(rng.normal(size=i["shape"]), dtype="float64") for i in layer.state_info(N)]
    head = mx.nd.array(rng.normal(size=(length, N, layer(inputs).shape[2])), dtype="float64")
    layer.collect_params().setattr("grad_req", grad_req)
    if wanted:
        for array in (inputs, *states):
            array.attach_grad(grad_req)
    for _ in range(passes):
        with autograd.record():
            outputs, last = layer(inputs, states)
            total = (outputs * head).sum() + sum((w * s).sum() for w, s in zip(weights, last))
        total.backward()
    found = {"outputs": outputs, **{f"last {i}": state for i, state in enumerate(last)}}
    if wanted:
        found.update({"inputs": inputs.grad, **{f"first {i}": state.grad for i, state in enumerate(states)}})
    found.update({name[len(layer.prefix) :]: p.grad() for name, p in layer.collect_params().items()})
    return {name: array.asnumpy() for name, array in found.items()}


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    far = {name: distance(ours[name], theirs[name]) for name in ours}
    return max(far.values()) <= 1e-10, far


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("length", [2, 7, 8, 9, 20])
@pytest.mark.parametrize("options", [{}, {"grad_req": "add", "passes": 2}, {"wanted": False}], ids=str)
def test_the_gradients_are_mxnets_own(monkeypatch, kind, bidirectional, length, options):
    """In one piece, in one whole one, in two, and in three."""
    monkeypatch.setattr(bptt, "PIECE", 8)
    ours, theirs = pair(kind, bidirectional=bidirectional)
    equal, far = same(gradients(ours, length, **options), gradients(theirs, length, **options))
    assert equal, far


@every_kind
def test_the_gradients_are_those_of_differences(kind):
    layer, _ = pair(kind)
    inputs = mx.nd.array(np.random.default_rng(2).normal(size=(5, N, C)), dtype="float64")
    inputs.attach_grad()

    def total():
        outputs, last = layer(inputs, layer.begin_state(N, func=mx.nd.ones))
        return (outputs * outputs).sum() + sum((state * state * state).sum() for state in last)

    with autograd.record():
        loss = total()
    loss.backward()
    rng = np.random.default_rng(3)
    for array, gradient in [(inputs, inputs.grad), *((p.data(), p.grad()) for p in layer.collect_params().values())]:
        way = mx.nd.array(rng.normal(size=array.shape), dtype="float64")
        there = array.copy()
        array[:] = there + 1e-6 * way
        up = total().asscalar()
        array[:] = there - 1e-6 * way
        down = total().asscalar()
        array[:] = there
        assert (gradient * way).sum().asscalar() == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-7)


@every_kind
@pytest.mark.parametrize("flags", [{}, {"static_alloc": True}], ids=str)
def test_whatever_the_flags_of_the_graph(kind, flags):
    ours, theirs = pair(kind)
    ours.hybridize(**flags)
    equal, far = same(gradients(ours, 6, passes=2), gradients(theirs, 6))
    assert equal, far


@every_kind
def test_two_passes_forward_before_two_backward(kind):
    ours, theirs = pair(kind)
    found = []
    for layer in (ours, theirs):
        layer.collect_params().setattr("grad_req", "add")
        inputs = [mx.nd.array(np.random.default_rng(seed).normal(size=(6, N, C)), dtype="float64") for seed in (1, 2)]
        with autograd.record():
            first, second = (layer(x) for x in inputs)
        (first * first).sum()  # not a part of it
        second.backward()
        first.backward()
        found.append({name[len(layer.prefix) :]: p.grad().asnumpy() for name, p in layer.collect_params().items()})
    equal, far = same(*found)
    assert equal, far


def operators(layer, length, aim):
    with drawn_for(aim):
        outputs, states = layer(mx.sym.var("data"), layer.begin_state(0, func=lambda name, **_: mx.sym.var(name)))
    return [node["op"] for node in json.loads(mx.sym.Group([outputs, *states]).tojson())["nodes"]]


@pytest.mark.parametrize(
    ("options", "aim", "length"),
    [
        ({}, Target(), 5),
        ({}, Target(training=False, here=True), 5),
        ({}, Target("gpu", here=True), 5),
        ({}, Target(here=True), 1),
        ({"layer_norm": True}, Target(here=True), 5),
        ({"zoneout": 0.1}, Target(here=True), 5),
    ],
    ids=str,
)
def test_where_it_has_no_part(options, aim, length):
    layers = [KINDS[kind](unroll_length=length, **options) for kind in KINDS]
    if aim == Target(here=True) and not options:
        layers = layers[:1]
    layers.append(DeepLSTM(H, L, projection_size=2, unroll_length=length))
    layers.append(DeepLSTM(H, L, state_clip_min=-1, state_clip_max=1, unroll_length=length))
    for layer in layers:
        assert "Custom" not in operators(layer, length, aim)


@every_kind
@pytest.mark.parametrize("options", [{}, {"residual": True, "dropout": 0.5}], ids=str)
def test_where_it_has(kind, options):
    layer = KINDS[kind](unroll_length=5, bidirectional=True, **options)
    assert operators(layer, 5, Target(here=True)).count("Custom") == 2 * L


def test_few_steps_have_mxnets_own_gradient(monkeypatch):
    monkeypatch.setattr(bptt, "SHORTEST", SHORTEST)
    for length, by_hand in ((SHORTEST - 1, 0), (SHORTEST, L)):
        assert operators(KINDS["tanh"](unroll_length=length), length, Target(here=True)).count("Custom") == by_hand


def test_a_long_sequence_takes_no_loop_operator_and_no_long_graph(monkeypatch):
    monkeypatch.setattr(bptt, "PIECE", 8)
    lengths = []
    there = bptt.Recurrence._there
    monkeypatch.setattr(
        bptt.Recurrence, "_there", lambda self, F, length: lengths.append(length) or there(self, F, length)
    )
    net = LanguageModel(5, H, 8, cell="lstm")
    net.initialize()
    net.hybridize(**STATIC)
    with autograd.record():
        logits, _ = net(mx.nd.ones((3000, 1)))
    logits.backward()
    mx.nd.waitall()
    assert sorted(set(lengths)) == [8]
    assert len(lengths) == 2  # the first layer has inputs of another size; all others share


def test_layers_of_one_formula_share_their_graphs_and_take_them_along():
    """Also those of two stacks; and with the last of them the graphs go."""
    gc.collect()
    before = set(bptt._known)
    first, second = (DeepRNN(7, 3, input_size=7) for _ in range(2))
    for layer in (first, second):
        layer.initialize()
        layer.hybridize(**STATIC)
        with autograd.record():
            layer(mx.nd.ones((4, 2, 7)))
    mx.nd.waitall()
    new = set(bptt._known) - before
    assert len(new) == 1
    assert len(bptt._known[new.pop()]._graphs) == 1
    del first, second, layer
    for _ in range(2):  # what MXNet has let go of, Python hears of when the engine is done
        gc.collect()
        mx.nd.waitall()
    assert set(bptt._known) <= before


def test_no_more_graphs_are_kept_than_said(monkeypatch):
    monkeypatch.setattr(bptt, "GRAPHS_KEPT", 3)
    layer = DeepRNN(5, input_size=5, activation="tanh")
    layer.initialize()
    layer.hybridize(**STATIC)
    for length in (2, 3, 4, 5):
        with autograd.record():
            outputs = layer(mx.nd.ones((length, 1, 5)))
        outputs.backward()
        mx.nd.waitall()
    recurrence = bptt._known[bptt._name(layer._unfused[0], reverse=False)]
    assert [(key[0][0], key[1][0]) for key in recurrence._graphs] == [("back", 4), ("there", 5), ("back", 5)]


def test_a_fault_inside_is_an_error_outside(monkeypatch, capfd):
    def fail(self, *args):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(ElmanCell, "slopes", fail)
    layer = DeepRNN(5, input_size=5)
    layer.initialize()
    layer.hybridize(**STATIC)
    with autograd.record():
        outputs = layer(mx.nd.ones((3, 2, 5)))
    with pytest.raises(mx.MXNetError, match="Check failed"):
        outputs.backward()
        mx.nd.waitall()
    assert "on purpose" in "".join(capfd.readouterr())
