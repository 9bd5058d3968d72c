"""The native operator's numbers: those of layers written elsewhere, at any size, for any option, for any number."""

from __future__ import annotations

import dataclasses
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mxnet import autograd, gluon
from mxnet.gluon import rnn
from oracles import Config, NumpyOracle, TorchOracle, Unfused, deep, differences, fused

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, testing
from deeprnn.nn import native

pytestmark = pytest.mark.usefixtures("needs_native")

KINDS: dict[str, dict[str, Any]] = {
    "tanh": {"cell": "rnn", "activation": "tanh"},
    "relu": {"cell": "rnn", "activation": "relu"},
    "gru": {"cell": "gru"},
    "lstm": {"cell": "lstm"},
    "projected": {"cell": "lstm", "projection": 3},
    "clipped": {"cell": "lstm", "clip": (-0.25, 0.3)},
    "both": {"cell": "lstm", "projection": 3, "clip": (-0.25, 0.3)},
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_direction = pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])


def hold(theirs: gluon.Block, lengths: Any = None, scale: float = 0.3, **options: Any) -> None:
    """Outputs, last states, and the gradients of inputs, states and all parameters are theirs."""
    config = theirs.config
    testing.randomize(theirs, scale=scale)
    ours = deep(config, **options)
    testing.copy_parameters(theirs, ours)
    assert ours.length_free(native.Trace())  # so that it is the operator that runs
    inputs, states, drawn = config.draw()
    arguments = [mx.nd.array(a, dtype="int32") for a in (drawn if lengths is None else [np.array(lengths)])]
    found, expected = (testing.run(layer, inputs, states, *arguments) for layer in (ours, theirs))
    assert not differences(found, expected, config.dtype)


def built_in(config: Config) -> gluon.Block:
    layer = fused(config)
    layer.config = config
    return layer


# Layers written elsewhere


@each_kind
@each_direction
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@each_dtype
def test_the_built_in_layers_and_cells(kind: str, bidirectional: bool, layout: str, dtype: str) -> None:
    config = Config(**KINDS[kind], bidirectional=bidirectional, layout=layout, dtype=dtype, layers=3, length=4)
    if config.clip:
        return hold(NumpyOracle(dataclasses.replace(config, hidden_size=3, input_size=2, layers=2)))
    hold(built_in(config) if dtype == "float32" and not config.projection else Unfused(config))
    return None


@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm"])
def test_products_that_are_summed_in_blocks(kind: str) -> None:
    """More inputs and more units than a product takes at a time, forward and backward."""
    hold(built_in(Config(**KINDS[kind], input_size=400, hidden_size=390, layers=1, length=4, batch_size=5)), scale=0.05)


@each_kind
@each_direction
@pytest.mark.parametrize("lengths", [[0, 1, 4, 3], [4, 4, 4, 4], [0, 0, 0, 0]], ids=str)
def test_sequence_lengths(kind: str, bidirectional: bool, lengths: list[int]) -> None:
    config = Config(**KINDS[kind], bidirectional=bidirectional, ragged=True, length=4, batch_size=4, hidden_size=3)
    hold(NumpyOracle(config), lengths)


