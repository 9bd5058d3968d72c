"""Any length, hybridized or not: what a call returns depends on its arguments and on nothing that was called before."""

from __future__ import annotations

import json
import warnings

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import HybridBlock, nn
from oracles import Parent

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, LanguageModel, RecurrentStack
from deeprnn.nn import graphs
from deeprnn.nn.context import trace
from deeprnn.nn.graphs import GRAPHS_KEPT, known_length
from deeprnn.testing import distance, randomize

N, C, H, L = 2, 3, 4, 2
KINDS = {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM}
FLAGS = {
    "eager": None,
    "hybridized": {},
    "static_alloc": {"static_alloc": True},
    "static_shape": {"static_alloc": True, "static_shape": True},
    "bulk": {"static_alloc": True, "static_shape": True, "forward_bulk_size": 40, "backward_bulk_size": 40},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_flag = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS.keys())
BOTH = FLAGS["static_shape"]
pytestmark = pytest.mark.usefixtures("implementation")
natively = pytest.mark.parametrize("implementation", ["native"], indirect=True)
in_the_fallback = pytest.mark.parametrize("implementation", ["fallback"], indirect=True)


def drawn(*shape, seed=0, dtype="float32"):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def made(kind="rnn", flags=None, **options):
    layer = KINDS[kind](H, L, input_size=C, **options)
    layer.initialize()
    randomize(layer)
    if flags is not None:
        layer.hybridize(**flags)
    return layer


def forward(net, length, seed=0):
    return net(drawn(length, N, C, seed=seed))


def gradients(net, *lengths_):
    """The outputs of a recorded forward pass for each length, and the gradients of one backward pass after them all."""
    with autograd.record():
        outputs = [forward(net, length, seed=i) for i, length in enumerate(lengths_)]
        total = sum((y * drawn(*y.shape, seed=9)).sum() for y in outputs)
    total.backward()
    return outputs + [p.grad().copy() for p in net.collect_params().values()]


def close(a, b, tolerance=1e-6):
    return len(a) == len(b) and max(distance(x, y) for x, y in zip(a, b)) <= tolerance


class Foreign(HybridBlock):
    """Somebody's network with a recurrent layer inside: it sees symbols once hybridized."""

    def __init__(self, layer):
        super().__init__()
        with self.name_scope():
            self.layer, self.dense = layer, nn.Dense(2, flatten=False, in_units=H)

    def hybrid_forward(self, F, x):
        x = self.layer(x * 2)
        return self.dense(x) + 1


def foreign(kind="rnn", flags=None, **options):
    net = Foreign(KINDS[kind](H, L, input_size=C, **options))
    net.initialize()
    randomize(net)
    if flags is not None:
        net.hybridize(**flags)
    return net


def with_reference(kind, flags, inside, implementation):
    """A network with these flags, alone or in a foreign block, and the same without. There the fallback takes no
    static_shape.
    """
    make = foreign if inside else made
    if inside and flags and implementation == "fallback":
        flags = {name: value for name, value in flags.items() if name != "static_shape"}
    return make(kind, flags), make(kind)


@pytest.fixture
def traces(monkeypatch):
    """The length of each graph that is traced, in order; None for one that serves any."""
    seen = []
    hybrid_forward = RecurrentStack.hybrid_forward

    def counted(self, F, *args, **params):
        if F is mx.sym:
            seen.append(trace().length)
        return hybrid_forward(self, F, *args, **params)

    monkeypatch.setattr(RecurrentStack, "hybrid_forward", counted)
    return seen


# Any length, in any order


@every_kind
@every_flag
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a foreign block"])
def test_lengths_in_turn_with_inference_before_and_after_training(implementation, kind, flags, inside):
    net, reference = with_reference(kind, flags, inside, implementation)
    for length in (5, 3, 35 if implementation == "native" else 9, 5):
        expected = forward(reference, length)
        assert close([forward(net, length)], [expected])
        assert close(gradients(net, length), gradients(reference, length))
        assert close([forward(net, length)], [expected])


@every_kind
@every_flag
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a foreign block"])
def test_two_forward_passes_before_one_backward(implementation, kind, flags, inside):
    net, reference = with_reference(kind, flags, inside, implementation)
    for pair in ((4, 4), (4, 2), (1, 4)):
        assert close(gradients(net, *pair), gradients(reference, *pair), 1e-5)


