"""The native operator in use: every way of calling a layer gives the values and gradients of its formula."""

from __future__ import annotations

import functools
import itertools
import threading
from typing import Any, Callable, Optional

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, RecurrentStack, testing
from deeprnn.nn import native

pytestmark = pytest.mark.usefixtures("needs_native")

T, N, C = 4, 3, 5
FLAGS: dict[str, Optional[dict[str, Any]]] = {
    "eager": None,
    "hybridized": {},
    "static_alloc": {"static_alloc": True},
    "static_shape": {"static_alloc": True, "static_shape": True},
}
MAKE: dict[str, Callable[..., RecurrentStack]] = {
    "tanh": lambda **options: DeepRNN(C, activation="tanh", input_size=C, **options),
    "relu": lambda **options: DeepRNN(C, activation="relu", input_size=C, **options),
    "gru": lambda **options: DeepGRU(C, input_size=C, **options),
    "lstm": lambda **options: DeepLSTM(C, input_size=C, **options),
}
each_kind = pytest.mark.parametrize("kind", ["tanh", "gru", "lstm"])
each_flag = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS.keys())
STATIC = FLAGS["static_shape"]


def made(kind: str = "lstm", flags: Optional[dict[str, Any]] = None, **options: Any) -> RecurrentStack:
    layer = MAKE[kind](**{"num_layers": 2, "dtype": "float64", **options})
    layer.initialize()
    testing.randomize(layer)
    if flags is not None:
        layer.hybridize(**flags)
    return layer


def drawn(*shape: int, seed: int = 0, dtype: str = "float64") -> Any:
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def close(a: Any, b: Any, tolerance: float = 1e-10) -> bool:
    return len(a) == len(b) and max(testing.distance(x, y) for x, y in zip(a, b)) <= tolerance


def equal(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(np.array_equal(x.asnumpy(), y.asnumpy()) for x, y in zip(a, b))


# Where a layer is used


class Inside(gluon.HybridBlock):
    def __init__(self, layer: RecurrentStack) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = gluon.nn.Dense(C, flatten=False, in_units=C, dtype="float64")
            self.layer = layer

    def hybrid_forward(self, F: Any, x: Any, *states: Any) -> Any:
        y, last = self.layer(self.dense(x), list(states))
        return [self.dense(y), *last]


class Twice(Inside):
    def hybrid_forward(self, F: Any, x: Any, *states: Any) -> Any:
        y, last = self.layer(x, list(states))
        z, last = self.layer(self.dense(y), last)
        return [z, *last]


class Around(Inside):
    def hybrid_forward(self, F: Any, x: Any, *states: Any) -> Any:
        y, last = self.layer(x, list(states))
        return [self.dense(x + y), *last]


class Alone(gluon.Block):
    def __init__(self, layer: RecurrentStack) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any, *states: Any) -> Any:
        y, last = self.layer(x, list(states))
        return [y, *last]


PLACES = {
    "alone": Alone,
    **{cls.__name__.lower(): cls for cls in (Inside, Twice, Around)},
}


def placed(place: str, kind: str, flags: Optional[dict[str, Any]], within: str = "parent") -> gluon.Block:
    """A net around a layer; the parent is hybridized, or the layer alone."""
    net = PLACES[place](made(kind))
    if place != "alone":
        net.dense.initialize()
    testing.randomize(net)
    if flags is not None:
        (net if within == "parent" and place != "alone" else net.layer).hybridize(**flags)
    return net


def passes(net: gluon.Block, requests: tuple[str, str]) -> list[Any]:
    """Values and gradients, with a request for the parameters and one for inputs and states; with add of two passes."""
    parameters, arrays = requests
    net.collect_params().setattr("grad_req", parameters)
    x = drawn(T, N, C)
    layer = net.layer
    states = [drawn(*info["shape"], seed=2 + i) for i, info in enumerate(layer.state_info(N))]
    tensors = [x, *states]
    if arrays != "null":
        for tensor in tensors:
            tensor.attach_grad(arrays)
    for _ in range(2 if "add" in requests else 1):
        with autograd.record():
            outputs = net(*tensors)
            total = sum((drawn(*y.shape, seed=9) * y * y).sum() for y in outputs)
        if parameters != "null" or arrays != "null":
            total.backward()
    found = list(outputs)
    if arrays != "null":
        found += [tensor.grad for tensor in tensors]
    if parameters != "null":
        found += [p.grad() for p in net.collect_params().values()]
    return [array.copy() for array in found]


