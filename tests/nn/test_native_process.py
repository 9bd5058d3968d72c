"""The native operator in a process: how it is loaded, why it is not, and how it lives with MXNet's other machinery."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

import deeprnn
from deeprnn import DeepGRU, DeepLSTM, testing
from deeprnn.nn import native

PREPARED = """
import json, os, sys
import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
import deeprnn
from deeprnn import testing
from deeprnn.nn import native

def run(layer, length=5, natively=True):
    x = mx.nd.array(np.random.default_rng(length).normal(size=(length, 3, 4)))
    x.attach_grad()
    with native.switched(natively), autograd.record():
        y = layer(x)
        total = (y * y).sum()
    total.backward()
    return [a.asnumpy() for a in (y, x.grad, *(p.grad() for p in layer.collect_params().values()))]

def made(**options):
    layer = deeprnn.DeepLSTM(6, 2, bidirectional=True, input_size=4, **options)
    layer.initialize()
    testing.randomize(layer)
    return layer

def close(found, expected):
    assert max(testing.distance(a, b) for a, b in zip(found, expected)) <= 1e-5
"""


def in_a_process(program: str, *arguments: str, prepared: str = PREPARED, **environment: str) -> str:
    """What a program prints that ends well; it has a minute."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", prepared + program, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(deeprnn.__file__).parent.parent), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# With MXNet's machinery


def test_the_naive_engine(needs_native: str) -> None:
    in_a_process(
        """
layer = made()
close(run(layer), run(layer, natively=False))
layer.hybridize(static_alloc=True, static_shape=True)
close(run(layer), run(made(), natively=False))
""",
        MXNET_ENGINE_TYPE="NaiveEngine",
    )


def test_the_profiler_and_a_library_that_is_loaded_again(needs_native: str, tmp_path: Path) -> None:
    """Also by another copy of the module that loads it, which finds its operator."""
    in_a_process(
        """
import importlib.util

expected = run(made())
mx.profiler.set_config(profile_all=True, filename=sys.argv[1] + "/profile.json", aggregate_stats=True)
mx.profiler.set_state("run")
layer = made()
layer.hybridize()
found = run(layer)
mx.nd.waitall()
mx.profiler.set_state("stop")
assert "deeprnn_recurrence" in mx.profiler.dumps()
assert all(np.array_equal(a, b) for a, b in zip(found, expected))

spec = importlib.util.spec_from_file_location("deeprnn.nn.native_again", native.__file__)
again = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = again
spec.loader.exec_module(again)
assert str(again.status()) == str(native.status()) and again.status().available
assert again.status is not native.status

for time in ("first", "second"):
    try:
        mx.library.load(str(native.LIBRARY), verbose=False)
    except mx.MXNetError as error:
        assert time == "second" and "already registered" in str(error)  # MXNet's, for any library
    found = run(made())
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
""",
        str(tmp_path),
    )


@pytest.mark.parametrize("asked, threads", [("3", 3), ("0", None)])
def test_threads_are_those_of_the_environment_or_one_a_core(needs_native: str, asked: str, threads: Any) -> None:
    shown = in_a_process("print(native.status().threads, len(os.sched_getaffinity(0)))", OMP_NUM_THREADS=asked)
    found, cores = map(int, shown.split())
    assert found == (threads or cores)


def test_a_small_call_takes_one_thread_and_a_large_one_all_that_are_allowed(needs_native: str) -> None:
    in_a_process(
        """
def helpers():
    return len(os.listdir("/proc/self/task"))
native.set_threads(3)
small, large = deeprnn.DeepLSTM(8, input_size=8), deeprnn.DeepLSTM(128, input_size=128)
for layer in (small, large):
    layer.initialize()
large(mx.nd.ones((1, 1, 128))).wait_to_read()  # MXNet's own threads
before = helpers()
small(mx.nd.ones((4, 4, 8))).wait_to_read()
assert helpers() == before
large(mx.nd.ones((20, 64, 128))).wait_to_read()
assert helpers() == before + 2  # the caller is the third
"""
    )


