"""Weights for deep stacks: orthogonal where the state goes through, Glorot's variance elsewhere."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import rnn
from mxnet.initializer import Normal, Xavier

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, DepthScaled, LanguageModel, RecurrentIdentity, RecurrentOrthogonal
from deeprnn.nn.initializers import INITIALIZERS, initializer

C, H = 3, 8
KINDS = {"rnn": (DeepRNN, 1), "gru": (DeepGRU, 3), "lstm": (DeepLSTM, 4)}


def weights(layer, init, seed=0):
    mx.random.seed(seed)
    np.random.seed(seed)
    layer.initialize(init, force_reinit=True)
    return {name[len(layer.prefix) :]: p.data().asnumpy() for name, p in layer.collect_params().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_each_gates_recurrent_block_is_orthogonal(kind, gain):
    cls, gates = KINDS[kind]
    values = weights(cls(H, 2, bidirectional=True, input_size=C), RecurrentOrthogonal(gain))
    for name, value in values.items():
        if name.endswith("h2h_weight"):
            blocks = np.split(value, gates)
            assert all(np.allclose(block @ block.T, gain**2 * np.eye(H), atol=1e-5) for block in blocks)
            assert gates == 1 or not np.allclose(blocks[0], blocks[1])


@pytest.mark.parametrize("kind", KINDS)
def test_input_weights_are_glorots_and_biases_zero(kind):
    cls, _ = KINDS[kind]
    values = weights(cls(64, 2, input_size=32), RecurrentOrthogonal())
    for name, value in values.items():
        if name.endswith("i2h_weight"):
            bound = (3 / ((value.shape[0] + value.shape[1]) / 2)) ** 0.5
            assert 0.9 * bound < np.abs(value).max() <= bound
        elif name.endswith("bias"):
            assert not value.any()


def test_a_projected_state_gets_blocks_only_where_they_are_square():
    values = weights(DeepLSTM(8, 2, projection_size=3, input_size=C), RecurrentOrthogonal())
    assert np.isfinite(values["l0_h2h_weight"]).all() and values["l0_h2h_weight"].any()  # (32, 3): Glorot
    square = weights(DeepLSTM(8, 2, projection_size=4, input_size=C), RecurrentOrthogonal())["l0_h2h_weight"]
    assert all(np.allclose(b @ b.T, np.eye(4), atol=1e-5) for b in np.split(square, 8))


def test_it_is_a_matter_of_mxnets_seed():
    layer = DeepRNN(H, 2, input_size=C)
    first, again, other = (weights(layer, RecurrentOrthogonal(), seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["l0_h2h_weight"], other["l0_h2h_weight"])


def test_the_draw_is_even_over_the_orthogonal_matrices():
    # Haar measure: entries have mean 0 and variance 1 / H, and both determinants come up. LAPACK's plain Q fails this.
    mx.random.seed(0)
    layer = DeepRNN(4, 1, input_size=C)
    draws = np.stack([weights(layer, RecurrentOrthogonal(), seed)["l0_h2h_weight"] for seed in range(300)])
    assert np.abs(draws.mean(0)).max() < 4 * (0.25 / 300) ** 0.5
    assert abs((np.linalg.det(draws) > 0).mean() - 0.5) < 4 * (0.25 / 300) ** 0.5


def test_it_keeps_a_layers_own_initializers():
    layer = DeepRNN(
        H, 1, input_size=C, h2h_weight_initializer=mx.init.One(), i2h_bias_initializer=mx.init.Constant(0.5)
    )
    values = weights(layer, RecurrentOrthogonal())
    assert (values["l0_h2h_weight"] == 1).all() and (values["l0_i2h_bias"] == 0.5).all()


def test_it_serves_float64_deferred_shapes_and_its_registered_name():
    layer = DeepRNN(H, 1, dtype="float64")
    layer.initialize("recurrentorthogonal")
    layer(mx.nd.ones((2, 1, C), dtype="float64"))
    weight = layer.l0_h2h_weight.data().asnumpy()
    assert weight.dtype == np.float64 and np.allclose(weight @ weight.T, np.eye(H), atol=1e-10)


def test_the_signal_survives_depth_and_length():
    def last_norm(init):
        layer = DeepRNN(64, 8, "tanh", input_size=64)
        weights(layer, init)
        x = mx.nd.random.normal(0, 0.1, shape=(20, 4, 64))
        return float(layer(x)[-1].norm().asscalar() / x[-1].norm().asscalar())

    assert last_norm(RecurrentOrthogonal()) > 0.3
    assert last_norm(Normal(0.01)) < 1e-6


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("residual", [False, True])
def test_depth_scaled_weights_have_the_variance_of_their_formula(activation, residual):
    net = LanguageModel(500, 128, 5, embedding_size=64, activation=activation, residual=residual)
    values = weights(net, DepthScaled(activation, residual))
    gain = 2**0.5 if activation == "relu" else 1
    for layer in range(5):
        fan_in = 128 if layer else 64
        growth = {"tanh": [1, 1, 2, 3, 4], "relu": [1, 1, 2 + 2 / np.pi, 3 + 6 / np.pi, 4 + 12 / np.pi]}[activation]
        value = _ending(values, f"l{layer}_i2h_weight")
        assert value.std() == pytest.approx(gain / (fan_in * (growth[layer] if residual else 1)) ** 0.5, rel=0.03)
        square = _ending(values, f"l{layer}_h2h_weight")
        assert np.allclose(square @ square.T, np.eye(128), atol=1e-4)
    assert _ending(values, "embedding0_weight").std() == pytest.approx(1, rel=0.02)
    assert _ending(values, "dense0_weight").std() == pytest.approx(128**-0.5, rel=0.02)


def test_a_name_that_ends_in_a_letter_and_a_number_is_no_layer():
    cell = rnn.RNNCell(128, input_size=128, prefix="encoder12_")
    values = weights(cell, DepthScaled(residual=True))
    assert values["i2h_weight"].std() == pytest.approx(128**-0.5, rel=0.03)
    alone = DeepRNN(128, 3, "tanh", input_size=128, residual=True, prefix="")
    assert weights(alone, DepthScaled(residual=True))["l2_i2h_weight"].std() == pytest.approx(256**-0.5, rel=0.03)


def _ending(values, name):
    (value,) = (value for key, value in values.items() if key.endswith(name))
    return value


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_in_a_residual_stack_of_sixteen_layers_no_layer_saturates_or_dies_out(activation):
    """The input of each non-linearity has the same spread at every depth; by Glorot's rule it grows with the depth."""

    def spreads(init):
        mx.random.seed(1)
        layer = DeepRNN(64, 16, activation, input_size=64, residual=True)
        layer.initialize(init, force_reinit=True)
        seen = []
        with layer.hooked(lambda _, x: seen.append(x.asnumpy()) or x):
            layer(mx.nd.random.normal(shape=(12, 8, 64)))
        return [float((after - before).std()) for before, after in zip(seen[1:], seen[2:])]  # of layers 2 to 16

    deep, glorot = spreads(DepthScaled(activation, residual=True)), spreads(RecurrentOrthogonal())
    # tanh keeps within its bounds what comes too large; relu adds up over the steps, too.
    assert deep[-1] / deep[0] < {"tanh": 1.1, "relu": 8}[activation]
    assert glorot[-1] / glorot[0] > {"tanh": 1.3, "relu": 100}[activation]


