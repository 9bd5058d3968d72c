"""In the style of the first edition of *Dive into Deep Learning*: ``mx.nd`` arrays, blocks, nothing hybridized."""

from __future__ import annotations

from typing import Any

import pytest
from mxnet import autograd, gluon, init, nd
from mxnet.gluon import nn
from side_by_side import assert_learns, assert_same, every_kind, symbols

VOCABULARY, UNITS, BATCH, STEPS = 9, 16, 4, 6


class NextSymbol(nn.Block):
    """Rows of ids, one-hot, through a recurrent layer; the next symbol at each step, one row under the other."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recurrent = layer
        self.output = nn.Dense(VOCABULARY)

    def forward(self, ids: Any, state: Any) -> Any:
        hidden, state = self.recurrent(nd.one_hot(ids.T, VOCABULARY), state)
        return self.output(hidden.reshape((-1, hidden.shape[-1]))), state


def clipped(parameters: Any, theta: float) -> None:
    norm = sum((p.grad() ** 2).sum().asscalar() for p in parameters) ** 0.5
    if norm > theta:
        for p in parameters:
            p.grad()[:] *= theta / norm


def training(layer_class: Any, detached: bool, hybrid: bool = False, **options: Any) -> Any:
    net = NextSymbol(layer_class(UNITS, **options))
    net.initialize(init.Normal(0.1))
    if hybrid:
        net.hybridize()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 2.0, "momentum": 0, "wd": 0})
    rows = nd.array(symbols(BATCH, 4 * STEPS + 1, of=VOCABULARY))
    losses = []
    for _ in range(3):
        state = net.recurrent.begin_state(batch_size=BATCH)
        for start in range(0, 4 * STEPS, STEPS):
            if detached:
                state = [s.detach() for s in state]
            else:
                for s in state:
                    s.detach()  # as often seen: it changes nothing
            with autograd.record():
                logits, state = net(rows[:, start : start + STEPS], state)
                wanted = rows[:, start + 1 : start + STEPS + 1].T.reshape((-1,))
                value = loss(logits, wanted).mean()
            value.backward()
            clipped(list(net.collect_params().values()), 1.0)
            trainer.step(1)
            losses.append(value.asscalar())
    # Text, symbol by symbol.
    state, ids = net.recurrent.begin_state(batch_size=1), [1]
    scores = []
    for _ in range(5):
        logits, state = net(nd.array([[ids[-1]]]), state)
        scores.append(logits)
        ids.append(int(logits.argmax(axis=1).asscalar()))
    return net, {"losses": losses, "scores": scores, "last states": state}


@every_kind
@pytest.mark.parametrize("detached", [True, False])
def test_a_concise_language_model(kind: str, detached: bool) -> None:
    assert_learns(assert_same(lambda cls: training(cls, detached), kind)["losses"])


def test_a_deep_one() -> None:
    assert_same(lambda cls: training(cls, True, num_layers=2), "lstm")


def test_a_bidirectional_one() -> None:
    assert_same(lambda cls: training(cls, True, num_layers=2, bidirectional=True), "lstm")


def test_with_what_can_be_hybridized_hybridized() -> None:
    assert_same(lambda cls: training(cls, True, hybrid=True), "lstm")


class Sentiment(nn.Block):
    """The first and the last step of both directions decide."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(VOCABULARY, 5)
        self.encoder = layer
        self.decoder = nn.Dense(2)

    def forward(self, inputs: Any) -> Any:
        outputs = self.encoder(self.embedding(inputs.T))
        return self.decoder(nd.concat(outputs[0], outputs[-1]))


def judging(layer_class: Any, flags: Any = None) -> Any:
    net = Sentiment(layer_class(UNITS, num_layers=2, bidirectional=True, input_size=5))
    net.initialize(init.Xavier())
    if flags is not None:
        net.hybridize(**flags)
    rows = nd.array(symbols(32, 12, of=VOCABULARY))
    labels = rows[:, 0] > VOCABULARY / 2
    data = gluon.data.DataLoader(gluon.data.ArrayDataset(rows, labels), batch_size=8)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    losses = []
    for _ in range(3):
        for x, y in data:
            with autograd.record():
                value = loss(net(x), y)
            value.backward()
            trainer.step(len(x))
        losses.append(value.mean().asscalar())
    return net, {"losses": losses, "scores": net(rows)}


@pytest.mark.parametrize("flags", [None, {}, {"static_alloc": True, "static_shape": True}], ids=str)
def test_sentiment_of_a_text_read_in_both_directions(flags: Any) -> None:
    assert_learns(assert_same(lambda cls: judging(cls, flags), "lstm")["losses"])
