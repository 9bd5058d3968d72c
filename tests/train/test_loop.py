"""The loop: what it computes, in which order, when it reports, when it stops, and that it can be taken up again."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time

import mxnet as mx
import numpy as np
import pytest
from gluonnlp.utils import grad_global_norm
from mxnet import autograd, gluon

from deeprnn.config import TrainConfig
from deeprnn.data.batches import Batches
from deeprnn.testing import distance
from deeprnn.train import checkpoint, loop, loss, progress, saving

CPU = mx.cpu()
VOCABULARY = 7


class Net(gluon.HybridBlock):
    """As little as the loop asks for: embedding, built-in recurrent layer, dropout, decoder."""

    def __init__(self, dropout: float = 0.0, hidden_size: int = 12):
        super().__init__()
        self.draws_random = dropout > 0
        self.first_states, self.last_states = [], []
        with self.name_scope():
            self.embedding = gluon.nn.Embedding(VOCABULARY, 6)
            self.layers = gluon.rnn.RNN(hidden_size, activation="tanh", input_size=6)
            self.dropout = gluon.nn.Dropout(dropout)
            self.decoder = gluon.nn.Dense(VOCABULARY, flatten=False, in_units=hidden_size)

    def begin_state(self, batch_size, **kwargs):
        return self.layers.begin_state(batch_size, **kwargs)

    def __call__(self, data, states):
        self.first_states.append(states[0])
        logits, states = super().__call__(data, states)
        self.last_states.append(states[0])
        return logits, states

    def hybrid_forward(self, F, data, states):
        outputs, states = self.layers(self.embedding(data), states)
        return self.decoder(self.dropout(outputs)), states


def make_net(dropout: float = 0.0, seed: int = 3) -> Net:
    mx.random.seed(seed)
    net = Net(dropout)
    net.initialize(mx.init.Normal(0.3), ctx=CPU)
    for parameter in net.collect_params().values():
        parameter.data()  # initialized now, so that the seed holds
    return net


def text(symbols: int, seed: int = 0) -> np.ndarray:
    """A walk that can be learnt: the next symbol is mostly the one after."""
    steps = np.random.default_rng(seed).choice([1, 2], size=symbols, p=[0.9, 0.1])
    return (np.cumsum(steps) % VOCABULARY).astype("int32")


def make_batches(symbols: int = 320, sampling: str = "consecutive", seed: int = 0) -> Batches:
    return Batches(text(symbols, seed), batch_size=4, seq_len=5, sampling=sampling)


def values(net) -> dict:
    return {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"epochs": 2, "lr": 0.02, "schedule": "constant", "clip": 1.0, **changes})


class Listed:
    """Batches given one by one."""

    def __init__(self, batches, carries_state=True):
        self.batches = [tuple(mx.nd.array(part, dtype="int32") for part in pair) for pair in batches]
        self.batch_size = self.batches[0][0].shape[1] if batches else 0
        self.carries_state = carries_state

    def __len__(self):
        return len(self.batches)

    def epoch(self, number):
        return iter(self.batches)


def pairs(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(rng.integers(VOCABULARY, size=(2, *shape))) for shape in shapes]


# -- what it computes


@pytest.mark.parametrize("hybridize", [False, True])
def test_it_learns(hybridize):
    net = make_net()
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    history = loop.fit(net, make_batches(), make_batches(160, seed=1), config(epochs=8), ctx=CPU)
    first, last = history.epochs[0], history.epochs[-1]
    assert [report.epoch for report in history.epochs] == list(range(1, 9))
    assert not history.stopped_early
    assert last.train_loss < 0.7 < first.train_loss
    assert last.valid_loss < 0.7 < first.valid_loss
    assert last.train_perplexity == pytest.approx(math.exp(last.train_loss))
    assert last.valid_perplexity == pytest.approx(math.exp(last.valid_loss))
    assert last.step == 8 * len(make_batches())
    assert last.tokens_per_second > 0
    assert last.seconds > 0


def numpy_step(net, data, target, state, optimizer_state, number, *, lr, clip):
    """One step of truncated back-propagation and Adam, written out, with autograd's gradients."""
    with autograd.record():
        logits, states = net(data, [mx.nd.array(state)])
        log_probabilities = mx.nd.log_softmax(logits)
        loss = -mx.nd.pick(log_probabilities, target).sum() / data.size
    loss.backward()
    gradients = {name: p.grad().asnumpy() for name, p in net._collect_params_with_prefix().items()}
    norm = math.sqrt(sum(float((gradient.astype("float64") ** 2).sum()) for gradient in gradients.values()))
    for name, parameter in net._collect_params_with_prefix().items():
        gradient = gradients[name] * min(1.0, clip / norm if clip else 1.0)
        mean, variance = optimizer_state.get(name, (0.0, 0.0))
        mean, variance = 0.9 * mean + 0.1 * gradient, 0.999 * variance + 0.001 * gradient**2
        optimizer_state[name] = mean, variance
        rate = lr * math.sqrt(1 - 0.999**number) / (1 - 0.9**number)
        parameter.set_data(mx.nd.array(parameter.data().asnumpy() - rate * mean / (np.sqrt(variance) + 1e-8)))
    return float(loss.asscalar()), norm, states[0].asnumpy()


