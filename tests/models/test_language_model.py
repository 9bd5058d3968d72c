"""Embedding, stack, decoder."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn

from deeprnn import LanguageModel, RecurrentOrthogonal
from deeprnn.testing import distance, randomize

T, N, V, H, E, L = 5, 2, 7, 4, 3, 2
every_cell = pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
inputs = pytest.mark.parametrize("embedding_size", [0, E], ids=["one-hot", "embedding"])
hybrid_or_not = pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])


def ids(length=T, batch_size=N, dtype="int32"):
    return mx.nd.array(np.arange(length * batch_size).reshape(length, batch_size) % V, dtype=dtype)


def made(hybrid=False, **options):
    net = LanguageModel(V, H, L, **options)
    net.initialize()
    randomize(net)
    if hybrid:
        net.hybridize(static_alloc=True, static_shape=True)
    return net


@every_cell
@inputs
@hybrid_or_not
@pytest.mark.parametrize("backend", ["deeprnn", "gluon"])
def test_shapes(cell, embedding_size, hybrid, backend):
    net = made(hybrid, cell=cell, embedding_size=embedding_size, backend=backend)
    for length in (5, 3):
        logits, states = net(ids(length), net.begin_state(N))
        assert logits.shape == (length, N, V)
        assert [s.shape for s in states] == [(L, N, H)] * (2 if cell == "lstm" else 1)
    assert (net.embedding is None) == (embedding_size == 0)


@every_cell
@inputs
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_both_backends_are_one_function(cell, embedding_size, activation):
    ours, theirs = (
        made(cell=cell, embedding_size=embedding_size, activation=activation, backend=b) for b in ("deeprnn", "gluon")
    )
    for a, b in zip(ours.collect_params().values(), theirs.collect_params().values()):
        assert a.shape == b.shape
        b.set_data(a.data())
    for a, b in zip(ours(ids()), theirs(ids())):
        assert distance(a, b) <= 1e-5 if not isinstance(a, list) else max(map(distance, a, b)) <= 1e-5


@inputs
@hybrid_or_not
def test_it_is_embedding_then_stack_then_decoder(embedding_size, hybrid):
    net = made(hybrid, embedding_size=embedding_size)
    x = mx.nd.one_hot(ids(), V) if net.embedding is None else net.embedding(ids())
    outputs, states = net.stack(x, net.begin_state(N))
    logits, last = net(ids())
    assert distance(logits, net.decoder(outputs)) <= 1e-6 and distance(last[0], states[0]) <= 1e-6


@every_cell
@hybrid_or_not
def test_states_none_one_tensor_list_and_tuple(cell, hybrid):
    net = made(hybrid, cell=cell)
    begin = net.begin_state(N)
    forms = [None, begin, tuple(begin)] + ([begin[0]] if cell != "lstm" else [])
    results = [net(ids(), states) for states in forms]
    for logits, last in results:
        assert isinstance(last, list)
        assert distance(logits, results[0][0]) == 0


@every_cell
@hybrid_or_not
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_states_carry_over(cell, hybrid, dtype):
    net = made(hybrid, cell=cell)
    x = ids(6, dtype=dtype)
    whole, _ = net(x)
    first, states = net(x[:4])
    second, _ = net(x[4:], states)
    assert distance(mx.nd.concat(first, second, dim=0), whole) <= 1e-6


def test_begin_state_takes_another_function_and_a_context():
    net = made(cell="lstm")
    assert [s.asnumpy().mean() for s in net.begin_state(N, func=mx.nd.ones)] == [1, 1]
    assert net.begin_state(N, ctx=mx.cpu(1))[0].context == mx.cpu(1)


@hybrid_or_not
def test_it_learns(hybrid):
    net = LanguageModel(V, 8, 2, cell="gru", embedding_size=4)
    net.initialize()
    if hybrid:
        net.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.05})
    loss, losses = gluon.loss.SoftmaxCrossEntropyLoss(), []
    data = ids(9, 4)
    for _ in range(40):
        with autograd.record():
            logits, _ = net(data[:8], net.begin_state(4))
            value = loss(logits.reshape((-1, V)), data[1:].reshape((-1,))).mean()
        value.backward()
        trainer.step(1)
        losses.append(value.asscalar())
    assert losses[-1] < 0.2 < 1.5 < losses[0]


@hybrid_or_not
def test_gradients_flow_to_every_parameter(hybrid):
    net = made(hybrid, cell="lstm", embedding_size=E)
    with autograd.record():
        logits, _ = net(ids(), [s + 0.1 for s in net.begin_state(N)])
        total = (logits**2).sum()
    total.backward()
    assert all(p.grad().asnumpy().any() for p in net.collect_params().values())


@every_cell
@inputs
def test_files_go_from_one_backend_to_the_other(cell, embedding_size, tmp_path):
    nets = [made(cell=cell, embedding_size=embedding_size, backend=b) for b in ("deeprnn", "gluon")]
    for source, target in (nets, nets[::-1]):
        randomize(source, seed=5)
        source.save_parameters(str(tmp_path / "p"))
        target.load_parameters(str(tmp_path / "p"))
        assert distance(target(ids())[0], source(ids())[0]) <= 1e-5


@every_cell
def test_cast_to_float64_and_back(cell):
    net = made(True, cell=cell)
    before = net(ids())[0]
    net.cast("float64")
    logits, states = net(ids(), net.begin_state(N))
    assert logits.dtype == states[0].dtype == np.float64 and distance(before, logits) <= 1e-6
    net.cast("float32")
    assert distance(net(ids())[0], before) == 0


def test_dropout_draws_and_the_flag_says_so():
    assert not made().draws_random
    net = made(dropout=0.5)
    assert net.draws_random
    with autograd.record():
        trained = net(ids())[0]
    assert distance(trained, net(ids())[0]) > 1e-3
    assert distance(net(ids())[0], made()(ids())[0]) == 0


def test_symbols():
    net = made(prefix="net_")
    logits, states = net(mx.sym.var("ids"))
    graph = mx.sym.Group([logits, *states])
    values = {"ids": ids(), **{name: p.data() for name, p in net.collect_params().items()}}
    got = graph.bind(mx.cpu(), {name: values[name] for name in graph.list_arguments()}).forward()
    assert distance(got[0], net(ids())[0]) <= 1e-6


def test_it_works_inside_somebody_elses_hybridized_block():
    class Foreign(gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.net, self.scale = LanguageModel(V, H, L, cell="gru"), nn.Dense(2, flatten=False, in_units=V)

        def hybrid_forward(self, F, x):
            return self.scale(self.net(x)[0])

    net = Foreign()
    net.initialize()
    expected = [net(ids(length)) for length in (5, 3)]
    net.hybridize(static_alloc=True)
    assert max(distance(net(ids(length)), e) for length, e in zip((5, 3), expected)) <= 1e-6


def test_an_activation_does_not_matter_to_a_gated_cell():
    spreads = []
    for activation in ("tanh", "relu"):
        net = LanguageModel(V, 256, 2, cell="gru", activation=activation)
        net.initialize()
        spreads.append(float(net.stack.l1_i2h_weight.data().asnumpy().std()))
    assert spreads[0] == pytest.approx(spreads[1], rel=0.02)


def test_the_default_initializer_is_orthogonal_and_can_be_replaced():
    net = LanguageModel(V, H, L)
    net.initialize()
    weight = net.stack.l1_h2h_weight.data().asnumpy()
    assert np.allclose(weight @ weight.T, np.eye(H), atol=1e-5)
    net.initialize(mx.init.Constant(0.25), force_reinit=True)
    assert (net.stack.l1_h2h_weight.data().asnumpy() == 0.25).all()
    net.initialize(RecurrentOrthogonal(2.0), force_reinit=True, ctx=mx.cpu(1))
    weight = net.stack.l1_h2h_weight.data(mx.cpu(1)).asnumpy()
    assert np.allclose(weight @ weight.T, 4 * np.eye(H), atol=1e-4)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("embedding_size", [0, 6])
@pytest.mark.parametrize("flags", [None, {}, {"static_alloc": True, "static_shape": True}], ids=str)
def test_ids_of_numpys_kind_give_logits_of_that_kind_and_the_same_numbers(cell, embedding_size, flags, tmp_path):
    net = LanguageModel(11, 8, 2, cell=cell, embedding_size=embedding_size)
    net.initialize()
    ids = mx.nd.array([[1, 2, 3], [4, 5, 6]], dtype="int32")
    expected, last = net(ids)
    net.save_parameters(str(tmp_path / "p"))
    with mx.util.np_shape(True), mx.util.np_array(True):
        again = LanguageModel(11, 8, 2, cell=cell, embedding_size=embedding_size)
        again.initialize()
        again.load_parameters(str(tmp_path / "p"))
        if flags is not None:
            again.hybridize(**flags)
        for length in (2, 1):
            logits, states = again(ids[:length].as_np_ndarray())
            assert isinstance(logits, mx.np.ndarray) and isinstance(states[0], mx.np.ndarray)
            assert distance(logits.as_nd_ndarray(), expected[:length]) <= 1e-6
        assert distance(again(ids.as_np_ndarray(), None)[1][0].as_nd_ndarray(), last[0]) <= 1e-6


def test_a_file_may_bring_another_dtype_to_a_hybridized_network(tmp_path):
    net, double = LanguageModel(11, 8, 2), LanguageModel(11, 8, 2, dtype="float64")
    for each in (net, double):
        each.initialize()
    double.save_parameters(str(tmp_path / "double.params"))
    ids = mx.nd.array([[1, 2], [3, 4]])
    net.hybridize()
    net(ids)
    net.load_parameters(str(tmp_path / "double.params"), cast_dtype=True, dtype_source="saved")
    assert distance(net(ids)[0].asnumpy(), double(ids)[0].asnumpy()) < 1e-12
