"""`deeprnn_torch`: torch's own layers where the options are theirs, and the formula where they are not.

These tests need torch and safetensors alone: ``pytest --noconftest -o addopts= tests/pytorch`` runs them without mxnet.
"""

from __future__ import annotations

import copy
import math

import pytest

torch = pytest.importorskip("torch", reason="pip install .[torch]")
pytest.importorskip("safetensors.torch", reason="pip install .[torch]")
deeprnn_torch = pytest.importorskip("deeprnn_torch", reason="pip install ./src/deeprnn_torch")
from torch import nn  # noqa: E402  # torch may be missing

KINDS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
C, H = 3, 4
every_kind = pytest.mark.parametrize("kind", KINDS)


def ours(kind, layers=2, seed=0, **options):
    torch.manual_seed(seed)
    layer = getattr(deeprnn_torch, f"Deep{KINDS[kind]}")(C, H, layers, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.4)
    return layer


def arguments(layer, length=5, batch_size=3, seed=1):
    torch.manual_seed(seed)
    first = (batch_size, length) if layer.batch_first else (length, batch_size)
    x = torch.randn(*first, C, dtype=torch.float64)
    rows = layer.num_layers * layer.num_directions
    states = [torch.randn(rows, batch_size, size, dtype=torch.float64) for size in layer.state_sizes()]
    return x, tuple(states) if len(states) > 1 else states[0]


def flat(result):
    y, last = result
    return [y, *(last if isinstance(last, tuple) else [last])]


def gradients(layer, call, x, states):
    """Outputs, states, and the gradients of everything that went in."""
    leaves = [x, *(states if isinstance(states, tuple) else [states])]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    results = flat(call(leaves[0], tuple(leaves[1:]) if len(leaves) > 2 else leaves[1]))
    torch.manual_seed(5)
    total = sum((torch.randn_like(each) * each).sum() for each in results)
    return [*results, *torch.autograd.grad(total, [*leaves, *layer.parameters()])]


def same(a, b, within=1e-12):
    assert len(a) == len(b)
    for one, other in zip(a, b):
        assert one.shape == other.shape
        assert torch.linalg.vector_norm(one - other) <= within * torch.linalg.vector_norm(other).clamp(min=1e-9)


def dense(x, part, p, suffix):
    y = x @ p[f"weight_{part}{suffix}"].T
    if f"gamma_{part}{suffix}" not in p:
        return y + p[f"bias_{part}{suffix}"]
    return normal(y) * p[f"gamma_{part}{suffix}"] + p[f"bias_{part}{suffix}"]


def normal(y):
    mean = y.mean(-1, keepdim=True)
    return (y - mean) / ((y - mean).square().mean(-1, keepdim=True) + 9.999999747378752e-06).sqrt()


def by_the_book(layer, x, states, lengths=None):
    """The formulas once more, sequence by sequence and step by step, with every option."""
    p, kind = dict(layer.named_parameters()), layer.mode[:3].lower().replace("lst", "lstm")
    x = x.transpose(0, 1) if layer.batch_first else x
    states = list(states) if isinstance(states, tuple) else [states]
    last = []
    for k in range(layer.num_layers):
        outputs = []
        for d in range(layer.num_directions):
            suffix, row = f"_l{k}" + "_reverse" * d, k * layer.num_directions + d
            per_sequence, ends = [], []
            for n in range(x.shape[1]):
                steps = len(x) if lengths is None else min(int(lengths[n]), len(x))
                old, ys = [s[row, n] for s in states], {}
                for t in reversed(range(steps)) if d else range(steps):
                    of_x, of_h = dense(x[t, n], "ih", p, suffix), dense(old[0], "hh", p, suffix)
                    if kind == "rnn":
                        new = [torch.tanh(of_x + of_h) if layer.mode == "RNN_TANH" else (of_x + of_h).relu()]
                    elif kind == "gru":
                        (xr, xz, xh), (hr, hz, hh) = of_x.view(3, -1), of_h.view(3, -1)
                        z = torch.sigmoid(xz + hz)
                        new = [z * old[0] + (1 - z) * torch.tanh(xh + torch.sigmoid(xr + hr) * hh)]
                    else:
                        i, f, g, o = (of_x + of_h).view(4, -1)
                        c = torch.sigmoid(f) * old[1] + torch.sigmoid(i) * torch.tanh(g)
                        c = c.clamp(*layer.clip) if layer.clip else c
                        seen = c
                        if layer.layer_norm:
                            seen = normal(c) * p[f"gamma_c{suffix}"] + p[f"beta_c{suffix}"]
                        h = torch.sigmoid(o) * torch.tanh(seen)
                        new = [p[f"weight_hr{suffix}"] @ h if layer.proj_size else h, c]
                    z = layer.zoneout
                    old = [z * before + (1 - z) * after for before, after in zip(old, new)]
                    ys[t] = old[0]
                zeros = torch.zeros_like(old[0])
                per_sequence.append(torch.stack([ys.get(t, zeros) for t in range(len(x))]))
                ends.append(old)
            outputs.append(torch.stack(per_sequence, 1))
            last.append([torch.stack(each) for each in zip(*ends)])
        y = torch.cat(outputs, -1)
        x = y + x if layer.residual and k else y
    x = x.transpose(0, 1) if layer.batch_first else x
    found = [torch.stack(each) for each in zip(*last)]
    return x, tuple(found) if len(found) > 1 else found[0]


