"""Graphs for a target: the forms are equal, and none for a GPU holds an operator that breaks the capture of a graph."""

from __future__ import annotations

import json
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from deeprnn import DeepGRU, DeepLSTM, DeepRNN
from deeprnn.nn import graphs
from deeprnn.nn.context import Target, drawn_for, target
from deeprnn.testing import copy_parameters, distance, randomize

T, C, H, L = 5, 3, 4, 2
KINDS = {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM}
ORACLES = {"rnn": gluon.rnn.RNN, "gru": gluon.rnn.GRU, "lstm": gluon.rnn.LSTM}
every_kind = pytest.mark.parametrize("kind", KINDS)

BREAK_A_CAPTURE = {"RNN", "_foreach", "Dropout", "SequenceMask", "SwapAxis", "SliceChannel", "Custom"}
"""What cannot stand in a CUDA graph in MXNet 1.9.1."""

NO_KERNEL = {"Reshape", "expand_dims"}
"""Operators that only rename a shape."""

KERNELS = {"rnn": 4, "gru": 17, "lstm": 16}
"""Kernels that one more step costs a layer on a GPU in inference: the slice of the projected inputs, the product, the
slices of the gates, and what is left is elementwise, which MXNet's pointwise fusion joins."""


def traced(kind, length, aim):
    """The operators of a stack's static graph, as symbols for `aim`."""
    layer = KINDS[kind](H, L, input_size=C, unroll_length=length)
    with drawn_for(aim):
        outputs, states = layer(mx.sym.var("data"), layer.begin_state(0, func=lambda name, **_: mx.sym.var(name)))
    nodes = json.loads(mx.sym.Group([outputs, *states]).tojson())["nodes"]
    return [node["op"] for node in nodes if node["op"] != "null"]


@every_kind
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("length", [1, T])
def test_no_graph_for_a_gpu_holds_what_breaks_a_capture(kind, training, length):
    assert not set(traced(kind, length, Target("gpu", training))) & BREAK_A_CAPTURE
    assert "SliceChannel" in traced(kind, T, Target("cpu", training))  # so the search does find them


@every_kind
def test_no_addition_in_a_step_for_a_gpu_broadcasts(kind):
    """MXNet's pointwise fusion takes elementwise addition and leaves the broadcasting one."""
    short, long = (traced(kind, length, Target("gpu", training=False)).count("broadcast_add") for length in (T, T + 1))
    assert short == long


@every_kind
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_the_kernels_of_a_step_are_counted(kind, training):
    short, long = (
        sum(op not in NO_KERNEL for op in traced(kind, length, Target("gpu", training))) for length in (T, T + 1)
    )
    assert long - short == KERNELS[kind] * L


@every_kind
@pytest.mark.parametrize("aim", [Target(), Target(training=False), Target(here=True), Target("gpu")], ids=str)
def test_the_fused_operator_and_the_loop_are_in_no_static_graph(kind, aim):
    assert not set(traced(kind, T, aim)) & {"RNN", "_foreach"}


@every_kind
@pytest.mark.parametrize("aim", [Target(training=False), Target(here=True), Target("gpu")], ids=str)
@pytest.mark.parametrize("length", [1, T])
def test_every_form_gives_the_same_numbers_and_gradients(kind, aim, length):
    """The form for a GPU is plain operators and so runs here as well."""
    layer = KINDS[kind](H, L, input_size=C, unroll_length=length)
    layer.initialize()
    randomize(layer)
    inputs = mx.nd.array(np.random.default_rng(1).normal(size=(length, 2, C)))
    found = []
    for form in (Target(), aim):
        inputs.attach_grad()
        with drawn_for(form), autograd.record():
            outputs, states = layer(inputs, layer.begin_state(2, func=mx.nd.ones))
            total = sum((y * y).sum() for y in (outputs, *states))
        total.backward()
        found.append([outputs, *states, inputs.grad, *(p.grad().copy() for p in layer.collect_params().values())])
    assert max(distance(a, b) for a, b in zip(*found)) <= 1e-6


@every_kind
@pytest.mark.parametrize("batch_size", [1, 15, 16, 48])
@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_any_number_of_sequences_has_the_gradients_of_the_built_in_layer(kind, batch_size, grad_req):
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


def test_a_call_says_what_it_is_for(monkeypatch):
    seen = []
    draw = graphs._Graph.__init__

    def noted(self, block, length, aim):
        seen.append((length, aim))
        draw(self, block, length, aim)

    monkeypatch.setattr(graphs._Graph, "__init__", noted)
    layer = DeepRNN(H, input_size=C, layout="NTC")
    layer.initialize()
    layer.hybridize()
    for _ in range(2):
        layer(mx.nd.ones((2, T, C)))
        with autograd.record():
            layer(mx.nd.ones((2, T, C)))
    assert seen == [(T, Target(training=False, here=True)), (T, Target(training=True, here=True))]
    assert target() == Target()  # what is said while drawing ends with it


def test_another_device_is_refused():
    with pytest.raises(ValueError, match="device must be one of"):
        Target("tpu")


PROGRAM = """
import random
import mxnet as mx
from mxnet import autograd
from deeprnn import DeepRNN
from deeprnn.nn import graphs

drawn = []
draw = graphs._Graph.__init__

def noted(self, block, length, target):
    drawn.append(length)
    draw(self, block, length, target)

graphs._Graph.__init__ = noted
layer = DeepRNN(8, input_size=8)
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
print(len(drawn), len(layer._graphs), *sizes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_many_lengths_leak_nothing_and_redraw_no_graph_that_is_kept():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, check=True)
    drawn, kept, _, second, third = map(int, done.stdout.split())
    assert kept == graphs.GRAPHS_KEPT
    assert 600 - 2 * kept <= drawn <= 600  # once when a length comes, less those still kept from the turn before
    assert third - second <= 0.05 * second  # 200 graphs came and went in between
