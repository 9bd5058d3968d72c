"""The options that help a stack to be deep: residual, layer_norm, zoneout; off by default, alike for all kinds."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, LanguageModel
from deeprnn.testing import compare, distance, randomize, run

KINDS = [DeepRNN, DeepGRU, DeepLSTM]
T, N, C, H = 6, 2, 3, 4

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


class Foreign(gluon.HybridBlock):
    """Somebody else's hybridized block, in which a stack takes its dynamic form."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def hybrid_forward(self, F, x, *states):
        return self.layer(x, list(states))


def made(kind, layers=3, **options):
    layer = kind(H, layers, input_size=C, dtype="float64", **options)
    layer.initialize()
    randomize(layer)
    return layer


def drawn(layer, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(T, N, C)), [draw.normal(size=info["shape"]) for info in layer.state_info(N)]


def parameters(layer, number):
    """The parameters of one layer as float64 arrays, by their short names."""
    start = f"{layer.prefix}l{number}_"
    found = layer.collect_params().items()
    return {name[len(start) :]: p.data().asnumpy() for name, p in found if name.startswith(start)}


@every_kind
@pytest.mark.parametrize(
    "options",
    [{"residual": True}, {"layer_norm": True}, {"residual": True, "layer_norm": True, "bidirectional": True}],
    ids=str,
)
def test_the_same_in_every_form_and_differentiable(kind, options):
    layer = made(kind, **options)
    inputs, states = drawn(layer)
    eager = run(layer, inputs, states)
    foreign = Foreign(layer)
    foreign.hybridize(static_alloc=True)
    assert compare(run(layer, inputs, states, call=lambda x, s: foreign(x, *s)), eager).same
    layer.hybridize(static_alloc=True, static_shape=True)
    assert compare(run(layer, inputs, states), eager).same
    for name, parameter in layer.collect_params().items():
        values = parameter.data().asnumpy()
        where = np.unravel_index(np.random.default_rng(len(name)).integers(values.size), values.shape)
        losses = []
        for sign in (1, -1):
            moved = values.copy()
            moved[where] += sign * 1e-5
            parameter.set_data(nd.array(moved, dtype="float64"))
            losses.append(run(layer, inputs, states).losses[0])
        parameter.set_data(nd.array(values, dtype="float64"))
        numeric = (losses[0] - losses[1]) / 2e-5
        assert numeric == pytest.approx(eager.tensors[f"d {name[len(layer.prefix) :]}"][where], rel=1e-5, abs=1e-7)


def test_a_residual_layer_adds_its_input_to_its_output():
    layer = made(DeepRNN, 3, activation="tanh", residual=True)
    inputs, (state,) = drawn(layer)
    x = inputs
    for number in range(3):
        p = parameters(layer, number)
        h, outputs = state[number], []
        for step in x:
            h = np.tanh(step @ p["i2h_weight"].T + h @ p["h2h_weight"].T + p["i2h_bias"] + p["h2h_bias"])
            outputs.append(h)
        x = np.stack(outputs) + (x if number > 0 else 0)
    outputs, _ = layer(nd.array(inputs, dtype="float64"), nd.array(state, dtype="float64"))
    assert distance(outputs, x) <= 1e-10


def normalized(x, gamma, beta):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta


def test_layer_norm_of_an_elman_layer_is_the_formula():
    layer = made(DeepRNN, 1, activation="tanh", layer_norm=True)
    inputs, (state,) = drawn(layer)
    p, h, expected = parameters(layer, 0), state[0], []
    for step in inputs:
        h = np.tanh(
            normalized(step @ p["i2h_weight"].T, p["i2h_gamma"], p["i2h_bias"])
            + normalized(h @ p["h2h_weight"].T, p["h2h_gamma"], p["h2h_bias"])
        )
        expected.append(h)
    outputs, _ = layer(nd.array(inputs, dtype="float64"), nd.array(state, dtype="float64"))
    assert distance(outputs, np.stack(expected)) <= 1e-10


@every_kind
def test_off_they_change_nothing(kind):
    plain, off = made(kind), made(kind, residual=False, layer_norm=False, zoneout=0.0)
    inputs, states = drawn(plain)
    assert compare(run(off, inputs, states), run(plain, inputs, states)).worst[1] == 0


@every_kind
def test_zoneout_in_inference_is_the_expectation(kind):
    layer = made(kind, 1, zoneout=0.25)
    cell = layer.cell
    inputs, states = (nd.array(v, dtype="float64") for v in drawn(layer)[0]), drawn(layer)[1]
    states = [nd.array(s[0], dtype="float64") for s in states]
    outputs = []
    for x in inputs:
        _, new = cell(x, states)
        states = [0.25 * old + 0.75 * after for old, after in zip(states, new)]
        outputs.append(states[0])
    x, begin = drawn(layer)
    got, last = layer(nd.array(x, dtype="float64"), [nd.array(s, dtype="float64") for s in begin])
    assert distance(got, nd.stack(*outputs)) <= 1e-10
    assert all(distance(a[0], b) <= 1e-10 for a, b in zip(last, states))


def test_zoneout_in_training_keeps_that_share_of_units():
    layer = DeepRNN(500, activation="tanh", input_size=C, zoneout=0.3)
    layer.initialize(mx.init.Normal(0.5))
    x, begin = nd.random.normal(shape=(1, 20, C)), nd.random.normal(shape=(1, 20, 500))
    mx.random.seed(1)
    with autograd.record():
        first, _ = layer(x, begin)
    kept = (np.abs(first[0].asnumpy() - begin[0].asnumpy()) < 1e-6).mean()
    assert kept == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / 10_000))
    mx.random.seed(1)
    with autograd.record():
        again, _ = layer(x, begin)
    assert distance(again, first) == 0


def test_a_tied_decoder_is_the_embedding():
    net = LanguageModel(7, 5, embedding_size=5, tied=True)
    net.initialize()
    assert net.decoder.weight is net.embedding.weight
    with pytest.raises(ValueError, match="tied needs embedding_size equal to hidden_size, got 4 and 5"):
        LanguageModel(7, 5, embedding_size=4, tied=True)
    with pytest.raises(ValueError, match="backend 'gluon' has no residual"):
        LanguageModel(7, 5, residual=True, backend="gluon")


def test_what_a_tied_network_reads_is_as_large_as_what_another_reads():
    """Decoder weights have variance 1 / H, an embedding 1: with the root of E between them both are well."""
    size = 64
    net = LanguageModel(500, size, embedding_size=size, tied=True)
    net.initialize()
    assert net.embedding.weight is net.decoder.weight
    read = []
    with net.stack.hooked(lambda layer, x: read.append(x.asnumpy()) or x):
        logits, _ = net(nd.arange(500).reshape((1, 500)))
    assert read[0].std() == pytest.approx(1, rel=0.03)
    assert 0.2 < float(logits.asnumpy().std()) < 2
