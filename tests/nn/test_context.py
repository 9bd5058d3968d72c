"""What a graph is traced for: all forms are equal, and none for a GPU has an operator that breaks a graph's capture."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from deeprnn import DeepGRU, DeepLSTM, DeepRNN
from deeprnn.nn import graphs, native
from deeprnn.nn.context import Trace, trace, traced_here, tracing
from deeprnn.testing import copy_parameters, distance, randomize

T, C, H, L = 5, 3, 4, 2
KINDS = {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM}
ORACLES = {"rnn": gluon.rnn.RNN, "gru": gluon.rnn.GRU, "lstm": gluon.rnn.LSTM}
every_kind = pytest.mark.parametrize("kind", KINDS)

BREAK_A_CAPTURE = {"RNN", "_foreach", "Dropout", "SequenceMask", "SwapAxis", "SliceChannel", "Custom", native.OPERATOR}
"""What cannot stand in a CUDA graph in MXNet 1.9.1."""

NO_KERNEL = {"Reshape", "expand_dims"}
"""Operators that only rename a shape."""

KERNELS = {"rnn": 4, "gru": 18, "lstm": 16}
"""Kernels that one more step costs a layer on a GPU in inference: the slice of the projected inputs, the product, the
slices of the gates, and what is left is elementwise, which MXNet's pointwise fusion joins."""


def graph_of(layer, current):
    """Outputs and last states as symbols, of the data, the states and the parameters."""
    with tracing(current):
        outputs, states = layer(mx.sym.var("data"), layer.begin_state(0, func=lambda name, **_: mx.sym.var(name)))
    return mx.sym.Group([outputs, *states])


def traced(kind, length, current):
    """The operators of a stack's static graph."""
    graph = graph_of(KINDS[kind](H, L, input_size=C, unroll_length=length), current)
    return [node["op"] for node in json.loads(graph.tojson())["nodes"] if node["op"] != "null"]


@every_kind
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("length", [1, T])
def test_no_graph_for_a_gpu_holds_what_breaks_a_capture(kind, training, length):
    assert not set(traced(kind, length, Trace("gpu", training))) & BREAK_A_CAPTURE
    assert "SliceChannel" in traced(kind, T, Trace("cpu", training, portable=True))  # so the search does find them


@every_kind
def test_no_addition_in_a_step_for_a_gpu_broadcasts(kind):
    """MXNet's pointwise fusion takes elementwise addition and leaves the broadcasting one."""
    short, long = (traced(kind, length, Trace("gpu", training=False)).count("broadcast_add") for length in (T, T + 1))
    assert short == long


@every_kind
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_the_kernels_of_a_step_are_counted(kind, training):
    short, long = (
        sum(op not in NO_KERNEL for op in traced(kind, length, Trace("gpu", training))) for length in (T, T + 1)
    )
    assert long - short == KERNELS[kind] * L


@every_kind
@pytest.mark.parametrize("current", [Trace(), Trace(training=False), Trace(portable=True), Trace("gpu")], ids=str)
def test_the_fused_operator_and_the_loop_are_in_no_static_graph(implementation, kind, current):
    found = set(traced(kind, T, current))
    assert not found & {"RNN", "_foreach"}
    here = implementation == "native" and current.device == "cpu" and not current.portable
    assert (native.OPERATOR in found) == here


@every_kind
@pytest.mark.parametrize(
    "current",
    [Trace(), Trace(adds_to_parameters=False, adds_to_inputs=False), Trace(portable=True), Trace("gpu")],
    ids=str,
)
@pytest.mark.parametrize("length", [1, T])
def test_every_form_gives_the_same_numbers_and_gradients(kind, current, length):
    """The form for a GPU is plain operators and so runs here as well."""
    layer = KINDS[kind](H, L, input_size=C, unroll_length=length)
    layer.initialize()
    randomize(layer)
    inputs = mx.nd.array(np.random.default_rng(1).normal(size=(length, 2, C)))
    found = []
    states = layer.begin_state(2, func=mx.nd.ones)
    for form in (None, current):
        inputs.attach_grad()
        with autograd.record(), native.switched(form is not None):
            if form is None:
                outputs, last = layer(inputs, states)
            else:
                graph = graph_of(layer, form)
                values = {"data": inputs, **{f"{layer.prefix}h0_{i}": state for i, state in enumerate(states)}}
                values.update((name, p.data()) for name, p in layer.collect_params().items())
                outputs, *last = mx.nd.CachedOp(graph)(*(values[name] for name in graph.list_inputs()))
            total = sum((y * y).sum() for y in (outputs, *last))
        total.backward()
        gradients = [inputs.grad, *(p.grad() for p in layer.collect_params().values())]
        found.append([outputs, *last, *(gradient.copy() for gradient in gradients)])
    assert max(distance(a, b) for a, b in zip(*found)) <= 1e-6


