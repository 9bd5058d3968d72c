"""One layer, one time step: the formulas, gluon's interface, and gluon's own containers around the cells."""

from __future__ import annotations

import inspect

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import rnn
from mxnet.gluon.contrib.rnn import LSTMPCell

from deeprnn.nn.cells import ElmanCell, GRUCell, LSTMCell
from deeprnn.testing import distance, randomize

N, C, H, P = 2, 3, 4, 2

PAIRS = {
    "tanh": (lambda **a: ElmanCell(H, **a), lambda **a: rnn.RNNCell(H, **a)),
    "relu": (lambda **a: ElmanCell(H, "relu", **a), lambda **a: rnn.RNNCell(H, "relu", **a)),
    "gru": (lambda **a: GRUCell(H, **a), lambda **a: rnn.GRUCell(H, **a)),
    "lstm": (lambda **a: LSTMCell(H, **a), lambda **a: rnn.LSTMCell(H, **a)),
    "lstm projected": (lambda **a: LSTMCell(H, projection_size=P, **a), lambda **a: LSTMPCell(H, P, **a)),
}
CLASSES = [(ElmanCell, rnn.RNNCell), (GRUCell, rnn.GRUCell), (LSTMCell, rnn.LSTMCell)]
every_kind = pytest.mark.parametrize("kind", PAIRS)


def drawn(*shape, seed=0, dtype="float32"):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def short(block):
    """Parameters by their names after the block's own prefix, in order."""
    return {name[len(block.prefix) :]: p for name, p in block.collect_params().items()}


def with_the_same_weights(ours, theirs):
    """Both initialised, with one set of values."""
    ours.initialize()
    theirs.initialize()
    randomize(ours)
    values = sorted(ours.collect_params().items()), sorted(theirs.collect_params().items())
    for (_, a), (_, b) in zip(*values):
        b.set_data(a.data())
    assert len({len(v) for v in values}) == 1
    return ours, theirs


def states_of(cell, batch_size=N):
    return [drawn(*info["shape"], seed=5 + i) for i, info in enumerate(cell.state_info(batch_size))]


def same(a, b, tolerance=1e-6):
    a, b = (x if isinstance(x, (list, tuple)) else [x] for x in (a, b))
    return len(a) == len(b) and max(distance(x, y) for x, y in zip(a, b)) <= tolerance


def numpy_step(kind, x, states, p):
    """The book's and the papers' formulas, one step, in float64."""

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    h = states[0]
    from_input, from_state = x @ p["i2h_weight"].T + p["i2h_bias"], h @ p["h2h_weight"].T + p["h2h_bias"]
    if kind in ("tanh", "relu"):
        h = np.tanh(from_input + from_state) if kind == "tanh" else np.maximum(from_input + from_state, 0)
        return h, [h]
    if kind == "gru":
        (xr, xz, xh), (hr, hz, hh) = np.split(from_input, 3, -1), np.split(from_state, 3, -1)
        reset, update = sigmoid(xr + hr), sigmoid(xz + hz)
        h = update * h + (1 - update) * np.tanh(xh + reset * hh)
        return h, [h]
    i, f, c, o = np.split(from_input + from_state, 4, -1)
    cell = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(c)
    h = sigmoid(o) * np.tanh(cell)
    h = h @ p["h2r_weight"].T if "h2r_weight" in p else h
    return h, [h, cell]


# The interface


@pytest.mark.parametrize(("ours", "theirs"), CLASSES)
def test_arguments_are_in_gluons_order_with_gluons_defaults(ours, theirs):
    chosen = (
        {"activation", "recurrent_activation"} if ours is not ElmanCell else set()
    )  # part of a gated cell's formula
    mine = inspect.signature(ours).parameters.values()
    wanted = [(p.name, p.default) for p in inspect.signature(theirs).parameters.values() if p.name not in chosen]
    assert [(p.name, p.default) for p in mine if p.kind is not p.KEYWORD_ONLY] == wanted


@every_kind
def test_parameters_have_gluons_names_order_shapes_and_initial_values(kind):
    ours, theirs = (make(input_size=C) for make in PAIRS[kind])
    mine, wanted = ([(n, p.shape, np.dtype(p.dtype)) for n, p in short(cell).items()] for cell in (ours, theirs))
    if (
        "projected" in kind
    ):  # where MXNet has two orders: h2r_weight comes last in its layer, in the middle in this cell
        wanted.append(wanted.pop(2))
    assert mine == wanted
    for parameter in (p for cell in (ours, theirs) for p in cell.collect_params().values()):
        mx.random.seed(len(parameter.shape) * 100 + parameter.shape[-1])  # the orders may differ
        parameter.initialize(default_init=mx.init.Normal(0.5))
    for name, parameter in short(ours).items():
        assert np.array_equal(parameter.data().asnumpy(), short(theirs)[name].data().asnumpy()), name


