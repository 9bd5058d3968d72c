"""What gluon and its tools do with a layer besides calling it: copies, hooks, AMP, quantization, loaders, files.

What the built-in layer cannot do either is shown beside.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.contrib import amp, quantization
from mxnet.gluon import nn, rnn

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, LanguageModel, LSTMCell, RecurrentStack
from deeprnn.nn import native
from deeprnn.testing import distance, randomize
from deeprnn.train import checkpoint
from deeprnn.train.position import Position
from deeprnn.train.saving import Checkpoints

T, N, C, H = 5, 4, 8, 8
PAIRS = {"rnn": (DeepRNN, rnn.RNN), "gru": (DeepGRU, rnn.GRU), "lstm": (DeepLSTM, rnn.LSTM)}
FLAGS: list[Any] = [None, {}, {"static_alloc": True, "static_shape": True}]
every_kind = pytest.mark.parametrize("kind", PAIRS)
every_flag = pytest.mark.parametrize("flags", FLAGS, ids=["eager", "hybridized", "static"])
each = pytest.mark.parametrize("which", [0, 1], ids=["deeprnn", "gluon"])


def drawn(*shape: int, seed: int = 0) -> Any:
    return nd.array(np.random.default_rng(seed).normal(size=shape))


def made(cls: Any, flags: Any = None, **options: Any) -> Any:
    layer = cls(H, 2, **{"input_size": C, **options})
    layer.initialize()
    randomize(layer)
    if flags is not None:
        layer.hybridize(**flags)
    return layer


class Net(gluon.HybridBlock):
    """Somebody else's, with products around the layer if asked for."""

    def __init__(self, layer: gluon.HybridBlock, products: bool = False) -> None:
        super().__init__()
        with self.name_scope():
            self.before = nn.Dense(C, flatten=False, in_units=C) if products else None
            self.layer = layer
            self.after = nn.Dense(3, flatten=False, in_units=H) if products else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.layer(self.before(x) if self.before else 2 * x)
        return self.after(y) if self.after else y + 1


def net_around(cls: Any, products: bool = False, **options: Any) -> Net:
    net = Net(cls(H, 2, input_size=C, **options), products)
    net.initialize()
    randomize(net)
    net.hybridize()
    return net


# Copies

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda block: pickle.loads(pickle.dumps(block))}


@every_kind
@every_flag
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_computes_and_trains_by_itself(implementation: str, kind: str, flags: Any, how: str) -> None:
    layer, x = made(PAIRS[kind][0], flags), drawn(T, N, C)
    with autograd.record():
        layer(x)
    before = layer(x).asnumpy()
    again = COPIES[how](layer)
    assert np.array_equal(again(x).asnumpy(), before)
    trainer = gluon.Trainer(again.collect_params(), "sgd", {"learning_rate": 1.0})
    with autograd.record():
        total = again(x).sum()
    total.backward()
    trainer.step(1)
    assert distance(again(x), before) > 1e-3
    assert np.array_equal(layer(x).asnumpy(), before)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_model_and_of_a_layer_out_of_a_net(implementation: str, how: str) -> None:
    model = LanguageModel(6, H, 2, cell="lstm", embedding_size=3)
    model.initialize()
    model.hybridize()
    ids = nd.array([[1, 2], [3, 4]])
    expected = model(ids)[0]
    again = COPIES[how](model)
    with autograd.record():
        logits = again(ids)[0]
        total = logits.sum()
    total.backward()
    assert distance(logits, expected) <= 1e-6
    assert all(p.grad().asnumpy().any() for p in again.collect_params().values() if "bias" in p.name)
    net, x = net_around(DeepGRU), drawn(T, N, C)
    net(x)  # leaves its graph in the name scopes of what is inside
    assert np.array_equal(COPIES[how](net.layer)(x).asnumpy(), net.layer(x).asnumpy())


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_the_built_in_layer_cannot_be_trained(how: str) -> None:
    again = COPIES[how](made(rnn.LSTM))
    with autograd.record():
        total = again(drawn(T, N, C)).sum()
    with pytest.raises(mx.MXNetError, match="not in a computational graph"):
        total.backward()


def test_the_built_in_layer_cannot_be_pickled_once_it_was_hybridized_and_called() -> None:
    layer = made(rnn.LSTM, {})
    layer(drawn(T, N, C))
    with pytest.raises(ValueError, match="ctypes objects containing pointers cannot be pickled"):
        pickle.dumps(layer)


