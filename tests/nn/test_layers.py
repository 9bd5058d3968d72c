"""The layers: the built-in layers' interface to the letter, every way of calling, and right where theirs is not."""

from __future__ import annotations

import inspect
import json

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn, rnn

from deeprnn import DeepGRU, DeepLSTM, DeepRNN
from deeprnn.testing import copy_parameters, distance, randomize

T, N, C, H = 5, 3, 2, 4
PAIRS = {"rnn": (DeepRNN, rnn.RNN), "gru": (DeepGRU, rnn.GRU), "lstm": (DeepLSTM, rnn.LSTM)}
every_kind = pytest.mark.parametrize("kind", PAIRS)
hybrid_or_not = pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
both_layouts = pytest.mark.parametrize("layout", ["TNC", "NTC"])
BOTH = {"static_alloc": True, "static_shape": True}


def drawn(*shape, seed=0, dtype="float32"):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def made(kind="rnn", layers=2, hybrid=False, **options):
    options = {"input_size": C, **options}
    layer = PAIRS[kind][0](H, layers, **options)
    layer.initialize()
    if options["input_size"]:
        randomize(layer)
    if hybrid:
        layer.hybridize(**BOTH)
    return layer


def twins(kind, layers=2, **options):
    """Ours and the built-in layer, with one set of weights."""
    pair = [cls(H, layers, **{"input_size": C, **options}) for cls in PAIRS[kind]]
    for layer in pair:
        layer.initialize()
    randomize(pair[0])
    copy_parameters(*pair)
    return pair


def states_of(layer, batch_size=N):
    return [drawn(*i["shape"], seed=5 + n, dtype=i["dtype"]) for n, i in enumerate(layer.state_info(batch_size))]


def close(a, b, tolerance=1e-5):
    a, b = (x if isinstance(x, (list, tuple)) else [x] for x in (a, b))
    return len(a) == len(b) and max(distance(x, y) for x, y in zip(a, b)) <= tolerance


def short(layer):
    return {name[len(layer.prefix) :]: p for name, p in layer.collect_params().items()}


# The constructor


@every_kind
def test_arguments_are_in_gluons_order_with_gluons_defaults(kind):
    ours, theirs = (
        [(p.name, p.default, p.kind) for p in inspect.signature(c).parameters.values()] for c in PAIRS[kind]
    )
    assert ours == theirs


@every_kind
@pytest.mark.parametrize("layers", [1, 2, 11])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("input_size", [0, C])
def test_parameters_have_gluons_names_order_and_shapes(kind, layers, bidirectional, input_size):
    arguments = {"num_layers": layers, "bidirectional": bidirectional, "input_size": input_size, "prefix": "p_"}
    ours, theirs = (cls(H, **arguments).collect_params() for cls in PAIRS[kind])
    assert [(p.name, p.shape, p.dtype, p.grad_req) for p in ours.values()] == [
        (p.name, p.shape, p.dtype, p.grad_req) for p in theirs.values()
    ]


def test_the_names_and_shapes_of_a_deep_rnn_written_out():
    layer = DeepRNN(4, 2, input_size=3, prefix="p_")
    assert [(name, p.shape) for name, p in layer.collect_params().items()] == [
        ("p_l0_i2h_weight", (4, 3)),
        ("p_l0_h2h_weight", (4, 4)),
        ("p_l0_i2h_bias", (4,)),
        ("p_l0_h2h_bias", (4,)),
        ("p_l1_i2h_weight", (4, 4)),
        ("p_l1_h2h_weight", (4, 4)),
        ("p_l1_i2h_bias", (4,)),
        ("p_l1_h2h_bias", (4,)),
    ]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_names_and_shapes_of_a_projection(bidirectional):
    arguments = {"projection_size": 3, "bidirectional": bidirectional, "input_size": C, "prefix": "p_"}
    ours, theirs = (cls(H, 2, **arguments) for cls in PAIRS["lstm"])
    assert [(p.name, p.shape) for p in ours.collect_params().values()] == [
        (p.name, p.shape) for p in theirs.collect_params().values()
    ]
    assert [i["shape"] for i in ours.state_info(N)] == [i["shape"] for i in theirs.state_info(N)]


