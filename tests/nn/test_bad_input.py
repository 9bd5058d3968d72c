"""Wrong arguments: the exact type of error, and a message that names the argument, what was expected and what came."""

from __future__ import annotations

import re
from functools import partial

import mxnet as mx
import numpy as np
import pytest
from mxnet import nd

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, ElmanCell, GRUCell, LanguageModel, LSTMCell
from deeprnn._util.checks import check_bounds, check_choice, check_fraction, check_size
from deeprnn.nn.initializers import initializer
from deeprnn.testing import Run, compare, copy_parameters

T, N, C, H = 4, 2, 3, 5
LAYERS = [DeepRNN, DeepGRU, DeepLSTM]
CELLS = [ElmanCell, GRUCell, LSTMCell]


def raises(call, error, *words):
    """`call` raises exactly `error`, in one line, with these words in their order."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert caught.type is error, f"{caught.type.__name__}: {message}"
    assert re.search(".*".join(map(re.escape, words)), message), message
    assert "\n" not in message


SIZES = [
    ("hidden_size", 0, ValueError, "at least 1, got 0"),
    ("hidden_size", -3, ValueError, "at least 1, got -3"),
    ("hidden_size", 2.0, TypeError, "whole number, got 2.0"),
    ("hidden_size", "8", TypeError, "whole number, got '8'"),
    ("hidden_size", True, TypeError, "whole number, got True"),
    ("hidden_size", None, TypeError, "whole number, got None"),
    ("input_size", -1, ValueError, "at least 0, got -1"),
    ("input_size", 1.5, TypeError, "whole number, got 1.5"),
]


@pytest.mark.parametrize("cls", LAYERS + CELLS)
@pytest.mark.parametrize(("name", "value", "error", "words"), SIZES)
def test_sizes(cls, name, value, error, words):
    raises(lambda: cls(**{"hidden_size": H, name: value}), error, f"{name} must be", words)


LAYER_ARGUMENTS = [
    ({"num_layers": 0}, ValueError, "num_layers must be at least 1, got 0"),
    ({"num_layers": 1.0}, TypeError, "num_layers must be a whole number, got 1.0"),
    ({"layout": "TCN"}, ValueError, "layout must be one of 'TNC', 'NTC', got 'TCN'"),
    ({"layout": None}, ValueError, "layout must be one of 'TNC', 'NTC', got None"),
    ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1, got 1.0"),
    ({"dropout": -0.1}, ValueError, "dropout must be at least 0 and below 1, got -0.1"),
    ({"dropout": float("nan")}, ValueError, "dropout must be at least 0 and below 1, got nan"),
    ({"dropout": "0.5"}, TypeError, "dropout must be a number, got '0.5'"),
    (
        {"dropout_mode": "variationel"},
        ValueError,
        "dropout_mode must be one of 'standard', 'variational', got 'variationel'; did",
    ),
    ({"dtype": "int32"}, ValueError, "dtype must be one of 'float32', 'float64', 'float16', got 'int32'"),
    ({"dtype": "float23"}, ValueError, "dtype must be one of 'float32', 'float64', 'float16', got 'float23'"),
    ({"dtype": "bfloat16"}, TypeError, "dtype bfloat16"),
    ({"unroll_length": 0}, ValueError, "unroll_length must be at least 1, got 0"),
]


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize(
    ("arguments", "error", "message"), LAYER_ARGUMENTS, ids=lambda a: str(a) if isinstance(a, dict) else ""
)
def test_arguments_of_a_layer(cls, arguments, error, message):
    raises(lambda: cls(H, **arguments), error, message)


@pytest.mark.parametrize("cls", LAYERS)
def test_an_argument_that_does_not_exist(cls):
    raises(lambda: cls(H, dropuot=0.5), TypeError, "dropuot")


@pytest.mark.parametrize("make", [lambda a: DeepRNN(H, activation=a), lambda a: ElmanCell(H, a)], ids=["layer", "cell"])
@pytest.mark.parametrize("value", ["sigmoid", "Tanh", None])
def test_activations(make, value):
    raises(lambda: make(value), ValueError, "activation must be one of 'relu', 'tanh'", f"got {value!r}")


LSTM_ARGUMENTS = [
    ({"projection_size": -1}, ValueError, "projection_size must be at least 1, got -1"),
    ({"projection_size": 1.5}, TypeError, "projection_size must be a whole number, got 1.5"),
    ({"state_clip_min": -1}, ValueError, "state_clip_min and state_clip_max go together, got state_clip_min=-1"),
    ({"state_clip_max": 1}, ValueError, "state_clip_min and state_clip_max go together"),
    (
        {"state_clip_min": 1, "state_clip_max": -1},
        ValueError,
        "state_clip_min must not exceed state_clip_max, got 1 and -1",
    ),
    ({"state_clip_min": "a", "state_clip_max": 1}, TypeError, "state_clip_min"),
]


@pytest.mark.parametrize("cls", [DeepLSTM, LSTMCell])
@pytest.mark.parametrize(
    ("arguments", "error", "message"), LSTM_ARGUMENTS, ids=lambda a: str(a) if isinstance(a, dict) else ""
)
def test_arguments_of_an_lstm(cls, arguments, error, message):
    raises(lambda: cls(H, **arguments), error, message)


def made(cls=DeepRNN, hybrid=False, **options):
    layer = cls(H, 2, input_size=C, **options)
    layer.initialize()
    if hybrid:
        layer.hybridize()
    return layer


def zeros(*shape, dtype="float32"):
    return nd.zeros(shape, dtype=dtype)


CALLS = {
    "rank 2": (lambda net: net(zeros(T, C)), ValueError, "inputs must have 3 axes, TNC, got shape (4, 3)"),
    "rank 4": (lambda net: net(zeros(T, N, C, 1)), ValueError, "inputs must have 3 axes, TNC, got shape (4, 2, 3, 1)"),
    "features": (
        lambda net: net(zeros(T, N, 7)),
        ValueError,
        "inputs must have input_size 3 on their last axis, got shape (4, 2, 7)",
    ),
    "int": (lambda net: net(zeros(T, N, C, dtype="int32")), TypeError, "inputs must be float32", "got int32"),
    "float64": (lambda net: net(zeros(T, N, C, dtype="float64")), TypeError, "inputs must be float32", "got float64"),
    "numpy": (lambda net: net(np.zeros((T, N, C), "float32")), TypeError, "inputs must be", "got", "ndarray"),
    "list": (lambda net: net([1.0, 2.0]), TypeError, "inputs must be", "got", "list"),
    "None": (lambda net: net(None), TypeError, "inputs must be", "got", "None"),
    "mx.np's states": (
        lambda net: net(mx.np.zeros((T, N, C)), net.begin_state(N)),
        TypeError,
        "states[0] must be a ndarray, as inputs are, got NDArray",
    ),
    "no states": (lambda net: net(zeros(T, N, C), []), ValueError, "states must be 1 tensor(s), got 0"),
    "two states": (
        lambda net: net(zeros(T, N, C), net.begin_state(N) * 2),
        ValueError,
        "states must be 1 tensor(s), got 2",
    ),
    "state's batch": (
        lambda net: net(zeros(T, N, C), net.begin_state(3)),
        ValueError,
        "states[0] must have shape (2, 2, 5), got (2, 3, 5)",
    ),
    "state's layers": (
        lambda net: net(zeros(T, N, C), zeros(1, N, H)),
        ValueError,
        "states[0] must have shape (2, 2, 5), got (1, 2, 5)",
    ),
    "state's dtype": (
        lambda net: net(zeros(T, N, C), net.begin_state(N, dtype="float64")),
        TypeError,
        "states[0] must be float32, got float64",
    ),
    "state's type": (lambda net: net(zeros(T, N, C), [None]), TypeError, "states[0] must be a NDArray", "got NoneType"),
    "a symbol's state": (
        lambda net: net(mx.sym.var("x"), net.begin_state(N)),
        TypeError,
        "states[0] must be a Symbol",
        "NDArray",
    ),
    "an array's state": (
        lambda net: net(zeros(T, N, C), net.begin_state(func=mx.sym.var)),
        TypeError,
        "states[0] must be a NDArray",
        "got Symbol",
    ),
    "lengths": (
        lambda net: net(zeros(T, N, C), None, zeros(N)),
        ValueError,
        "sequence_length needs a layer built with use_sequence_length=True",
    ),
}


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("call", CALLS)
def test_calls_of_a_layer(call, hybrid):
    function, error, *words = CALLS[call]
    raises(lambda: function(made(hybrid=hybrid)), error, *words)


@pytest.mark.parametrize("shape", [(0, N, C), (T, 0, C)])
@pytest.mark.parametrize("input_size", [0, C])
def test_empty_inputs(shape, input_size):
    layer = DeepRNN(H, input_size=input_size)
    layer.initialize()
    with mx.util.np_shape(True):
        empty = nd.zeros(shape)
    raises(
        lambda: layer(empty),
        ValueError,
        "inputs must hold at least one step, sequence and feature, got shape",
        str(shape),
    )


def test_states_of_an_lstm_are_two():
    net = made(DeepLSTM)
    raises(lambda: net(zeros(T, N, C), zeros(2, N, H)), ValueError, "states must be 2 tensor(s), got 1")
    net = made(DeepLSTM, projection_size=2)
    raises(
        lambda: net(zeros(T, N, C), [zeros(2, N, H)] * 2),
        ValueError,
        "states[0] must have shape (2, 2, 2), got (2, 2, 5)",
    )


def test_layout_ntc_is_named():
    net = made(layout="NTC", bidirectional=True)
    raises(lambda: net(zeros(T, C)), ValueError, "inputs must have 3 axes, NTC")
    raises(
        lambda: net(zeros(N, T, C), zeros(4, T, H)), ValueError, "states[0] must have shape (4, 2, 5), got (4, 4, 5)"
    )


def test_sequence_lengths():
    net = made(use_sequence_length=True)
    x = zeros(T, N, C)
    raises(lambda: net(x), ValueError, "use_sequence_length=True needs a sequence_length with each call")
    raises(lambda: net(x, None, zeros(3)), ValueError, "sequence_length must have shape (2,), got (3,)")
    raises(lambda: net(x, None, zeros(2, 1)), ValueError, "sequence_length must have shape (2,), got (2, 1)")
    raises(lambda: net(x, None, [4, 2]), TypeError, "sequence_length must be", "NDArray", "got", "list")


def test_the_one_length_of_unroll_length():
    raises(lambda: made(unroll_length=3)(zeros(T, N, C)), ValueError, "inputs must have unroll_length 3 steps, got 4")


@pytest.mark.parametrize("cls", LAYERS)
def test_float16_and_bfloat16_on_the_cpu(cls):
    layer = cls(H, dtype="float16")
    layer.initialize()
    raises(lambda: layer(zeros(T, N, C, dtype="float16")), TypeError, "float16 needs a GPU", "float32")
    layer = made(cls)
    layer.cast("float16")
    raises(lambda: layer(zeros(T, N, C, dtype="float16")), TypeError, "float16 needs a GPU")
    raises(lambda: layer.cast("bfloat16"), TypeError, "bfloat16")
    raises(lambda: layer.cast("int8"), ValueError, "dtype must be one of 'float32', 'float64', 'float16', got 'int8'")
    layer.cast("float32")
    assert layer(zeros(T, N, C)).dtype == np.float32  # a refused cast changes nothing


@pytest.mark.parametrize("cls", CELLS)
def test_a_cells_dtype(cls):
    raises(lambda: cls(H, dtype="float23"), ValueError, "dtype must be one of", "got 'float23'")
    raises(lambda: cls(H, dtype="bfloat16"), TypeError, "bfloat16")


@pytest.mark.parametrize("shape", [(0, N, C), (T, 0, C)])
@pytest.mark.parametrize("cls", [DeepRNN, DeepGRU, DeepLSTM])
def test_no_steps_and_no_sequences_wherever_the_layer_is(cls, shape):
    with mx.util.np_shape(True):
        empty = zeros(*shape)
    for hybrid in (False, True):
        layer = made(cls, hybrid)
        for _ in range(2):
            raises(lambda layer=layer: layer(empty), ValueError, "inputs must hold at least one step")
            layer(zeros(T, N, C))
    net = mx.gluon.nn.HybridSequential()
    net.add(made(cls))
    net.hybridize()
    net(zeros(T, N, C))
    with mx.util.np_shape(True), pytest.raises(mx.MXNetError, match="must have three known sizes"):
        net(empty).wait_to_read()


def test_a_dtype_of_none_and_lengths_of_float16():
    raises(lambda: made(dtype=None), ValueError, "dtype must be one of", "got 'None'")
    layer = made(use_sequence_length=True)
    for dtype in ("float16", "bool"):
        lengths = mx.nd.ones((N,), dtype=dtype)
        call = partial(layer, zeros(T, N, C), None, lengths)
        raises(call, TypeError, "sequence_length must be whole numbers, float32 or float64, got " + dtype)


def test_optimize_for_and_hybridize():
    raises(lambda: made().optimize_for(zeros(T, N, C)), ValueError, "optimize_for needs the name of a backend")
    net = mx.gluon.nn.HybridSequential()
    net.add(made(layer_norm=True))
    net.hybridize(static_alloc=True, static_shape=True)
    raises(
        lambda: net(zeros(T, N, C)),
        ValueError,
        "DeepRNN inside a block hybridized with static_shape=True needs MXNet's loop operator",
        "unroll_length=T",
    )
    raises(lambda: made().export("net"), RuntimeError, "call hybridize() and then the block itself once before export")


MODEL_ARGUMENTS = [
    ({"vocab_size": 0}, ValueError, "vocab_size must be at least 1, got 0"),
    ({"vocab_size": "7"}, TypeError, "vocab_size must be a whole number, got '7'"),
    ({"hidden_size": 0}, ValueError, "hidden_size must be at least 1, got 0"),
    ({"num_layers": 0}, ValueError, "num_layers must be at least 1, got 0"),
    ({"embedding_size": -1}, ValueError, "embedding_size must be at least 0, got -1"),
    ({"cell": "lstn"}, ValueError, "cell must be one of 'rnn', 'gru', 'lstm', got 'lstn'; did you mean 'lstm'?"),
    ({"activation": "sigmoid"}, ValueError, "activation must be one of"),
    ({"backend": "torch"}, ValueError, "backend must be one of 'deeprnn', 'gluon', got 'torch'"),
    ({"dropout": 1}, ValueError, "dropout must be at least 0 and below 1, got 1"),
    ({"dropout": 0.5, "backend": "gluon"}, ValueError, "backend 'gluon' ignores dropout on the CPU"),
    ({"dtype": "int8"}, ValueError, "dtype must be one of"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), MODEL_ARGUMENTS, ids=lambda a: str(a) if isinstance(a, dict) else ""
)
def test_arguments_of_a_language_model(arguments, error, message):
    raises(lambda: LanguageModel(**{"vocab_size": 7, "hidden_size": H, **arguments}), error, message)


@pytest.mark.parametrize("backend", ["deeprnn", "gluon"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"activation": "sigmoid"}, "activation must be one of"),
    ],
    ids=["hidden_size", "num_layers", "activation"],
)
def test_both_backends_refuse_the_same(backend, arguments, message):
    raises(
        lambda: LanguageModel(**{"vocab_size": 7, "hidden_size": H, "backend": backend, **arguments}),
        ValueError,
        message,
    )


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
def test_calls_of_a_language_model(hybrid):
    net = LanguageModel(7, H)
    net.initialize()
    if hybrid:
        net.hybridize(static_alloc=True, static_shape=True)
    ids = zeros(T, N, dtype="int32")
    raises(
        lambda: net(zeros(T, dtype="int32")), ValueError, "ids must have shape (sequence_length, batch_size), got (4,)"
    )
    raises(lambda: net(zeros(T, N, 1)), ValueError, "ids must have shape", "got (4, 2, 1)")
    raises(lambda: net(np.zeros((T, N), "int32")), TypeError, "ids must be", "got", "ndarray")
    raises(lambda: net(ids, [zeros(1, N, H)] * 2), ValueError, "states must be 1 tensor(s), got 2")
    raises(lambda: net(ids, zeros(1, 3, H)), ValueError, "states[0] must have shape (1, 2, 5), got (1, 3, 5)")
    raises(lambda: net(ids, zeros(1, N, H, dtype="float64")), TypeError, "states[0] must be float32, got float64")


def test_parity():
    raises(
        lambda: copy_parameters(made(), made(DeepGRU, bidirectional=True)),
        ValueError,
        "the two blocks differ in parameters",
    )
    run = Run({"outputs": np.zeros(2)}, [])
    raises(lambda: compare(Run({}, []), run), ValueError, "nothing to compare with ['outputs']")


def test_checks():
    assert check_size("n", np.int64(3)) == 3 and type(check_size("n", np.int64(3))) is int
    assert check_fraction("p", 0) == 0.0 and check_choice("c", "a", ("a", "b")) == "a"
    assert check_fraction("p", np.float32(0.5)) == 0.5 and type(check_fraction("p", np.float32(0.5))) is float
    assert check_bounds("low", np.float32(-0.5), "high", np.int64(1)) == (-0.5, 1.0)
    raises(lambda: check_fraction("p", np.bool_(False)), TypeError, "p must be a number, got ")
    raises(lambda: check_size("n", np.float32(3)), TypeError, "n must be a whole number")
    raises(lambda: check_fraction("p", True), TypeError, "p must be a number, got True")
    raises(lambda: check_choice("c", ["a"], ("a", "b")), ValueError, "c must be one of 'a', 'b', got ['a']")
    raises(lambda: initializer("xaver"), ValueError, "init must be one of", "got 'xaver'; did you mean 'xavier'?")