# Who looks on


def seen_of(layer: Any, flags: Any) -> list[Any]:
    """What hooks get, by call: without states, and with."""
    seen: list[Any] = []

    def shapes(arrays: Any) -> Any:
        return [shapes(array) for array in arrays] if isinstance(arrays, (list, tuple)) else arrays.shape

    layer.register_forward_pre_hook(lambda block, inputs: seen.append(("before", shapes(inputs))))
    layer.register_forward_hook(lambda block, inputs, outputs: seen.append((shapes(inputs), shapes(outputs))))
    layer(drawn(T, N, C))
    if flags is None:  # the built-in one fixes what it returns when it is first called
        layer(drawn(T, N, C), layer.begin_state(N))
    return seen


@every_kind
@every_flag
def test_hooks_see_what_they_see_in_the_built_in_layer(implementation: str, kind: str, flags: Any) -> None:
    ours, theirs = (seen_of(made(cls, flags), flags) for cls in PAIRS[kind])
    assert ours == theirs and ours[1][1] == (T, N, H)


@pytest.mark.parametrize("flags", FLAGS[1:], ids=["hybridized", "static"])
def test_a_hook_gets_what_the_caller_gets_in_any_order_of_calls(implementation: str, flags: Any) -> None:
    layer, seen = made(DeepLSTM, flags), []
    layer.register_forward_hook(lambda block, inputs, outputs: seen.append(outputs))
    for states in (None, layer.begin_state(N), None):
        assert layer(drawn(T, N, C), states) is seen[-1]
        assert isinstance(seen[-1], nd.NDArray) == (states is None)


@every_kind
def test_apply_children_and_summary_are_those_of_the_built_in_layer(kind: str, capsys: Any) -> None:
    found = []
    for cls in PAIRS[kind]:
        layer, applied = made(cls), []
        layer.apply(applied.append)
        assert applied == [layer]
        for arguments in ([drawn(T, N, C)], [drawn(T, N, C), layer.begin_state(N)]):
            layer.summary(*arguments)
        # A column is as wide as what is in it.
        shown = [line.split() for line in capsys.readouterr().out.replace("Deep", "").splitlines()]
        found.append((len(layer._children), shown))
    assert found[0] == found[1]


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_private_names_that_others_read(kind: str, bidirectional: bool) -> None:
    options = {"dropout": 0.5, "layout": "NTC", "bidirectional": bidirectional, "dtype": "float64"}
    ours, theirs = (cls(H, 3, input_size=C, **options) for cls in PAIRS[kind])
    names = ("_mode", "_dir", "_hidden_size", "_num_layers", "_input_size", "_layout", "_dropout", "_dtype")
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours._use_sequence_length is theirs._use_sequence_length is False


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_unfused_cells_have_the_same_parameters(kind: str, bidirectional: bool) -> None:
    layers = [made(cls, bidirectional=bidirectional, dropout=0.5, prefix="p_") for cls in PAIRS[kind]]
    ours, theirs = (layer._unfuse() for layer in layers)
    assert [*map(type, ours._children.values())] == [*map(type, theirs._children.values())]
    assert list(ours.collect_params()) == list(theirs.collect_params())
    assert all(p is layers[0].collect_params()[name] for name, p in ours.collect_params().items())
    x = drawn(T, N, C)
    outputs, _ = ours.unroll(T, x, layout="TNC", merge_outputs=True)
    assert distance(outputs, layers[0](x)) <= 1e-6


@every_kind
def test_unfused_cells_of_any_type(kind: str) -> None:
    layer = PAIRS[kind][0](H, 2, input_size=C, dtype="float16")
    assert list(layer._unfuse().collect_params().values()) == list(layer.collect_params().values())


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"state_clip_min": -1.0, "state_clip_max": 1.0}, "state_clip_min"),
        ({"projection_size": 2, "residual": True}, "residual, projection_size"),
        ({"layer_norm": True, "zoneout": 0.1}, "layer_norm, zoneout"),
        ({"dropout_mode": "variational"}, "dropout_mode='variational'"),
    ],
)
def test_what_gluon_has_no_unfused_cells_for_is_named(options: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=rf"^gluon has no cells for {names}: build the layer without$"):
        made(DeepLSTM, **options)._unfuse()


