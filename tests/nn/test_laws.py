"""What must hold whatever the numbers are: no other implementation is asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from oracles import Config, Parent, deep

from deeprnn import testing

CELLS: dict[str, dict[str, Any]] = {
    "tanh": {"cell": "rnn", "activation": "tanh"},
    "relu": {"cell": "rnn", "activation": "relu"},
    "gru": {"cell": "gru"},
    "lstm": {"cell": "lstm"},
    "projected": {"cell": "lstm", "projection": 3},
    "clipped": {"cell": "lstm", "clip": (-0.25, 0.25)},
}
each_cell = pytest.mark.parametrize("options", CELLS.values(), ids=CELLS.keys())
each_direction = pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
each_graph = pytest.mark.parametrize("graph", ["eager", "native", "static", "dynamic"], indirect=True)


def build(config: Config, **options: Any) -> gluon.HybridBlock:
    layer = deep(config, **options)
    testing.randomize(layer)
    return layer


def as_called(layer: gluon.HybridBlock, graph: str) -> gluon.HybridBlock:
    """The layer by itself, hybridized, or inside a foreign block where its loop is MXNet's operator."""
    if graph == "eager":
        return layer
    net = Parent(layer) if graph == "dynamic" else layer
    net.hybridize(static_alloc=True)
    return net


def tensors(config: Config, seed: int = 0) -> tuple[Any, list[Any], list[Any]]:
    inputs, states, lengths = config.draw(seed)
    x, *begin = (mx.nd.array(a, dtype=config.dtype) for a in (inputs, *states))
    return x, begin, [mx.nd.array(a) for a in lengths]


def close(found: Any, expected: Any) -> bool:
    """Whether two results, ``(outputs, states)``, are the same."""
    (y, states), (z, others) = found, expected
    return len(states) == len(others) and all(
        testing.distance(a, b) <= 1e-12 for a, b in zip((y, *states), (z, *others))
    )


def rows(states: list[Any], begin: int, end: int) -> list[Any]:
    return [state[begin:end] for state in states]


@each_graph
@each_cell
def test_single_steps_are_one_call(options: dict[str, Any], graph: str) -> None:
    config = Config(length=5, layers=3, **options)
    net = as_called(build(config), graph)
    x, states, _ = tensors(config)
    expected = net(x, states)
    outputs = []
    for t in range(config.length):
        y, states = net(x[t : t + 1], states)
        outputs.append(y)
    assert close((mx.nd.concat(*outputs, dim=0), states), expected)


@each_graph
@each_cell
def test_two_halves_are_the_whole(options: dict[str, Any], graph: str) -> None:
    config = Config(length=5, layers=3, **options)
    net = as_called(build(config), graph)
    x, states, _ = tensors(config)
    first, carried = net(x[:2], states)
    second, last = net(x[2:], carried)
    assert close((mx.nd.concat(first, second, dim=0), last), net(x, states))


@each_graph
@each_direction
@each_cell
def test_layouts_differ_by_a_transposition(options: dict[str, Any], bidirectional: bool, graph: str) -> None:
    config = Config(length=4, batch_size=3, bidirectional=bidirectional, ragged=True, **options)
    time_major = build(config)
    batch_major = build(dataclasses.replace(config, layout="NTC"))
    x, states, lengths = tensors(config)
    y, last = as_called(batch_major, graph)(x.swapaxes(0, 1), states, *lengths)
    assert close((y.swapaxes(0, 1), last), as_called(time_major, graph)(x, states, *lengths))


@each_graph
@each_direction
@each_cell
def test_order_in_the_batch_does_not_matter(options: dict[str, Any], bidirectional: bool, graph: str) -> None:
    config = Config(length=4, batch_size=4, bidirectional=bidirectional, ragged=True, **options)
    net = as_called(build(config), graph)
    x, states, (lengths,) = tensors(config)
    order = mx.nd.array([2, 0, 3, 1])

    def shuffled(tensor: Any) -> Any:
        return tensor.take(order, axis=1)

    y, last = net(x, states, lengths)
    found = net(shuffled(x), [shuffled(s) for s in states], lengths.take(order))
    assert close(found, (shuffled(y), [shuffled(s) for s in last]))


@each_graph
@each_direction
@each_cell
def test_padding_and_neighbours_do_not_matter(options: dict[str, Any], bidirectional: bool, graph: str) -> None:
    """Each sequence of a ragged batch is as if alone, whatever is past its end, NaN included; so are gradients."""
    config = Config(length=5, batch_size=3, layers=3, bidirectional=bidirectional, ragged=True, **options)
    layer = build(config)
    net = as_called(layer, graph)
    x, states, (lengths,) = tensors(config)
    ends = lengths.asnumpy().astype(int)
    assert sorted(set(ends)) == [3, 4, 5]
    poison = x.asnumpy()
    for n, end in enumerate(ends):
        poison[end:, n] = np.nan
    x = mx.nd.array(poison, dtype=config.dtype)
    x.attach_grad()
    with autograd.record():
        y, last = net(x, states, lengths)
        total = (y * y).sum() + sum((s * s * s).sum() for s in last)
    total.backward()
    gradients = {name: p.grad().copy() for name, p in layer.collect_params().items()}

    alone = build(dataclasses.replace(config, ragged=False, batch_size=1))
    testing.copy_parameters(layer, alone)
    alone.collect_params().setattr("grad_req", "add")
    for n, end in enumerate(ends):
        single = mx.nd.array(poison[:end, n : n + 1], dtype=config.dtype)
        single.attach_grad()
        with autograd.record():
            z, own = alone(single, [s[:, n : n + 1] for s in states])
            total = (z * z).sum() + sum((s * s * s).sum() for s in own)
        total.backward()
        assert close((y[:end, n : n + 1], [s[:, n : n + 1] for s in last]), (z, own))
        assert (y.asnumpy()[end:, n] == 0).all()
        assert testing.distance(x.grad[:end, n : n + 1], single.grad) < 1e-12
        assert (x.grad.asnumpy()[end:, n] == 0).all()
    for (name, found), p in zip(gradients.items(), alone.collect_params().values()):
        assert testing.distance(found, p.grad()) < 1e-12, name


