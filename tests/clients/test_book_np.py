"""In the style of *Dive into Deep Learning* as it is today: `npx.set_np`, ``mx.np`` arrays, ``nn.Block``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mxnet import autograd, gluon, init, np, npx
from mxnet.base import MXNetError
from mxnet.gluon import nn
from side_by_side import LAYERS, assert_learns, assert_same, every_kind, run, symbols

from deeprnn.testing import distance

VOCABULARY, UNITS, BATCH, STEPS = 9, 16, 4, 6

pytestmark = [
    # By the built-in layer's and the DataLoader's own code.
    pytest.mark.filterwarnings("ignore:ndarray.* has been renamed:DeprecationWarning"),
    pytest.mark.usefixtures("numpy_mode"),
]


@pytest.fixture
def numpy_mode() -> Iterator[None]:
    npx.set_np()
    yield
    npx.reset_np()


def clip(net: Any, theta: float) -> None:
    """`gluon.utils.clip_global_norm` takes no ``mx.np`` arrays."""
    gradients = [p.grad() for p in net.collect_params().values()]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    if norm > theta:
        for g in gradients:
            g[:] *= theta / norm


class NextSymbol(nn.Block):
    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recurrent = layer
        self.output = nn.Dense(VOCABULARY)

    def forward(self, ids: Any, state: Any) -> Any:
        hidden, state = self.recurrent(npx.one_hot(ids.T, VOCABULARY), state)
        return self.output(hidden.reshape(-1, hidden.shape[-1])), state


def training(layer_class: Any, flags: Any = None, **options: Any) -> Any:
    net = NextSymbol(layer_class(UNITS, **options))
    net.initialize(init.Normal(0.1))
    if flags is not None:
        net.hybridize(**flags)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 2.0})
    rows = np.array(symbols(BATCH, 4 * STEPS + 1, of=VOCABULARY))
    losses = []
    for _ in range(4):
        state = None
        for start in range(0, 4 * STEPS, STEPS):
            state = net.recurrent.begin_state(batch_size=BATCH) if state is None else [s.detach() for s in state]
            with autograd.record():
                logits, state = net(rows[:, start : start + STEPS], state)
                value = loss(logits, rows[:, start + 1 : start + STEPS + 1].T.reshape(-1)).mean()
            value.backward()
            clip(net, 1.0)
            trainer.step(1)
            losses.append(float(value))
    state, ids, scores = net.recurrent.begin_state(batch_size=1), [1], []
    for _ in range(5):
        logits, state = net(np.array([[ids[-1]]]), state)
        scores.append(logits)
        ids.append(int(logits.argmax(axis=1)))
    assert all(type(array) is np.ndarray for array in [logits, *state])
    return net, {"losses": losses, "scores": scores, "last states": state}


@every_kind
def test_a_concise_language_model(kind: str) -> None:
    assert_learns(assert_same(training, kind)["losses"])


def test_a_deep_one() -> None:
    assert_same(lambda cls: training(cls, num_layers=2), "lstm")


def test_a_bidirectional_one() -> None:
    assert_same(lambda cls: training(cls, num_layers=2, bidirectional=True), "lstm")


@pytest.mark.parametrize("flags", [{}, {"static_alloc": True, "static_shape": True}], ids=str)
def test_with_what_can_be_hybridized_hybridized(flags: Any) -> None:
    assert_same(lambda cls: training(cls, flags), "gru")


# From sequence to sequence


class Encoder(nn.Block):
    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(VOCABULARY, 5)
        self.recurrent = layer

    def forward(self, ids: Any) -> Any:
        x = self.embedding(ids).swapaxes(0, 1)
        return self.recurrent(x, self.recurrent.begin_state(batch_size=x.shape[1], ctx=x.ctx))


class Decoder(nn.Block):
    """The encoder's last state is what each step sees besides its symbol."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(VOCABULARY, 5)
        self.recurrent = layer
        self.output = nn.Dense(VOCABULARY, flatten=False)

    def start(self, encoded: Any) -> Any:
        return encoded[1]

    def forward(self, ids: Any, state: Any) -> Any:
        x = self.embedding(ids).swapaxes(0, 1)
        context = np.broadcast_to(state[0][-1], (x.shape[0], *state[0][-1].shape))
        y, state = self.recurrent(np.concatenate((x, context), 2), state)
        return self.output(y).swapaxes(0, 1), state