@every_kind
@every_flag
def test_calls_with_and_without_states_in_any_order(kind, flags):
    reference = made(kind)
    for order in ("01", "10", "0110"):
        layer = made(kind, flags)
        x = drawn(5, N, C)
        for given in order:
            if given == "0":
                assert close([layer(x)], [reference(x)])
            else:
                begin = [state + 0.5 for state in layer.begin_state(N)]
                outputs, last = layer(x, begin)
                expected, expected_last = reference(x, begin)
                assert isinstance(last, list) and close([outputs, *last], [expected, *expected_last])


@every_flag
def test_batch_sizes_in_turn(flags):
    layer, reference = made("lstm", flags), made("lstm")
    for n in (2, 5, 1, 2):
        x = drawn(4, n, C)
        assert close([layer(x)], [reference(x)])


# Inside somebody else's block


@natively
@every_kind
@pytest.mark.parametrize("depth", [1, 2])
def test_static_shape_in_a_foreign_block(kind, depth):
    net, reference = foreign(kind), foreign(kind)
    for _ in range(depth - 1):
        outer = nn.HybridSequential()
        outer.add(net)
        net = outer
    net.hybridize(**BOTH)
    for length in (4, 3, 4, 9):
        expected = forward(reference, length)
        assert close([forward(net, length)], [expected])
        assert close(gradients(net, length), gradients(reference, length))
        assert close([forward(net, length)], [expected])


@in_the_fallback
@pytest.mark.parametrize("depth", [1, 2])
def test_static_shape_in_a_foreign_block_is_refused_by_name_and_leaves_the_net_usable(depth):
    net = foreign()
    expected = gradients(net, 4)
    for _ in range(depth - 1):
        outer = nn.HybridSequential()
        outer.add(net)
        net = outer
    net.hybridize(**BOTH)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"DeepRNN inside a block hybridized with static_shape=True.*unroll_length"
        ):
            forward(net, 4)
    net.hybridize(static_alloc=True)
    for length in (4, 3, 4):
        forward(net, length)
        gradients(net, length)
    assert close(gradients(net, 4), expected)


@natively
def test_a_layer_that_has_no_kernel_is_refused_there_too():
    """Whatever is switched on: zoneout, and what a kernel was not written for."""
    for options in ({"zoneout": 0.1}, {"layer_norm": True}):
        net = foreign("gru", BOTH, **options)
        with pytest.raises(ValueError, match="DeepGRU inside a block hybridized with static_shape=True"):
            forward(net, 4)
        assert forward(foreign("gru", BOTH, unroll_length=4, **options), 4).shape == (4, N, 2)


def test_a_language_model_in_a_foreign_block(implementation):
    net = nn.HybridSequential()
    net.add(LanguageModel(5, H))
    net.initialize()
    ids = mx.nd.zeros((4, N), dtype="int32")
    expected = net(ids)[0]
    net.hybridize(**BOTH)
    if implementation == "fallback":
        with pytest.raises(ValueError, match=r"DeepRNN inside a block .*static_shape"):
            net(ids)
    else:
        assert close([net(ids)[0]], [expected]) and net(ids[:2])[0].shape == (2, N, 5)


@every_kind
def test_unroll_length_is_the_static_form_for_one_length(kind):
    net, reference = foreign(kind, BOTH, unroll_length=4), foreign(kind)
    for _ in range(2):
        assert close([forward(net, 4)], [forward(reference, 4)])
        assert close(gradients(net, 4), gradients(reference, 4))
    assert close(gradients(net, 4, 4), gradients(reference, 4, 4), 1e-5)
    alone = made(kind, BOTH, unroll_length=4)
    assert close([forward(alone, 4)], [forward(made(kind), 4)])
    with pytest.raises(ValueError, match=r"inputs must have unroll_length 4 steps, got 3"):
        forward(alone, 3)


def test_a_block_that_is_not_hybrid_passes_the_flags_on():
    net = nn.Sequential()
    net.add(made(), nn.Dense(2, flatten=False, in_units=H))
    net[1].initialize()
    expected = forward(net, 5)
    short = forward(net, 3)
    with pytest.warns(UserWarning, match="HybridSequential"):
        net.hybridize(**BOTH)
    assert close([forward(net, 5), forward(net, 3)], [expected, short])


@every_flag
def test_a_language_model_takes_every_flag(implementation, flags):
    nets = [LanguageModel(7, H, L, cell="lstm", embedding_size=C, prefix="net_") for _ in range(2)]
    for net in nets:
        net.initialize()
        randomize(net)
    if flags is not None:
        nets[0].hybridize(**flags)
    for length in (5, 3, 35 if implementation == "native" else 9, 5):
        ids = mx.nd.array(np.arange(length * N).reshape(length, N) % 7, dtype="int32")
        for states in (None, [state + 0.1 for state in nets[0].begin_state(N)]):
            results = []
            for net in nets:
                net(ids, states)
                with autograd.record():
                    logits, last = net(ids, states)
                    total = (logits**2).sum() + last[0].sum()
                total.backward()
                results.append([logits, *last, *(p.grad() for p in net.collect_params().values())])
            assert close(*results)


