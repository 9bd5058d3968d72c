"""`deeprnn_torch` against this package: the same numbers and the same gradients, read from an exported folder."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from networks import KINDS, TOKENS, arguments, layers, model

from deeprnn import export
from deeprnn.export.torch import named_parameters
from deeprnn.testing import distance

torch = pytest.importorskip("torch", reason="pip install .[torch]")
pytest.importorskip("safetensors", reason="pip install .[hub]")
deeprnn_torch = pytest.importorskip("deeprnn_torch", reason="pip install ./src/deeprnn_torch")

WITHIN = {"float32": 1e-6, "float64": 1e-12}
OPTIONS = {
    "plain": {},
    "both": {"bidirectional": True, "layout": "NTC"},
    "residual": {"residual": True, "num_layers": 3},
    "all": {"residual": True, "layer_norm": True, "bidirectional": True},
    "lengths": {"use_sequence_length": True, "bidirectional": True, "layout": "NTC"},
}
LSTM_OPTIONS = {
    "projection": {"projection_size": 3},
    "clip": {"state_clip_min": -0.2, "state_clip_max": 0.3, "residual": True},
}
CASES = [(kind, name, options) for kind in KINDS for name, options in OPTIONS.items()]
CASES += [("lstm", name, options) for name, options in LSTM_OPTIONS.items()]


def weights(results):
    draw = np.random.default_rng(7)
    return [draw.normal(size=tuple(each.shape)) for each in results]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("kind, name, options", CASES, ids=[f"{kind}-{name}" for kind, name, _ in CASES])
def test_outputs_states_and_gradients(kind, name, options, dtype, tmp_path):
    ours = layers(kind, **options, dtype=dtype)
    theirs = getattr(deeprnn_torch, type(ours).__name__).from_pretrained(export.to_torch(ours, tmp_path / "layer"))
    given = arguments(ours, 6, 3)
    lengths = given.pop("lengths", None)
    arrays = [mx.nd.array(value, dtype=dtype) for value in given.values()]
    leaves = [torch.tensor(value, requires_grad=True) for value in given.values()]
    for array in arrays:
        array.attach_grad()
    with autograd.record():
        outputs, states = ours(arrays[0], arrays[1:], *([] if lengths is None else [mx.nd.array(lengths)]))
        results = [outputs, *states]
        total = sum((mx.nd.array(w, dtype=dtype) * y).sum() for w, y in zip(weights(results), results))
    total.backward()
    begin = tuple(leaves[1:]) if len(leaves) > 2 else leaves[1]
    y, last = theirs(leaves[0], begin, *([] if lengths is None else [torch.tensor(lengths)]))
    found = [y, *(last if isinstance(last, tuple) else [last])]
    sum((torch.tensor(w, dtype=y.dtype) * each).sum() for w, each in zip(weights(found), found)).backward()
    pairs = {f"result {i}": pair for i, pair in enumerate(zip(found, results))}
    pairs |= {f"d input {i}": (leaf.grad, array.grad) for i, (leaf, array) in enumerate(zip(leaves, arrays))}
    own = dict(theirs.named_parameters())
    pairs |= {f"d {name}": (own[name].grad, p.grad()) for name, p in named_parameters(ours).items()}
    for what, (a, b) in pairs.items():
        # Normalised products are badly conditioned: in float32 either gradient is up to 8e-7 from that in float64.
        both = 2 if options.get("layer_norm") and dtype == "float32" else 1
        assert distance(a.detach().numpy(), b) <= both * WITHIN[dtype], what


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"embedding_size": 3, "residual": True},
        {"embedding_size": 4, "tied": True, "layer_norm": True, "zoneout": 0.1},
    ],
    ids=["one-hot", "embedding", "tied"],
)
def test_a_language_model(kind, options, tmp_path):
    ours = model(kind, **options)
    folder = export.to_torch(ours, tmp_path / "model", vocabulary=TOKENS)
    theirs = deeprnn_torch.LanguageModel.from_pretrained(folder).eval()
    assert theirs.vocabulary == TOKENS
    given = arguments(ours, 6, 3)
    ids, *states = given.values()
    expected, last = ours(mx.nd.array(ids, dtype="int32"), [mx.nd.array(state) for state in states])
    found, end = theirs(torch.tensor(ids), [torch.tensor(state) for state in states])
    for a, b in zip([found, *end], [expected, *last]):
        assert distance(a.detach().numpy(), b) <= 1e-6