@every_kind
def test_state_info_and_begin_state(kind):
    ours, theirs = (make(prefix="cell_") for make in PAIRS[kind])
    assert [i["shape"] for i in ours.state_info(N)] == [i["shape"] for i in theirs.state_info(N)]
    assert [i["__layout__"] for i in ours.state_info(N)] == [i["__layout__"] for i in theirs.state_info(N)]
    for func in (mx.nd.zeros, mx.nd.ones):
        assert same(ours.begin_state(N, func=func), theirs.begin_state(N, func=func), 0)
    for a, b in zip(ours.begin_state(func=mx.sym.var), theirs.begin_state(func=mx.sym.var)):
        assert a.name == b.name
    assert all(s.dtype == np.float64 for s in PAIRS[kind][0](dtype="float64").begin_state(N))


def test_the_prefix_and_the_repr_say_what_a_cell_is():
    assert [type(make())._alias(make()) for make, _ in PAIRS.values()] == ["rnn", "rnn", "gru", "lstm", "lstm"]
    assert [make().kind for make, _ in PAIRS.values()] == ["rnn", "rnn", "gru", "lstm", "lstm"]
    assert repr(ElmanCell(H)) == "ElmanCell(None -> 4)"
    assert repr(GRUCell(H, input_size=C)) == "GRUCell(3 -> 4)"


# The numbers


@every_kind
@pytest.mark.parametrize("hybrid", [False, True])
def test_one_step_equals_gluons_and_the_formula(kind, hybrid):
    ours, theirs = with_the_same_weights(*(make(input_size=C) for make in PAIRS[kind]))
    if hybrid:
        ours.hybridize(static_alloc=True, static_shape=True)
    x, states = drawn(N, C), states_of(ours)
    output, last = ours(x, states)
    expected, expected_last = theirs(x, states)
    assert same([output, *last], [expected, *expected_last])
    weights = {name: p.data().asnumpy().astype("float64") for name, p in short(ours).items()}
    output64, last64 = numpy_step(
        kind, x.asnumpy().astype("float64"), [s.asnumpy().astype("float64") for s in states], weights
    )
    assert same([output, *last], [output64, *last64])


@every_kind
def test_a_step_is_the_input_part_and_then_the_recurrent_part(kind):
    cell = PAIRS[kind][0](input_size=C)
    cell.initialize()
    randomize(cell)
    params = {name: p.data() for name, p in cell._reg_params.items()}
    x, states = drawn(5, N, C), states_of(cell)
    projected = cell.project(mx.nd, x, params)  # all steps at once
    assert projected.shape == (5, N, len(cell.gates) * H)
    for t in range(5):
        output, last = cell(x[t], states)
        new = cell.step(mx.nd, projected[t], states, params)
        assert same([output, *last], [new[0], *new])
        assert len(new) == len(cell.state_info())


@every_kind
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("hybrid", [False, True])
def test_unroll_equals_gluons(kind, layout, hybrid):
    ours, theirs = with_the_same_weights(*(make(input_size=C) for make in PAIRS[kind]))
    if hybrid:
        ours.hybridize()
    x = drawn(5, 3, C) if layout == "TNC" else drawn(3, 5, C)
    for begin in (None, states_of(ours, 3)):
        for lengths in (None, mx.nd.array([5, 2, 1])):
            arguments = {"layout": layout, "merge_outputs": True, "valid_length": lengths, "begin_state": begin}
            (a, a_last), (b, b_last) = (cell.unroll(5, x, **arguments) for cell in (ours, theirs))
            assert same([a, *a_last], [b, *b_last])
    outputs, _ = ours.unroll(5, x, layout=layout, merge_outputs=False)
    assert len(outputs) == 5


CONTAINERS = {
    "SequentialRNNCell": lambda make: stacked(rnn.SequentialRNNCell(prefix="s_"), make),
    "HybridSequentialRNNCell": lambda make: stacked(rnn.HybridSequentialRNNCell(prefix="s_"), make),
    "BidirectionalCell": lambda make: rnn.BidirectionalCell(
        make(input_size=C, prefix="l_"), make(input_size=C, prefix="r_")
    ),
    "ResidualCell": lambda make: rnn.ResidualCell(make(input_size=H, prefix="b_")),
    "ZoneoutCell": lambda make: rnn.ZoneoutCell(make(input_size=C, prefix="b_"), 0.3, 0.3),
    "DropoutCell": lambda make: stacked(rnn.HybridSequentialRNNCell(prefix="s_"), make, rnn.DropoutCell(0.5)),
}


