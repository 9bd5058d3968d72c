"""PyTorch's names, both ways: the same parameters are the same function in `torch.nn`."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from networks import KINDS, TOKENS, answers, arguments, layers, model

import deeprnn
from deeprnn import export
from deeprnn.export.torch import parameters_of
from deeprnn.testing import distance

safetensors = pytest.importorskip("safetensors.numpy", reason="pip install .[hub]")
every_kind = pytest.mark.parametrize("kind", KINDS)


def values(net):
    return {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}


def same(a, b):
    a, b = values(a), values(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@every_kind
@pytest.mark.parametrize("num_layers, bidirectional", [(1, False), (2, True), (12, True)])
def test_a_state_dict_shows_the_stack(kind, num_layers, bidirectional):
    options = {"activation": "tanh"} if kind == "rnn" else {}
    net = layers(kind, num_layers, bidirectional=bidirectional, **options)
    back = export.from_torch(parameters_of(net))
    assert type(back) is type(net) and same(back, net)
    given = arguments(net, 4, 2)
    assert all(np.array_equal(a, b) for a, b in zip(answers(back, given), answers(net, given)))


@pytest.mark.parametrize("options", [{"projection_size": 3}, {"layer_norm": True}], ids=["projection", "layer-norm"])
def test_options_that_the_parameters_show(options):
    assert same(export.from_torch(parameters_of(layers("lstm", **options))), layers("lstm", **options))


@pytest.mark.parametrize("options", [{}, {"embedding_size": 3}, {"embedding_size": 4, "tied": True}])
def test_a_language_model_comes_back(options, tmp_path):
    net = model("gru", **options)
    assert ("embedding.weight" in parameters_of(net)) == (options == {"embedding_size": 3})
    assert same(export.from_torch(parameters_of(net)), net)
    export.to_torch(net, tmp_path / "model", vocabulary=TOKENS)
    back, vocabulary = deeprnn.from_pretrained(tmp_path / "model")
    assert same(back, net) and vocabulary.idx_to_token == TOKENS
    assert same(export.from_torch(tmp_path / "model" / "model.safetensors"), net)


def test_options_that_the_parameters_do_not_show():
    net = layers("rnn", 3, layout="NTC", activation="relu", residual=True)
    back = export.from_torch(parameters_of(net), layout="NTC", activation="relu", residual=True)
    given = arguments(net, 4, 2)
    assert distance(answers(back, given)[0], answers(net, given)[0]) == 0


@every_kind
def test_torchs_own_stack_becomes_ours(kind, tmp_path):
    torch = pytest.importorskip("torch", reason="pip install .[torch]")
    theirs = getattr(torch.nn, kind.upper())(3, 4, 3, bidirectional=True)
    ours = export.from_torch(theirs.state_dict())
    assert set(parameters_of(ours)) == set(theirs.state_dict())
    given = arguments(ours, 5, 2)
    states = [torch.tensor(given[name]) for name in ("h0", "c0") if name in given]
    outputs, last = theirs(torch.tensor(given["input"]), tuple(states) if kind == "lstm" else states[0])
    expected = [outputs, *(last if kind == "lstm" else [last])]
    for a, b in zip(answers(ours, given), expected):
        assert distance(a, b.detach().numpy()) <= 1e-6


@every_kind
def test_our_stack_becomes_torchs_own(kind, tmp_path):
    torch = pytest.importorskip("torch", reason="pip install .[torch]")
    from safetensors.torch import load_file

    ours = layers(kind, 3, **({"activation": "tanh"} if kind == "rnn" else {}))
    export.to_torch(ours, tmp_path / "model")
    theirs = getattr(torch.nn, kind.upper())(3, 4, 3)
    theirs.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"))
    given = arguments(ours, 5, 2)
    states = [torch.tensor(given[name]) for name in ("h0", "c0") if name in given]
    outputs, _ = theirs(torch.tensor(given["input"]), tuple(states) if kind == "lstm" else states[0])
    assert distance(answers(ours, given)[0], outputs.detach().numpy()) <= 1e-6


def without(name):
    return lambda arrays: arrays.pop(name)


@pytest.mark.parametrize(
    "change, message",
    [
        (without("weight_ih_l0"), "the state dict lacks weight_ih_l0: is it that of a torch.nn.RNN, GRU or LSTM?"),
        (without("bias_hh_l1"), "the state dict lacks bias_hh_l1"),
        (lambda a: a.update(fc=np.zeros(2)), "the state dict has fc, which the network lacks"),
        (
            lambda a: a.update(bias_hh_l1=np.zeros(3)),
            r"the state dict: bias_hh_l1 must have shape \(16,\), got \(3,\)",
        ),
        (
            lambda a: a.update(weight_ih_l0=np.zeros((7, 3), "float32")),
            "weight_ih_l0 has 7 rows, which is not 1, 3 or 4 times 4 units",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit(change, message):
    arrays = parameters_of(layers("lstm"))
    change(arrays)
    with pytest.raises(ValueError, match=message):
        export.from_torch(arrays)


def test_a_pickle_is_not_read(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match=r"model.pt is not a safetensors file .* as a pickle may hold code"):
        export.from_torch(tmp_path / "model.pt")


def test_an_error_leaves_the_network_as_it_was():
    net = layers("gru")
    before = values(net)
    with pytest.raises(ValueError):
        export.torch.load_parameters(net, {**parameters_of(net), "bias_hh_l1": np.zeros(3)})
    assert all(np.array_equal(before[name], value) for name, value in values(net).items())


def test_a_network_with_the_built_in_layers_leaves_with_ours(tmp_path):
    net = deeprnn.LanguageModel(7, 4, 2, cell="lstm", embedding_size=3, backend="gluon")
    net.initialize(mx.init.Normal(0.5))
    export.to_torch(net, tmp_path / "model", vocabulary=TOKENS)
    back, _ = deeprnn.from_pretrained(tmp_path / "model")
    ids = mx.nd.array([[1, 2], [3, 4], [5, 6]], dtype="int32")
    assert distance(back(ids)[0], net(ids)[0]) <= 1e-6


def test_parameters_that_fit_two_models_are_not_guessed():
    net = deeprnn.LanguageModel(6, 6, cell="gru", embedding_size=6, tied=True)
    net.initialize()
    with pytest.raises(ValueError, match="give tied=True or tied=False"):
        export.from_torch(parameters_of(net))
    read = export.from_torch(parameters_of(net), tied=True)
    ids = mx.nd.array([[1, 2], [3, 4]])
    assert np.array_equal(read(ids)[0].asnumpy(), net(ids)[0].asnumpy())
    assert not export.from_torch(parameters_of(net), tied=False).tied