# Graphs are kept, and dropped when they are stale


def lengths_of(implementation, *lengths):
    """The graphs that these lengths take: natively one serves them all."""
    return [None] * (len(lengths) > 0) if implementation == "native" else list(lengths)


def test_a_graph_is_traced_once_for_a_length_and_once_more_for_its_gradient(implementation, traces):
    layer = made(flags=BOTH)
    for length in (5, 3, 5, 3, 5):
        forward(layer, length)
        gradients(layer, length)
        layer(drawn(length, N, C), layer.begin_state(N))
    assert traces == ([None, None] if implementation == "native" else [5, 5, 3, 3])


@natively
def test_one_graph_serves_any_length_and_any_batch(traces):
    layer, reference = made("lstm", BOTH), made("lstm")
    for length in (*range(1, GRAPHS_KEPT + 9), 700):
        for batch_size in (1, 3):
            x = drawn(length, batch_size, C)
            assert close([layer(x)], [reference(x)])
    assert traces == [None]


def test_nothing_is_traced_for_an_eager_block_nor_twice_for_a_model_and_its_stack(implementation, traces):
    forward(made(), 4)
    assert traces == []
    net = LanguageModel(7, H)
    net.initialize()
    net.hybridize(**BOTH)
    net(mx.nd.zeros((4, N), dtype="int32"))
    assert traces == lengths_of(implementation, 4)


@in_the_fallback
def test_the_graphs_used_last_are_kept(traces):
    layer, reference = made(flags=BOTH), made()
    for length in range(1, GRAPHS_KEPT + 1):
        forward(layer, length)
    forward(layer, 1)  # now 2 is the one unused for longest
    forward(layer, GRAPHS_KEPT + 1)
    del traces[:]
    forward(layer, 1)
    assert traces == []
    assert close([forward(layer, 2)], [forward(reference, 2)])
    assert traces == [2]


@pytest.fixture
def limit_of_four_steps(monkeypatch):
    """Longer sequences take MXNet's loop operator in the fallback, whatever the kind."""
    monkeypatch.setattr(graphs, "STATIC_LIMIT", 4 * L)
    monkeypatch.setattr(RecurrentStack, "operators_per_step", L)


@in_the_fallback
@every_kind
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
def test_a_long_sequence_takes_the_loop_operator(limit_of_four_steps, traces, kind, layout):
    layer, reference = made(kind, BOTH, layout=layout), made(kind, layout=layout)
    for steps in (14, 4, 5, 8, 11):
        x = drawn(*((steps, N, C) if layout == "TNC" else (N, steps, C)), seed=steps)
        begin = [drawn(L, N, H, seed=i) for i in range(len(layer.state_info()))]
        outputs, states = layer(x, begin)
        expected, last = reference(x, begin)
        assert outputs.shape == expected.shape
        assert close([outputs, *states], [expected, *last])
        assert close([layer(x)], [reference(x)])
    assert traces == [None, 4]  # and the short one does not take the loop because a long one did


@in_the_fallback
def test_a_long_sequence_of_a_model_and_its_stack(limit_of_four_steps, traces):
    net = LanguageModel(7, H, L)
    net.initialize()
    ids = mx.nd.array(np.random.default_rng(0).integers(7, size=(11, N)), dtype="int32")
    expected, last = net(ids)
    net.hybridize(**BOTH)
    for _ in range(2):
        logits, states = net(ids)
        assert close([logits, *states], [expected, *last]) and traces == [None]


@in_the_fallback
@pytest.mark.parametrize("options", [{"bidirectional": True}, {"use_sequence_length": True}])
def test_a_long_sequence_with_options(limit_of_four_steps, traces, options):
    layer, reference = made("rnn", BOTH, **options), made("rnn", **options)
    x, lengths_ = drawn(11, N, C), [mx.nd.array([3, 11])] if "use_sequence_length" in options else []
    assert close([layer(x, None, *lengths_)], [reference(x, None, *lengths_)])
    assert traces == [None]


@in_the_fallback
def test_unroll_length_is_static_however_long(limit_of_four_steps, traces):
    layer, reference = made("rnn", BOTH, unroll_length=11), made("rnn", unroll_length=11)
    assert close([forward(layer, 11)], [forward(reference, 11)])
    assert traces == [11]


