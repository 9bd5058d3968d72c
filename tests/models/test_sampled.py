"""Sampled softmax and NCE: samples, gradients against the formulas in float64, and against the full softmax."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from deeprnn.config import TrainConfig
from deeprnn.data.batches import Batches
from deeprnn.models.language_model import LanguageModel
from deeprnn.models.sampled import LogUniform, SampledLoss
from deeprnn.testing import distance
from deeprnn.train.loop import evaluate, fit, make_trainer, token_losses

VOCAB, UNITS, SAMPLES = 50, 8, 20
both = pytest.mark.parametrize("kind", ["sampled", "nce"])


def network(**options):
    net = LanguageModel(VOCAB, UNITS, 2, embedding_size=6, **options)
    net.initialize(mx.init.Normal(0.3))
    net.hybridize(static_alloc=True, static_shape=True)
    net.decoder.bias.set_data(mx.nd.random.normal(shape=(VOCAB,)))
    return net


def gradients(net):
    return {name: parameter.grad().asnumpy() for name, parameter in net.collect_params().items()}


def step(net, sampled, data, target):
    with autograd.record():
        outputs, _ = sampled.outputs(data, net.begin_state(data.shape[1]))
    loss, gradient = sampled(outputs, target, data.shape[1])
    outputs.backward(gradient)
    return outputs.asnumpy(), float(loss.asscalar()), gradient.asnumpy()


def ids(rng, *shape):
    return mx.nd.array(rng.integers(VOCAB, size=shape), dtype="int32")


def test_samples_are_log_uniform_and_different():
    sampler, rng = LogUniform(200, 40), np.random.default_rng(0)
    found, expected, rounds = np.zeros(200), np.zeros(200), 1000
    for _ in range(rounds):
        drawn, draws = sampler.draw(rng)
        assert len(set(drawn)) == len(drawn) == 40 <= draws and drawn.min() >= 0 and drawn.max() < 200
        found[drawn] += 1
        expected += sampler.expected(np.arange(200), draws)
    once = np.log((np.arange(200) + 2) / (np.arange(200) + 1)) / np.log(201)
    assert abs(once.sum() - 1) < 1e-12
    np.testing.assert_allclose(sampler.expected(np.arange(200), 1), once, rtol=1e-6)
    assert expected.sum() / rounds == pytest.approx(40, rel=0.02)
    np.testing.assert_allclose(found / rounds, expected / rounds, atol=0.07)


@both
def test_loss_and_gradients_are_those_of_the_formula(kind):
    net, rng = network(), np.random.default_rng(1)
    sampled = SampledLoss(net, kind, SAMPLES, seed=3, step=lambda: 5)
    data, target = ids(rng, 4, 3), ids(rng, 4, 3)
    outputs, loss, gradient = step(net, sampled, data, target)
    weight, bias = (p.data().asnumpy().astype(float) for p in (net.decoder.weight, net.decoder.bias))
    x, t = outputs.reshape(-1, UNITS).astype(float), target.asnumpy().ravel()

    drawn, draws = LogUniform(VOCAB, SAMPLES).draw(np.random.default_rng((3, 5)))
    once = np.log((np.arange(VOCAB) + 2) / (np.arange(VOCAB) + 1)) / np.log(VOCAB + 1)
    exponentials = np.exp(x @ weight.T + bias) / (1 - (1 - once) ** draws)
    sample = np.zeros((len(t), VOCAB), bool)
    sample[:, drawn] = True
    true = np.eye(VOCAB, dtype=bool)[t]
    if kind == "sampled":
        exponentials = np.where(sample | true, exponentials, 0)  # an accidental hit counts once
        shares = exponentials / exponentials.sum(axis=1, keepdims=True)
        expected, by_logits = -np.log(shares[true]).sum(), shares - true
    else:
        shares = exponentials / (VOCAB + exponentials)  # the probability that it is the true one
        expected = -np.log(shares[true]).sum() - np.log(1 - shares[sample]).sum()
        by_logits = (shares - 1) * true + shares * sample  # an accidental hit is both
    assert loss == pytest.approx(expected / len(t), rel=1e-5)
    by_logits = by_logits / len(t)
    assert distance(gradient.reshape(-1, UNITS), by_logits @ weight) < 1e-5
    assert distance(net.decoder.weight.grad().asnumpy(), by_logits.T @ x) < 1e-5
    assert distance(net.decoder.bias.grad().asnumpy(), by_logits.sum(axis=0)) < 1e-5


@both
def test_the_other_gradients_are_those_of_the_network(kind):
    net, rng = network(), np.random.default_rng(2)
    sampled = SampledLoss(net, kind, SAMPLES, seed=0, step=lambda: 0)
    data, target = ids(rng, 4, 3), ids(rng, 4, 3)
    _, _, gradient = step(net, sampled, data, target)
    found = gradients(net)
    inner = {name for name in found if "decoder" not in name}
    with autograd.record():
        embedded = net.embedding(data)
        outputs, _ = net.stack(embedded, net.begin_state(3))
    outputs.backward(mx.nd.array(gradient))
    assert inner and all(distance(found[name], gradients(net)[name]) < 1e-6 for name in inner)


def test_on_average_the_gradient_is_nearly_that_of_the_full_softmax():
    net, rng = network(), np.random.default_rng(3)
    data, target = ids(rng, 5, 8), ids(rng, 5, 8)
    with autograd.record():
        loss = token_losses(net(data, net.begin_state(8))[0], target).mean()
    loss.backward()
    full = gradients(net)
    counter = iter(range(10**6))
    sampled = SampledLoss(net, "sampled", SAMPLES, seed=0, step=lambda: next(counter))
    sums = dict.fromkeys(full, 0.0)
    for _ in range(60):
        step(net, sampled, data, target)
        sums = {name: sums[name] + gradient for name, gradient in gradients(net).items()}
    assert max(distance(sums[name] / 60, full[name]) for name in full) < 0.3


def test_the_gradient_of_many_noise_samples_is_nearly_that_of_the_full_softmax():
    """If the exponentials of the logits add up to V, more or less."""
    net, rng = network(), np.random.default_rng(3)
    outputs, target = mx.nd.array(rng.normal(size=(5, 8, UNITS))), ids(rng, 5, 8)
    totals = np.exp(net.decoder(outputs).asnumpy()).sum(axis=2)
    assert 0.2 < totals.min() / VOCAB < totals.max() / VOCAB < 5
    counter = iter(range(10**6))
    sampled = SampledLoss(net, "nce", VOCAB // 2, seed=0, step=lambda: next(counter))
    sums = sum(sampled(outputs, target, 8)[1].asnumpy() for _ in range(60)) / 60
    outputs.attach_grad()
    with autograd.record():
        loss = token_losses(net.decoder(outputs), target).mean()
    loss.backward()
    full = outputs.grad.asnumpy()
    assert (sums * full).sum() / np.linalg.norm(sums) / np.linalg.norm(full) > 0.9


def fitted(kind, contexts, text, valid=None, **options):
    mx.random.seed(0)
    net = network(**options)
    net.collect_params().reset_ctx(contexts)
    config = TrainConfig(epochs=2, lr=0.03, loss=kind, samples=SAMPLES)
    train = Batches(text, 7, 10)
    trainer = make_trainer(net, config, 2 * len(train))
    sampled = SampledLoss(net, kind, SAMPLES, seed=0, step=lambda: trainer.optimizer.num_update)
    return net, fit(net, train, valid, config, ctx=contexts, trainer=trainer, sampled=sampled)


def made_text(length):
    return np.cumsum(np.random.default_rng(4).integers(1, 3, length)) % VOCAB  # the next symbol is one of two


@both
def test_training_lowers_the_full_loss(kind):
    text = made_text(3000)
    valid = Batches(text[2700:], 8, 10, keep_last=True)
    before = evaluate(network(), valid, mx.cpu())
    net, history = fitted(kind, [mx.cpu()], text[:2700], valid)
    assert history.epochs[-1].valid_loss < 3 < before
    assert history.epochs[-1].valid_loss == pytest.approx(evaluate(net, valid, mx.cpu()))


@both
def test_two_devices_train_as_one(kind):
    """With unequal parts; the running losses too."""
    text = made_text(1000)
    (one, alone), (two, together) = (fitted(kind, contexts, text) for contexts in ([mx.cpu()], [mx.cpu(0), mx.cpu(1)]))
    for name, parameter in one.collect_params().items():
        other = two.collect_params()[name.replace(one.prefix, two.prefix)]
        assert distance(other.data(mx.cpu(1)).asnumpy(), parameter.data().asnumpy()) < 1e-5
    for report, expected in zip(together.epochs, alone.epochs):
        assert report.train_loss == pytest.approx(expected.train_loss, rel=1e-5)


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="samples must be at most half of the vocabulary of 50, got 26; use"):
        SampledLoss(network(), "sampled", 26, 0, lambda: 0)
    tied = LanguageModel(VOCAB, UNITS, embedding_size=UNITS, tied=True)
    with pytest.raises(ValueError, match="loss='nce' needs tied=False"):
        SampledLoss(tied, "nce", 5, 0, lambda: 0)
    with pytest.raises(ValueError, match="kind must be one of 'sampled', 'nce', got 'full'"):
        SampledLoss(network(), "full", 5, 0, lambda: 0)
