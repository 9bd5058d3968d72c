"""The layers against implementations from elsewhere, and the faults of those that are no oracle."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon
from oracles import Config, NumpyOracle, TorchOracle, Unfused, deep, differences, fused

import deeprnn
from deeprnn import testing

CELLS: list[dict[str, Any]] = [
    {"cell": "rnn", "activation": "tanh"},
    {"cell": "rnn", "activation": "relu"},
    {"cell": "gru"},
    {"cell": "lstm"},
    {"cell": "lstm", "projection": 2},
]
CLIPPED: list[dict[str, Any]] = [
    {"cell": "lstm", "clip": (-0.25, 0.25)},
    {"cell": "lstm", "clip": (-0.125, 0.5), "projection": 2},
]


def pair(theirs: gluon.Block, **options: Any) -> list[gluon.Block]:
    """Our layer and theirs, with the same weights."""
    testing.randomize(theirs)
    ours = deep(theirs.config, **options)
    testing.copy_parameters(theirs, ours)
    return [ours, theirs]


def hold(theirs: gluon.Block, lengths: Any = None, trainer_steps: int = 10) -> None:
    inputs, states, drawn = theirs.config.draw()
    arguments = [mx.nd.array(a, dtype="int32") for a in (drawn if lengths is None else [np.array(lengths)])]
    runs = [testing.run(layer, inputs, states, *arguments, trainer_steps=trainer_steps) for layer in pair(theirs)]
    assert not differences(*runs, theirs.config.dtype)


def id_of(options: dict[str, Any]) -> str:
    return "-".join(str(value) for value in options.values())


# NumPy


def test_two_steps_of_two_layers_by_hand() -> None:
    """The book's formula, H_t^(l) = tanh(H_t^(l-1) W_xh + H_{t-1}^(l) W_hh + b), with nothing around it."""
    layer = deeprnn.DeepRNN(3, num_layers=2, activation="tanh", input_size=2, dtype="float64")
    layer.initialize()
    testing.randomize(layer)
    w_xh, w_hh, b = (
        [sum(getattr(layer, f"l{i}_{name}").data().asnumpy() for name in names) for i in (0, 1)]
        for names in (["i2h_weight"], ["h2h_weight"], ["i2h_bias", "h2h_bias"])
    )
    x = np.array([[[1.0, 2.0]], [[3.0, -4.0]]])
    start = np.array([[[0.1, -0.2, 0.3]], [[-0.4, 0.5, -0.6]]])

    low_1 = np.tanh(x[0] @ w_xh[0].T + start[0] @ w_hh[0].T + b[0])
    top_1 = np.tanh(low_1 @ w_xh[1].T + start[1] @ w_hh[1].T + b[1])
    low_2 = np.tanh(x[1] @ w_xh[0].T + low_1 @ w_hh[0].T + b[0])
    top_2 = np.tanh(low_2 @ w_xh[1].T + top_1 @ w_hh[1].T + b[1])

    outputs, (state,) = layer(mx.nd.array(x, dtype="float64"), mx.nd.array(start, dtype="float64"))
    assert testing.distance(outputs, [top_1, top_2]) < 1e-15
    assert testing.distance(state, [low_2, top_2]) < 1e-15


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", CELLS + CLIPPED, ids=id_of)
def test_numpy(options: dict[str, Any], bidirectional: bool, ragged: bool) -> None:
    hold(NumpyOracle(Config(bidirectional=bidirectional, ragged=ragged, **options)), trainer_steps=3)