REQUESTS = (("write", "null"), ("add", "add"), ("write", "write"), ("null", "add"), ("add", "null"))


@functools.cache
def by_the_formula(place: str, kind: str) -> list[list[Any]]:
    net = placed(place, kind, None)
    with native.switched(False):
        return [passes(net, requests) for requests in REQUESTS]


WAYS = [
    (place, within, flags)
    for place, within, flags in itertools.product(PLACES, ["parent", "layer"], FLAGS)
    if within == "parent" or (place != "alone" and flags != "eager")  # there the two are one
]


@each_kind
@pytest.mark.parametrize(("place", "within", "flags"), WAYS, ids=str)
def test_wherever_it_is_whatever_is_asked(kind: str, place: str, within: str, flags: str) -> None:
    """The requests change from call to call, in one net."""
    net = placed(place, kind, FLAGS[flags], within)
    for requests, expected in zip(REQUESTS, by_the_formula(place, kind)):
        assert close(passes(net, requests), expected), requests


# Passes in another order than one forward, one backward


@each_kind
@each_flag
def test_two_forward_passes_before_two_backward(kind: str, flags: Any) -> None:
    results = []
    for layer, natively in ((made(kind, flags), True), (made(kind), False)):
        layer.collect_params().setattr("grad_req", "add")
        layer.collect_params().zero_grad()
        with native.switched(natively):
            with autograd.record():
                first, second = (layer(drawn(length, N, C, seed=length)) for length in (T, T + 2))
            (first * first).sum()  # not a part of it
            second.backward()
            first.backward()
        results.append([p.grad() for p in layer.collect_params().values()])
    assert close(*results)


@each_kind
@each_flag
def test_a_graph_that_is_retained_can_go_backward_again(kind: str, flags: Any) -> None:
    layer = made(kind, flags)
    x = drawn(T, N, C)
    x.attach_grad()
    with autograd.record():
        y = layer(x)
        total = (y * y).sum()
    results = []
    for retained in (True, True, False):
        total.backward(retain_graph=retained)
        results.append([x.grad.copy(), *(p.grad().copy() for p in layer.collect_params().values())])
        x.grad[:] = 4e32
    assert equal(results[0], results[1]) and equal(results[0], results[2])


class Calling(autograd.Function):
    """Somebody's function that records a call of its own on the way."""

    def __init__(self, layer: RecurrentStack) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        inner = x.copy()
        inner.attach_grad()
        with autograd.record():
            total = self.layer(inner).sum()
        total.backward()
        self.save_for_backward(inner.grad)
        return total.reshape((1,))

    def backward(self, of: Any) -> Any:
        return of * self.saved_tensors[0]


@each_flag
def test_a_recorded_call_within_another(flags: Any) -> None:
    layer = made("lstm", flags)
    x = drawn(T, N, C)
    found = []
    for call in (lambda x: Calling(layer)(x), lambda x: layer(x).sum()):
        x.attach_grad()
        with autograd.record():
            y = layer(x)
            with autograd.pause():
                layer(x[:2])
            total = call(y)
        total.backward()
        found.append(x.grad.copy())
    assert close(found[:1], found[1:])


@each_kind
@each_flag
def test_an_exception_between_forward_and_backward(kind: str, flags: Any) -> None:
    layer = made(kind, flags)

    def gradient() -> list[Any]:
        with autograd.record():
            y = layer(drawn(T, N, C))
            total = (y * y).sum()
        total.backward()
        return [y, *(p.grad().copy() for p in layer.collect_params().values())]

    expected = gradient()
    with pytest.raises(ZeroDivisionError), autograd.record():
        layer(drawn(T + 1, N, C))
        raise ZeroDivisionError
    assert equal(gradient(), expected)


def test_several_contexts() -> None:
    contexts = [mx.cpu(0), mx.cpu(1)]
    layer, reference = made("lstm", STATIC), made("lstm")
    layer.collect_params().reset_ctx(contexts)
    parts = [drawn(T, N, C, seed=i) for i in range(2)]
    with autograd.record():
        losses = [(layer(part.as_in_context(ctx)) ** 2).sum() for part, ctx in zip(parts, contexts)]
    autograd.backward(losses)
    for part, ctx in zip(parts, contexts):
        with autograd.record():
            total = (reference(part) ** 2).sum()
        total.backward()
        found = [p.grad(ctx) for p in layer.collect_params().values()]
        assert close(found, [p.grad() for p in reference.collect_params().values()])