@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("carries_state", [True, False])
def test_an_epoch_is_the_same_steps_by_hand(clip, carries_state):
    batches = Listed(pairs((5, 3), (5, 3), (4, 3), (2, 3)), carries_state)
    net, by_hand = make_net(), make_net()
    report = loop.fit(net, batches, None, config(epochs=1, clip=clip), ctx=CPU).epochs[0]

    losses, norms, optimizer_state, zeros = [], [], {}, np.zeros((1, 3, 12))
    state = zeros
    for number, (data, target) in enumerate(batches.batches, start=1):
        loss, norm, state = numpy_step(
            by_hand, data, target, state if carries_state else zeros, optimizer_state, number, lr=0.02, clip=clip
        )
        losses.append(loss)
        norms.append(norm)
    for name, value in values(net).items():
        np.testing.assert_allclose(value, values(by_hand)[name], rtol=2e-4, atol=2e-6, err_msg=name)
    assert report.train_loss == pytest.approx(np.average(losses, weights=[15, 15, 12, 6]), rel=1e-5)
    assert report.grad_norm == pytest.approx(np.mean(norms), rel=1e-4)  # before clipping, and with clip 0 as well
    assert report.step == 4


def test_states_are_carried_and_cut():
    batches = Listed(pairs((3, 2), (3, 2), (3, 2)))
    net = make_net()
    loop.fit(net, batches, None, config(epochs=2), ctx=CPU)
    norms = [float(state.norm().asscalar()) for state in net.first_states]
    assert [norm > 0 for norm in norms] == [False, True, True] * 2  # zeros at the start of each epoch
    for before, after in [(0, 1), (1, 2), (3, 4), (4, 5)]:
        np.testing.assert_array_equal(net.first_states[after].asnumpy(), net.last_states[before].asnumpy())
        # MXNet forgets a graph in backward(), so no gradient shows this: the array that goes in has none.
        assert net.first_states[after] is not net.last_states[before]
    net = make_net()
    loop.fit(net, Listed(batches.batches, carries_state=False), None, config(epochs=1), ctx=CPU)
    assert all(state.norm().asscalar() == 0 for state in net.first_states)


@pytest.mark.parametrize(
    ("optimizer", "name", "slots"), [("adam", "Adam", 2), ("sgd", "SGD", 0), ("rmsprop", "RMSProp", 1)]
)
def test_optimizers_are_plain(optimizer, name, slots):
    trainer = loop.make_trainer(make_net(), config(optimizer=optimizer, lr=0.3), steps=10)
    assert type(trainer.optimizer).__name__ == name
    assert trainer.optimizer.wd == 0
    assert trainer.learning_rate == 0.3  # and not the optimizer's own default
    state = trainer.optimizer.create_state(0, mx.nd.ones((2,)))
    assert len(state or ()) == slots
    assert trainer.optimizer.rescale_grad == 1