@every_kind
@pytest.mark.parametrize(
    "initializers",
    [
        {},
        {
            "i2h_weight_initializer": mx.init.Xavier(),
            "h2h_weight_initializer": "orthogonal",
            "i2h_bias_initializer": mx.init.One(),
            "h2h_bias_initializer": mx.init.Constant(0.25),
        },
    ],
    ids=["default", "each"],
)
@pytest.mark.parametrize("deferred", [False, True])
def test_initial_values_are_gluons(kind, initializers, deferred):
    values = []
    for cls in PAIRS[kind]:
        layer = cls(H, 2, input_size=0 if deferred else C, prefix="p_", **initializers)
        mx.random.seed(3)
        np.random.seed(3)
        layer.initialize(mx.init.Normal(0.5))
        if deferred:
            layer(drawn(T, N, C))
        values.append({name: p.data().asnumpy() for name, p in layer.collect_params().items()})
    assert all(np.array_equal(a, b) for a, b in zip(*(v.values() for v in values)))


def test_the_lstms_bias_initializer_opens_the_forget_gate():
    for cls in PAIRS["lstm"]:
        layer = cls(H, 2, input_size=C, i2h_bias_initializer=mx.init.LSTMBias(forget_bias=1.5))
        layer.initialize()
        assert layer.l1_i2h_bias.data().asnumpy().tolist() == [0] * H + [1.5] * H + [0] * 2 * H


def test_the_projections_initializer_is_used():
    layer = DeepLSTM(H, 2, projection_size=2, h2r_weight_initializer=mx.init.Constant(0.5), input_size=C)
    layer.initialize()
    assert (layer.l1_h2r_weight.data().asnumpy() == 0.5).all()


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_state_info_and_begin_state_are_gluons(kind, bidirectional, layers):
    ours, theirs = (c(H, layers, bidirectional=bidirectional, prefix="p_", dtype="float64") for c in PAIRS[kind])
    for batch_size in (0, N):
        assert ours.state_info(batch_size) == theirs.state_info(batch_size)
    for func in (nd.zeros, nd.ones):
        a, b = (x.begin_state(N, func=func) for x in (ours, theirs))
        assert close(a, b, 0) and [x.dtype for x in a] == [x.dtype for x in b]
    a, b = (x.begin_state(func=mx.sym.var) for x in (ours, theirs))
    assert [(s.name, s.attr("__shape__"), s.attr("__layout__")) for s in a] == [
        (s.name, s.attr("__shape__"), s.attr("__layout__")) for s in b
    ]
    assert ours.begin_state(N, ctx=mx.cpu(1))[0].context == mx.cpu(1)
    assert ours.begin_state(N, dtype="float32")[0].dtype == np.float32


@every_kind
def test_repr_is_gluons_but_for_the_name(kind):
    for arguments in (
        {},
        {"num_layers": 3, "input_size": C},
        {"layout": "NTC", "dropout": 0.5, "num_layers": 2, "bidirectional": True, "input_size": C},
    ):
        ours, theirs = (repr(c(H, **arguments)) for c in PAIRS[kind])
        assert ours == "Deep" + theirs
    ours, theirs = (c(H) for c in PAIRS[kind])
    for layer in (ours, theirs):
        layer.initialize()
        layer(drawn(T, N, C))
    assert repr(ours) == "Deep" + repr(theirs)


# Calling


@every_kind
@hybrid_or_not
@both_layouts
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_none_one_tensor_list_and_tuple(kind, hybrid, layout, bidirectional):
    ours, theirs = twins(kind, layout=layout, bidirectional=bidirectional)
    if hybrid:
        ours.hybridize(**BOTH)
    x = drawn(*((T, N, C) if layout == "TNC" else (N, T, C)))
    outputs = ours(x)
    assert isinstance(outputs, nd.NDArray) and close(outputs, theirs(x))
    begin = states_of(ours)
    expected, expected_last = theirs(x, begin)
    forms = [begin, tuple(begin)] + ([begin[0]] if len(begin) == 1 else [])
    for states in forms:
        outputs, last = ours(x, states)
        assert isinstance(last, list) and close([outputs, *last], [expected, *expected_last])
    assert close(ours(x), theirs(x))