@each_flag
def test_any_order_of_lengths_and_batches(flags: Any) -> None:
    net = made("gru", flags)
    rng = np.random.default_rng(4)
    shapes = [(int(t), int(n)) for t, n in zip(rng.integers(1, 30, 40), rng.integers(1, 9, 40))]
    results: dict[Any, Any] = {}
    for length, batch in shapes + shapes[::-1]:
        x = drawn(length, batch, C)
        x.attach_grad()
        with autograd.record():
            y = net(x)
        y.backward()
        found = [net(x), y, x.grad, net.l0_h2h_weight.grad().copy()]
        assert equal(found, results.setdefault((length, batch), found))
    with native.switched(False):
        length, batch = shapes[0]
        assert close(results[shapes[0]][:1], [made("gru")(drawn(length, batch, C))])


# Arrays of mx.np


class NumpyNet(gluon.HybridBlock):
    """As *Dive into Deep Learning* writes one."""

    def __init__(self, layer: RecurrentStack) -> None:
        super().__init__()
        self.layer = layer

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.layer(x * 2) + 1


@each_kind
@each_flag
@pytest.mark.parametrize(
    ("shapes", "arrays"), [(False, False), (True, False), (True, True)], ids=["nd", "nd with numpy's shapes", "np"]
)
@pytest.mark.parametrize("foreign", [False, True], ids=["alone", "in a foreign block"])
def test_arrays_and_shapes_of_numpy(kind: str, flags: Any, shapes: bool, arrays: bool, foreign: bool) -> None:
    reference = made(kind)
    x = drawn(T, N, C)
    scale, shift = (2, 1) if foreign else (1, 0)
    x.attach_grad()
    with autograd.record():
        y = reference(scale * x) + shift
        total = (y * y).sum()
    total.backward()
    expected = [y.asnumpy(), x.grad.asnumpy(), *(p.grad().asnumpy() for p in reference.collect_params().values())]
    with mx.util.np_shape(shapes), mx.util.np_array(arrays):
        layer = MAKE[kind](num_layers=2, dtype="float64")
        layer.initialize(mx.init.Zero())  # in float64 mx.np draws nothing
        for a, b in zip(layer.collect_params().values(), reference.collect_params().values()):
            a.set_data(b.data().as_np_ndarray() if arrays else b.data().as_nd_ndarray())
        net: Any = NumpyNet(layer) if foreign else layer
        if flags is not None:
            net.hybridize(**flags)
        inputs = mx.np.array(x.asnumpy(), dtype="float64") if arrays else mx.nd.array(x.asnumpy(), dtype="float64")
        for _ in range(2):
            net(inputs)
            inputs.attach_grad()
            with autograd.record():
                y = net(inputs)
                total = (y * y).sum()
            total.backward()
            assert type(y) is type(inputs)
            found = [y, inputs.grad, *(p.grad() for p in layer.collect_params().values())]
            assert all(testing.distance(a.asnumpy(), b) <= 1e-10 for a, b in zip(found, expected))
        if not foreign:
            outputs, last = net(inputs, net.begin_state(N))
            assert all(type(array) is type(inputs) for array in (outputs, *last))


@pytest.mark.parametrize("size", [0, None])
@pytest.mark.parametrize("shapes", [False, True])
def test_an_input_size_that_the_first_call_says(size: Optional[int], shapes: bool) -> None:
    with mx.util.np_shape(shapes):
        layer = DeepGRU(4, 2, input_size=size)
        layer.initialize()
        layer.hybridize()
        assert layer(mx.nd.ones((3, 2, 7))).shape == (3, 2, 4)
        assert layer.input_size == 7


# Threads that share a net


