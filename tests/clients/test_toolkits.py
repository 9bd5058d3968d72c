"""Toolkits that put the layer into networks of their own: gluonnlp's models as they are, and a forecaster's trainer."""

from __future__ import annotations

from typing import Any

import gluonnlp
import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, init, nd
from mxnet.gluon import nn
from side_by_side import LAYERS, assert_learns, assert_same, drawn, every_kind, symbols

VOCABULARY, UNITS, BATCH, STEPS = 9, 16, 4, 6
FLAGS: list[Any] = [None, {}, {"static_alloc": True}, {"static_alloc": True, "static_shape": True}]


# gluonnlp


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have gluonnlp take this class where it says ``rnn.LSTM``, ``rnn.GRU`` or ``rnn.RNN``."""

    def replace(layer_class: Any) -> None:
        for theirs, ours in LAYERS.values():
            if layer_class in (theirs, ours):
                monkeypatch.setattr(gluonnlp.model.utils.rnn, theirs.__name__, layer_class)

    return replace


def language_model(make: Any, flags: Any) -> Any:
    net = make()
    net.initialize(init.Uniform(0.2))
    if flags is not None:
        net.hybridize(**flags)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
    rows = nd.array(symbols(BATCH, 3 * STEPS + 1, of=VOCABULARY)).T
    losses, state = [], net.begin_state(batch_size=BATCH)
    for epoch in range(5):
        values = []
        for start in range(0, 3 * STEPS, STEPS + epoch):
            x, y = rows[start : start + STEPS], rows[start + 1 : start + STEPS + 1]
            x = x[: len(y)]
            state = [[s.detach() for s in of] if isinstance(of, list) else of.detach() for of in state]
            with autograd.record():
                logits, state, *_ = net(x, state)
                value = loss(logits.reshape((-3, -1)), y.reshape((-1,))).mean()
            value.backward()
            gluon.utils.clip_global_norm([p.grad() for p in net.collect_params().values()], 1.0)
            trainer.step(1)
            values.append(value.asscalar())
        losses.append(np.mean(values))
    logits, *_ = net(rows[:STEPS], state)
    return net, {"losses": losses, "logits": logits}


@pytest.mark.parametrize(
    ("mode", "flags"),
    [*(("lstm", flags) for flags in FLAGS), ("gru", None), ("gru", {}), ("rnn_tanh", None), ("rnn_relu", {})],
)
def test_the_awd_language_model(mode: str, flags: Any, replaced: Any) -> None:
    """A layer each, with weights dropped anew in each call."""

    def program(layer_class: Any) -> Any:
        replaced(layer_class)
        drops = {"dropout": 0, "drop_h": 0, "drop_i": 0, "drop_e": 0, "weight_drop": 0.3}
        return language_model(
            lambda: gluonnlp.model.train.AWDRNN(mode, VOCABULARY, 8, UNITS, 2, tie_weights=True, **drops), flags
        )

    assert_learns(assert_same(program, mode[:4].strip("_"))["losses"])


@pytest.mark.parametrize(("mode", "flags"), [("lstm", None), ("lstm", FLAGS[-1]), ("rnn_tanh", {})])
def test_the_standard_language_model(mode: str, flags: Any, replaced: Any) -> None:
    def program(layer_class: Any) -> Any:
        replaced(layer_class)
        return language_model(
            lambda: gluonnlp.model.train.StandardRNN(mode, VOCABULARY, UNITS, UNITS, 2, 0.0, tie_weights=True), flags
        )

    assert_learns(assert_same(program, mode[:4].strip("_"))["losses"])


@every_kind
@pytest.mark.parametrize("when", ["training", "always"])
def test_weights_dropped_by_name(kind: str, when: str) -> None:
    def program(layer_class: Any) -> Any:
        layer = layer_class(UNITS, 2, bidirectional=True, input_size=5)
        gluonnlp.model.apply_weight_drop(layer, ".*h2h_weight", 0.5, weight_dropout_mode=when)
        layer.initialize(init.Uniform(0.3))
        x = nd.array(drawn(STEPS, BATCH, 5))
        with autograd.record():
            first, second = layer(x), layer(x)
            total = (first * second).sum()
        total.backward()
        assert (first - second).abs().max().asscalar() > 1e-3  # another mask
        gradients = [p.grad() for p in layer.collect_params().values()]
        assert [type(p).__name__ for p in layer.collect_params().values()].count("WeightDropParameter") == 4
        return layer, {"outputs": [first, second, layer(x)], "gradients": gradients}

    assert_same(program, kind)


# A forecaster, and the trainer of its toolkit, which hybridizes for static memory and shapes unless it is asked not to


class Forecaster(nn.HybridBlock):
    """A layer over scaled values and what is known of each time, a Gaussian at each step."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.layer = layer
            self.mean = nn.Dense(1, flatten=False)
            self.width = nn.Dense(1, flatten=False, activation="softrelu")

    def distribution(self, F: Any, values: Any, known: Any, states: Any = None) -> Any:
        x = F.concat(F.expand_dims(values, axis=2), known, dim=2)
        y = self.layer(x) if states is None else self.layer(x, states)
        y, states = (y, None) if states is None else y
        return F.squeeze(self.mean(y), axis=2), F.squeeze(self.width(y), axis=2) + 1e-3, states