@every_kind
@hybrid_or_not
def test_the_input_size_can_be_left_to_the_first_call(kind, hybrid):
    layer = made(kind, hybrid=hybrid, input_size=0, bidirectional=True)
    with autograd.record():
        total = layer(drawn(T, N, C)).sum()
    total.backward()
    assert {p.shape for n, p in short(layer).items() if n.endswith("0_i2h_weight")} == {layer.l0_i2h_weight.shape}
    assert layer.l0_i2h_weight.shape[1] == C and layer.l1_i2h_weight.shape[1] == 2 * H
    with pytest.raises(ValueError, match="input_size 2"):
        layer(drawn(T, N, C + 1))


@every_kind
@hybrid_or_not
@pytest.mark.parametrize("container", [nn.Sequential, nn.HybridSequential])
def test_in_sequential_blocks_with_a_deferred_input_size(kind, hybrid, container):
    nets = []
    for cls in PAIRS[kind]:
        net = container(prefix="net_")
        with net.name_scope():
            net.add(
                nn.Dense(C, flatten=False, prefix="in_"),
                cls(H, 2, prefix="rnn_"),
                nn.Dense(2, flatten=False, prefix="out_"),
            )
        net.initialize()
        nets.append(net)
    ours, theirs = nets
    if hybrid and container is nn.HybridSequential:
        ours.hybridize(static_alloc=True)
    elif hybrid:
        ours[1].hybridize(**BOTH)
    for net in nets:
        net(drawn(T, N, 7))
    randomize(ours)
    copy_parameters(ours, theirs)
    for length in (5, 3, 8):
        x = drawn(length, N, 7)
        results = []
        for net in nets:
            with autograd.record():
                total = (net(x) ** 2).sum()
            total.backward()
            results.append([net(x), *(p.grad() for p in net.collect_params().values())])
        assert close(*results)


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_symbols(kind, bidirectional, given):
    layer = made(kind, bidirectional=bidirectional, prefix="p_")
    x, begin = drawn(T, N, C), states_of(layer)
    if given:
        outputs, last = layer(mx.sym.var("x"), layer.begin_state(func=mx.sym.var))
        graph = mx.sym.Group([outputs, *last])
    else:
        graph = layer(mx.sym.var("x"))
    values = {
        "x": x,
        **{f"p_h0_{i}": s for i, s in enumerate(begin)},
        **{n: p.data() for n, p in layer.collect_params().items()},
    }
    got = graph.bind(mx.cpu(), {name: values[name] for name in graph.list_arguments()}).forward()
    expected = layer(x, begin) if given else (layer(x), [])
    assert close(got, [expected[0], *expected[1]])
    assert set(layer.collect_params()) <= set(graph.list_arguments())
    assert "RNN" not in {node["op"] for node in json.loads(graph.tojson())["nodes"]}


def test_symbols_with_a_sequence_length():
    layer = made("lstm", use_sequence_length=True, bidirectional=True, prefix="p_")
    x, lengths = drawn(T, N, C), nd.array([5, 2, 1])
    graph = layer(mx.sym.var("x"), None, mx.sym.var("lengths"))
    values = {"x": x, "lengths": lengths, **{n: p.data() for n, p in layer.collect_params().items()}}
    got = graph.bind(mx.cpu(), {name: values[name] for name in graph.list_arguments()}).forward()
    assert close(got, layer(x, None, lengths))


class RNNModel(nn.Block):
    """The book's."""

    def __init__(self, rnn_layer, vocab_size, **kwargs):
        super().__init__(**kwargs)
        self.rnn = rnn_layer
        self.vocab_size = vocab_size
        self.dense = nn.Dense(vocab_size)

    def forward(self, inputs, state):
        X = nd.one_hot(inputs.T, self.vocab_size)
        Y, state = self.rnn(X, state)
        output = self.dense(Y.reshape((-1, Y.shape[-1])))
        return output, state

    def begin_state(self, *args, **kwargs):
        return self.rnn.begin_state(*args, **kwargs)


