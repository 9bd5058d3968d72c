"""The diagnosis, on stacks that are well and on stacks made sick on purpose."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from deeprnn import DeepRNN, LanguageModel
from deeprnn.nn.diagnostics import diagnose
from deeprnn.testing import distance

T, N, V, H = 20, 8, 11, 64


def squared(outputs):
    return outputs**2


def stack(layers=4, init=None, activation="tanh", **options):
    mx.random.seed(3)
    layer = DeepRNN(H, layers, activation, input_size=H, **options)
    layer.initialize(init or mx.init.Orthogonal(scale=1.0))
    return layer


def seen(layer, **options):
    inputs = nd.array(np.random.default_rng(5).normal(size=(T, N, H)))
    return diagnose(layer, inputs, layer.begin_state(N), squared, **options)


def test_a_healthy_stack_has_no_findings():
    diagnosis = seen(stack())
    assert diagnosis.sentences() == []
    assert [layer.number for layer in diagnosis.layers] == [1, 2, 3, 4]
    assert len(diagnosis.table().splitlines()) == 5


def test_the_books_weights_shrink_signal_and_gradient():
    diagnosis = seen(stack(init=mx.init.Normal(0.01)))
    sentences = diagnosis.sentences()
    assert sentences[0].startswith("layer 1 receives ") and "shrink the signal 0.08-fold a layer" in sentences[0]
    assert "init=deep, residual=True" in sentences[0]
    assert any("next to nothing comes out" in sentence for sentence in sentences)
    spreads = [layer.spread for layer in diagnosis.layers]
    assert spreads == sorted(spreads, reverse=True)


def test_advice_that_is_followed_already_is_not_given():
    diagnosis = seen(stack(init=mx.init.Normal(0.01)))
    assert not any("init=deep" in sentence for sentence in diagnosis.sentences(followed=["init=deep"]))
    assert diagnosis.sentences(followed=["init=deep"])[0].endswith("; try residual=True")
    residual = seen(stack(init=mx.init.Normal(1.0), residual=True))
    for sentence in residual.sentences(followed=["init=deep", "cell=gru"]):
        assert "init=deep" not in sentence and "residual=True" not in sentence and "cell=gru" not in sentence
    assert [each.partition(";")[0] for each in residual.sentences()] == [
        each.partition(";")[0] for each in residual.sentences(followed=["init=deep", "cell=gru"])
    ]
    layer = stack(1)
    layer.l0_h2h_weight.set_data(layer.l0_h2h_weight.data() * 0.01)
    (sentence,) = seen(layer).sentences(followed=["init=deep"])
    assert sentence.endswith("longer dependencies are not learnt; try cell=gru or lstm")
    (sentence,) = seen(layer).sentences(followed=["init=deep", "cell=lstm"])
    assert sentence.endswith("longer dependencies are not learnt")
    assert seen(layer).sentences()[0].endswith("; try init=deep, or cell=gru or lstm")


def test_weights_of_zero():
    layer = stack(2, init="zeros")
    before = {name: parameter.data().copy() for name, parameter in layer.collect_params().items()}
    diagnosis = seen(layer, before=before)
    expected = "layer 1 receives 0% of layer 2's gradient: its weights shrink the signal 0-fold a layer"
    assert diagnosis.sentences()[0].startswith(expected)
    assert [each.ratio for each in diagnosis.layers] == [0, 0]
    for parameter in layer.collect_params().values():
        parameter.set_data(parameter.data() + 0.01)
    assert [each.ratio for each in seen(layer, before=before).layers] == [np.inf, np.inf]


def test_large_weights_saturate_and_explode():
    sentences = " ".join(seen(stack(init=mx.init.Normal(1.0))).sentences())
    assert "grow the signal 8-fold a layer" in sentences
    assert "layers 1 to 4: most outputs are beyond 0.97" in sentences


def test_dead_units_are_found():
    layer = stack(2, activation="relu")
    layer.l1_i2h_bias.set_data(nd.where(nd.arange(H) < H // 2, -100 * nd.ones(H), nd.zeros(H)))
    diagnosis = seen(layer)
    assert diagnosis.layers[1].dead >= 0.5
    assert any(
        sentence.startswith("layer 2: a fifth of the units or more are dead") for sentence in diagnosis.sentences()
    )


def test_a_layer_that_forgets_is_found():
    layer = stack(1)
    layer.l0_h2h_weight.set_data(layer.l0_h2h_weight.data() * 0.01)
    (sentence,) = seen(layer).sentences()
    assert sentence.startswith("the gradient 10 steps back is ")


def test_an_update_too_large_is_found():
    layer = stack(2)
    before = {name: p.data().copy() for name, p in layer.collect_params().items()}
    assert seen(layer, before=before).layers[0].ratio == 0
    for p in layer.collect_params().values():
        p.set_data(p.data() * 1.5)
    diagnosis = seen(layer, before=before)
    assert diagnosis.layers[0].ratio == pytest.approx(0.5, rel=1e-5)
    assert any("one update changes more than a tenth" in sentence for sentence in diagnosis.sentences())


def test_gradients_are_those_of_the_loss():
    """Of the top layer's outputs, where they can be written down; and they fall off back in time as the weights say."""
    layer = DeepRNN(H, 1, "tanh", input_size=H)
    layer.initialize(mx.init.Normal(0.05))
    inputs = nd.array(np.random.default_rng(5).normal(size=(T, N, H)))
    (only,) = diagnose(layer, inputs, layer.begin_state(N), squared).layers
    outputs = layer(inputs).asnumpy()
    assert only.gradient == pytest.approx(np.linalg.norm(2 * outputs / outputs.size), rel=1e-4)
    assert only.spread == pytest.approx(outputs.std(), rel=1e-4)
    assert len(only.back) == T and only.back[0] > only.back[3] > only.back[8]


def test_the_network_is_left_as_it_was(monkeypatch):
    net = LanguageModel(V, H, 2, cell="lstm", embedding_size=H, dropout=0.5)
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    ids = nd.array(np.random.default_rng(0).integers(V, size=(T, N)), dtype="int32")
    with autograd.record():
        logits, _ = net(ids)
    logits.backward()
    grads = {name: p.grad().copy() for name, p in net.collect_params().items()}
    expected = net(ids)[0]
    diagnosis = diagnose(net, ids, net.begin_state(N), squared)
    assert len(diagnosis.layers) == 2
    assert all(distance(p.grad(), grads[name]) == 0 for name, p in net.collect_params().items())
    traced = []
    monkeypatch.setattr(type(net), "hybrid_forward", lambda *args, **params: traced.append(args))
    assert distance(net(ids)[0], expected) == 0
    assert not traced  # it runs the graph that it had


def test_a_network_without_a_stack_is_refused():
    net = mx.gluon.nn.Dense(3)
    with pytest.raises(ValueError, match="a network with one DeepRNN, DeepGRU or DeepLSTM in it, got 0"):
        diagnose(net, nd.zeros((2, 3)), [], squared)


def test_what_is_not_finite_is_named():
    layer = stack(3)
    layer.l1_h2h_weight.set_data(layer.l1_h2h_weight.data() * np.nan)
    assert seen(layer).sentences() == [
        "layers 1 to 3: outputs or gradients are NaN or infinite; try a lower learning rate or clip"
    ]


def test_sizes_that_are_left_to_the_first_call():
    layer = DeepRNN(H, 2)
    layer.initialize()
    assert len(seen(layer).layers) == 2
