"""Parameters: files that the built-in layers read and write, sharing, casting."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn, rnn

from deeprnn import DeepGRU, DeepLSTM, DeepRNN
from deeprnn.testing import distance, randomize

T, N, C, H = 4, 2, 3, 5
PAIRS = {"rnn": (DeepRNN, rnn.RNN), "gru": (DeepGRU, rnn.GRU), "lstm": (DeepLSTM, rnn.LSTM)}
every_kind = pytest.mark.parametrize("kind", PAIRS)
directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["one direction", "two"])


def drawn(*shape, dtype="float32"):
    return mx.nd.array(np.random.default_rng(0).normal(size=shape), dtype=dtype)


def made(cls, layers, seed=0, **options):
    layer = cls(H, layers, **{"input_size": C, **options})
    layer.initialize()
    if layer.l0_i2h_weight.shape[1]:
        randomize(layer, seed)
    return layer


def values(block):
    return [p.data().asnumpy() for p in block.collect_params().values()]


def equal(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


@every_kind
@directions
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("input_size", [C, 0], ids=["given", "deferred"])
def test_files_load_both_ways(kind, bidirectional, layers, input_size, tmp_path):
    path = str(tmp_path / "layer.params")
    for source, target in (PAIRS[kind], PAIRS[kind][::-1]):
        written = made(source, layers, bidirectional=bidirectional)
        read = made(target, layers, seed=1, bidirectional=bidirectional, input_size=input_size)
        written.save_parameters(path)
        read.load_parameters(path)
        assert equal(values(written), values(read))
        assert distance(read(drawn(T, N, C)), written(drawn(T, N, C))) <= 1e-5


@every_kind
@directions
def test_the_keys_of_a_file_are_gluons(kind, bidirectional, tmp_path):
    keys = []
    for cls in PAIRS[kind]:
        made(cls, 2, bidirectional=bidirectional).save_parameters(str(tmp_path / "p"))
        keys.append(set(mx.nd.load(str(tmp_path / "p"))))
    assert keys[0] == keys[1]


def test_a_projection_goes_both_ways(tmp_path):
    for source, target in ((DeepLSTM, rnn.LSTM), (rnn.LSTM, DeepLSTM)):
        written, read = made(source, 2, projection_size=2), made(target, 2, seed=1, projection_size=2)
        written.save_parameters(str(tmp_path / "p"))
        read.load_parameters(str(tmp_path / "p"))
        assert equal(values(written), values(read))


@every_kind
@directions
@pytest.mark.parametrize("layers", [11, 12])
def test_more_than_ten_layers(kind, bidirectional, layers, tmp_path):
    written, read = (made(PAIRS[kind][0], layers, seed, bidirectional=bidirectional) for seed in (0, 1))
    written.save_parameters(str(tmp_path / "p"))
    read.load_parameters(str(tmp_path / "p"))
    assert equal(values(written), values(read))
    assert equal([written(drawn(T, N, C)).asnumpy()], [read(drawn(T, N, C)).asnumpy()])


@every_kind
def test_files_of_a_network_go_both_ways(kind, tmp_path):
    nets = []
    for cls in PAIRS[kind]:
        net = nn.HybridSequential()
        net.add(nn.Dense(C, flatten=False, in_units=2), cls(H, 2, input_size=C), nn.Dense(3, flatten=False, in_units=H))
        net.initialize()
        randomize(net, seed=len(nets))
        nets.append(net)
    for source, target in (nets, nets[::-1]):
        randomize(source, seed=7)
        source.save_parameters(str(tmp_path / "p"))
        target.load_parameters(str(tmp_path / "p"))
        assert equal(values(source), values(target))


@every_kind
@directions
def test_collect_params_save_and_load(kind, bidirectional, tmp_path):
    path = str(tmp_path / "p")
    for source, target in (PAIRS[kind], PAIRS[kind][::-1], PAIRS[kind][:1] * 2):
        written, read = (
            made(c, 11, i, bidirectional=bidirectional, prefix="p_") for i, c in enumerate((source, target))
        )
        written.collect_params().save(path)
        read.collect_params().load(path)
        assert equal(values(written), values(read))


def test_collect_params_selects():
    layer = made(DeepLSTM, 2, bidirectional=True, prefix="p_")
    assert list(layer.collect_params(".*r1_.*weight")) == ["p_r1_i2h_weight", "p_r1_h2h_weight"]


@every_kind
def test_missing_and_extra_keys(kind, tmp_path):
    cls, path = PAIRS[kind][0], str(tmp_path / "p")
    one, two = made(cls, 1), made(cls, 2, seed=1)
    before = values(two)
    one.save_parameters(path)
    with pytest.raises(AssertionError, match="missing"):
        two.load_parameters(path)
    two.load_parameters(path, allow_missing=True)
    assert equal(values(two)[:4], values(one)) and equal(values(two)[4:], before[4:])
    two.save_parameters(path)
    fresh = made(cls, 1, seed=2)
    with pytest.raises(ValueError, match="not present"):
        fresh.load_parameters(path)
    fresh.load_parameters(path, ignore_extra=True)
    assert equal(values(fresh), values(two)[:4])


@every_kind
@directions
@pytest.mark.parametrize("other", ["ours", "gluon's"])
@pytest.mark.parametrize("hybrid", [False, True])
def test_shared_parameters_train_together(kind, bidirectional, other, hybrid):
    owner = made(PAIRS[kind][other == "gluon's"], 2, bidirectional=bidirectional)
    layer = PAIRS[kind][0](H, 2, input_size=C, bidirectional=bidirectional, params=owner.collect_params())
    assert list(layer.collect_params().values()) == list(owner.collect_params().values())
    if hybrid:
        layer.hybridize(static_alloc=True, static_shape=True)
    before, outputs = values(owner), owner(drawn(T, N, C))
    assert distance(layer(drawn(T, N, C)), outputs) <= 1e-5
    trainer = gluon.Trainer(layer.collect_params(), "sgd", {"learning_rate": 0.1})
    with autograd.record():
        loss = (layer(drawn(T, N, C)) ** 2).sum()
    loss.backward()
    trainer.step(1)
    assert not any(np.array_equal(a, b) for a, b in zip(values(owner), before))
    assert distance(layer(drawn(T, N, C)), owner(drawn(T, N, C))) <= 1e-5
    assert distance(owner(drawn(T, N, C)), outputs) > 1e-3


@every_kind
def test_the_built_in_layer_takes_our_parameters(kind):
    owner = made(PAIRS[kind][0], 2)
    layer = PAIRS[kind][1](H, 2, input_size=C, params=owner.params)
    assert distance(layer(drawn(T, N, C)), owner(drawn(T, N, C))) <= 1e-5


@every_kind
def test_share_parameters_with_block_params(kind):
    owner = made(PAIRS[kind][0], 2)
    layer = PAIRS[kind][0](H, 2, input_size=C, params=owner.params)
    assert layer.l1_h2h_weight is owner.l1_h2h_weight


@every_kind
@directions
def test_cast_is_exact_there_and_back(kind, bidirectional):
    layer = made(PAIRS[kind][0], 2, bidirectional=bidirectional)
    before = values(layer)
    layer.cast("float64")
    wide = values(layer)
    assert {v.dtype.name for v in wide} == {"float64"} and all(np.array_equal(a, b) for a, b in zip(wide, before))
    layer.cast("float32")
    assert {v.dtype.name for v in values(layer)} == {"float32"} and equal(values(layer), before)


@every_kind
def test_files_carry_the_dtype(kind, tmp_path):
    path = str(tmp_path / "p")
    layer = made(PAIRS[kind][0], 2, dtype="float64")
    layer.save_parameters(path)
    assert {v.dtype for v in mx.nd.load(path).values()} == {np.float64}
    narrow = made(PAIRS[kind][0], 2, seed=1)
    narrow.load_parameters(path, cast_dtype=True)
    assert equal(values(narrow), [v.astype("float32") for v in values(layer)])