@every_kind
@hybrid_or_not
def test_the_books_model_trains_with_these_layers_unchanged(kind, hybrid):
    models = []
    for cls in PAIRS[kind]:
        model = RNNModel(cls(8, 2, input_size=6), 6)
        model.initialize(mx.init.Normal(0.3))
        model(nd.zeros((4, 1)), model.begin_state(batch_size=4))
        models.append(model)
        if len(models) == 2:
            for a, b in zip(*(m.collect_params().values() for m in models)):
                b.set_data(a.data())
    if hybrid:
        models[0].rnn.hybridize(**BOTH)
    ids = nd.arange(4 * 21).reshape((4, 21)) % 6
    histories = []
    for model in models:
        trainer = gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": 1.0, "momentum": 0, "wd": 0})
        loss = gluon.loss.SoftmaxCrossEntropyLoss()
        losses = []
        for _ in range(5):
            state = model.begin_state(batch_size=4, ctx=mx.cpu())
            for t in range(0, 20, 5):
                for s in state:
                    s.detach()  # as the book has it, though it does nothing
                with autograd.record():
                    output, state = model(ids[:, t : t + 5], state)
                    value = loss(output, ids[:, t + 1 : t + 6].T.reshape((-1,))).mean()
                value.backward()
                trainer.step(1)
                losses.append(value.asscalar())
        histories.append(np.array(losses))
    assert distance(*histories) <= 1e-4
    assert histories[0][-1] < histories[0][0]


@every_kind
def test_cast_there_and_back(kind):
    layer = made(kind, hybrid=True)
    before = layer(drawn(T, N, C))
    layer.cast("float64")
    assert layer(drawn(T, N, C, dtype="float64")).dtype == np.float64
    assert layer.begin_state(N)[0].dtype == np.float64 and layer.state_info(N)[0]["dtype"] == "float64"
    layer.cast(np.float32)
    assert close(layer(drawn(T, N, C)), before, 0)


@every_kind
def test_a_summary_can_be_printed(kind, capsys):
    made(kind).summary(drawn(T, N, C))
    assert PAIRS[kind][0].__name__ in capsys.readouterr().out


# Dropout


@hybrid_or_not
@both_layouts
@pytest.mark.parametrize("mode", ["standard", "variational"])
def test_dropout_drops_its_share_between_layers_and_keeps_the_mean(hybrid, layout, mode):
    # Each relu unit passes its one positive input on: the second layer's output is the first's, with the mask.
    size, share = 64, 0.3
    layer = DeepRNN(size, 2, "relu", layout, share, input_size=size, dropout_mode=mode)
    layer.initialize(mx.init.Zero())
    for parameter in (layer.l0_i2h_weight, layer.l1_i2h_weight):
        parameter.set_data(nd.eye(size))
    if hybrid:
        layer.hybridize(**BOTH)
    x = nd.ones((20, 30, size) if layout == "TNC" else (30, 20, size))
    assert np.array_equal(layer(x).asnumpy(), x.asnumpy())  # off in inference
    mx.random.seed(1)
    with autograd.record():
        y = layer(x)
    y = y.asnumpy() if layout == "TNC" else y.asnumpy().transpose(1, 0, 2)  # (T, N, C)
    kept = y != 0
    assert np.allclose(y[kept], 1 / (1 - share))
    draws = kept[0].size if mode == "variational" else kept.size
    assert abs(kept.mean() - (1 - share)) < 4 * (share * (1 - share) / draws) ** 0.5
    assert (kept == kept[:1]).all() == (mode == "variational")
    assert not (kept == kept[:, :1]).all() and not (kept == kept[:, :, :1]).all()


@every_kind
@hybrid_or_not
@pytest.mark.parametrize("mode", ["standard", "variational"])
def test_dropout_is_a_matter_of_the_seed(kind, hybrid, mode):
    layer, plain = (made(kind, 3, hybrid, dropout=p, dropout_mode=mode) for p in (0.5, 0))

    def trained(seed):
        mx.random.seed(seed)
        with autograd.record():
            y = layer(drawn(T, N, C))
        y.backward()
        return [y.asnumpy(), layer.l0_i2h_weight.grad().asnumpy()]

    first, again, other = trained(7), trained(7), trained(8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other))
    assert not np.array_equal(trained(7)[0], layer(drawn(T, N, C)).asnumpy())
    assert close(layer(drawn(T, N, C)), plain(drawn(T, N, C)), 1e-6)