@pytest.mark.parametrize("kind", KINDS)
def test_identity_blocks(kind):
    cls, gates = KINDS[kind]
    values = weights(cls(H, 2, input_size=C), RecurrentIdentity(0.5))
    for name, value in values.items():
        if name.endswith("h2h_weight"):
            assert all(np.array_equal(block, 0.5 * np.eye(H)) for block in np.split(value, gates))
        elif name.endswith("i2h_weight"):
            assert 0 < np.abs(value).max() < 1


@pytest.mark.parametrize("init", [DepthScaled("relu", residual=True, gain=0.5), RecurrentIdentity(2.0)])
def test_a_registered_name_and_its_arguments_bring_it_back(init):
    name, arguments = json.loads(init.dumps())
    again = mx.init.registry.get_create_func(mx.init.Initializer, "initializer")(name, **arguments)
    layer = DeepRNN(H, 3, dtype="float64", input_size=C)
    first, second = weights(layer, init), weights(layer, again)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert layer.l2_i2h_weight.data().dtype == np.float64


def test_the_names_of_the_command_line():
    assert set(INITIALIZERS) == {"deep", "orthogonal", "identity", "normal", "xavier"}
    deep = initializer("deep", "relu", residual=True)
    assert isinstance(deep, DepthScaled) and deep.dumps() == DepthScaled("relu", residual=True).dumps()
    assert isinstance(initializer("identity"), RecurrentIdentity)
    assert isinstance(initializer("orthogonal"), RecurrentOrthogonal)
    assert isinstance(initializer("normal"), Normal) and initializer("normal").sigma == 0.01
    assert isinstance(initializer("xavier"), Xavier)
    with pytest.raises(
        ValueError, match=r"init must be one of .*'orthogonal'.*got 'orthogonl'; did you mean 'orthogonal'\?"
    ):
        initializer("orthogonl")