@each_graph
@each_direction
@each_cell
def test_full_lengths_are_no_lengths(options: dict[str, Any], bidirectional: bool, graph: str) -> None:
    config = Config(length=4, batch_size=3, bidirectional=bidirectional, **options)
    plain = build(config)
    masked = build(dataclasses.replace(config, ragged=True))
    x, states, _ = tensors(config)
    lengths = mx.nd.full((config.batch_size,), config.length)
    assert close(as_called(masked, graph)(x, states, lengths), as_called(plain, graph)(x, states))


@each_graph
@each_cell
def test_both_directions_are_two_of_one(options: dict[str, Any], graph: str) -> None:
    """A layer in both directions: one that reads forwards, one that reads backwards, side by side."""
    config = Config(layers=1, length=4, bidirectional=True, **options)
    both = build(config)
    forward, backward = (build(dataclasses.replace(config, bidirectional=False)) for _ in range(2))
    own = {name[len(both.prefix) :]: p for name, p in both.collect_params().items()}
    for direction, layer in (("l", forward), ("r", backward)):
        for name, p in layer.collect_params().items():
            p.set_data(own[direction + name[len(layer.prefix) + 1 :]].data())
    x, states, _ = tensors(config)
    y, last_l = forward(x, rows(states, 0, 1))
    z, last_r = backward(x[::-1], rows(states, 1, 2))
    expected = mx.nd.concat(y, z[::-1], dim=2), [mx.nd.concat(a, b, dim=0) for a, b in zip(last_l, last_r)]
    assert close(as_called(both, graph)(x, states), expected)


@each_graph
@each_direction
@each_cell
def test_a_stack_is_its_layers_one_after_the_other(options: dict[str, Any], bidirectional: bool, graph: str) -> None:
    """Row d * l of a state belongs to layer l, and to no other."""
    config = Config(layers=3, length=4, bidirectional=bidirectional, **options)
    stack = build(config)
    own = {name[len(stack.prefix) :]: p for name, p in stack.collect_params().items()}
    d = len(config.directions)
    x, states, _ = tensors(config)
    y, last = x, []
    for i in range(config.layers):
        layer = build(dataclasses.replace(config, layers=1, input_size=y.shape[2]))
        for name, p in layer.collect_params().items():
            direction, rest = name[len(layer.prefix)], name[len(layer.prefix) + 2 :]
            p.set_data(own[f"{direction}{i}{rest}"].data())
        y, end = layer(y, rows(states, i * d, (i + 1) * d))
        last.append(end)
    assert close(as_called(stack, graph)(x, states), (y, [mx.nd.concat(*kind, dim=0) for kind in zip(*last)]))


@pytest.mark.parametrize("hybridized", [False, True])
@each_cell
def test_a_cell_by_itself_is_a_layer_of_one(options: dict[str, Any], hybridized: bool) -> None:
    """Gluon's own unrolling calls the cell step by step; ours takes it apart."""
    config = Config(layers=1, length=4, **options)
    layer = build(config)
    cell = layer.cell
    x, states, _ = tensors(config)
    expected = layer(x, states)
    if hybridized:
        cell.hybridize()
    y, last = cell.unroll(config.length, x, [s[0] for s in states], layout="TNC", merge_outputs=True)
    assert close((y, [s.expand_dims(0) for s in last]), expected)


# SymbolBlock says so of any graph: a symbol file holds no types.
@pytest.mark.filterwarnings("ignore:Cannot decide type for the following arguments:UserWarning")
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@each_direction
@each_cell
def test_an_exported_graph_is_the_same_function(
    tmp_path: Path, options: dict[str, Any], bidirectional: bool, layout: str, ragged: bool
) -> None:
    """At the length and batch size that it was exported with, and at others."""
    config = Config(length=4, batch_size=3, bidirectional=bidirectional, layout=layout, ragged=ragged, **options)
    config = dataclasses.replace(config, dtype="float32")  # SymbolBlock makes its inputs float32
    layer = build(config)
    layer.hybridize()
    x, states, lengths = tensors(config)
    layer(x, states, *lengths)
    layer.export(str(tmp_path / "layer"))
    names = [f"data{i}" for i in range(1 + len(states) + len(lengths))]
    imported = gluon.SymbolBlock.imports(
        str(tmp_path / "layer-symbol.json"), names, str(tmp_path / "layer-0000.params")
    )
    for length, batch_size in [(4, 3), (1, 1), (7, 2), (4, 5)]:
        x, states, lengths = tensors(dataclasses.replace(config, length=length, batch_size=batch_size))
        y, last = layer(x, states, *lengths)
        found = imported(x, *states, *lengths)
        assert max(testing.distance(a, b) for a, b in zip(found, [y, *last])) <= 1e-6