def test_sgd_goes_down_the_gradient():
    batches = Listed(pairs((5, 3)))
    net, before = make_net(), values(make_net())
    loop.fit(net, batches, None, config(epochs=1, optimizer="sgd", lr=0.5, clip=0), ctx=CPU)
    gradients = {name: p.grad().asnumpy() for name, p in net._collect_params_with_prefix().items()}
    for name, value in values(net).items():
        np.testing.assert_allclose(value, before[name] - 0.5 * gradients[name], rtol=1e-5, atol=1e-7)


def rates(schedule: str, steps: int, warmup: int = 0, lr: float = 1.0) -> list:
    """The rate that each update is made with, read off the updates themselves."""
    parameter = gluon.Parameter("weight", shape=(1,))
    parameter.initialize(mx.init.Zero(), ctx=CPU)

    class One:
        def collect_params(self):
            return {"weight": parameter}

    settings = TrainConfig(optimizer="sgd", lr=lr, schedule=schedule, warmup=warmup)
    trainer = loop.make_trainer(One(), settings, steps)
    made = []
    for _ in range(steps):
        before = parameter.data().asscalar()
        with autograd.record():
            loss = -parameter.data().sum()
        loss.backward()
        trainer.update(1)
        made.append(float(parameter.data().asscalar() - before))
        assert made[-1] == pytest.approx(trainer.learning_rate, abs=1e-5)
    return made


def test_constant_rate():
    assert rates("constant", 5, lr=0.5) == pytest.approx([0.5] * 5, abs=1e-5)
    assert rates("constant", 6, warmup=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1], abs=1e-5)


def test_cosine_rate():
    expected = [(1 + math.cos(math.pi * (k / 9))) / 2 for k in range(1, 9)]
    assert rates("cosine", 8) == pytest.approx(expected, abs=1e-5)
    warm = rates("cosine", 12, warmup=4)
    assert warm[:4] == pytest.approx([0.25, 0.5, 0.75, 1], abs=1e-5)
    assert warm[4:] == sorted(warm[4:], reverse=True)
    assert 0 < warm[-1] < 0.05  # no update is wasted at rate 0
    assert rates("cosine", 1) == pytest.approx([0.5], abs=1e-5)


def test_step_rate():
    assert rates("step", 8) == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2, abs=1e-5)
    warm = rates("step", 12, warmup=4)
    assert warm == pytest.approx([0.25, 0.5, 0.75, 1] + [1] * 4 + [0.1] * 2 + [0.01] * 2, abs=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_run_shorter_than_its_warmup(schedule):
    for steps in (1, 2, 4, 5):
        assert rates(schedule, steps, warmup=4)[:3] == pytest.approx([0.25, 0.5, 0.75][:steps], abs=1e-5)


def test_the_learning_rate_reported_is_the_last_updates():
    history = loop.fit(make_net(), make_batches(), None, config(epochs=3, schedule="cosine", lr=1e-3), ctx=CPU)
    steps = 3 * len(make_batches())
    for report in history.epochs:
        assert report.learning_rate == pytest.approx(1e-3 * (1 + math.cos(math.pi * report.step / (steps + 1))) / 2)


# -- evaluation


def logits_in_numpy(net, data, state):
    w = values(net)
    hidden, outputs = state, []
    for ids in data:
        hidden = np.tanh(
            w["embedding.weight"][ids] @ w["layers._unfused.0.i2h_weight"].T
            + w["layers._unfused.0.i2h_bias"]
            + hidden @ w["layers._unfused.0.h2h_weight"].T
            + w["layers._unfused.0.h2h_bias"]
        )
        outputs.append(hidden @ w["decoder.weight"].T + w["decoder.bias"])
    return np.array(outputs), hidden


@pytest.mark.parametrize("carries_state", [True, False])
def test_evaluation_is_the_mean_over_tokens(carries_state):
    """Whatever T and N its batches have; states go on while N stays, and begin anew where it changes."""
    net = make_net(dropout=0.5)  # which evaluation leaves out
    batches = pairs((5, 3), (5, 3), (2, 3), (4, 1), (1, 1))
    total = tokens = 0
    state, size = None, None
    for data, target in batches:
        if size != data.shape[1] or not carries_state:
            size, state = data.shape[1], np.zeros((data.shape[1], 12))
        logits, state = logits_in_numpy(net, data, state)
        logits = logits.astype("float64")
        log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= np.take_along_axis(log_probabilities, target[..., None], -1).sum()
        tokens += data.size
    loss = loop.evaluate(net, Listed(batches, carries_state), CPU)
    assert loss == pytest.approx(total / tokens, rel=1e-6)


def test_nothing_to_evaluate():
    assert loop.evaluate(make_net(), None, CPU) is None
    assert loop.evaluate(make_net(), Listed([]), CPU) is None


def test_without_validation_the_training_loss_chooses():
    history = loop.fit(make_net(), make_batches(), None, config(epochs=3), ctx=CPU)
    for report in history.epochs:
        assert report.valid_loss is None
        assert report.valid_perplexity is None
        assert report.best_loss == min(other.train_loss for other in history.epochs[: report.epoch])


def test_perplexity():
    assert loop.perplexity(0.0) == 1
    assert loop.perplexity(math.log(5)) == pytest.approx(5)
    assert loop.perplexity(5000.0) == math.inf


# -- the best epoch, and stopping


def validation_losses(monkeypatch, *losses):
    losses = iter(losses)
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(losses))


