"""In the style of MXNet's own examples: the word language model, and modules with one length or buckets of several."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn
from side_by_side import assert_learns, assert_same, every_kind, symbols

VOCABULARY, UNITS, BATCH, STEPS = 9, 16, 4, 6
FLAGS: list[Any] = [None, {}, {"static_alloc": True, "static_shape": True}]


class WordModel(gluon.Block):
    def __init__(self, layer_class: Any, tied: bool, layers: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.drop = nn.Dropout(0.0)
            self.encoder = nn.Embedding(VOCABULARY, UNITS, weight_initializer=mx.init.Uniform(0.1))
            self.rnn = layer_class(UNITS, layers, dropout=0.0, input_size=UNITS)
            shared = {"params": self.encoder.params} if tied else {}
            self.decoder = nn.Dense(VOCABULARY, in_units=UNITS, **shared)

    def forward(self, inputs: Any, hidden: Any) -> Any:
        output, hidden = self.rnn(self.drop(self.encoder(inputs)), hidden)
        return self.decoder(self.drop(output).reshape((-1, UNITS))), hidden


def detached(hidden: Any) -> Any:
    return [detached(h) for h in hidden] if isinstance(hidden, (list, tuple)) else hidden.detach()


def word_model(layer_class: Any, tied: bool, flags: Any) -> Any:
    net = WordModel(layer_class, tied)
    net.initialize(mx.init.Xavier())
    if flags is not None:
        net.hybridize(**flags)
    data = nd.array(symbols(BATCH, 4 * STEPS + 1, of=VOCABULARY)).T
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1.0, "momentum": 0, "wd": 0})
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    losses = []
    for _ in range(4):
        total, hidden = 0.0, net.rnn.begin_state(func=mx.nd.zeros, batch_size=BATCH, ctx=mx.cpu())
        for i in range(0, 4 * STEPS, STEPS + 2):
            target = data[i + 1 : i + 1 + STEPS + 2]  # the last one is shorter
            hidden = detached(hidden)
            with autograd.record():
                output, hidden = net(data[i : i + len(target)], hidden)
                each = loss(output, target.reshape((-1,)))
            each.backward()
            gradients = [p.grad(mx.cpu()) for p in net.collect_params().values()]
            gluon.utils.clip_global_norm(gradients, 0.2 * STEPS * BATCH)
            trainer.step(STEPS * BATCH)
            total += each.mean().asscalar()
        losses.append(total)
    return net, {"losses": losses, "hidden": hidden}


@every_kind
@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_the_word_language_model(kind: str, flags: Any) -> None:
    assert_learns(assert_same(lambda cls: word_model(cls, kind == "lstm", flags), kind)["losses"])


# Modules


class Fitted:
    """A module where the comparison expects a block."""

    def __init__(self, module: Any) -> None:
        self.arguments, _ = module.get_params()

    def collect_params(self) -> dict[str, Any]:
        return {name: Fixed(value) for name, value in sorted(self.arguments.items())}


class Fixed:
    def __init__(self, value: Any) -> None:
        self.value = value

    def data(self) -> Any:
        return self.value


def network(layer_class: Any, bidirectional: bool = False) -> Any:
    """Symbols of ids (N, T) to the next symbol's probabilities, one row under the other."""
    layer = layer_class(UNITS, 2, layout="NTC", input_size=5, bidirectional=bidirectional, prefix="layer_")
    ids, label = mx.sym.var("data"), mx.sym.var("softmax_label")
    x = mx.sym.Embedding(ids, input_dim=VOCABULARY, output_dim=5, name="embed")
    rows = mx.sym.reshape(layer(x), shape=(-3, -1))
    scores = mx.sym.FullyConnected(rows, num_hidden=VOCABULARY, name="scores")
    return mx.sym.SoftmaxOutput(scores, mx.sym.reshape(label, shape=(-1,)), name="softmax")


def module(layer_class: Any, bidirectional: bool) -> Any:
    rows = symbols(16, STEPS + 1, of=VOCABULARY)
    data = mx.io.NDArrayIter(rows[:, :-1], rows[:, 1:], batch_size=BATCH)
    fitted = mx.mod.Module(network(layer_class, bidirectional), context=mx.cpu())
    metric = mx.metric.Perplexity(ignore_label=None)
    losses: list[float] = []
    fitted.fit(
        data,
        eval_metric=metric,
        optimizer="sgd",
        optimizer_params={"learning_rate": 0.2},
        initializer=mx.init.Xavier(),
        num_epoch=4,
        epoch_end_callback=lambda *_: losses.append(metric.get()[1]),
    )
    return Fitted(fitted), {"losses": losses, "probabilities": fitted.predict(data)}


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_module(kind: str, bidirectional: bool) -> None:
    assert_learns(assert_same(lambda cls: module(cls, bidirectional), kind)["losses"])


BUCKETS = (4, 7, 10)


def buckets(layer_class: Any) -> Any:
    def symbol_of(length: int) -> Any:
        return network(layer_class), ("data",), ("softmax_label",)

    def batch_of(length: int, seed: int) -> Any:
        rows = symbols(BATCH, length + 1, of=VOCABULARY, seed=seed)
        return mx.io.DataBatch(
            [nd.array(rows[:, :-1])],
            [nd.array(rows[:, 1:])],
            bucket_key=length,
            provide_data=[mx.io.DataDesc("data", (BATCH, length))],
            provide_label=[mx.io.DataDesc("softmax_label", (BATCH, length))],
        )

    fitted = mx.mod.BucketingModule(symbol_of, default_bucket_key=max(BUCKETS), context=mx.cpu())
    first = batch_of(max(BUCKETS), 0)
    fitted.bind(first.provide_data, first.provide_label)
    fitted.init_params(mx.init.Xavier())
    fitted.init_optimizer("adam", "adam", {"learning_rate": 0.02})
    metric, losses, outputs = mx.metric.Perplexity(ignore_label=None), [], []
    for _ in range(4):
        metric.reset()
        for i in range(6):
            batch = batch_of(BUCKETS[i % 3], i)
            fitted.forward(batch, is_train=True)
            fitted.update_metric(metric, batch.label)
            fitted.backward()
            fitted.update()
        losses.append(metric.get()[1])
    for length in BUCKETS:
        fitted.forward(batch_of(length, 9), is_train=False)
        outputs += fitted.get_outputs()
    return Fitted(fitted), {"losses": losses, "outputs": outputs}


@every_kind
def test_a_module_with_buckets(kind: str) -> None:
    assert_learns(assert_same(buckets, kind)["losses"])