def test_numpy_long_and_deep() -> None:
    hold(NumpyOracle(Config(layers=8, length=35, input_size=2, hidden_size=3)), trainer_steps=0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", CELLS, ids=id_of)
def test_a_sequence_of_no_steps(options: dict[str, Any], bidirectional: bool) -> None:
    config = Config(batch_size=3, bidirectional=bidirectional, ragged=True, **options)
    hold(NumpyOracle(config), lengths=[0, 3, 1], trainer_steps=0)


def test_clip_bounds_are_as_precise_as_the_dtype() -> None:
    """No bound here is a float32 number: in float64 it must not become one."""
    hold(NumpyOracle(Config(cell="lstm", clip=(-0.2, 0.3))))


def test_clip_does_clip() -> None:
    config = Config(cell="lstm", clip=(-0.25, 0.25), hidden_size=16)
    layer = deep(config)
    testing.randomize(layer, scale=1)
    inputs, states, _ = config.draw()
    x, *begin = (mx.nd.array(a, dtype="float64") for a in (inputs, *states))
    _, cell = layer(x, begin)[1]
    at_the_bound = (cell.abs() == 0.25).mean().asscalar()
    assert cell.abs().max().asscalar() == 0.25 and 0 < at_the_bound < 1


@pytest.mark.parametrize("state_clip_nan", [False, True])
def test_clip_of_nan(state_clip_nan: bool) -> None:
    """With state_clip_nan a NaN becomes the lower bound at once; without it, it spreads."""
    config = Config(cell="lstm", layers=1, clip=(-0.25, 0.25))
    ours, theirs = pair(NumpyOracle(config), state_clip_nan=state_clip_nan)
    inputs, (hidden, cell), _ = config.draw()
    poisoned, replaced = cell.copy(), cell.copy()
    poisoned[0, 1, 2], replaced[0, 1, 2] = np.nan, -1e9
    x, h, *cells = (mx.nd.array(a, dtype="float64") for a in (inputs, hidden, poisoned, replaced))
    found, expected = ours(x, [h, cells[0]])[0], theirs(x, [h, cells[1]])[0]
    assert testing.distance(found[:, 0], expected[:, 0]) < 1e-15
    if state_clip_nan:
        assert testing.distance(found[:, 1], expected[:, 1]) < 1e-15
    else:
        assert np.isnan(found[:, 1].asnumpy()).any()


# gluon


@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_projection_against_the_contributed_cell(dtype: str, bidirectional: bool, layout: str) -> None:
    hold(Unfused(Config(cell="lstm", projection=2, bidirectional=bidirectional, dtype=dtype, layout=layout, length=4)))


def test_the_built_in_layer_is_wrong_in_float64() -> None:
    """Why it is no oracle there: relu is computed in float32, and three layers leave gradients unwritten."""

    def distances(config: Config) -> Any:
        theirs = Unfused(config)
        testing.randomize(theirs)
        built_in = fused(config)
        testing.copy_parameters(theirs, built_in)
        inputs, states, _ = config.draw()
        return testing.compare(*(testing.run(layer, inputs, states) for layer in (built_in, theirs))).distances

    # Where it is right, it is: so the comparison itself is sound.
    assert max(distances(Config(layers=2, activation="tanh")).values()) < 1e-12
    assert 1e-9 < distances(Config(layers=2, activation="relu"))["outputs"] < 1e-6
    wrong = {name for name, distance in distances(Config(layers=3, activation="tanh")).items() if distance > 1e-3}
    assert wrong == {"d l1_i2h_weight"}


# PyTorch


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", CELLS, ids=id_of)
def test_torch(options: dict[str, Any], bidirectional: bool, layout: str, ragged: bool) -> None:
    """Ragged sequences go into PyTorch packed: what padding there is, it never sees."""
    pytest.importorskip("torch", reason="pip install .[torch]")
    hold(TorchOracle(Config(layout=layout, bidirectional=bidirectional, ragged=ragged, **options)), trainer_steps=3)


@pytest.mark.parametrize("ragged", [False, True])
def test_torch_long(ragged: bool) -> None:
    pytest.importorskip("torch", reason="pip install .[torch]")
    config = Config(cell="gru", layers=3, length=20, batch_size=5, hidden_size=6, ragged=ragged)
    hold(TorchOracle(config), trainer_steps=0)
