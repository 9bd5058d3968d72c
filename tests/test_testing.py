"""Same weights, two implementations, everything compared: over two grids, and over shapes from hypothesis."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mxnet import gluon
from oracles import Config, NumpyOracle, Parent, Unfused, deep, differences, fused

from deeprnn import DeepLSTM, testing
from deeprnn.nn import cells, native

STATIC = {"static_alloc": True, "static_shape": True}


def arrays(lengths: list[Any]) -> list[Any]:
    return [mx.nd.array(a, dtype="int32") for a in lengths]


# The Elman layer of the book: every combination, a quarter of them by default.

ELMAN: dict[str, list[Any]] = {
    "dtype": ["float32", "float64"],
    "layers": [1, 2, 3, 8],
    "length": [1, 2, 35],
    "batch_size": [1, 5],
    "activation": ["tanh", "relu"],
    "layout": ["TNC", "NTC"],
}
CHOICES = list(itertools.product(*(range(len(values)) for values in ELMAN.values())))


def in_the_quarter(choice: tuple[int, ...]) -> bool:
    """Of a fractional factorial design in which every three options meet in every way."""
    dtype, layers, length, batch_size, activation, layout = choice
    return (dtype + layers + activation + layout) % 2 == 0 == (length + batch_size + activation + layout) % 2


def test_a_quarter_of_the_elman_grid_has_every_triple() -> None:
    quarter = [choice for choice in CHOICES if in_the_quarter(choice)]
    assert len(quarter) == len(CHOICES) / 4

    def triples(choices: list[tuple[int, ...]]) -> set[Any]:
        return {triple for choice in choices for triple in itertools.combinations(enumerate(choice), 3)}

    assert triples(quarter) == triples(CHOICES)


@pytest.mark.parametrize(
    list(ELMAN),
    [
        pytest.param(
            *(values[index] for values, index in zip(ELMAN.values(), choice)),
            marks=[] if in_the_quarter(choice) else pytest.mark.slow,
        )
        for choice in CHOICES
    ],
)
def test_elman(dtype: str, layers: int, length: int, batch_size: int, activation: str, layout: str) -> None:
    config = Config(
        activation=activation, layers=layers, length=length, batch_size=batch_size, layout=layout, dtype=dtype
    )
    theirs = (fused if dtype == "float32" else Unfused)(config)
    testing.randomize(theirs)
    inputs, states, _ = config.draw()
    layers_of_ours = []
    for natively, hybridized in ((True, False), (True, True), (False, True)):
        ours = deep(config)
        testing.copy_parameters(theirs, ours)
        if hybridized:
            ours.hybridize(**STATIC)
        layers_of_ours.append((natively, ours))
    steps = 10 if layers * length < 20 else 2  # the unfused cells of the oracle take their time
    expected = testing.run(theirs, inputs, states, trainer_steps=steps)
    for natively, ours in layers_of_ours:
        with native.switched(natively):
            assert not differences(testing.run(ours, inputs, states, trainer_steps=steps), expected, dtype)


# Every pair of options, of all three layers. What belongs together is one factor, so that any choice is a valid one.

FACTORS: dict[str, list[Any]] = {
    "cell": [
        {"cell": "rnn", "activation": "tanh"},
        {"cell": "rnn", "activation": "relu"},
        {"cell": "gru"},
        {"cell": "lstm"},
        {"cell": "lstm", "projection": 2},
        {"cell": "lstm", "clip": (-0.25, 0.25)},
        {"cell": "lstm", "projection": 3, "clip": (-0.125, 0.5)},
    ],
    "graph": [  # who is hybridized, with which flags, and whether the layer is built for one length
        (None, {}, False),
        (None, {}, True),
        *itertools.product(["layer"], [{}, {"static_alloc": True}, STATIC], [False, True]),
        *itertools.product(["parent"], [{}, {"static_alloc": True}], [False, True]),
        ("parent", STATIC, True),
    ],
    "layers": [1, 2, 3],
    "length": [1, 2, 4],
    "batch_size": [1, 2, 3],
    "input_size": [1, 3, 4],
    "hidden_size": [2, 3, 4],
    "layout": ["TNC", "NTC"],
    "bidirectional": [False, True],
    "dtype": ["float32", "float64"],
    "ragged": [False, True],
    "states": ["none", "list", "bare"],  # bare: one tensor where there is one kind, a tuple for two
    "deferred": [False, True],
    "before": ["nothing", "inference", "another length"],
    "natively": [True, False],
}
Pair = tuple[tuple[str, int], tuple[str, int]]
Row = dict[str, int]


def pairs_of(row: Row) -> set[Pair]:
    return set(itertools.combinations(row.items(), 2))


def all_pairs() -> set[Pair]:
    return {
        ((a, i), (b, j))
        for a, b in itertools.combinations(FACTORS, 2)
        for i in range(len(FACTORS[a]))
        for j in range(len(FACTORS[b]))
    }


@functools.cache
def pairwise(at_least: int = 200) -> list[Row]:
    """Greedy: again and again the best of some random rows; a pair is worth less the more often it has been in."""
    rng = random.Random(1)
    seen = dict.fromkeys(all_pairs(), 0)
    rows: list[Row] = []
    while len(rows) < at_least or not all(seen.values()):
        candidates = [{name: rng.randrange(len(values)) for name, values in FACTORS.items()} for _ in range(20)]
        best = max(candidates, key=lambda row: sum(0.01 ** seen[pair] for pair in pairs_of(row)))
        if best not in rows:
            rows.append(best)
            for pair in pairs_of(best):
                seen[pair] += 1
    return rows


def test_pairwise_covers_every_pair() -> None:
    rows = pairwise()
    assert len({tuple(row.items()) for row in rows}) == len(rows) >= 200
    assert set().union(*map(pairs_of, rows)) == all_pairs()


def describe(row: Row) -> str:
    return "-".join(f"{name}{index}" for name, index in row.items())


@pytest.mark.parametrize("row", pairwise(), ids=describe)
def test_pairwise(row: Row) -> None:
    chosen = {name: FACTORS[name][index] for name, index in row.items()}
    with native.switched(chosen.pop("natively")):
        hold(chosen)


def hold(chosen: dict[str, Any]) -> None:
    """The layer of these factors is the same function as another implementation of it."""
    outside, flags, for_one_length = chosen.pop("graph")
    states_as, deferred, before = (chosen.pop(name) for name in ("states", "deferred", "before"))
    config = Config(**chosen.pop("cell"), **chosen)

    if config.clip:
        theirs = NumpyOracle(config)
    elif config.dtype == "float32" and not (config.ragged or config.projection):
        theirs = fused(config)
    else:
        theirs = Unfused(config)
    testing.randomize(theirs)

    options: dict[str, Any] = {"unroll_length": config.length} if for_one_length else {}
    ours = deep(config, **options, **({"input_size": 0} if deferred else {}))
    net = Parent(ours) if outside == "parent" else ours
    if outside:
        net.hybridize(**flags)

    def call(x: Any, begin: list[Any], *lengths: Any) -> Any:
        if states_as == "none":
            return net(x, None, *lengths), []
        if states_as == "bare":
            begin = begin[0] if len(begin) == 1 else tuple(begin)
        return net(x, begin, *lengths)

    zeros = [mx.nd.zeros(shape, dtype=config.dtype) for shape in config.state_shapes]
    for zero in zeros:
        zero.attach_grad()  # autograd.Function hands out no gradient after the first input that wants none

    def call_theirs(x: Any, begin: list[Any], *lengths: Any) -> Any:
        outputs, last = theirs(x, begin or zeros, *lengths)
        return outputs, last if begin else []

    inputs, states, lengths = config.draw()
    if before != "nothing":
        other = config.length + (before == "another length" and not for_one_length)
        x, begin, some = dataclasses.replace(config, length=other).draw(seed=1)
        call(mx.nd.array(x, dtype=config.dtype), [mx.nd.array(s, dtype=config.dtype) for s in begin], *arrays(some))
    testing.copy_parameters(theirs, ours)
    states = [] if states_as == "none" else states
    found = testing.run(ours, inputs, states, *arrays(lengths), call=call, trainer_steps=2)
    expected = testing.run(theirs, inputs, states, *arrays(lengths), call=call_theirs, trainer_steps=2)
    assert not differences(found, expected, config.dtype)


# Any shape.


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from(["rnn", "gru", "lstm"]),
    layers=st.integers(1, 4),
    length=st.integers(1, 9),
    batch_size=st.integers(1, 7),
    input_size=st.integers(1, 9),
    hidden_size=st.integers(1, 9),
    bidirectional=st.booleans(),
    ragged=st.booleans(),
)
def test_any_shape(**shape: Any) -> None:
    config = Config(**shape)
    theirs = Unfused(config)
    testing.randomize(theirs)
    ours = deep(config)
    testing.copy_parameters(theirs, ours)
    ours.hybridize(**STATIC)
    inputs, states, lengths = config.draw()
    expected = testing.run(theirs, inputs, states, *arrays(lengths))
    assert not differences(testing.run(ours, inputs, states, *arrays(lengths)), expected, config.dtype)


# A comparison must be able to fail: faults that change one thing each, and the kind of number that gives them away.


def without_bias(cell: Any, F: Any, inputs: Any, params: Any) -> Any:
    bias = 0 * params["i2h_bias"]
    return F.FullyConnected(inputs, params["i2h_weight"], bias, num_hidden=cell.hidden_size, flatten=False)


def forgotten_state(cell: Any, F: Any, projected: Any, states: list[Any], params: Any) -> Any:
    return [F.Activation(projected + cell.dense(F, 0 * states[0], "h2h", params), act_type=cell.activation)]


def blocked_gradient(cell: Any, F: Any, projected: Any, states: list[Any], params: Any) -> Any:
    recurrent = cell.dense(F, F.BlockGrad(states[0]), "h2h", params)
    return [F.Activation(projected + recurrent, act_type=cell.activation)]


@pytest.mark.parametrize(
    ("method", "fault", "seen_in", "not_seen_in"),
    [
        ("project", without_bias, {"outputs", "states", "gradients", "weights"}, set()),
        ("step", forgotten_state, {"outputs", "states", "gradients", "weights"}, set()),
        ("step", blocked_gradient, {"gradients", "weights"}, {"outputs", "states"}),
    ],
)
def test_a_broken_cell_is_seen(
    monkeypatch: pytest.MonkeyPatch, method: str, fault: Any, seen_in: set[str], not_seen_in: set[str]
) -> None:
    config = Config()
    theirs = Unfused(config)
    testing.randomize(theirs)
    ours = deep(config)
    testing.copy_parameters(theirs, ours)
    monkeypatch.setattr(cells.ElmanCell, method, fault)
    inputs, states, _ = config.draw()
    with native.switched(False):  # the formula is what runs
        runs = [testing.run(layer, inputs, states, trainer_steps=10) for layer in (ours, theirs)]
    result = testing.compare(*runs)
    assert not result.same
    summary = result.summary()
    assert {kind for kind, value in summary.items() if value > result.tolerance} == seen_in
    assert seen_in | not_seen_in == set(summary)


@pytest.mark.parametrize("layers", [1, 2])
def test_one_exchanged_parameter_is_seen(layers: int) -> None:
    """The two biases of a cell do the same work, so only a comparison of everything tells which is which."""
    config = Config(layers=layers)
    theirs: gluon.Block = Unfused(config)
    testing.randomize(theirs)
    ours = deep(config)
    testing.copy_parameters(theirs, ours)
    first, second = ours.l0_i2h_bias.data().copy(), ours.l0_h2h_bias.data().copy()
    ours.l0_i2h_bias.set_data(second)
    ours.l0_h2h_bias.set_data(first)
    inputs, states, _ = config.draw()
    result = testing.compare(*(testing.run(layer, inputs, states, trainer_steps=1) for layer in (ours, theirs)))
    assert result.distances["outputs"] <= result.tolerance
    assert not result.same


class Scaled(gluon.Block):
    """A layer whose inputs are multiplied."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        with self.name_scope():
            self.layer = deep(Config())

    def forward(self, x: Any, states: list[Any]) -> Any:
        return self.layer(x * self.factor, states)