@every_kind
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}], ids=["one", "both"])
def test_without_options_it_is_torchs_layer(kind, options):
    layer = ours(kind, 3, **options)
    theirs = getattr(nn, KINDS[kind])(C, H, 3, dtype=torch.float64, **options)
    theirs.load_state_dict(layer.state_dict())  # the same names, orders and shapes
    assert layer.plain and isinstance(layer, getattr(nn, KINDS[kind]))
    x, states = arguments(layer)
    same(gradients(layer, layer, x, states), gradients(theirs, theirs, x, states), 0)
    assert layer(x)[0].equal(theirs(x)[0])


OPTIONS = {
    "plain": {},
    "residual": {"residual": True},
    "layer_norm": {"layer_norm": True},
    "zoneout": {"zoneout": 0.3},
    "all": {"residual": True, "layer_norm": True, "zoneout": 0.2},
}


@every_kind
@pytest.mark.parametrize("ways", [{}, {"bidirectional": True, "batch_first": True}], ids=["one", "both"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_is_the_formula_and_so_are_the_gradients(kind, ways, options):
    layer = ours(kind, 3, **ways, **options).eval()
    x, states = arguments(layer)
    expected = gradients(layer, lambda *given: by_the_book(layer, *given), x, states)
    same(gradients(layer, layer, x, states), expected)


LSTM_OPTIONS = {
    "projection": {"proj_size": 2},
    "projection, residual": {"proj_size": 2, "residual": True, "bidirectional": True},
    "clip": {"state_clip_min": -0.2, "state_clip_max": 0.3},
    "all": {"state_clip_min": -0.2, "state_clip_max": 0.3, "proj_size": 2, "layer_norm": True},
}


@pytest.mark.parametrize("options", LSTM_OPTIONS.values(), ids=LSTM_OPTIONS)
def test_options_of_the_lstm(options):
    layer = ours("lstm", 3, **options).eval()
    x, states = arguments(layer)
    expected = gradients(layer, lambda *given: by_the_book(layer, *given), x, states)
    same(gradients(layer, layer, x, states), expected)


def test_relu():
    layer = ours("rnn", 2, nonlinearity="relu", residual=True)
    x, states = arguments(layer)
    same(flat(layer(x, states)), flat(by_the_book(layer, x, states)))


@every_kind
@pytest.mark.parametrize("lengths", [[5, 1, 3], [0, 7, 2]], ids=["some", "none"])
@pytest.mark.parametrize("options", [{}, {"residual": True}, {"layer_norm": True}], ids=["plain", "residual", "norm"])
def test_lengths(kind, lengths, options):
    layer = ours(kind, 2, bidirectional=True, use_sequence_length=True, **options)
    x, states = arguments(layer)
    expected = flat(by_the_book(layer, x, states, lengths))
    same(flat(layer(x, states, torch.tensor(lengths))), expected)
    x[lengths[2] :, 2] = math.nan  # past its end nothing is seen
    same(flat(layer(x, states, torch.tensor(lengths))), expected)


@every_kind
def test_layers_share_their_parameters_wherever_they_go(kind):
    layer = ours(kind, 3, residual=True)
    x, states = arguments(layer)
    expected = flat(layer(x, states))
    assert [name for name, _ in layer.named_parameters()] == [name for name, _ in ours(kind, 3).named_parameters()]
    again = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    same(flat(again(x, states)), expected, 0)  # the copy has its own
    layer.load_state_dict(again.state_dict())
    same(flat(layer(x, states)), expected, 0)
    single = layer.float()
    found = flat(single(x.float(), tuple(s.float() for s in states) if kind == "lstm" else states.float()))
    same([each.double() for each in found], expected, 1e-6)


@every_kind
def test_parameters_that_others_replace_count_at_once(kind):
    layer, other = (ours(kind, 3, seed, residual=True) for seed in (0, 1))
    x, states = arguments(layer)
    before, expected = flat(layer(x, states)), flat(other(x, states))
    same(flat(torch.func.functional_call(layer, dict(other.named_parameters()), (x, states))), expected, 0)
    same(flat(layer(x, states)), before, 0)
    layer.load_state_dict(other.state_dict(), assign=True)
    same(flat(layer(x, states)), expected, 0)
    layer.weight_hh_l1 = nn.Parameter(layer.weight_hh_l1.detach() / 2)
    same(flat(layer(x, states)), flat(by_the_book(layer, x, states)))
    nn.utils.parametrizations.weight_norm(layer, "weight_ih_l2")
    layer.parametrizations.weight_ih_l2.original0.data *= 2  # the length of each row
    other.load_state_dict(layer.state_dict(), strict=False)
    other.weight_ih_l2 = nn.Parameter(layer.weight_ih_l2.detach())
    same(flat(layer(x, states)), flat(by_the_book(other, x, states)))


@every_kind
def test_it_trains(kind):
    torch.manual_seed(0)
    layer = getattr(deeprnn_torch, f"Deep{KINDS[kind]}")(
        C, H, 3, residual=True, layer_norm=True, zoneout=0.1, dropout=0.1
    )
    x, target = torch.randn(4, 8, C), torch.randn(4, 8, H).tanh() * 0.5
    optimizer = torch.optim.Adam(layer.parameters(), 0.02)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = (layer(x)[0] - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


def test_variational_dropout_has_one_mask_for_all_steps():
    layer = ours("rnn", 2, dropout=0.5, dropout_mode="variational")
    seen = []
    layer._singles[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x, states = arguments(layer, length=20)
    layer(x, states)
    dropped = seen[0] == 0
    assert dropped.any() and not dropped.all() and (dropped == dropped[:1]).all()
    layer.eval()
    same(flat(layer(x, states)), flat(by_the_book(layer, x, states)))


def test_zoneout_keeps_units_in_training():
    layer = ours("gru", 1, zoneout=0.5)
    x, states = arguments(layer, length=1, batch_size=500)
    _, last = layer(x, states)
    kept = (last - states).abs() < 1e-12
    assert 0.4 < kept.double().mean() < 0.6


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("rnn", {"bias": False}, "bias must be True"),
        ("gru", {"zoneout": 1.0}, "zoneout must be at least 0 and below 1, got 1.0"),
        ("gru", {"dropout_mode": "locked"}, "dropout_mode must be 'standard' or 'variational', got 'locked'"),
        ("lstm", {"state_clip_min": 0.0}, "state_clip_min and state_clip_max go together"),
        (
            "lstm",
            {"state_clip_min": 1.0, "state_clip_max": 0.0},
            "state_clip_min=1.0 must not exceed state_clip_max=0.0",
        ),
    ],
)
def test_options_out_of_range(kind, options, message):
    with pytest.raises(ValueError, match=message):
        ours(kind, **options)


@pytest.mark.parametrize("options", [{"residual": True}, {"zoneout": 0.1}], ids=str)
def test_a_packed_sequence_is_for_torchs_own_options(options):
    packed = nn.utils.rnn.pack_sequence([torch.ones(2, C, dtype=torch.float64)])
    assert isinstance(ours("gru")(packed)[0], nn.utils.rnn.PackedSequence)
    with pytest.raises(TypeError, match=r"^input must be a Tensor where .*, got PackedSequence: give padded sequences"):
        ours("gru", **options)(packed)


def test_lengths_go_with_the_option():
    layer = ours("rnn")
    with pytest.raises(ValueError, match="lengths need a layer with use_sequence_length=True"):
        layer(*arguments(layer), torch.tensor([1, 2, 3]))
    layer = ours("rnn", use_sequence_length=True)
    with pytest.raises(ValueError, match="use_sequence_length=True needs lengths with each call"):
        layer(*arguments(layer))


@pytest.mark.parametrize("options", [{"residual": True}, {"zoneout": 0.1}, {"layer_norm": True}], ids=str)
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_shapes_of_inputs_and_states_are_checked(kind, options):
    layer = ours(kind, **options)
    layer.eval()
    x, states = arguments(layer)
    several = states if isinstance(states, tuple) else (states,)
    expected = layer(x, states)[0]
    assert torch.equal(layer(x, list(several))[0], expected)
    for wrong in ([s[:1] for s in several], [torch.cat([s, s]) for s in several], [s[:, :1] for s in several]):
        with pytest.raises(ValueError, match="the states must have the shapes"):
            layer(x, tuple(wrong) if len(wrong) > 1 else wrong[0])
    with pytest.raises(ValueError, match="input must have 3 axes, a batch among them, got shape"):
        layer(x[:, 0])


def test_biases_cannot_be_left_out_by_place_either():
    with pytest.raises(ValueError, match="bias must be True"):
        deeprnn_torch.DeepGRU(C, H, 2, False)