def test_a_cell_of_ones_own_has_no_unfused_form() -> None:
    class Leaky(LSTMCell):
        pass

    with pytest.raises(ValueError, match="gluon has no cells for Leaky"):
        RecurrentStack(functools.partial(Leaky, 4), input_size=C)._unfuse()


# AMP


def casts(net: gluon.HybridBlock, operator: str) -> list[str]:
    """The types that an operator's inputs are cast to in a converted net."""
    nodes = json.loads(net._cached_graph[1].tojson())["nodes"]
    (node,) = (node for node in nodes if node["op"] == operator)
    return [nodes[i]["attrs"]["dtype"] for i, *_ in node["inputs"] if nodes[i]["op"] == "amp_cast"]


@every_kind
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_amp_leaves_the_recurrence_in_float32(needs_native: str, kind: str, dtype: str) -> None:
    net, x = net_around(PAIRS[kind][0]), drawn(T, N, C)
    expected = net(x)
    converted = amp.convert_hybrid_block(net, target_dtype=dtype, ctx=mx.cpu())
    assert distance(converted(x), expected) <= 1e-6


@pytest.mark.parametrize("products", [False, True])
def test_amp_casts_what_comes_in_to_float32(needs_native: str, products: bool) -> None:
    net, x = net_around(DeepLSTM, products), drawn(T, N, C)
    expected = net(x)
    converted = amp.convert_hybrid_block(net, target_dtype="bfloat16", ctx=mx.cpu())
    converted.hybridize()
    try:
        assert distance(converted(x).astype("float32"), expected) <= 2e-2
    except mx.MXNetError:
        assert products  # a product in bfloat16 needs AVX-512
        theirs = net_around(rnn.LSTM, products)
        theirs(x)
        with pytest.raises(mx.MXNetError):
            amp.convert_hybrid_block(theirs, target_dtype="bfloat16", ctx=mx.cpu())(x).wait_to_read()


@every_kind
@each
def test_amp_converts_a_layer_by_itself_and_an_exported_file(
    needs_native: str, kind: str, which: int, tmp_path: Any
) -> None:
    layer, x = made(PAIRS[kind][which], {}), drawn(T, N, C)
    begin = layer.begin_state(N)
    outputs, last = layer(x, begin)
    converted = amp.convert_hybrid_block(layer, target_dtype="bfloat16", ctx=mx.cpu())
    for a, b in zip(converted(x, *begin), [outputs, *last]):
        assert distance(a.astype("float32"), b) <= 1e-6
    net = net_around(PAIRS[kind][which])
    expected = net(x)
    net.export(str(tmp_path / "net"))
    symbol, arguments, auxiliary = mx.model.load_checkpoint(str(tmp_path / "net"), 0)
    symbol, arguments, _ = amp.convert_model(symbol, arguments, auxiliary, target_dtype="bfloat16")
    (found,) = symbol.bind(mx.cpu(), {**arguments, "data": x}).forward()
    assert distance(found.astype("float32"), expected) <= 1e-6


def test_in_float16_the_built_in_layer_fails_on_a_cpu() -> None:
    net, x = net_around(rnn.LSTM), drawn(T, N, C)
    net(x)
    with pytest.raises(mx.MXNetError):
        amp.convert_hybrid_block(net, target_dtype="float16", ctx=mx.cpu())(x).wait_to_read()


def test_without_the_native_operator_float16_fails_on_a_cpu_too() -> None:
    net, x = net_around(DeepLSTM), drawn(T, N, C)
    with native.switched(False):
        net(x)
        with pytest.raises(mx.MXNetError):
            amp.convert_hybrid_block(net, target_dtype="float16", ctx=mx.cpu())(x).wait_to_read()


# Quantization


def quantized(net: gluon.HybridBlock, calibrated: bool, **options: Any) -> gluon.HybridBlock:
    if calibrated:
        options["calib_data"] = mx.io.NDArrayIter(drawn(2 * N, T, C, seed=1), batch_size=N)
    else:
        options["data_shapes"] = [mx.io.DataDesc("data", (N, T, C))]
    mode = "naive" if calibrated else "none"
    quiet = logging.getLogger("quiet")
    return quantization.quantize_net_v2(net, "auto", calib_mode=mode, ctx=mx.cpu(), logger=quiet, **options)