@every_kind
@pytest.mark.parametrize("batch_size", [1, 15, 16, 48])
@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_any_number_of_sequences_has_the_gradients_of_the_built_in_layer(implementation, kind, batch_size, grad_req):
    options = {"activation": "tanh"} if kind == "rnn" else {}
    ours = KINDS[kind](H, L, input_size=C, **options)
    theirs = ORACLES[kind](H, L, input_size=C, **options)
    for layer in (ours, theirs):
        layer.initialize()
    randomize(ours)
    copy_parameters(ours, theirs)
    ours.hybridize(static_alloc=True, static_shape=True)
    inputs = mx.nd.array(np.random.default_rng(1).normal(size=(7, batch_size, C)))
    found = []
    for layer in (ours, theirs):
        layer.collect_params().setattr("grad_req", grad_req)
        for _ in range(2):  # the second pass runs in the memory of the first
            with autograd.record():
                outputs = layer(inputs)
                total = (outputs * outputs).sum()
            total.backward()
        found.append([outputs, *(p.grad() for p in layer.collect_params().values())])
    assert max(distance(a, b) for a, b in zip(*found)) <= 1e-5


def test_a_call_says_what_it_is_for(monkeypatch, implementation):
    seen = []
    hybrid_forward = DeepRNN.hybrid_forward

    def noted(self, F, *args, **params):
        seen.append(trace())
        return hybrid_forward(self, F, *args, **params)

    monkeypatch.setattr(DeepRNN, "hybrid_forward", noted)
    layer = DeepRNN(H, input_size=C, layout="NTC")
    layer.initialize()
    layer.hybridize()
    for _ in range(2):
        layer(mx.nd.ones((2, T, C)))
        with autograd.record():
            layer(mx.nd.ones((2, T, C)))
    length = None if implementation == "native" else T
    expected = [
        Trace(training=training, adds_to_parameters=False, adds_to_inputs=False, length=length)
        for training in (False, True)
    ]
    assert seen == expected
    x = mx.nd.ones((2, T, C))
    x.attach_grad("add")
    with autograd.record():
        layer(x)
    assert seen == [*expected, Trace(adds_to_parameters=False, length=length)]
    assert trace() == Trace() and not traced_here()  # what is set while tracing ends with it


def test_another_device_is_refused():
    with pytest.raises(ValueError, match="device must be one of"):
        Trace("tpu")


PROGRAM = """
import random
import mxnet as mx
from mxnet import autograd
from deeprnn import DeepRNN

made = []

class Noted(DeepRNN):
    def hybrid_forward(self, F, *args, **params):
        if F is mx.sym:
            made.append(self)
        return super().hybrid_forward(F, *args, **params)

layer = Noted(8, input_size=8)
layer.initialize()
layer.hybridize(static_alloc=True, static_shape=True)

def resident():
    mx.nd.waitall()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def go(length):
    with autograd.record():
        total = layer(mx.nd.ones((length, 2, 8))).sum()
    total.backward()
    mx.nd.waitall()

order = list(range(1, 201))
sizes = []
for turn in range(3):
    random.Random(turn).shuffle(order)
    for length in order:
        go(length)
        go(length)
    sizes.append(resident())
print(len(made), *sizes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_many_lengths_leak_nothing_and_retrace_no_graph_that_is_kept(implementation):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env={**os.environ, native.SWITCH: "1" if implementation == "native" else "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    made, _, second, third = map(int, done.stdout.split())
    if implementation == "native":
        assert made == 1
    else:
        assert 600 - 2 * graphs.GRAPHS_KEPT <= made <= 600  # the others were still kept from the turn before
    assert third - second <= 0.05 * second  # 200 graphs came and went in between