@pytest.mark.parametrize("cap", ["1", "2", "3"])
def test_gradients_that_mxnet_adds_up_in_place_from_fewer_uses_on(needs_native: str, cap: str) -> None:
    """In a stack two directions read one tensor, and a residual connection does."""
    in_a_process(
        """
def gradients(net):
    x = mx.nd.array(np.random.default_rng(0).normal(size=(5, 3, 6)))
    x.attach_grad()
    with autograd.record():
        total = (net(x) ** 2).sum()
    total.backward()
    return [a.asnumpy() for a in (x.grad, *(p.grad() for p in net.collect_params().values()))]

for options in ({"bidirectional": True}, {"residual": True}):
    layer = deeprnn.DeepGRU(6, 3, input_size=6, **options)
    around = gluon.nn.HybridSequential()
    around.add(gluon.nn.Dense(6, flatten=False, in_units=6), layer)
    around.initialize()
    testing.randomize(around)
    for net in (layer, around):
        net.hybridize(False)
        expected = gradients(net)
        for _ in range(2):
            net.hybridize(static_alloc=True, static_shape=True)
            close(gradients(net), expected)
""",
        MXNET_EXEC_INPLACE_GRAD_SUM_CAP=cap,
    )


def test_a_library_that_the_user_loads_first(needs_native: str) -> None:
    in_a_process(
        """
mx.library.load(str(native.LIBRARY), verbose=False)
assert native.status().available
close(run(made()), run(made(), natively=False))
"""
    )


def test_bounds_are_read_as_c_writes_numbers_whatever_the_language(needs_native: str, tmp_path: Path) -> None:
    make = shutil.which("localedef")
    if not make or subprocess.run([make, "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")]).returncode > 1:
        pytest.skip("needs localedef and the source of a locale with a decimal comma")
    in_a_process(
        """
import locale
assert locale.setlocale(locale.LC_ALL, "de_DE.UTF-8") and locale.localeconv()["decimal_point"] == ","
layer = made(projection_size=3, state_clip_min=-0.25, state_clip_max=0.125)
close(run(layer), run(layer, natively=False))
""",
        LOCPATH=str(tmp_path),
    )


def test_a_gradient_needs_what_the_forward_pass_saves(needs_native: str) -> None:
    call = native._loaded().with_arrays  # type: ignore[union-attr]  # loaded: `needs_native`
    inputs = [mx.nd.ones(shape) for shape in ((3, 2, 4), (20, 4), (20, 5), (20,), (20,), (2, 5), (2, 5))]
    for x in inputs:
        x.attach_grad()
    with autograd.record():
        outputs = call(*inputs, cell="lstm", hidden_size=5)[0]
    outputs.backward()
    with pytest.raises(mx.MXNetError, match="needs save=1 for its gradient"):
        inputs[0].grad.wait_to_read()
    with pytest.raises(mx.MXNetError, match="needs cell and hidden_size"):
        call(*inputs[:6], hidden_size=5)


def test_forked_processes(needs_native: str) -> None:
    """A child that calls what its parent has called, with threads; and the workers of a DataLoader."""
    in_a_process(
        """
native.set_threads(2)
layer = deeprnn.DeepLSTM(128, input_size=64)  # large enough for two
layer.initialize()
testing.randomize(layer)
layer.hybridize()
x = mx.nd.array(np.random.default_rng(0).normal(size=(20, 32, 64)))
expected = layer(x).asnumpy()

class Rows(gluon.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return layer(x).asnumpy()[i]

child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(layer(x).asnumpy(), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
rows = np.concatenate([batch.asnumpy() for batch in gluon.data.DataLoader(Rows(), 2, num_workers=1)])
assert np.array_equal(rows, expected[:4])
assert np.array_equal(layer(x).asnumpy(), expected)
"""
    )