class Training(Forecaster):
    def hybrid_forward(self, F: Any, values: Any, known: Any) -> Any:
        scale = F.mean(F.abs(values), axis=1, keepdims=True) + 1e-3
        scaled = F.broadcast_div(values, scale)
        mean, width, _ = self.distribution(F, F.slice_axis(scaled, axis=1, begin=0, end=-1), known)
        error = (F.slice_axis(scaled, axis=1, begin=1, end=None) - mean) / width
        return F.mean(0.5 * error**2 + F.log(width), axis=1)


class Prediction(Forecaster):
    """One step, for some samples of each series."""

    def hybrid_forward(self, F: Any, values: Any, known: Any, *states: Any) -> Any:
        mean, width, states = self.distribution(F, values, known, list(states))
        return [mean, width, *states]


def forecasting(layer_class: Any, flags: Any) -> Any:
    rng = np.random.default_rng(0)
    times = np.arange(25)
    phases = rng.uniform(0, 6, (16, 1))
    values = nd.array(3 + np.sin(times / 2 + phases) + rng.normal(0, 0.1, (16, 25)))
    known = nd.array(np.stack([np.sin(times / 2) + 0 * phases, np.cos(times / 2) + 0 * phases], axis=2))
    net = Training(layer_class(UNITS, 2, layout="NTC"), prefix="net_")
    net.initialize(init.Xavier())
    if flags is not None:
        net.hybridize(**flags)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.02})
    losses = []
    for _ in range(4):
        for i in range(0, 16, 4):
            with autograd.record():
                value = net(values[i : i + 4], known[i : i + 4, 1:]).mean()
            value.backward()
            trainer.step(1)
        losses.append(value.asscalar())
    valid = net(values, known[:, 1:])
    predict = Prediction(layer_class(UNITS, 2, layout="NTC", prefix="again_"), prefix="net_")
    predict.initialize()
    if flags is not None:
        predict.hybridize(**flags)
    states = predict.layer.begin_state(16)
    predict(values[:, :1], known[:, :1], *states)
    for ours, trained in zip(predict.collect_params().values(), net.collect_params().values()):
        ours.set_data(trained.data())
    means = []
    for t in range(6):
        mean, _, *states = predict(values[:, t : t + 1], known[:, t : t + 1], *states)
        means.append(mean)
    return net, {"losses": losses, "validation": valid, "means": means, "states": states}


@pytest.mark.parametrize(
    ("kind", "flags"), [*(("lstm", flags) for flags in FLAGS), ("gru", FLAGS[-1]), ("rnn", FLAGS[-1])]
)
def test_a_forecaster(kind: str, flags: Any) -> None:
    assert_learns(assert_same(lambda cls: forecasting(cls, flags), kind)["losses"])


def test_the_forecasters_file_is_loaded_by_the_other_one(tmp_path: Any) -> None:
    path = str(tmp_path / "net.params")
    nets = []
    for layer_class in LAYERS["lstm"]:
        net = Training(layer_class(UNITS, 2, layout="NTC"))
        net.initialize(mx.init.Normal(0.2))
        net(nd.ones((2, 5)), nd.ones((2, 4, 2)))
        nets.append(net)
    for source, target in (nets, nets[::-1]):
        source.initialize(mx.init.Normal(0.2), force_reinit=True)
        source.save_parameters(path)
        target.load_parameters(path)
        found, expected = (net(nd.ones((2, 5)), nd.ones((2, 4, 2))) for net in (target, source))
        assert np.allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)