@pytest.mark.parametrize("kind", ["nd", "np"])
def test_networks_are_compared_in_all_their_gradients_and_the_inputs_left_as_they_are(kind: str) -> None:
    inputs, states, _ = Config().draw()
    x, *begin = (getattr(mx, kind).array(each, dtype=each.dtype) for each in (inputs, *states))
    nets = [Scaled(1), Scaled(1), Scaled(1.5)]
    for net in nets:
        testing.randomize(net)
    assert testing.compare_networks(*nets[:2], x, begin).same
    distances = testing.compare_networks(*nets[1:], x, begin).distances
    assert {"output 0", "output 1", "d input 0", "d input 1"} <= distances.keys()
    assert min(distances.values()) > 1e-3
    assert all(array.grad is None for array in (x, *begin))


def test_networks_with_dropout_are_compared_without_it() -> None:
    def made(recurrent: gluon.Block) -> gluon.Block:
        net = gluon.nn.HybridSequential()
        net.add(recurrent, gluon.nn.Dropout(0.5), gluon.nn.Dense(3, flatten=False))
        net.initialize()
        return net

    nets = [made(gluon.rnn.LSTM(5, 2)), made(DeepLSTM(5, 2, dropout=0.5))]
    x = mx.nd.random.normal(shape=(4, 3, 2))
    nets[0](x)
    testing.randomize(nets[0])
    assert testing.compare_networks(nets[1], nets[0], x).same


def test_gradients_that_were_there_are_not_compared_and_stay():
    ours, theirs = DeepLSTM(7, input_size=3), mx.gluon.rnn.LSTM(7, input_size=3)
    x = mx.nd.random.normal(shape=(4, 2, 3))
    for net in (ours, theirs):
        net.initialize()
        net.collect_params().setattr("grad_req", "add")
    with mx.autograd.record():
        loss = ours(x).sum()
    loss.backward()
    before = [parameter.grad().asnumpy() for parameter in ours.collect_params().values()]
    assert testing.compare_networks(ours, theirs, x).same
    after = [parameter.grad().asnumpy() for parameter in ours.collect_params().values()]
    assert all(map(np.array_equal, before, after)) and any(each.any() for each in before)