class AttentionDecoder(nn.Block):
    """Step by step; each looks at the encoder's outputs anew, by a query made from its own last state."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(VOCABULARY, 5)
        self.query = nn.Dense(UNITS, use_bias=False, flatten=False)
        self.key = nn.Dense(UNITS, use_bias=False, flatten=False)
        self.weight = nn.Dense(1, use_bias=False, flatten=False)
        self.recurrent = layer
        self.output = nn.Dense(VOCABULARY, flatten=False)

    def start(self, encoded: Any) -> Any:
        outputs, hidden = encoded
        return outputs.swapaxes(0, 1), hidden

    def forward(self, ids: Any, state: Any) -> Any:
        memory, hidden = state
        logits = []
        for x in self.embedding(ids).swapaxes(0, 1):
            query = np.expand_dims(hidden[0][-1], axis=1)
            scores = self.weight(np.tanh(self.query(query) + self.key(memory)))
            context = (npx.softmax(scores, axis=1) * memory).sum(axis=1)
            y, hidden = self.recurrent(np.expand_dims(np.concatenate((x, context), 1), axis=0), hidden)
            logits.append(self.output(y[0]))
        return np.stack(logits, axis=1), (memory, hidden)


class Translator(nn.Block):
    def __init__(self, encoder: Any, decoder: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder

    def forward(self, source: Any, target: Any) -> Any:
        return self.decoder(target, self.decoder.start(self.encoder(source)))[0]


def translating(layer_class: Any, decoder_class: Any, flags: Any = None) -> Any:
    net = Translator(Encoder(layer_class(UNITS, 2)), decoder_class(layer_class(UNITS, 2)))
    net.initialize(init.Xavier())
    if flags is not None:
        net.hybridize(**flags)
    source = np.array(symbols(8, 7, of=VOCABULARY))
    target = np.concatenate((np.zeros((8, 1)), source[:, ::-1][:, :5]), axis=1)
    lengths = np.array([5, 3, 4, 5, 2, 5, 1, 5])
    mask = np.expand_dims(npx.sequence_mask(np.ones((8, 5)), lengths, True, axis=1), -1)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
    losses = []
    for _ in range(4):
        with autograd.record():
            value = loss(net(source, target[:, :-1]), target[:, 1:], mask).sum()
        value.backward()
        clip(net, 1.0)
        trainer.step(8)
        losses.append(float(value))
    state, ids = net.decoder.start(net.encoder(source[:1])), np.zeros((1, 1))
    scores = []
    for _ in range(4):
        logits, state = net.decoder(ids, state)
        scores.append(logits)
        ids = logits.argmax(axis=2).astype("float32")
    return net, {"losses": losses, "scores": scores}


@every_kind
def test_from_sequence_to_sequence(kind: str) -> None:
    assert_learns(assert_same(lambda cls: translating(cls, Decoder), kind)["losses"])


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_with_attention(kind: str) -> None:
    assert_learns(assert_same(lambda cls: translating(cls, AttentionDecoder), kind)["losses"])


def test_with_hybridized_layers() -> None:
    assert_same(lambda cls: translating(cls, Decoder, {}), "gru")


# Sentiment


class Sentiment(nn.Block):
    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(VOCABULARY, 5)
        self.encoder = layer
        self.decoder = nn.Dense(2)

    def forward(self, inputs: Any) -> Any:
        outputs = self.encoder(self.embedding(inputs.T))
        return self.decoder(np.concatenate((outputs[0], outputs[-1]), axis=1))


def judging(layer_class: Any) -> Any:
    net = Sentiment(layer_class(UNITS, num_layers=2, bidirectional=True, input_size=5))
    net.initialize(init.Xavier())
    rows = np.array(symbols(32, 12, of=VOCABULARY))
    labels = (rows[:, 0] > VOCABULARY / 2).astype("int32")
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
        losses.append(float(value.mean()))
    return net, {"losses": losses, "scores": net(rows)}


def test_sentiment_of_a_text_read_in_both_directions() -> None:
    assert_learns(assert_same(judging, "lstm")["losses"])


# A block of the reader's own that is hybridized


class Encoding(nn.HybridBlock):
    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recurrent = layer
        self.output = nn.Dense(3, flatten=False, in_units=UNITS)

    def hybrid_forward(self, F: Any, x: Any, *state: Any) -> Any:
        if not state:
            return self.output(self.recurrent(F.npx.relu(x)))
        y, state = self.recurrent(F.npx.relu(x), list(state))
        return [self.output(y), *state]


def encoding(layer_class: Any, flags: Any, given: bool) -> Any:
    net = Encoding(layer_class(UNITS, 2, layout="NTC", input_size=5))
    net.initialize(init.Xavier())
    if flags is not None:
        net.hybridize(**flags)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
    results = []
    for length in (4, 7, 4):
        x = np.array(symbols(BATCH, 5 * length, of=VOCABULARY)).reshape(BATCH, length, 5)
        state = net.recurrent.begin_state(BATCH) if given else []
        with autograd.record():
            found = net(x, *state)
            found = found if given else [found]
            total = sum((y**2).sum() for y in found)
        total.backward()
        trainer.step(BATCH)
        results += found
    return net, {"results": results}


@every_kind
@pytest.mark.parametrize("flags", [None, {}, {"static_alloc": True, "static_shape": True}], ids=str)
def test_a_hybrid_block_that_hands_on_states(kind: str, flags: Any) -> None:
    assert_same(lambda cls: encoding(cls, flags, True), kind)


@every_kind
def test_a_hybridized_block_without_states_is_the_eager_one(kind: str) -> None:
    """The built-in layer fails here; against itself, eager."""
    theirs, ours = LAYERS[kind]
    _, expected = run(lambda cls: encoding(cls, None, False), theirs)
    for flags in ({}, {"static_alloc": True, "static_shape": True}):
        _, found = run(lambda cls, flags=flags: encoding(cls, flags, False), ours)
        for name in expected:
            for a, b in zip(found[name], expected[name]):
                assert distance(a, b) <= 1e-4
    with pytest.raises(MXNetError, match="Shape inconsistent"):
        run(lambda cls: encoding(cls, {}, False), theirs)