@each_kind
def test_sequence_lengths_in_single_precision(kind: str) -> None:
    config = Config(**KINDS[kind], bidirectional=True, ragged=True, length=4, batch_size=4, hidden_size=3)
    hold(NumpyOracle(dataclasses.replace(config, dtype="float32")), [0, 1, 4, 3])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_type_of_the_lengths_does_not_matter(dtype: str, bidirectional: bool) -> None:
    layer = deep(Config(cell="gru", ragged=True, bidirectional=bidirectional))
    testing.randomize(layer)
    x = mx.nd.random.normal(shape=(5, 4, 3), dtype="float64")
    results = []
    for kind in ("float32", dtype):
        x.attach_grad()
        with autograd.record():
            y = layer(x, None, mx.nd.array([5, 0, 2, 1], dtype=kind))
            total = (y * y).sum()
        total.backward()
        results.append([y.asnumpy(), x.grad.asnumpy(), layer.l0_h2h_weight.grad().asnumpy()])
    assert all(np.array_equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize("natively", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("hybrid", [True, False])
def test_lengths_beyond_the_sequence_are_all_of_it_and_below_zero_none(
    hybrid: bool, dtype: str, natively: bool
) -> None:
    layer = deep(Config(ragged=True))
    layer.hybridize(hybrid)
    x = mx.nd.random.normal(shape=(3, 2, 3), dtype="float64")
    with native.switched(natively):
        for given_, meant in (([7, -2], [3, 0]), ([3.0, 2.9], [3, 2]), ([2, -4000], [2, 0])):
            a, b = (layer(x, None, mx.nd.array(lengths, dtype=dtype)).asnumpy() for lengths in (given_, meant))
            assert np.array_equal(a, b) and np.isfinite(a).all()


@pytest.mark.parametrize("kind", ["tanh", "relu", "gru", "lstm", "projected"])
@each_direction
@pytest.mark.parametrize("ragged", [False, True])
def test_pytorch(kind: str, bidirectional: bool, ragged: bool) -> None:
    pytest.importorskip("torch", reason="pip install .[torch]")
    config = Config(**KINDS[kind], bidirectional=bidirectional, ragged=ragged, hidden_size=17, input_size=9, length=6)
    hold(TorchOracle(dataclasses.replace(config, batch_size=5, layers=3)))


def taken_apart(layer: gluon.Block, kind: str) -> list[gluon.Block]:
    """Built-in layers of one with the parameters of a deep one."""
    options = {"activation": kind} if kind in ("tanh", "relu") else {}
    built_in_layer = {"gru": rnn.GRU, "lstm": rnn.LSTM}.get(kind, rnn.RNN)
    layers = []
    for i in range(layer.num_layers):
        one = built_in_layer(layer.hidden_size, 1, input_size=layer.hidden_size, **options)
        one.initialize()
        for name, parameter in one.collect_params().items():
            own = getattr(layer, f"l{i}_{name[len(one.prefix) + 3 :]}")
            parameter._data, parameter._grad = own._data, own._grad
        layers.append(one)
    return layers


@pytest.mark.parametrize("kind", ["tanh", "relu", "gru", "lstm"])
@pytest.mark.parametrize(("residual", "dropout"), [(True, 0), (False, 0.4), (True, 0.4)])
def test_residual_and_dropout(kind: str, residual: bool, dropout: float) -> None:
    """What is between the layers, with the same masks for the same seed."""
    make: Any = {"gru": DeepGRU, "lstm": DeepLSTM}.get(kind, lambda *a, **k: DeepRNN(*a, activation=kind, **k))
    layer = make(6, 3, input_size=6, residual=residual, dropout=dropout)
    layer.initialize()
    testing.randomize(layer)
    apart = taken_apart(layer, kind)

    def theirs(x: Any, states: list[Any]) -> Any:
        last = []
        for i, one in enumerate(apart):
            below = x
            if i and dropout:
                x = mx.nd.Dropout(x, p=dropout)
            x, end = one(x, [state[i : i + 1] for state in states])
            x = x + below if i and residual else x
            last.append(end)
        return x, [mx.nd.concat(*state, dim=0) for state in zip(*last)]

    x = mx.nd.random.normal(shape=(5, 3, 6))
    begin = [mx.nd.random.normal(shape=info["shape"]) for info in layer.state_info(3)]
    results = []
    for call in (layer, theirs):
        x.attach_grad()
        mx.random.seed(3)
        with autograd.record():
            y, last = call(x, begin)
            total = (y * y).sum() + sum((s * s * s).sum() for s in last)
        total.backward()
        results.append([y, *last, x.grad.copy(), *(p.grad().copy() for p in layer.collect_params().values())])
    assert max(testing.distance(a, b) for a, b in zip(*results)) <= 1e-5


# Sizes that are no multiple of anything


SIZES = {
    "batch_size": st.integers(1, 17),
    "input_size": st.integers(1, 40),
    "hidden_size": st.sampled_from([1, 2, 7, 15, 17, 31, 33, 65]),
    "bidirectional": st.booleans(),
}


@settings(max_examples=60)
@given(kind=st.sampled_from(["tanh", "relu", "gru", "lstm"]), single=st.booleans(), length=st.integers(1, 3), **SIZES)
def test_any_size(kind: str, single: bool, **sizes: Any) -> None:
    dtype = "float32" if single or kind == "relu" else "float64"  # the built-in relu is float32 in any case
    config = Config(**KINDS[kind], **sizes, layers=1, dtype=dtype)
    hold(built_in(config), scale=0.5 / config.hidden_size**0.5)


@settings(max_examples=8)
@given(kind=st.sampled_from(["tanh", "gru", "lstm"]), single=st.booleans(), length=st.sampled_from([40, 300]), **SIZES)
def test_any_size_of_long_sequences(kind: str, single: bool, **sizes: Any) -> None:
    config = Config(**KINDS[kind], **sizes, layers=1, dtype="float32" if single else "float64")
    hold(built_in(config), scale=0.5 / config.hidden_size**0.5)


@settings(max_examples=25)
@given(kind=st.sampled_from(list(KINDS)[:5]), length=st.integers(1, 3), projection=st.integers(1, 35), **SIZES)
def test_any_size_of_ragged_batches_and_projections(kind: str, projection: int, **sizes: Any) -> None:
    config = Config(**KINDS[kind], **sizes, layers=1, ragged=True)
    if config.projection:
        config = dataclasses.replace(config, projection=projection)
    hold(Unfused(config), scale=0.5 / config.hidden_size**0.5)


# Numbers that are none


def in_all(layer: gluon.Block, arrays: list[Any], natively: bool) -> list[np.ndarray]:
    """Outputs, states and gradients, by the operator or by MXNet's own."""
    x, *states = (mx.nd.array(a, dtype=a.dtype) for a in arrays)
    for tensor in (x, *states):
        tensor.attach_grad()
    with native.switched(natively), autograd.record():
        y, last = layer(x, states)
        total = y.sum() + sum(s.sum() for s in last)
    total.backward()
    return [t.asnumpy() for t in (y, *last, x.grad, *(s.grad for s in states))]


def same_numbers(found: np.ndarray, expected: np.ndarray) -> bool:
    """Where the one is no number or infinite, so is the other; elsewhere they are close."""
    finite, infinite = np.isfinite(expected), np.isinf(expected)
    return bool(
        np.array_equal(np.isnan(found), np.isnan(expected))
        and np.array_equal(found[infinite], expected[infinite])
        and testing.distance(found[finite], expected[finite]) <= 1e-5
    )


def relu_layer(layer: gluon.Block, x: np.ndarray, state: np.ndarray) -> list[np.ndarray]:
    """The formula. MXNet's operators make zero of what is no number, or not, by its shape."""
    p = {name[len(layer.prefix) + 3 :]: p.data().asnumpy() for name, p in layer.collect_params().items()}
    h, outputs = state[0], []
    with np.errstate(invalid="ignore"):
        for step in x:
            total = step @ p["i2h_weight"].T + p["i2h_bias"] + h @ p["h2h_weight"].T + p["h2h_bias"]
            h = np.maximum(total, 0)
            outputs.append(h)
    return [np.stack(outputs), h[None]]


@pytest.mark.parametrize(("kind", "clip_nan"), [*((kind, False) for kind in KINDS), ("clipped", True), ("both", True)])
@each_dtype
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
def test_what_is_no_number_goes_where_it_goes_in_the_formula(
    kind: str, dtype: str, number: float, clip_nan: bool
) -> None:
    config = Config(**KINDS[kind], dtype=dtype, layers=1, batch_size=3, length=4)
    layer = deep(config, **({"state_clip_nan": True} if clip_nan else {}))
    testing.randomize(layer)
    inputs, states, _ = config.draw()
    for which in range(1 + len(states)):
        arrays = [a.copy() for a in (inputs, *states)]
        arrays[which][0 if which else 1, 1, 0] = number
        found, expected = (in_all(layer, arrays, natively) for natively in (True, False))
        values = 1 + len(states)
        if kind == "relu":
            expected[:values] = relu_layer(layer, *arrays)
        for i, (a, b) in enumerate(zip(found, expected)):
            assert np.isfinite(a[:, [0, 2]]).all() and same_numbers(a[:, [0, 2]], b[:, [0, 2]]), (which, i)
            if i < values or kind != "relu":
                assert same_numbers(a, b), (which, i)


@pytest.mark.parametrize(("dtype", "tiny"), [("float32", 1e-41), ("float64", 1e-310)])
def test_denormal_numbers_are_numbers(dtype: str, tiny: float) -> None:
    """With weights of one a relu layer adds up what it reads."""
    layer = DeepRNN(3, input_size=3, dtype=dtype, activation="relu")
    layer.initialize(mx.init.Zero())
    for weight in (layer.l0_i2h_weight, layer.l0_h2h_weight):
        weight.set_data(mx.nd.eye(3, dtype=dtype))
    x = mx.nd.array(np.full((3, 2, 3), tiny), dtype=dtype)
    begin = mx.nd.array(np.full((1, 2, 3), 4 * tiny), dtype=dtype)
    y, _ = layer(x, begin)
    expected = begin.asnumpy() + np.cumsum(x.asnumpy(), axis=0)
    assert expected.min() > 0 and expected.max() < np.finfo(dtype).tiny
    assert np.array_equal(y.asnumpy(), expected)
    assert np.array([tiny], dtype)[0] / 2 > 0  # nor does the library change the mode of this thread


@each_kind
@each_direction
def test_nothing_past_the_end_is_seen_or_learnt(kind: str, bidirectional: bool) -> None:
    config = Config(**KINDS[kind], ragged=True, bidirectional=bidirectional, batch_size=4, length=4)
    layer = deep(config)
    testing.randomize(layer)
    inputs, states, _ = config.draw()
    ends = np.array([0, 1, 4, 3])
    past = np.arange(4)[:, None] >= ends
    results = []
    for filler in (0.0, np.nan, np.inf):
        x = mx.nd.array(np.where(past[:, :, None], filler, inputs), dtype="float64")
        begin = [mx.nd.array(s, dtype="float64") for s in states]
        for tensor in (x, *begin):
            tensor.attach_grad()
        with autograd.record():
            y, last = layer(x, begin, mx.nd.array(ends))
            # What arrives at outputs that do not count is no number either.
            head = np.where(past[:, :, None], filler, 1.0) * np.ones(y.shape)
        autograd.backward([y, *last], [mx.nd.array(head, dtype="float64"), *(mx.nd.ones_like(s) for s in last)])
        assert not x.grad.asnumpy()[past].any()
        parameters = [p.grad() for p in layer.collect_params().values()]
        results.append([t.asnumpy() for t in (y, *last, x.grad, *(s.grad for s in begin), *parameters)])
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other))