def stacked(container, make, *between):
    with container.name_scope():
        container.add(make(input_size=C, prefix="l0_"))
        for cell in between:
            container.add(cell)
        container.add(make(input_size=H, prefix="l1_"))
    return container


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", ["tanh", "relu", "gru", "lstm"])
@pytest.mark.parametrize("training", [False, True])
def test_gluons_containers_hold_these_cells_as_they_hold_gluons(container, kind, training):
    ours, theirs = with_the_same_weights(*(CONTAINERS[container](make) for make in PAIRS[kind]))
    if container != "ZoneoutCell" or not training:  # hybridized, its masks are drawn in another order
        ours.hybridize()
    x = drawn(5, N, H if container == "ResidualCell" else C)

    def unrolled(cell):
        mx.random.seed(11)  # the same masks for both
        with autograd.record(train_mode=training):
            outputs, last = cell.unroll(5, x, layout="TNC", merge_outputs=True)
            total = (outputs * drawn(*outputs.shape, seed=1)).sum()
        total.backward()
        return [outputs, *last, *(p.grad() for p in cell.collect_params().values())]

    assert same(unrolled(ours), unrolled(theirs), 1e-5)


def test_the_clip_holds_in_every_step_and_stops_the_gradient():
    cell = LSTMCell(H, input_size=C, state_clip_min=-0.05, state_clip_max=0.1)
    free = LSTMCell(H, input_size=C)
    with_the_same_weights(cell, free)
    x, states = drawn(N, C), states_of(cell)
    clipped, unclipped = cell(x, states)[1][1].asnumpy(), free(x, states)[1][1].asnumpy()
    assert unclipped.min() < -0.05 and unclipped.max() > 0.1
    assert np.array_equal(clipped, unclipped.clip(np.float32(-0.05), np.float32(0.1)))
    states[1].attach_grad()
    with autograd.record():
        total = cell(x, states)[1][1].sum()
    total.backward()
    outside = (unclipped < -0.05) | (unclipped > 0.1)
    assert (states[1].grad.asnumpy()[outside] == 0).all() and (states[1].grad.asnumpy()[~outside] != 0).all()


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_nan_in_the_cell_state_is_clipped_away_if_asked_for(hybrid):
    for stops in (False, True):
        cell = LSTMCell(H, input_size=C, state_clip_min=-1, state_clip_max=1, state_clip_nan=stops)
        cell.initialize()
        if hybrid:
            cell.hybridize()
        hidden, memory = cell.begin_state(N)
        memory[0, 1] = float("nan")
        output, (_, memory) = cell(drawn(N, C), [hidden, memory])
        assert np.isnan(memory.asnumpy()[0, 1]) != stops
        assert np.isfinite(output.asnumpy()).all() == stops
        assert not stops or memory.asnumpy()[0, 1] == -1
        assert np.isfinite(memory.asnumpy()[1]).all()


# Life of a block


@every_kind
@pytest.mark.parametrize("hybrid", [False, True])
def test_the_input_size_can_be_left_to_the_first_call(kind, hybrid):
    cell = PAIRS[kind][0]()
    cell.initialize()
    if hybrid:
        cell.hybridize()
    assert cell(drawn(N, C), cell.begin_state(N))[0].shape == (N, P if "projected" in kind else H)
    assert cell.i2h_weight.shape == (len(cell.gates) * H, C)


@every_kind
def test_cast_carries_parameters_and_states(kind):
    cell = PAIRS[kind][0](input_size=C)
    cell.initialize()
    before = cell(drawn(N, C), cell.begin_state(N))[0]
    cell.cast("float64")
    assert {np.dtype(p.dtype) for p in cell.collect_params().values()} == {np.dtype("float64")}
    wide = cell(drawn(N, C, dtype="float64"), cell.begin_state(N))[0]
    assert wide.dtype == np.float64 and same(before, wide)
    cell.cast("float32")
    assert same(cell(drawn(N, C), cell.begin_state(N))[0], before, 0)


@every_kind
def test_symbols_in_symbols_out(kind):
    cell = PAIRS[kind][0](input_size=C, prefix="cell_")
    output, states = cell(mx.sym.var("x"), cell.begin_state(func=mx.sym.var))
    graph = mx.sym.Group([output, *states])
    assert {n for n in graph.list_arguments() if n.startswith("cell_") and "begin" not in n} == set(
        cell.collect_params()
    )


def test_a_cell_trains_alone():
    cell = LSTMCell(H, input_size=C, projection_size=P)
    cell.initialize()
    cell.hybridize()
    trainer = gluon.Trainer(cell.collect_params(), "sgd", {"learning_rate": 0.1})
    before = {name: p.data().asnumpy() for name, p in short(cell).items()}
    with autograd.record():
        outputs, _ = cell.unroll(4, drawn(4, N, C), layout="TNC", merge_outputs=True)
        loss = (outputs**2).sum()
    loss.backward()
    trainer.step(1)
    assert all((p.data().asnumpy() != before[name]).any() for name, p in short(cell).items())