def test_no_shape_that_is_unknown_ends_the_process(needs_native: str) -> None:
    """Symbols with the operator inside, and all, some or none of the shapes; and bare symbols, partly inferred again
    and again, where numbers of axes are unknown: nothing is written past the end, as the C library checks."""
    in_a_process(
        """
for numpy_shapes in (False, True):
    with mx.util.np_shape(numpy_shapes):
        for options in ({}, {"layout": "NTC"}, {"use_sequence_length": True}, {"projection_size": 3}):
            for given in (False, True):
                layer = deeprnn.DeepLSTM(6, 2, bidirectional=True, **options)
                layer.hybridize(given)
                more = [mx.sym.var("lengths")] if "use_sequence_length" in options else []
                unknown = (-1 if numpy_shapes else 0,)
                states = layer.begin_state(*unknown, func=mx.sym.var) if given else None
                result = layer(mx.sym.var("x"), states, *more)
                graph = mx.sym.Group([result[0], *result[1]]) if given else result
                assert "deeprnn_recurrence" in graph.tojson()
                weight = next(name for name in graph.list_arguments() if name.endswith("l0_i2h_weight"))
                size = 3 if "projection_size" in options else 6
                x = (3, 5, 4) if "layout" in options else (5, 3, 4)
                for known in ({}, {weight: (24, 4)}, {"x": x}, {"x": x, weight: (24, 4)}, {"x": unknown * 3}):
                    known.update({"lengths": (3,)} if more and known.get("x") == x else {})
                    for infer in (graph.infer_shape_partial, graph.infer_shape):
                        try:
                            arguments, outputs, _ = infer(**known)
                        except mx.MXNetError as error:
                            assert known.get("x") != x, error
                            continue
                        if known.get("x") == x and not given:  # MXNet's split hands no shape back to the states
                            assert outputs[0] == (*x[:2], 2 * size)
                            assert dict(zip(graph.list_arguments(), arguments))[weight] == (24, 4)
                wrong = {"x": x, weight: (24, 5), **({"lengths": (3,)} if more else {})}
                for infer in (graph.infer_shape_partial, graph.infer_shape):
                    try:
                        infer(**wrong)
                    except mx.MXNetError as error:
                        assert "must have shape (24, 4), got (24, 5)" in str(error), error
                    else:
                        raise AssertionError("a wrong weight was taken")

for _ in range(20):
    for kind in (deeprnn.DeepRNN, deeprnn.DeepGRU, deeprnn.DeepLSTM):
        layer = kind(6, input_size=4, use_sequence_length=True)
        layer.hybridize(kind is not deeprnn.DeepLSTM)
        states = [mx.sym.var(f"state{i}") for i in range(len(layer.state_info()))]
        outputs, last = layer(mx.sym.var("x"), states, mx.sym.var("lengths"))
        graph = mx.sym.Group([outputs, *last])
        assert "deeprnn_recurrence" in graph.tojson()
        for known in ({}, {"x": (5, 3, 4)}, {"lengths": (3,)}, {"state0": (1, 3, 6)}):
            try:
                graph.infer_shape_partial(**known)
            except mx.MXNetError as error:
                assert "must have three known sizes" in str(error), error
""",
        MALLOC_CHECK_="3",
        LD_PRELOAD="libc_malloc_debug.so.0",  # which has the check since glibc 2.34
    )


def test_a_wrong_shape_or_type_is_an_error_and_not_a_crash(needs_native: str) -> None:
    call = native._loaded().with_arrays  # type: ignore[union-attr]  # loaded: `needs_native`
    good = [(3, 2, 4), (5, 4), (5, 5), (5,), (5,), (2, 5)]
    attributes = {"cell": "tanh", "hidden_size": 5}
    call(*(mx.nd.zeros(shape) for shape in good), **attributes)[0].wait_to_read()
    for i, shape in enumerate(good):
        for wrong in ((*shape[:-1], shape[-1] + 1), (*shape, 1)):
            if i == 0 and len(wrong) == 3:
                continue
            with pytest.raises(mx.MXNetError, match="must have"):
                call(*(mx.nd.zeros(wrong if i == j else s) for j, s in enumerate(good)), **attributes)
    with pytest.raises(mx.MXNetError, match="of one type"):
        call(*(mx.nd.zeros(s, dtype="float64" if i else "float32") for i, s in enumerate(good)), **attributes)
    with pytest.raises(mx.MXNetError, match="float32 or float64"):
        call(*(mx.nd.zeros(s, dtype="int32") for s in good), **attributes)
    with pytest.raises(mx.MXNetError, match="needs cell and hidden_size"):
        call(*(mx.nd.zeros(s) for s in good), cell="peephole", hidden_size=5)