@in_the_fallback
@pytest.mark.parametrize("train_mode", [True, False])
def test_the_gradient_of_a_long_sequence(limit_of_four_steps, traces, train_mode):
    layer, reference = made("lstm", BOTH), made("lstm")

    def gradient(net):
        with autograd.record(train_mode=train_mode):
            y = (net(drawn(11, N, C)) * drawn(11, N, H, seed=9)).sum()
        y.backward()
        return [p.grad().copy() for p in net.collect_params().values()]

    assert close(gradient(layer), gradient(reference))
    assert traces == [None]


@in_the_fallback
@every_kind
def test_the_operators_of_a_step_are_estimated(kind):
    """What the limit goes by is the number of nodes that a step adds, within a half of it."""
    counts = []
    for length in (5, 6):
        layer = made(kind, unroll_length=length, bidirectional=True)
        nodes = json.loads(layer(mx.sym.var("x")).tojson())["nodes"]
        counts.append(sum(node["op"] != "null" for node in nodes))
    assert layer.operators_per_step == pytest.approx(counts[1] - counts[0], rel=0.5)


def test_a_graph_that_was_dropped_can_still_go_backward():
    layer, reference = made(flags=BOTH), made()
    many = range(1, GRAPHS_KEPT + 4)
    assert close(gradients(layer, *many), gradients(reference, *many), 1e-5)


def test_a_graph_that_another_thread_drops_is_traced_again(monkeypatch):
    """Between a call's look for its graph and its use, sixteen other lengths may have come."""
    layer, x = made(flags={}), drawn(3, N, C)
    before = layer(x)
    find = graphs._Graphs.find

    def dropped(self, key):
        graph = find(self, key)
        if graph is not None:
            monkeypatch.setattr(graphs._Graphs, "find", find)
            self.clear()
        return graph

    monkeypatch.setattr(graphs._Graphs, "find", dropped)
    assert distance(layer(x), before) < 1e-6


def test_cast_hybridize_and_hooks_trace_anew(implementation, traces):
    one = lengths_of(implementation, 5)
    layer = made(flags=BOTH)
    expected = forward(layer, 5)
    layer.cast("float64")
    wide = layer(drawn(5, N, C, dtype="float64"))
    assert wide.dtype == np.float64 and distance(wide, expected) <= 1e-6
    assert traces == one * 2
    layer.cast("float32")
    layer.hybridize(False)
    assert close([forward(layer, 5)], [expected]) and traces == one * 2
    layer.hybridize(static_alloc=True)
    forward(layer, 5)
    assert traces == one * 3


def test_new_values_count_at_once(tmp_path):
    layer, other = made("gru", BOTH), made("gru")
    forward(layer, 5)
    gradients(layer, 5)
    randomize(other, seed=4)
    expected = forward(other, 5)
    other.save_parameters(str(tmp_path / "p"))
    layer.load_parameters(str(tmp_path / "p"))
    assert close([forward(layer, 5)], [expected])
    randomize(layer, seed=5)
    randomize(other, seed=5)
    assert close(gradients(layer, 5), gradients(other, 5))
    layer.initialize(mx.init.Zero(), force_reinit=True)
    assert not forward(layer, 5).asnumpy().any()


def test_an_op_hook_sees_each_operator(implementation):
    layer = made(flags={})
    forward(layer, 4)
    seen = []
    layer.register_op_hook(lambda node, *_: seen.append(node))
    with pytest.warns(UserWarning, match="register_op_hook is experimental"):  # warned of whatever the flags
        forward(layer, 4)
    mx.nd.waitall()
    assert len(seen) > 4
    assert any(b"deeprnn_recurrence" in name for name in seen) == (implementation == "native")


def test_the_graphs_are_no_children_and_nothing_warns_of_them():
    layer = made(flags=BOTH)
    names = list(layer.collect_params())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients(layer, 5, 3)
        assert list(layer.collect_params()) == names
        layer.cast("float64")
    assert list(layer._children) == []


def test_known_length():
    assert known_length(drawn(5, N, C)) == 5
    assert known_length(drawn(N, 5, C), 1) == 5
    assert known_length(mx.sym.var("x")) is None


# After optimize_for