@every_kind
@hybrid_or_not
def test_dropout_is_between_layers_only(kind, hybrid):
    x = drawn(T, N, C)
    for layers, affected in ((1, False), (2, True)):
        layer = made(kind, layers, hybrid, dropout=0.5)
        begin = states_of(layer)
        _, calm = layer(x, begin)
        with autograd.record():
            _, trained = layer(x, begin)
        for a, b in zip(trained, calm):
            assert close(a[0], b[0], 1e-6)  # the first layer's input and its recurrence are left alone
            assert not affected or not close(a[1], b[1], 1e-3)


def test_dropout_gradients_pass_where_the_mask_passes():
    layer = DeepRNN(16, 2, "relu", dropout=0.5, input_size=16)
    layer.initialize(mx.init.Zero())
    for parameter in (layer.l0_i2h_weight, layer.l1_i2h_weight):
        parameter.set_data(nd.eye(16))
    x = nd.ones((T, N, 16))
    x.attach_grad()
    with autograd.record():
        y = layer(x)
    y.backward()
    assert np.allclose(x.grad.asnumpy(), y.asnumpy())  # 0 where dropped, 1 / (1 - p) where kept


# Sequence length


LENGTHS = [5, 2, 1, 0]


@every_kind
@hybrid_or_not
@both_layouts
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_each_sequence_is_computed_as_if_it_were_alone(kind, hybrid, layout, dtype):
    options = {"layout": layout, "bidirectional": True}
    layer, plain = made(kind, 3, hybrid, use_sequence_length=True, **options), made(kind, 3, **options)
    copy_parameters(plain, layer)
    n = len(LENGTHS)
    x, begin = drawn(*((T, n, C) if layout == "TNC" else (n, T, C))), states_of(plain, n)

    def cut(tensor, i, length):  # (length, 1, C) or (1, length, C)
        return tensor[:length, i : i + 1] if layout == "TNC" else tensor[i : i + 1, :length]

    outputs, last = layer(x, begin, nd.array(LENGTHS, dtype=dtype))
    assert close(
        layer(x, None, nd.array(LENGTHS, dtype=dtype)),
        layer(x, layer.begin_state(n), nd.array(LENGTHS, dtype=dtype))[0],
    )
    for i, length in enumerate(LENGTHS):
        assert not outputs.asnumpy().swapaxes(0, int(layout == "NTC"))[length:, i].any()  # zero past the end
        own = [state[:, i : i + 1] for state in begin]
        if length:
            alone, ends = plain(cut(x, i, length), own)
            assert close(cut(outputs, i, length), alone)
        else:
            ends = own
        assert close([state[:, i : i + 1] for state in last], ends)


@every_kind
@hybrid_or_not
def test_nothing_past_the_end_is_seen_or_learnt_from(kind, hybrid):
    layer = made(kind, 2, hybrid, use_sequence_length=True, bidirectional=True)
    lengths = nd.array(LENGTHS)
    clean = drawn(T, len(LENGTHS), C)
    past = np.arange(T)[:, None] >= np.array(LENGTHS)
    results = []
    for filler in (0, 1e3, float("nan")):
        x = nd.array(np.where(past[:, :, None], filler, clean.asnumpy()))
        x.attach_grad()
        with autograd.record():
            outputs, last = layer(x, states_of(layer, len(LENGTHS)), lengths)
            total = (outputs * drawn(*outputs.shape, seed=3)).sum() + sum((s * s).sum() for s in last)
        total.backward()
        assert not x.grad.asnumpy()[past].any() and x.grad.asnumpy()[~past].all()
        results.append([outputs, *last, x.grad, *(p.grad().copy() for p in layer.collect_params().values())])
    assert close(results[0], results[1], 1e-6) and close(results[0], results[2], 1e-6)


@hybrid_or_not
def test_full_lengths_change_nothing(hybrid):
    layer, plain = made("gru", hybrid=hybrid, use_sequence_length=True), made("gru")
    copy_parameters(plain, layer)
    assert close(layer(drawn(T, N, C), None, nd.array([T] * N)), plain(drawn(T, N, C)), 1e-6)