def together(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run in so many threads that begin at the same time; what they raise."""
    begin, raised = threading.Barrier(count), []

    def run(number: int) -> None:
        try:
            begin.wait(60)
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return raised


class Net(gluon.HybridBlock):
    """Somebody else's."""

    def __init__(self, layer: RecurrentStack) -> None:
        super().__init__()
        with self.name_scope():
            self.layer = layer

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.layer(x * 2)


def assert_threads_share(net: gluon.Block, calls: int, flags: Any = None) -> None:
    """Eight threads, calls of several lengths each, in inference: all results are those of one thread, to the bit."""
    inputs = [drawn(length, N, C, seed=length, dtype="float32") for length in (1, 3, 8, 20)]
    expected = [net(x).asnumpy() for x in inputs]
    if flags is not None:
        net.hybridize(**flags)
        if isinstance(net, Net):  # MXNet traces for one thread at a time only
            net(inputs[0]).wait_to_read()
    wrong = []

    def work(number: int) -> None:
        for i in range(calls):
            which = (number + i) % len(inputs)
            if not np.array_equal(net(inputs[which]).asnumpy(), expected[which]):
                wrong.append((number, i))

    assert together(8, work) == [] and wrong == []


@each_flag
def test_eight_threads_share_a_net_that_has_not_been_called(flags: Any) -> None:
    assert_threads_share(made("lstm", dtype="float32"), 60, flags)


@pytest.mark.parametrize("flags", [None, {}], ids=["eager", "hybridized"])
def test_eight_threads_share_somebody_elses_net(flags: Any) -> None:
    """Without static flags, under which MXNet is wrong for any layer, and called once before."""
    assert_threads_share(Net(made("lstm", dtype="float32")), 50, flags)


def test_eight_threads_share_the_fallback() -> None:
    with native.switched(False):
        assert_threads_share(made("lstm", dtype="float32"), 30, {})


@pytest.mark.parametrize("natively", [True, False], ids=["native", "fallback"])
@pytest.mark.parametrize("foreign", [False, True], ids=["alone", "in a foreign block"])
def test_a_first_call_that_fails_leaves_a_net_that_works(natively: bool, foreign: bool) -> None:
    with native.switched(natively):
        for flags in ({}, {"static_alloc": True} if foreign and not natively else STATIC):
            layer = DeepLSTM(C, 2, dtype="float64")
            net: Any = Net(layer) if foreign else layer
            net.hybridize(**flags)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="has not been initialized"):
                    net(drawn(T, N, C))
            net.initialize()
            net(drawn(T, N, C))
            testing.randomize(net)
            assert close([net(drawn(T, N, C))], [made("lstm")((1 + foreign) * drawn(T, N, C))])


@pytest.mark.parametrize("natively", [True, False], ids=["native", "fallback"])
@pytest.mark.parametrize("foreign", [False, True])
def test_an_interrupt_during_the_first_trace(monkeypatch: Any, natively: bool, foreign: bool) -> None:
    layer = made("gru")
    net: Any = Net(layer) if foreign else layer
    expected = net(drawn(T, N, C))
    net.hybridize(static_alloc=True)
    trace = RecurrentStack.hybrid_forward

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        trace(self, *args, **kwargs)
        raise KeyboardInterrupt

    with native.switched(natively):
        with monkeypatch.context() as patch:
            patch.setattr(RecurrentStack, "hybrid_forward", interrupted)
            with pytest.raises(KeyboardInterrupt):
                net(drawn(T, N, C))
        assert close([net(drawn(T, N, C))], [expected])


# Who looks on


def test_a_monitor_sees_the_operator() -> None:
    layer = made("lstm", dtype="float32", prefix="p_")
    graph = layer(mx.sym.var("x"))
    values = {"x": drawn(T, N, C, dtype="float32"), **{n: p.data() for n, p in layer.collect_params().items()}}
    executor = graph.bind(mx.cpu(), {name: values[name] for name in graph.list_arguments()})
    monitor = mx.mon.Monitor(1, stat_func=lambda x: x.abs().sum(), monitor_all=True)
    monitor.install(executor)
    monitor.tic()
    found = executor.forward()[0]
    seen = [name for _, name, _ in monitor.toc()]
    assert any("deeprnn_recurrence" in name for name in seen)
    assert np.array_equal(found.asnumpy(), layer(values["x"]).asnumpy())


@each_flag
def test_an_op_hook_changes_nothing(flags: Any) -> None:
    layer = made("lstm", flags)
    expected = layer(drawn(T, N, C))
    seen: list[str] = []
    layer.register_op_hook(lambda name, *_: seen.append(name.decode() if isinstance(name, bytes) else name))
    if flags is None:
        assert equal([layer(drawn(T, N, C))], [expected])
        return
    with pytest.warns(UserWarning, match="register_op_hook is experimental"):
        assert equal([layer(drawn(T, N, C))], [expected])
    assert any("deeprnn_recurrence" in name for name in seen)


@pytest.mark.parametrize("numpy_shapes_first", [True, False])
def test_a_net_traced_with_numpys_shapes_is_called_without_and_the_other_way(numpy_shapes_first: bool) -> None:
    net = placed("inside", "lstm", {})
    inputs = [drawn(T, N, C), *(drawn(2, N, C, seed=i) for i in (1, 2))]
    expected = net(*inputs)
    net.hybridize()
    for numpy_shapes in (numpy_shapes_first, not numpy_shapes_first):
        with mx.util.np_shape(numpy_shapes):
            assert close(net(*inputs), expected)