@every_kind
@pytest.mark.parametrize("how", ["optimize_for", "hybridize"])
def test_training_after_optimize_for_has_right_gradients(kind, how):
    layer, reference = made(kind), made(kind)
    if how == "optimize_for":
        layer.optimize_for(drawn(5, N, C), backend="MKLDNN")
    else:
        layer.hybridize(backend="MKLDNN", static_alloc=True)
    for length in (5, 3):
        assert close([forward(layer, length)], [forward(reference, length)])
        assert close(gradients(layer, length), gradients(reference, length))
        assert close([forward(layer, length)], [forward(reference, length)])
    randomize(layer, seed=8)
    randomize(reference, seed=8)
    assert close([forward(layer, 5)], [forward(reference, 5)])


@every_kind
def test_training_after_optimize_for_of_a_foreign_block_is_right_or_refused(implementation, kind):
    """Natively as with the built-in layer: the backend leaves the one operator alone. In the fallback it takes the
    products, and MXNet's gradients are zero then, as for every block: see test_faults.
    """
    net, reference = Parent(made(kind)), Parent(made(kind))
    expected = gradients(reference, 5)
    net.optimize_for(drawn(5, N, C), backend="MKLDNN")
    assert close([forward(net, 3)], [forward(reference, 3)])
    if implementation == "native":
        assert close(gradients(net, 5), expected)


def test_optimize_for_without_a_backend_is_refused():
    with pytest.raises(ValueError, match=r"optimize_for needs the name of a backend"):
        made().optimize_for(drawn(5, N, C))


# Gradients, devices


@every_flag
def test_grad_req_null_and_add(flags):
    layer, reference = made("gru", flags), made("gru")
    expected = gradients(reference, 5)[1:]
    for name, parameter in layer.collect_params().items():
        parameter.grad_req = "null" if name.endswith("bias") else "add"
    layer.collect_params().zero_grad()
    for _ in range(3):
        with autograd.record():
            y = forward(layer, 5)
            total = (y * drawn(*y.shape, seed=9)).sum()
        total.backward()
    for (name, parameter), gradient in zip(layer.collect_params().items(), expected):
        if name.endswith("bias"):
            with pytest.raises(RuntimeError):
                parameter.grad()
        else:
            assert distance(parameter.grad(), gradient * 3) <= 1e-5


@every_kind
@every_flag
def test_several_contexts_and_a_trainer(kind, flags):
    contexts = [mx.cpu(0), mx.cpu(1)]
    one, two = made(kind), KINDS[kind](H, L, input_size=C)
    two.initialize(ctx=contexts)
    randomize(two)
    if flags is not None:
        two.hybridize(**flags)
    trainers = [
        gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01}, update_on_kvstore=False)
        for net in (one, two)
    ]
    x = drawn(5, 4, C)
    for _ in range(3):
        with autograd.record():
            losses = [(two(part) ** 2).sum() for part in gluon.utils.split_and_load(x, contexts, batch_axis=1)]
        autograd.backward(losses)
        trainers[1].step(4)
        with autograd.record():
            loss = (one(x) ** 2).sum()
        loss.backward()
        trainers[0].step(4)
    for a, b in zip(one.collect_params().values(), two.collect_params().values()):
        assert all(distance(b.data(ctx), a.data()) <= 1e-5 for ctx in contexts)


@pytest.mark.parametrize("cell", [DeepRNN, DeepLSTM])
@pytest.mark.parametrize("flags", [None, {}, {"static_alloc": True, "static_shape": True}], ids=str)
def test_a_bound_call_is_the_call(cell, flags):
    layer = cell(5, 2, input_size=3)
    layer.initialize(mx.init.Uniform(1))
    if flags is not None:
        layer.hybridize(**flags)
    x, states = mx.nd.random.normal(shape=(4, 2, 3)), layer.begin_state(2, func=mx.nd.ones)
    call = layer.bound(x, states)
    for _ in range(2):  # a later value of a parameter counts, too
        for _ in range(3):
            x = mx.nd.random.normal(shape=x.shape)
            (y, after), (expected, last) = call(x, states), layer(x, states)
            for a, b in zip([y, *after], [expected, *last]):
                assert (a.asnumpy() == b.asnumpy()).all()
            states = after
        for parameter in layer.collect_params().values():
            parameter.set_data(parameter.data() * 0.5)


@pytest.mark.parametrize("options", [{"zoneout": 0.1}, {"layer_norm": True}], ids=str)
def test_a_bound_call_goes_on_when_its_graph_is_dropped(options):
    layer = made("lstm", BOTH, **options)  # in either implementation a graph for each length
    x, states = drawn(1, N, C), layer.begin_state(N)
    call = layer.bound(x, states)
    for length in range(2, GRAPHS_KEPT + 3):
        forward(layer, length)
    (y, after), (expected, last) = call(x, states), layer(x, states)
    assert close([y, *after], [expected, *last], 0)