# Whether it serves, and why not


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The module as it is before the first call."""
    monkeypatch.setattr(native, "_operator", None)
    monkeypatch.setattr(native, "_reason", None)
    monkeypatch.delenv(native.SWITCH, raising=False)
    return monkeypatch


def assert_the_fallback_serves() -> None:
    layer = DeepLSTM(3, input_size=2)
    layer.initialize()
    assert layer(mx.nd.ones((2, 1, 2))).shape == (2, 1, 3)
    with pytest.raises(RuntimeError, match="native operator: not used"):
        native.set_threads(2)
    with pytest.raises(RuntimeError, match="native operator: not used"):
        native.set_instruction_set("avx2")


def test_a_library_that_is_there_serves() -> None:
    """So that no test is skipped because of a library that is broken."""
    if not native.LIBRARY.exists() or os.environ.get(native.SWITCH) == "0":
        pytest.skip("not built, or switched off")
    assert native.status().available, native.status()
    assert native.status().threads >= 1 and native.status().instruction_set in ("avx2", "avx512")
    assert str(native.status()).startswith(f"native operator: {native.status().instruction_set}, up to ")


def test_it_is_switched_off_by_the_environment(unloaded: pytest.MonkeyPatch) -> None:
    unloaded.setenv(native.SWITCH, "0")
    assert native.status() == native.Status(False, "DEEPRNN_NATIVE=0 is set")
    assert str(native.status()) == "native operator: not used, DEEPRNN_NATIVE=0 is set"
    assert_the_fallback_serves()


def test_it_is_switched_off_for_a_while(needs_native: str) -> None:
    with native.switched(False):
        assert native.status() == native.Status(False, "it is switched off")
    assert native.status().available


def test_a_library_that_was_not_built(unloaded: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unloaded.setattr(native, "LIBRARY", tmp_path / "none.so")
    assert "was not built" in native.status().reason
    assert_the_fallback_serves()


def test_a_library_that_is_none(unloaded: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bad.so").write_bytes(b"nothing to run")
    unloaded.setattr(native, "LIBRARY", tmp_path / "bad.so")
    assert "bad.so" in native.status().reason and "\n" not in native.status().reason
    assert_the_fallback_serves()


def test_a_library_that_lacks_functions(unloaded: pytest.MonkeyPatch) -> None:
    unloaded.setattr(native, "LIBRARY", Path(mx.libinfo.find_lib_path()[0]))
    assert "deeprnn_version" in native.status().reason and "\n" not in native.status().reason
    assert_the_fallback_serves()


def test_a_library_of_another_version(needs_native: str, unloaded: pytest.MonkeyPatch) -> None:
    unloaded.setattr(native, "__version__", "9.9")
    assert native.status().reason == f"the library was built for version {deeprnn.__version__} of this package, not 9.9"
    assert_the_fallback_serves()


@pytest.mark.parametrize("name", ["sse", "AVX2", "avx1024"])
def test_an_instruction_set_that_there_is_not(needs_native: str, unloaded: pytest.MonkeyPatch, name: str) -> None:
    best = native.status().instruction_set
    with pytest.raises(OSError, match=name):
        native.set_instruction_set(name)
    assert native.status().instruction_set == best
    unloaded.setattr(native, "_operator", None)
    unloaded.setenv(native.SWITCH, name)
    assert native.status().reason == (f"instruction set {name!r} is not one that this processor has: avx2, avx512")
    assert_the_fallback_serves()


def test_one_that_there_is_is_forced(needs_native: str, unloaded: pytest.MonkeyPatch) -> None:
    unloaded.setenv(native.SWITCH, "avx2")
    try:
        assert native.status().instruction_set == "avx2"
    finally:
        native.set_instruction_set("")


# In somebody else's files


class Net(gluon.HybridBlock):
    def __init__(self) -> None:
        super().__init__(prefix="net_")
        with self.name_scope():
            self.encode = gluon.nn.Dense(4, flatten=False, in_units=3)
            self.first = DeepLSTM(5, 2, bidirectional=True, input_size=4)
            self.second = DeepGRU(6, input_size=10, layout="TNC")
            self.decode = gluon.nn.Dense(2, flatten=False, in_units=6)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.decode(self.second(self.first(self.encode(x))))


def operators(path: Path) -> set[str]:
    def walk(graph: dict[str, Any]) -> set[str]:
        return {node["op"] for node in graph["nodes"]}.union(
            *(walk(inner) for node in graph["nodes"] for inner in node.get("subgraphs", []))
        )

    return walk(json.loads(path.read_text()))


IMPORTING = """
import sys
import mxnet as mx
import numpy as np
from mxnet import gluon

