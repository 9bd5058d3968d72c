"""Cells carried through time: all forms of the loop are one function, and one rule says what is carried."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from deeprnn.nn import native
from deeprnn.nn.cells import ElmanCell, GRUCell, LSTMCell
from deeprnn.nn.operators import split
from deeprnn.nn.unroll import carry, unroll
from deeprnn.testing import distance, randomize

N, C, H = 3, 2, 4
FORMS = ("native", "static", "dynamic")
each_form = pytest.mark.parametrize("form", FORMS)
CELLS = {
    "tanh": lambda: ElmanCell(H, input_size=C),
    "relu": lambda: ElmanCell(H, "relu", input_size=C),
    "gru": lambda: GRUCell(H, input_size=C),
    "lstm": lambda: LSTMCell(H, input_size=C),
    "lstm projected": lambda: LSTMCell(H, input_size=C, projection_size=2, state_clip_min=-0.5, state_clip_max=0.5),
}


def drawn(*shape, seed=0):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape), dtype="float32")


def made(kind):
    cell = CELLS[kind]()
    cell.initialize()
    randomize(cell)
    return cell, {name: p.data() for name, p in cell._reg_params.items()}


def begin(cell):
    return [drawn(*info["shape"], seed=3 + i) for i, info in enumerate(cell.state_info(N))]


def unrolled(form, cell, params, x, states, F=mx.nd, length=None, **options):
    """`unroll` in the form that is asked for."""
    length = None if form == "dynamic" else length or len(x)
    with native.switched(form == "native"):
        return unroll(F, cell, params, x, states, length=length, **options)


def run(form, cell, params, x, states, **options):
    """Outputs, states, and the gradients of inputs, states and parameters."""
    for tensor in (x, *states):
        tensor.attach_grad()
    with autograd.record():
        outputs, last = unrolled(form, cell, params, x, states, **options)
        total = sum((t * drawn(*t.shape, seed=9)).sum() for t in (outputs, *last))
    total.backward()
    gradients = [t.grad for t in (x, *states)] + [p.grad() for p in cell.collect_params().values()]
    return [outputs, *last, *(gradient.copy() for gradient in gradients)]


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_native_static_and_dynamic_are_one_function(kind, length, reverse, masked):
    cell, params = made(kind)
    x, states = drawn(length, N, C), begin(cell)
    options = {"reverse": reverse, "sequence_length": mx.nd.array([length, 1, 0]) if masked else None}
    first, *others = (run(form, cell, params, x, states, **options) for form in FORMS)
    for other in others:
        assert len(first) == len(other) and max(distance(a, b) for a, b in zip(first, other)) <= 1e-6


@pytest.mark.parametrize("kind", CELLS)
@each_form
@pytest.mark.parametrize("reverse", [False, True])
def test_time_is_a_loop_over_the_cell(kind, form, reverse):
    cell, params = made(kind)
    x, states = drawn(5, N, C), begin(cell)
    outputs, last = unrolled(form, cell, params, x, states, reverse=reverse)
    for t in reversed(range(5)) if reverse else range(5):
        output, states = cell(x[t], states)
        assert distance(outputs[t], output) <= 1e-6  # outputs stay at the steps that they belong to
    assert max(distance(a, b) for a, b in zip(last, states)) <= 1e-6


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
@each_form
def test_a_sequence_that_has_ended_keeps_its_states(kind, reverse, form):
    cell, params = made(kind)
    x, states = drawn(5, N, C), begin(cell)
    lengths = [5, 2, 0]
    outputs, last = unrolled(form, cell, params, x, states, reverse=reverse, sequence_length=mx.nd.array(lengths))
    for n, own in enumerate(lengths):
        assert not outputs[own:, n].asnumpy().any() if own < 5 else True
        if own == 0:
            expected = [s[n] for s in states]
        else:
            alone, ends = unrolled(form, cell, params, x[:own], states, reverse=reverse)
            assert distance(outputs[:own, n], alone[:, n]) <= 1e-6
            expected = [s[n] for s in ends]
        assert max(distance(a[n], b) for a, b in zip(last, expected)) <= 1e-6


@each_form
def test_the_forms_trace_symbols_too(form):
    cell, params = made("gru")
    x, states = drawn(4, N, C), begin(cell)
    expected = unrolled("static", cell, params, x, states)
    names = {name: mx.sym.var(name) for name in params}
    variables = {"x": x, "h": states[0], **params}
    outputs, last = unrolled(form, cell, names, mx.sym.var("x"), [mx.sym.var("h")], mx.sym, length=4)
    graph = mx.sym.Group([outputs, *last])
    operators = {node["op"] for node in json.loads(graph.tojson())["nodes"]}
    assert ("_foreach" in operators) == (form == "dynamic") and (native.OPERATOR in operators) == (form == "native")
    got = graph.bind(mx.cpu(), {name: variables[name] for name in graph.list_arguments()}).forward()
    assert distance(got[0], expected[0]) <= 1e-6 and distance(got[1], expected[1][0]) <= 1e-6


def test_split_is_always_a_list():
    assert [part.shape for part in split(mx.nd, drawn(1, N, C), 1)] == [(N, C)]
    assert [part.shape for part in split(mx.nd, drawn(3, N, C), 3)] == [(N, C)] * 3
    assert isinstance(split(mx.sym, mx.sym.var("x"), 1), list)


def test_carry_is_the_new_state_where_alive_else_the_old():
    old, new = [nd.zeros((2, 2))], [nd.ones((2, 2))]
    output, states = carry(nd, new, old, 0.0, None)
    assert output is new[0] and states is new
    output, states = carry(nd, new, old, 0.0, nd.array([1, 0]))
    assert output is new[0] and states[0].asnumpy().tolist() == [[1, 1], [0, 0]]
    poisoned = [nd.array([[float("nan")] * 2] * 2)]
    assert carry(nd, poisoned, old, 0.0, nd.array([0, 0]))[1][0].asnumpy().tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("kind", CELLS)
def test_the_input_product_is_outside_the_loop(kind):
    cell, params = made(kind)
    names = {name: mx.sym.var(name) for name in params}
    states = [mx.sym.var(f"s{i}") for i in range(len(cell.state_info()))]
    outputs, _ = unrolled("static", cell, names, mx.sym.var("x"), states, mx.sym, length=5)
    nodes = [node for node in json.loads(outputs.tojson())["nodes"] if node["op"] == "FullyConnected"]
    assert len(nodes) == 1 + 5 * (2 if "projected" in kind else 1)


@each_form
@pytest.mark.parametrize("kind", CELLS)
def test_gradients_that_are_added_to_what_is_there(kind, form):
    """Outside of any block, too, which would know of it."""
    cell, params = made(kind)
    x, states = drawn(5, N, C), begin(cell)
    run(form, cell, params, x, states)
    expected = [t.grad.asnumpy() for t in (x, *states)] + [p.grad().asnumpy() for p in cell.collect_params().values()]
    for tensor in (x, *states):
        tensor.attach_grad("add")
    cell.collect_params().setattr("grad_req", "add")
    cell.collect_params().zero_grad()
    params = {name: p.data() for name, p in cell._reg_params.items()}
    for _ in range(2):
        with autograd.record():
            outputs, last = unrolled(form, cell, params, x, states)
            total = sum((t * drawn(*t.shape, seed=9)).sum() for t in (outputs, *last))
        total.backward()
    found = [t.grad for t in (x, *states)] + [p.grad() for p in cell.collect_params().values()]
    for one, twice in zip(expected, found):
        assert distance(twice, 2 * one) < 1e-5