# Memory that is laid out otherwise


def test_inputs_that_are_not_contiguous() -> None:
    layer = deep(Config(cell="lstm", dtype="float32", layers=2))
    testing.randomize(layer)
    big = mx.nd.random.normal(shape=(9, 7, 5))
    parts = [big[2:6, 1:4, 1:4], big[3:7].slice_axis(axis=2, begin=0, end=3), big[1:4].transpose((0, 2, 1))[:, :, 2:5]]
    for hybridized in (False, True):
        if hybridized:
            layer.hybridize()
        for x in parts:
            assert np.array_equal(layer(x).asnumpy(), layer(mx.nd.array(x.asnumpy())).asnumpy())


class AfterConvolution(gluon.HybridBlock):
    """A layer that reads what oneDNN left in a layout of its own: ``(N, T, channels)`` in blocks."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        with self.name_scope():
            self.convolution = gluon.nn.Conv1D(32, 3, in_channels=16, padding=1)
            self.dense = gluon.nn.Dense(6, flatten=False, in_units=20)
            make = DeepLSTM if kind == "lstm" else DeepRNN
            self.first = make(5, 2, input_size=20)
            self.second = make(5, 2, layout="NTC", input_size=6)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.convolution(x)  # (N, 32, 20)
        return self.first(x), self.second(self.dense(x))


@pytest.mark.parametrize("kind", ["relu", "lstm"])
@pytest.mark.parametrize("flags", [None, {}, {"static_alloc": True, "static_shape": True}], ids=str)
def test_inputs_in_the_layout_of_onednn(kind: str, flags: Any) -> None:
    net = AfterConvolution(kind)
    net.initialize()
    testing.randomize(net)
    x = mx.nd.random.normal(shape=(4, 16, 20))
    results = []
    for natively in (False, True):
        if natively and flags is not None:
            net.hybridize(**flags)
        x.attach_grad()
        for _ in range(2):
            with native.switched(natively), autograd.record():
                outputs = net(x)
                total = sum((y * y).sum() for y in outputs)
            total.backward()
        results.append([*outputs, x.grad.copy(), *(p.grad().copy() for p in net.collect_params().values())])
    assert max(testing.distance(a, b) for a, b in zip(*results)) <= 1e-5


# Threads and instruction sets


def everything(layer: gluon.Block, config: Config) -> list[np.ndarray]:
    inputs, states, lengths = config.draw()
    run = testing.run(layer, inputs, states, *(mx.nd.array(a) for a in lengths))
    return list(run.tensors.values())


@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm", "projected"])
@each_dtype
def test_the_number_of_threads_changes_no_bit(kind: str, dtype: str) -> None:
    # Large enough for three threads; a small call has one, whatever is allowed.
    config = Config(**KINDS[kind], dtype=dtype, hidden_size=150, input_size=65, batch_size=35, length=60, ragged=True)
    layer = deep(dataclasses.replace(config, layers=1))
    config = dataclasses.replace(config, layers=1)
    testing.randomize(layer)
    try:
        results = []
        for count in (1, 2, 3, 1, 3):
            native.set_threads(count)
            results.append(everything(layer, config))
    finally:
        native.set_threads(0)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other))


@pytest.mark.parametrize("kind", ["tanh", "relu", "gru", "lstm"])
@each_dtype
def test_one_instruction_set_is_as_good_as_another(kind: str, dtype: str) -> None:
    config = Config(**KINDS[kind], dtype=dtype, hidden_size=33, input_size=17, batch_size=5, length=4)
    layer = deep(config)
    testing.randomize(layer)
    expected = everything(layer, config)
    best = native.status().instruction_set
    try:
        for name in ("avx2", "avx512"):
            try:
                native.set_instruction_set(name)
            except OSError:
                assert name != best
                continue
            assert native.status().instruction_set == name
            found = everything(layer, config)
            tolerance = 0 if name == best else testing.TOLERANCE[dtype]
            assert max(testing.distance(a, b) for a, b in zip(found, expected)) <= tolerance
    finally:
        native.set_instruction_set("")
    assert native.status().instruction_set == best
