"""Exported symbols: the same function in somebody else's hands, at other lengths and batch sizes."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, LanguageModel
from deeprnn.nn import native
from deeprnn.testing import distance, randomize

N, C, H = 2, 3, 4
KINDS = {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM}
every_kind = pytest.mark.parametrize("kind", KINDS)
both_layouts = pytest.mark.parametrize("layout", ["TNC", "NTC"])
SIZES = [(5, N), (1, N), (9, 1), (3, 4)]


def drawn(*shape, seed=0):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape), dtype="float32")


def inputs_of(layout, length, batch_size):
    return drawn(*((length, batch_size, C) if layout == "TNC" else (batch_size, length, C)))


def made(kind, **options):
    layer = KINDS[kind](H, 2, input_size=C, **options)
    layer.initialize()
    randomize(layer)
    return layer


def exported(block, path, *inputs):
    """What `SymbolBlock.imports` reads of a block that was called with these inputs."""
    block.hybridize(static_alloc=True, static_shape=True)
    block(*inputs)
    block.export(str(path / "net"))
    count = len(mx.sym.load(str(path / "net-symbol.json")).list_inputs()) - len(block.collect_params().keys())
    names = [f"data{i}" for i in range(count)]
    return gluon.SymbolBlock.imports(str(path / "net-symbol.json"), names, str(path / "net-0000.params"))


def operators(path):
    """The operators of a saved graph, those inside its loops too."""

    def walk(graph):
        for node in graph["nodes"]:
            yield node["op"]
            for inner in node.get("subgraphs", []):
                yield from walk(inner)

    return set(walk(json.loads((path / "net-symbol.json").read_text())))


def flat(result):
    outputs, states = result
    return [outputs, *states]


@every_kind
@both_layouts
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_exported_layer_is_the_same_function_at_any_length(kind, layout, bidirectional, tmp_path):
    layer = made(kind, layout=layout, bidirectional=bidirectional)
    imported = exported(layer, tmp_path, inputs_of(layout, 5, N), layer.begin_state(N))
    assert not operators(tmp_path) & {"RNN", native.OPERATOR} and "_foreach" in operators(tmp_path)
    for length, batch_size in SIZES:
        x = inputs_of(layout, length, batch_size)
        begin = [drawn(*info["shape"], seed=i + 1) for i, info in enumerate(layer.state_info(batch_size))]
        for a, b in zip(imported(x, *begin), flat(layer(x, begin))):
            assert distance(a, b) <= 1e-6


@every_kind
@both_layouts
def test_lengths_can_be_an_input(kind, layout, tmp_path):
    layer = made(kind, layout=layout, bidirectional=True, use_sequence_length=True)
    imported = exported(layer, tmp_path, inputs_of(layout, 5, N), layer.begin_state(N), mx.nd.array([5, 2]))
    for length, batch_size in SIZES:
        x, begin = inputs_of(layout, length, batch_size), layer.begin_state(batch_size)
        lengths = mx.nd.array(np.arange(batch_size) % (length + 1))
        for a, b in zip(imported(x, *begin, lengths), flat(layer(x, begin, lengths))):
            assert distance(a, b) <= 1e-6


@pytest.mark.parametrize(
    "options",
    [{"projection_size": 2}, {"state_clip_min": -0.1, "state_clip_max": 0.1, "state_clip_nan": True}, {"dropout": 0.5}],
    ids=["projection", "clip", "dropout"],
)
def test_options_are_exported(options, tmp_path):
    layer = made("lstm", **options)
    imported = exported(layer, tmp_path, inputs_of("TNC", 5, N), layer.begin_state(N))
    x, begin = inputs_of("TNC", 7, 3), layer.begin_state(3)
    for a, b in zip(imported(x, *begin), flat(layer(x, begin))):
        assert distance(a, b) <= 1e-6


@every_kind
def test_an_imported_layer_trains(kind, tmp_path):
    layer = made(kind)
    imported = exported(layer, tmp_path, inputs_of("TNC", 5, N), layer.begin_state(N))
    x, begin = inputs_of("TNC", 7, N), layer.begin_state(N)
    for run in (lambda: layer(x, begin)[0], lambda: imported(x, *begin)[0]):
        with autograd.record():
            total = (run() ** 2).sum()
        total.backward()
    gradients = {name: p.grad() for name, p in imported.collect_params().items()}
    for name, parameter in layer.collect_params().items():
        assert distance(gradients[name], parameter.grad()) <= 1e-5


@every_kind
@pytest.mark.parametrize("embedding_size", [0, 3])
def test_a_language_model_is_exported_with_its_states(kind, embedding_size, tmp_path):
    net = LanguageModel(7, H, 2, cell=kind, embedding_size=embedding_size)
    net.initialize()
    ids = mx.nd.array(np.arange(10).reshape(5, 2) % 7, dtype="int32")
    imported = exported(net, tmp_path, ids, net.begin_state(2))
    assert not operators(tmp_path) & {"RNN", native.OPERATOR}
    states = net.begin_state(2)
    once = flat(net(ids, states))
    for a, b in zip(imported(ids, *states), once):
        assert distance(a, b) <= 1e-6
    logits = []
    for t in range(5):  # one symbol at a time, as it is generated
        output, *states = imported(ids[t : t + 1], *states)
        logits.append(output)
    assert distance(mx.nd.concat(*logits, dim=0), once[0]) <= 1e-6


def test_export_does_not_depend_on_how_the_layer_was_called_before(tmp_path):
    results = []
    for i, states in enumerate((False, True)):
        folder = tmp_path / str(i)
        folder.mkdir()
        layer = made("rnn")
        layer.hybridize()
        x, begin = inputs_of("TNC", 4, N), layer.begin_state(N)
        layer(x, begin) if states else layer(x)
        with autograd.record():
            layer(x)
        layer.export(str(folder / "net"), epoch=3)
        assert (folder / "net-0003.params").exists()
        imported = gluon.SymbolBlock.imports(
            str(folder / "net-symbol.json"), ["data0", "data1"], str(folder / "net-0003.params")
        )
        results.append([t.asnumpy() for t in imported(x, *begin)])
    assert all(np.array_equal(a, b) for a, b in zip(*results))


def test_an_export_leaves_the_layer_as_it_was(tmp_path):
    layer = made("gru")
    layer.hybridize(static_alloc=True, static_shape=True)
    x = inputs_of("TNC", 4, N)
    before = layer(x)
    layer.export(str(tmp_path / "net"))
    with autograd.record():
        total = layer(x).sum()
    total.backward()
    assert distance(layer(x), before) == 0 and layer.l0_i2h_weight.grad().asnumpy().any()


@pytest.mark.parametrize("hybridized", [False, True])
def test_export_before_a_first_call_says_what_to_do(hybridized, tmp_path):
    layer = made("rnn")
    if hybridized:
        layer.hybridize()
    with pytest.raises(RuntimeError, match="call hybridize"):
        layer.export(str(tmp_path / "net"))


@every_kind
@pytest.mark.parametrize("length", [4, None], ids=["static", "dynamic"])
def test_the_fused_operator_is_in_no_graph(implementation, kind, length):
    layer = made(kind, bidirectional=True, unroll_length=length)
    nodes = json.loads(layer(mx.sym.var("x")).tojson())["nodes"]
    found = {node["op"] for node in nodes} | {
        n["op"] for node in nodes for s in node.get("subgraphs", []) for n in s["nodes"]
    }
    assert "RNN" not in found
    if implementation == "native":
        assert native.OPERATOR in found and "_foreach" not in found
    else:
        assert "FullyConnected" in found and ("_foreach" in found) == (length is None)