def test_the_best_epoch_is_marked(monkeypatch):
    validation_losses(monkeypatch, 3.0, 2.0, 2.5, 2.0, 1.0)
    history = loop.fit(make_net(), make_batches(), make_batches(), config(epochs=5), ctx=CPU)
    assert [report.is_best for report in history.epochs] == [True, True, False, False, True]
    assert [report.best_epoch for report in history.epochs] == [1, 2, 2, 2, 5]
    assert [report.best_loss for report in history.epochs] == [3, 2, 2, 2, 1]


def test_patience(monkeypatch):
    validation_losses(monkeypatch, 3.0, 2.0, 2.5, 2.1, 1.0)
    history = loop.fit(make_net(), make_batches(), make_batches(), config(epochs=9, patience=2), ctx=CPU)
    assert history.stopped_early
    assert [report.epoch for report in history.epochs] == [1, 2, 3, 4]


def test_patience_that_is_not_needed(monkeypatch):
    validation_losses(monkeypatch, 3.0, 2.0, 2.5, 2.1)
    history = loop.fit(make_net(), make_batches(), make_batches(), config(epochs=4, patience=2), ctx=CPU)
    assert not history.stopped_early


# -- progress


class Slow(Listed):
    """Batches that come one every `pause` seconds."""

    def __init__(self, batches, pause):
        super().__init__(batches)
        self.pause = pause

    def epoch(self, number):
        for pair in self.batches:
            time.sleep(self.pause)
            yield pair


def test_progress_by_the_clock():
    net, batches = make_net(), Slow(pairs(*[(3, 2)] * 40), 0.01)
    reports, begun = [], time.perf_counter()
    loop.fit(
        net,
        batches,
        None,
        config(epochs=2),
        ctx=CPU,
        on_step=lambda report: reports.append((time.perf_counter() - begun, report)),
        report_every=0.1,
    )
    assert len(reports) >= 3
    times = [when for when, _ in reports]
    assert min(np.diff(times)) > 0.09
    for _, report in reports:
        assert (report.epochs, report.steps, report.learning_rate) == (2, 80, 0.02)
        assert report.epoch == (report.step - 1) // 40 + 1
        assert report.perplexity == pytest.approx(math.exp(report.loss))
        assert 0 < report.tokens_per_second < 6 / 0.01 * 2
        assert report.seconds_left >= 0
    last = reports[-1][1]
    assert last.seconds_left == pytest.approx((80 - last.step) * times[-1] / last.step, rel=0.5, abs=0.1)