folder = sys.argv[1]
def imported(name):
    return gluon.SymbolBlock.imports(f"{folder}/{name}-symbol.json", ["data"], f"{folder}/{name}-0000.params")
"""


def test_a_portable_file_needs_nothing_of_this_package(needs_native: str, tmp_path: Path) -> None:
    for name, flags in (("plain", {}), ("static", {"static_alloc": True, "static_shape": True})):
        net = Net()
        net.initialize()
        testing.randomize(net)
        net.hybridize(**flags)
        expected = {length: net(mx.nd.ones((length, 2, 3)) * 0.3).asnumpy() for length in (5, 1, 9)}
        net.export(str(tmp_path / f"needing-{name}"))
        deeprnn.portable(net).export(str(tmp_path / f"portable-{name}"))
        assert native.OPERATOR in operators(tmp_path / f"needing-{name}-symbol.json")
        found = operators(tmp_path / f"portable-{name}-symbol.json")
        assert native.OPERATOR not in found and "RNN" not in found and "_foreach" in found
        for length, value in expected.items():
            np.save(tmp_path / f"{name}-{length}.npy", value)
        # And the net itself is as it was, once hybridized anew.
        net.hybridize(**flags)
        assert np.array_equal(net(mx.nd.ones((5, 2, 3)) * 0.3).asnumpy(), expected[5])
    printed = in_a_process(
        """
for name in ("plain", "static"):
    net = imported(f"portable-{name}")
    for length in (5, 1, 9):
        found = net(mx.nd.ones((length, 2, 3)) * 0.3).asnumpy()
        expected = np.load(f"{folder}/{name}-{length}.npy")
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    try:
        imported(f"needing-{name}")
    except mx.MXNetError as error:
        print(str(error).replace("\\n", " "))
assert not any(name.startswith("deeprnn.nn") for name in sys.modules)  # what lets mxnet load may be there
import deeprnn
assert deeprnn.native.status().available
for name in ("plain", "static"):
    found = imported(f"needing-{name}")(mx.nd.ones((9, 2, 3)) * 0.3).asnumpy()
    assert np.array_equal(found, np.load(f"{folder}/{name}-9.npy"))
""",
        str(tmp_path),
        prepared=IMPORTING,
    )
    assert [native.OPERATOR in line for line in printed.splitlines()] == [True, True]


def test_portable_before_a_first_call_says_what_to_do(needs_native: str) -> None:
    net = Net()
    net.initialize()
    with pytest.raises(RuntimeError, match="call hybridize"):
        deeprnn.portable(net)
    layer = DeepLSTM(3, input_size=2)
    assert deeprnn.portable(layer) is layer  # its own export is so in any case


def test_a_portable_net_still_runs_and_trains(needs_native: str) -> None:
    net, reference = Net(), Net()
    for each in (net, reference):
        each.initialize()
        testing.randomize(each)
    net.hybridize()
    x = mx.nd.random.normal(shape=(4, 2, 3))
    net(x)
    deeprnn.portable(net)
    results = []
    for each in (net, reference):
        with mx.autograd.record():
            total = (each(x) ** 2).sum()
        total.backward()
        results.append([total, *(p.grad() for p in each.collect_params().values())])
    assert max(testing.distance(a, b) for a, b in zip(*results)) <= 1e-5