@every_kind
@pytest.mark.parametrize("calibrated", [False, True])
def test_what_is_around_the_layer_can_be_quantized(needs_native: str, kind: str, calibrated: bool) -> None:
    net, x = net_around(PAIRS[kind][0], True, layout="NTC"), drawn(N, T, C)
    expected = net(x)
    found = quantized(net, calibrated)
    assert 1e-5 < distance(found(x), expected) <= 0.1


@pytest.mark.parametrize("calibrated", [False, True])
def test_around_the_built_in_layer_it_has_to_be_excluded(calibrated: bool) -> None:
    net, x = net_around(rnn.LSTM, True, layout="NTC"), drawn(N, T, C)
    expected = net(x)
    with pytest.raises(mx.MXNetError):
        quantized(net, calibrated)(x).wait_to_read()
    assert distance(quantized(net, calibrated, exclude_operators=["RNN"])(x), expected) <= 0.1


def test_without_the_native_operator_it_cannot_be_calibrated() -> None:
    """MXNet's monitor, by which it calibrates, fails on its own loop operator."""
    with native.switched(False):
        net = net_around(DeepLSTM, True, layout="NTC")
        with pytest.raises(mx.MXNetError, match="input_names"):
            quantized(net, True)


# Loaders


@pytest.mark.filterwarnings("ignore:ndarray.* has been renamed:DeprecationWarning")  # by gluon's own code
@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_of_numpy_arrays(workers: int) -> None:
    with mx.util.np_shape(True), mx.util.np_array(True):
        rows = mx.np.array(np.random.default_rng(0).normal(size=(6, T, C)), dtype="float32")
        loader = gluon.data.DataLoader(gluon.data.ArrayDataset(rows), batch_size=3, num_workers=workers)
        results = []
        for cls in PAIRS["lstm"]:
            layer = cls(H, 2, layout="NTC", input_size=C)
            layer.initialize()
            for i, p in enumerate(layer.collect_params().values()):
                p.set_data(mx.np.array(drawn(*p.shape, seed=i).asnumpy() / 4))
            results.append([layer(batch).asnumpy() for batch in loader])
    assert len(results[0]) == 2 and all(distance(a, b) <= 1e-5 for a, b in zip(*results))


# Names and files

OLD = {"rnn": "deeprnn0_", "gru": "deepgru0_", "lstm": "deeplstm0_"}
"""The default prefixes of versions before 0.1.0."""


@every_kind
@each
def test_by_default_names_are_those_of_the_built_in_layer(kind: str, which: int, tmp_path: Any) -> None:
    """`collect_params` selects, and what its `save` and `export` write can be read by the other layer."""
    x, path = drawn(T, N, C), str(tmp_path / "p")
    with mx.name.NameManager():  # counts from 0, as a new process does
        written = made(PAIRS[kind][which], {})
    with mx.name.NameManager():
        read = PAIRS[kind][1 - which](H, 2, input_size=C)
    read.initialize()
    assert len(written.collect_params(f"{kind}.*").keys()) == 8
    expected = written(x, written.begin_state(N))[0]
    written.collect_params().save(path)
    read.collect_params().load(path)
    assert distance(read(x), expected) <= 1e-5
    read.initialize(force_reinit=True)
    written.export(path)
    read.collect_params().load(f"{path}-0000.params")
    assert distance(read(x), expected) <= 1e-5


@every_kind
def test_files_with_the_old_names_are_read_by_a_layer_with_the_old_prefix(kind: str, tmp_path: Any) -> None:
    path, x = str(tmp_path / "p"), drawn(T, N, C)
    reference = made(PAIRS[kind][1])
    own = {name[len(reference.prefix) :]: p.data() for name, p in reference.collect_params().items()}
    nd.save(path, {OLD[kind] + name: value for name, value in own.items()})
    layer = PAIRS[kind][0](H, 2, input_size=C, prefix=OLD[kind])
    layer.collect_params().load(path)
    assert distance(layer(x), reference(x)) <= 1e-5
    # Or without a prefix in the layer: the names in the file change theirs.
    layer = PAIRS[kind][0](H, 2, input_size=C)
    stored = {layer.prefix + name[len(OLD[kind]) :]: value for name, value in nd.load(path).items()}
    layer.collect_params().load_dict(stored)
    assert distance(layer(x), reference(x)) <= 1e-5


