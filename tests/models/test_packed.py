"""A language model by the native kernels alone: the same numbers as in MXNet, and the same bits in any company."""

from __future__ import annotations

import copy
import gc

import mxnet as mx
import numpy as np
import pytest

from deeprnn import LanguageModel
from deeprnn.generation import Sampler, generate, samples
from deeprnn.models.language_model import STACKS, register_cell
from deeprnn.models.packed import PackedNetwork
from deeprnn.nn import native
from deeprnn.nn.cells import ElmanCell
from deeprnn.runtimes import MXNetModel, model_of
from deeprnn.testing import distance

pytestmark = pytest.mark.skipif(not native.status().available, reason=str(native.status()))

OPTIONS = {
    "one-hot": {},
    "embedding": {"embedding_size": 13},
    "tied": {"embedding_size": 37, "tied": True},
    "residual": {"embedding_size": 5, "residual": True},
}


def network(cell: str = "rnn", symbols: int = 23, units: int = 37, layers: int = 3, **options) -> LanguageModel:
    net = LanguageModel(symbols, units, layers, cell=cell, **options)
    net.initialize()
    rng = np.random.RandomState(0)
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(rng.randn(*parameter.shape) / 6, dtype=parameter.dtype))
    return net


def ids_and_states(net: LanguageModel, steps: int, batch_size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.RandomState(steps + batch_size)
    states = [rng.randn(*state.shape).astype(state.dtype) for state in net.begin_state(batch_size)]
    return rng.randint(net.vocab_size, size=(steps, batch_size)), states


def check_equal(net: LanguageModel, oracle: LanguageModel, steps: int, batch_size: int, tolerance: float) -> None:
    ids, states = ids_and_states(net, steps, batch_size)
    packed, expected = net.packed(), MXNetModel(oracle)
    logits, last = packed(ids, packed.states(states))
    with native.switched(False):
        true, true_last = expected(ids, expected.states(states))
    for got, wanted in zip([logits, *packed.arrays(last)], [true, *expected.arrays(true_last)]):
        assert got.dtype == wanted.dtype and distance(got, wanted) < tolerance


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cell", ["rnn", "relu", "gru", "lstm"])
def test_it_computes_what_the_network_computes(cell, options, dtype, tolerance):
    """The oracle has MXNet's built-in layers, or where they lack or miss it, the operators of the cells.

    They lack residual, and compute relu in float32 though its arrays are of float64.
    """
    kind = {"cell": "rnn", "activation": "relu"} if cell == "relu" else {"cell": cell}
    missing = "residual" in options or (cell, dtype) == ("relu", "float64")
    net = network(**kind, **options, dtype=dtype)
    oracle = network(**kind, **options, dtype=dtype, backend="deeprnn" if missing else "gluon")
    for steps, batch_size in ((1, 1), (1, 5), (7, 2), (20, 17)):
        check_equal(net, oracle, steps, batch_size, tolerance)


def test_a_vocabulary_too_large_for_a_table_of_input_parts():
    options = {"cell": "lstm", "symbols": 16_000, "units": 70, "layers": 1, "embedding_size": 3}
    check_equal(network(**options), network(**options, backend="gluon"), 3, 5, 1e-5)


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_products_that_are_summed_in_blocks(cell):
    options = {"cell": cell, "units": 400, "layers": 2, "embedding_size": 8}
    for batch_size in (1, 2, 3, 8):
        check_equal(network(**options), network(**options, backend="gluon"), 2, batch_size, 1e-5)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_sequence_gets_the_same_bits_in_any_company(cell):
    """Alone step by step, among others, in one call, by one thread and by two."""
    net = network(cell, symbols=101, units=400, layers=2, embedding_size=30)
    packed = net.packed()
    ids, states = ids_and_states(net, 3, 70)
    together, last = packed(ids, packed.states(states))
    for n in (0, 1, 35, 69):
        own = packed.states([state[:, n : n + 1] for state in states])
        for t in range(3):
            logits, own = packed(ids[t : t + 1, n : n + 1], own)
            assert np.array_equal(logits[0, 0], together[t, n])
        assert np.array_equal(own[:, :, 0], last[:, :, n])
    before = native.status().threads
    try:
        native.set_threads(2)
        assert np.array_equal(packed(ids, packed.states(states))[0], together)
    finally:
        native.set_threads(before)


def test_states_of_the_caller_are_left_alone():
    packed = network("lstm").packed()
    states = packed.begin(2)
    packed(np.array([[1, 2]]), states)
    assert not states.any() and states.shape == (2, 3, 2, 37)


def test_weights_are_those_of_the_time_of_packing():
    net = network()
    packed, ids = net.packed(), np.array([[3]])
    before = packed(ids, packed.begin(1))[0]
    net.decoder.bias.set_data(mx.nd.ones((23,)))
    assert np.array_equal(packed(ids, packed.begin(1))[0], before)
    assert not np.array_equal(net.packed()(ids, packed.begin(1))[0], before)


@pytest.mark.parametrize("value", [-1, 23, 2**40])
def test_ids_that_are_no_symbol(value):
    packed = network().packed()
    with pytest.raises(ValueError, match="ids must be from 0 to 22"):
        packed(np.array([[1, value]]), packed.begin(2))


@pytest.mark.parametrize("shape", [(0, 1), (1, 0), (0, 0), (3,)], ids=str)
def test_no_ids(shape):
    """Which the kernels would divide by."""
    packed = network().packed()
    with pytest.raises(ValueError, match="ids must have at least one step and one sequence, got shape ") as raised:
        packed(np.zeros(shape, dtype=int), packed.begin(shape[-1]))
    assert str(raised.value).endswith(str(shape))


def test_states_of_another_network():
    packed = network().packed()
    with pytest.raises(ValueError, match=r"states must be those of 2 sequences, got float32 of \(1, 3, 1, 37\)"):
        packed(np.array([[1, 2]]), packed.begin(1))
    with pytest.raises(ValueError, match="got float64"):
        packed(np.array([[1]]), packed.begin(1).astype(np.float64))


class Own(LanguageModel):
    """Somebody's own, which may compute something else."""


class OwnCell(ElmanCell):
    """Likewise."""


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: network(layer_norm=True), "layer_norm=True"),
        (lambda: network(zoneout=0.1), "zoneout=0.1"),
        (lambda: network(layer_norm=True, zoneout=0.1), "layer_norm=True, zoneout=0.1"),
        (lambda: network(backend="gluon"), "backend='gluon'"),
        (lambda: network(dtype="float16"), "dtype='float16'"),
        (lambda: Own(5, 4), "a network of the class Own"),
        (lambda: network("own"), "the cell OwnCell"),
    ],
    ids=["layer_norm", "zoneout", "both", "gluon", "float16", "subclass", "registered"],
)
def test_what_has_no_kernel_is_run_by_mxnet(make, named, monkeypatch):
    monkeypatch.setitem(STACKS, "deeprnn", dict(STACKS["deeprnn"]))
    register_cell("own", OwnCell)
    net = make()
    with pytest.raises(ValueError, match=f"^there is no kernel for {named}$"):
        net.packed()
    assert isinstance(model_of(net), MXNetModel)
    with pytest.raises(ValueError, match=f"runtime='native' cannot run this model: there is no kernel for {named}$"):
        model_of(net, runtime="native")