def test_the_first_report_comes_soon(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_REPORT", 0.1)
    reports = []
    batches = Slow(pairs(*[(3, 2)] * 60), 0.01)
    loop.fit(make_net(), batches, None, config(epochs=1), ctx=CPU, on_step=reports.append, report_every=60)
    assert len(reports) == 1


def test_reports_add_up_to_the_epoch():
    reports = []
    batches = Listed(pairs(*[(3, 2)] * 30), carries_state=False)
    net = make_net()
    report = loop.fit(
        net, batches, None, config(epochs=1, lr=1e-9), ctx=CPU, on_step=reports.append, report_every=0
    ).epochs[0]
    assert [each.step for each in reports] == list(range(progress.IN_FLIGHT + 1, 31))
    # Each report is of one step here, the one IN_FLIGHT before; all are in the epoch's mean.
    losses = [float(loop.evaluate(net, Listed([pair]), CPU)) for pair in batches.batches]
    assert [each.loss for each in reports] == pytest.approx(losses[: -progress.IN_FLIGHT], rel=1e-4)
    assert report.train_loss == pytest.approx(np.mean(losses), rel=1e-4)


def test_python_does_not_run_away_from_the_device():
    """Without a bound Python queues a whole epoch at once, and says nothing until the device has worked it off."""
    slow = mx.nd.random.normal(shape=(300, 300))

    class Heavy(Net):
        def __call__(self, data, states):
            logits, states = super().__call__(data, states)
            product = mx.nd.dot(slow, slow)
            for _ in range(9):
                product = mx.nd.dot(product, slow) * 1e-2
            return logits + 0 * product.mean(), states

    net = Heavy()
    net.initialize(mx.init.Normal(0.3), ctx=CPU)
    queued = []

    class Watched(Listed):
        def epoch(self, number):
            for pair in self.batches:
                queued.append(time.perf_counter())
                yield pair

    loop.fit(net, Watched(pairs(*[(3, 2)] * 16)), None, config(epochs=1), ctx=CPU)
    done = time.perf_counter()
    assert done - queued[-1] < 0.6 * (done - queued[0])


# -- what goes wrong


class Breaking(Listed):
    """Sets weights to NaN before the batch of one step."""

    def __init__(self, net, batches, at, weights=slice(None)):
        super().__init__(batches)
        self.net, self.at, self.weights = net, at, weights

    def epoch(self, number):
        for index, pair in enumerate(self.batches):
            if (number - 1) * len(self.batches) + index + 1 == self.at:
                self.net.decoder.weight.data()[self.weights] = math.nan
            yield pair


@pytest.mark.parametrize("at", [1, 5, 12, 13, 20])
@pytest.mark.parametrize("report_every", [0, 60])
def test_a_loss_that_is_not_finite_is_named_with_its_step(at, report_every):
    net = make_net()
    batches = Breaking(net, pairs(*[(3, 2)] * 12), at)
    with pytest.raises(loop.Diverged) as raised:
        loop.fit(net, batches, None, config(epochs=2), ctx=CPU, report_every=report_every)
    message = str(raised.value)
    assert f"the loss is nan at step {at} (epoch {(at - 1) // 12 + 1}):" in message
    for hint in ("lr=0.02 now", "clip=1 now", "another initialization"):
        assert hint in message
    assert "\n" not in message


def test_a_symbol_that_is_not_finite_is_found_though_the_loss_is():
    """MXNet's log_softmax leaves a NaN out of the sum for other symbols, so a batch without it has a finite loss."""
    logits = mx.nd.array([[math.nan, 1, 2]])
    assert np.isnan(mx.nd.log_softmax(logits).asnumpy()).tolist() == [[True, False, False]]
    net = make_net()
    no_zeros = [np.random.default_rng(n).integers(1, VOCABULARY, size=(2, 3, 2)) for n in range(12)]
    with pytest.raises(loop.Diverged, match=r"the norm of the gradient is nan at step 7 \(epoch 1\):"):
        loop.fit(net, Breaking(net, no_zeros, at=7, weights=0), None, config(clip=0), ctx=CPU)


def test_a_gradient_that_is_not_finite_is_found_too():
    net = make_net()
    net.decoder.weight.set_data(net.decoder.weight.data() * 1e30)
    with pytest.raises(loop.Diverged, match=r"norm of the gradient is (inf|nan) at step 1 .*clip=1; it is off now"):
        loop.fit(net, Listed(pairs((3, 2))), None, config(epochs=1, clip=0), ctx=CPU)


@pytest.mark.parametrize(("value", "shown"), [(math.nan, "nan"), (4.4e30, r"4\.4e\+30")])
def test_validation_without_a_finite_perplexity(monkeypatch, value, shown):
    validation_losses(monkeypatch, 2.0, value)
    with pytest.raises(loop.Diverged, match=rf"the validation loss is {shown} after step 30 \(epoch 2\)"):
        loop.fit(make_net(), make_batches(), make_batches(), config(), ctx=CPU)


def test_divergence_by_itself():
    with pytest.raises(loop.Diverged):
        loop.fit(make_net(), make_batches(), None, config(epochs=9, optimizer="sgd", lr=1e38, clip=0), ctx=CPU)


def test_ctrl_c_leaves_an_idle_engine(monkeypatch):
    idle = threading.Event()
    waitall = mx.nd.waitall
    monkeypatch.setattr(mx.nd, "waitall", lambda: (waitall(), idle.set()))

    class Interrupted(Listed):
        def epoch(self, number):
            yield from self.batches
            idle.clear()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.fit(make_net(), Interrupted(pairs((3, 2), (3, 2))), None, config(), ctx=CPU)
    assert idle.is_set()


# -- taken up again


class Kept:
    """Saves a checkpoint when `stop` steps are done, and ends there."""

    def __init__(self, folder, net, trainer, stop):
        self.write = saving.Checkpoints(folder).save
        self.net, self.trainer, self.stop, self.now = net, trainer, stop, 0
        self.signals = self

    def check(self):
        if self.now == self.stop:
            raise loop.Stopped(15)

    def is_due(self, step):
        self.now = step
        self.check()
        return False

    def save(self, position, report=None):
        state = {"seed": 11, "config": {}, "vocabulary": [], "versions": {}}
        self.write(self.net, self.trainer, position, state, is_best=bool(report and report.is_best))


@pytest.mark.parametrize(
    ("optimizer", "schedule", "hybridize", "sampling"),
    [
        ("adam", "cosine", True, "random"),
        ("sgd", "step", False, "random"),
        ("rmsprop", "constant", True, "consecutive"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, optimizer, schedule, hybridize, sampling):
    """Bit for bit, with dropout, warm-up and random batches, in a network whose parameters have other gluon names."""
    settings = config(epochs=3, optimizer=optimizer, schedule=schedule, warmup=3, lr=0.05, seed=11)
    train, valid = make_batches(sampling=sampling), make_batches(160, seed=1)

    def run(net, folder=tmp_path, stop=0, start=None):
        trainer = loop.make_trainer(net, settings, settings.epochs * len(train))
        if hybridize:
            net.hybridize(static_alloc=True, static_shape=True)
        if start:
            start.restore(net, trainer)
        reports, keeper = [], Kept(folder, net, trainer, stop)
        with contextlib.suppress(loop.Stopped):
            loop.fit(
                net,
                train,
                valid,
                settings,
                ctx=CPU,
                trainer=trainer,
                start=start.position if start else None,
                keeper=keeper if stop else None,
                on_epoch=reports.append,
            )
        return reports, values(net)

    whole, expected = run(make_net(dropout=0.4))
    clock = {"seconds": 0, "tokens_per_second": 0}
    for stop in (1, 17, 30, 44):  # the first step, within an epoch, at the end of one, in the last one
        folder = tmp_path / str(stop)
        begun, _ = run(make_net(dropout=0.4), folder, stop)
        mx.random.seed(99)  # another process would not have drawn the same numbers so far either
        start = checkpoint.load(folder)
        assert start.step == stop
        resumed, got = run(make_net(dropout=0.4, seed=77), start=start)
        assert_same(got, expected)
        assert [dataclasses.replace(report, **clock) for report in begun + resumed] == [
            dataclasses.replace(report, **clock) for report in whole
        ], stop


def test_dropout_masks_depend_on_seed_and_step():
    def after(seed):
        net = make_net(dropout=0.5)
        loop.fit(net, make_batches(), None, config(seed=seed), ctx=CPU)
        return values(net)

    assert_same(after(1), after(1))
    assert any((one != other).any() for one, other in zip(after(1).values(), after(2).values()))


def test_only_networks_that_draw_are_reseeded(monkeypatch):
    seeds = []
    monkeypatch.setattr(mx.random, "seed", lambda seed: seeds.append(seed))
    net, other = Net(0.0), Net(0.5)
    for each in (net, other):
        each.initialize(mx.init.Normal(0.3))
    loop.fit(net, make_batches(), None, config(), ctx=CPU)
    assert seeds == []
    loop.fit(other, make_batches(), None, config(), ctx=CPU)
    assert len(seeds) == len(set(seeds)) == 2 * len(make_batches())
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_start_without_its_trainer_is_refused():
    with pytest.raises(ValueError, match="the trainer has made 0 updates, but training continues after 15"):
        loop.fit(make_net(), make_batches(), None, config(epochs=2), ctx=CPU, start=loop.Position(epoch=1, step=15))


def test_a_used_trainer_without_its_start_is_refused():
    net = make_net()
    trainer = loop.make_trainer(net, config(), steps=30)
    loop.fit(net, make_batches(), None, config(), ctx=CPU, trainer=trainer)
    with pytest.raises(ValueError, match="the trainer has made 30 updates, but training continues after 0"):
        loop.fit(net, make_batches(), None, config(), ctx=CPU, trainer=trainer)


def test_another_dtype_is_refused():
    net = make_net()
    net.cast("float64")
    with pytest.raises(ValueError, match=r"training is in float32, and the network's \w+_weight is in float64"):
        loop.fit(net, make_batches(), None, config(), ctx=CPU)


def test_nothing_left_to_train():
    with pytest.raises(ValueError, match="epoch 2 is done, of epochs=2"):
        loop.fit(make_net(), make_batches(), None, config(epochs=2), ctx=CPU, start=loop.Position(epoch=2, step=30))


def test_the_norm_is_the_global_one():
    """What gluonnlp sums in float32, against float64; the loop reports it and clips by it."""
    net = make_net()
    loop.fit(net, Listed(pairs((5, 3))), None, config(epochs=1, clip=0), ctx=CPU)
    gradients = [p.grad().asnumpy().astype("float64") for p in net.collect_params().values()]
    exact = math.sqrt(sum((gradient**2).sum() for gradient in gradients))
    assert float(grad_global_norm(net.collect_params().values()).asscalar()) == pytest.approx(exact, rel=1e-5)


def test_the_loss_and_its_gradient_are_gluons():
    """At every shape that comes, and what was given out stays as it was."""
    cross_entropy, given = loss.CrossEntropy(), []
    cross_entropy.hybridize(static_alloc=True, static_shape=True)
    for shape in ((5, 4), (5, 4), (3, 4), (5, 4)):
        logits = mx.nd.random.normal(0, 3, shape=(*shape, 7))
        target = mx.nd.array(np.random.default_rng(0).integers(7, size=shape), dtype="int32")
        logits.attach_grad()
        with autograd.record():
            expected = gluon.loss.SoftmaxCrossEntropyLoss()(logits, target).mean()
        expected.backward()
        given.append((cross_entropy(logits, target, shape[1]), (expected, logits.grad.copy())))
    for found, expected in given:
        assert all(distance(*pair) < 1e-5 for pair in zip(found, expected))