@every_kind
def test_runs_with_the_old_names_are_read_as_they_are(kind: str, tmp_path: Any) -> None:
    """A run names its parameters by their place in the network."""
    nets = []
    for prefix in (OLD[kind], None):
        net = Net(PAIRS[kind][0](H, 2, input_size=C, **({"prefix": prefix} if prefix else {})))
        net.initialize()
        nets.append((net, gluon.Trainer(net.collect_params(), "adam", update_on_kvstore=False)))
    (old, _), (new, _) = nets
    assert any(OLD[kind] in name for name in old.collect_params())
    randomize(old)
    with autograd.record():
        total = old(drawn(T, N, C)).sum()
    total.backward()
    nets[0][1].step(1)
    state = {key: kind() for key, kind in checkpoint.REQUIRED_STATE.items()}
    Checkpoints(tmp_path).save(*nets[0], Position(), state)
    checkpoint.load(tmp_path).restore(*nets[1])
    assert np.array_equal(new(drawn(T, N, C)).asnumpy(), old(drawn(T, N, C)).asnumpy())


@pytest.mark.parametrize("cls", [DeepRNN, DeepGRU, DeepLSTM])
def test_a_file_may_bring_its_own_type(cls: Any, tmp_path: Any) -> None:
    """As into the built-in layer: what comes in, and the states, follow the parameters."""
    path, x = str(tmp_path / "double.params"), mx.nd.ones((T, N, C), dtype="float64")
    double = cls(H, input_size=C, dtype="float64")
    double.initialize()
    double.save_parameters(path)
    layer = cls(H, input_size=C)
    layer.initialize()
    layer.load_parameters(path, cast_dtype=True, dtype_source="saved")
    assert layer.dtype == "float64" and layer.begin_state(N)[0].dtype == np.float64
    assert np.array_equal(layer(x).asnumpy(), double(x).asnumpy())


@pytest.mark.parametrize("options", [{"layer_norm": True}, {"zoneout": 0.1}, {"layer_norm": True, "layout": "NTC"}, {}])
def test_states_that_a_foreign_block_makes_without_a_batch_size(options: Any) -> None:
    class Mine(gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            with self.name_scope():
                self.layer = DeepLSTM(H, 2, bidirectional=True, **options)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return self.layer(x, self.layer.begin_state(batch_size=0, func=F.zeros))[0]

    net = Mine()
    net.initialize()
    net.hybridize()
    for shape in ((T, N, C), (T + 2, N + 3, C)):
        x = mx.nd.random.normal(shape=shape)
        assert distance(net(x), net.layer(x)) < 1e-6


@pytest.mark.parametrize("layer", ["ours", "built-in"])
@pytest.mark.parametrize("change", ["moved", "cast"])
def test_export_after_the_parameters_were_moved_or_cast(layer, change, tmp_path):
    if (layer, change) == ("built-in", "cast"):
        pytest.skip("refused there")
    net = (DeepLSTM if layer == "ours" else mx.gluon.rnn.LSTM)(4, input_size=3)
    net.initialize()
    net.hybridize()
    x = mx.nd.random.normal(shape=(5, 2, 3))
    net(x)
    ctx, dtype = mx.cpu(), "float32"
    if change == "moved":
        ctx = mx.cpu(1)
        net.collect_params().reset_ctx(ctx)
    else:
        dtype = "float64"
        net.cast(dtype)
    net.export(str(tmp_path / "net"))
    x = x.as_in_context(ctx).astype(dtype)
    if layer == "ours":
        states = net.begin_state(2, ctx=ctx)
        names = [f"data{i}" for i in range(1 + len(states))]
        read = mx.gluon.SymbolBlock.imports(
            str(tmp_path / "net-symbol.json"), names, str(tmp_path / "net-0000.params"), ctx=ctx
        )
        read.cast(dtype)
        assert distance(read(x, *states)[0].asnumpy(), net(x).asnumpy()) < 1e-6


def test_threads_may_come_before_the_first_call_has_completed_the_shapes():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(10):
            net = DeepLSTM(16, 3)
            net.initialize()
            x = mx.nd.random.normal(shape=(3, 2, 6))
            with ThreadPoolExecutor(8) as pool:
                results = [each.asnumpy() for each in pool.map(net, [x] * 8)]
            assert all(np.array_equal(each, results[0]) for each in results)
    finally:
        sys.setswitchinterval(before)