def test_without_the_library_mxnet_runs_it():
    net = network()
    assert isinstance(model_of(net), PackedNetwork)
    assert isinstance(model_of(net, runtime="mxnet"), MXNetModel)
    with native.switched(False):
        assert isinstance(model_of(net), MXNetModel)
        with pytest.raises(ValueError, match="native operator: not used, it is switched off"):
            model_of(net, runtime="native")


def test_a_gpu_is_mxnets():
    with pytest.raises(ValueError, match=r"the kernels are for the CPU, and the network is to run on gpu\(0\)"):
        network().packed(mx.gpu())


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_seed_gives_the_text_that_mxnet_gives(cell):
    net = network(cell, embedding_size=8)
    by_mxnet = samples(MXNetModel(net), [1, 2], 60, sampler=Sampler(), rngs=[np.random.default_rng(7)])
    text = generate(net, [1, 2], 60, sampler=Sampler(), rng=np.random.default_rng(7))
    assert text == [int(symbol[0]) for symbol in by_mxnet]


def test_a_copy_outlives_the_original():
    packed = network().packed()
    ids, states = np.array([[1, 2]]), packed.begin(2)
    expected = packed(ids, states)[0]
    another = copy.copy(packed)
    del packed
    gc.collect()
    assert np.array_equal(another(ids, states)[0], expected)
    with pytest.raises(TypeError, match="call packed"):
        copy.deepcopy(another)