def test_sequence_length_in_a_foreign_hybridized_block():
    class Foreign(gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            self.layer = DeepLSTM(H, 2, bidirectional=True, input_size=C, use_sequence_length=True)

        def hybrid_forward(self, F, x, lengths):
            return self.layer(x, None, lengths)

    net = Foreign()
    net.initialize()
    randomize(net)
    x, lengths = drawn(T, N, C), nd.array([5, 0, 2])
    expected = net(x, lengths)
    net.hybridize(static_alloc=True)
    assert close(net(x, lengths), expected, 1e-6)
    with autograd.record():
        total = net(x, lengths).sum()
    total.backward()
    assert np.isfinite(net.layer.l0_i2h_weight.grad().asnumpy()).all()


# LSTM's own options


@hybrid_or_not
@both_layouts
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_clip_holds_the_cell_state(hybrid, layout, bidirectional):
    limits = {"state_clip_min": -0.05, "state_clip_max": 0.1}
    layer = made("lstm", 2, hybrid, layout=layout, bidirectional=bidirectional, **limits)
    x = drawn(*((T, N, C) if layout == "TNC" else (N, T, C)))
    _, (_, memory) = layer(x, layer.begin_state(N))
    assert memory.min().asscalar() == np.float32(-0.05) and memory.max().asscalar() == np.float32(0.1)
    wide = made("lstm", 2, hybrid, layout=layout, bidirectional=bidirectional, state_clip_min=-1e6, state_clip_max=1e6)
    free = made("lstm", 2, hybrid, layout=layout, bidirectional=bidirectional)
    assert close(wide(x), free(x), 1e-6) and not close(layer(x), free(x), 1e-3)


@hybrid_or_not
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_projection_equals_gluons_in_inference_and_trains(hybrid, bidirectional):
    ours, theirs = twins("lstm", projection_size=3, bidirectional=bidirectional)
    if hybrid:
        ours.hybridize(**BOTH)
    x, begin = drawn(T, N, C), states_of(ours)
    (a, a_last), (b, b_last) = (layer(x, begin) for layer in (ours, theirs))
    assert close([a, *a_last], [b, *b_last])
    trainer = gluon.Trainer(ours.collect_params(), "adam", {"learning_rate": 0.01})
    losses = []
    for _ in range(20):
        with autograd.record():
            loss = ((ours(x) - 0.1) ** 2).mean()
        loss.backward()
        assert all(p.grad().asnumpy().any() for p in ours.collect_params().values())
        trainer.step(1)
        losses.append(loss.asscalar())
    assert losses[-1] < 0.5 * losses[0]


# float64


def assert_float64_gradients_are_right(kind, layers, hybrid, attach, **options):
    """Against the built-in layer's own unfused cells."""
    layer = made(kind, layers, hybrid, dtype="float64", **options)
    unfused = PAIRS[kind][1](H, layers, input_size=C, dtype="float64", **options)._unfuse()
    unfused.initialize()
    unfused.cast("float64")
    copy_parameters(layer, unfused)
    x, begin = drawn(T, N, C, dtype="float64"), unfused.begin_state(batch_size=N, dtype="float64")
    if attach:
        x.attach_grad()
    results = []
    for net, run in (
        (layer, lambda: layer(x)),
        (unfused, lambda: unfused.unroll(T, x, begin, layout="TNC", merge_outputs=True)[0]),
    ):
        with autograd.record():
            total = (run() ** 2).sum()
        total.backward()
        results.append(
            [total, *([x.grad.copy()] if attach else []), *(p.grad() for _, p in sorted(short(net).items()))]
        )
    assert close(*results, 1e-10)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
@hybrid_or_not
def test_float64_gradients_are_right_for_three_layers_and_more(activation, bidirectional, hybrid):
    for layers in (3, 4):
        assert_float64_gradients_are_right(
            "rnn", layers, hybrid, True, activation=activation, bidirectional=bidirectional
        )


@every_kind
@hybrid_or_not
def test_float64_gradients_are_right_without_a_gradient_of_the_inputs(kind, hybrid):
    assert_float64_gradients_are_right(kind, 3, hybrid, False)
