"""Weights for deep stacks: orthogonal where the state goes through, Glorot's variance elsewhere."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.initializer import Normal, Xavier

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, RecurrentOrthogonal
from deeprnn.initializers import INITIALIZERS, initializer

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


def test_the_names_of_the_command_line():
    assert set(INITIALIZERS) == {"orthogonal", "normal", "xavier"}
    assert isinstance(initializer("orthogonal"), RecurrentOrthogonal)
    assert isinstance(initializer("normal"), Normal) and initializer("normal").sigma == 0.01
    assert isinstance(initializer("xavier"), Xavier)
    with pytest.raises(
        ValueError, match=r"init must be one of .*'orthogonal'.*got 'orthogonl'; did you mean 'orthogonal'\?"
    ):
        initializer("orthogonl")
