"""ONNX: the same numbers in onnxruntime, by the standard operators wherever they have what the layers have."""

from __future__ import annotations

import json

import numpy as np
import pytest
from networks import TOKENS, answers, arguments, layers, model

from deeprnn import export
from deeprnn.export import onnx as exporter
from deeprnn.testing import distance

onnx = pytest.importorskip("onnx", reason="pip install .[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install .[onnx]")
pytest.importorskip("safetensors", reason="pip install .[hub]")

SIZES = [(1, 1), (5, 3), (35, 8)]
KINDS = ("rnn", "gru", "lstm")
every_kind = pytest.mark.parametrize("kind", KINDS)


def operators(graph):
    """The operators of a graph, those inside its loops too."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [node.op_type for node in graph.node] + [name for each in inner for name in operators(each)]


def exported(net, tmp_path, sizes=SIZES, within=1e-6, **options):
    """Export a network and compare it with onnxruntime; returns its operators."""
    path = export.to_onnx(net, tmp_path / "model", **options) / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in sizes:
        given = arguments(net, *size)
        found, expected = session.run(None, given), answers(net, given)
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            assert distance(a, b) <= within, size
    proto = onnx.load(str(path))
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.opset_import[0].version, proto.ir_version) == (18, 8)
    return operators(proto.graph)


@every_kind
@pytest.mark.parametrize("num_layers", [1, 2, 3, 12])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
def test_layers_are_one_standard_operator_each(kind, num_layers, bidirectional, tmp_path):
    found = exported(layers(kind, num_layers, bidirectional=bidirectional), tmp_path)
    assert found.count(kind.upper()) == num_layers and "Scan" not in found
    assert len(found) <= 8 + 4 * num_layers


@every_kind
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
def test_lengths_and_layouts(kind, layout, bidirectional, tmp_path):
    net = layers(kind, layout=layout, bidirectional=bidirectional, use_sequence_length=True)
    assert "Scan" not in exported(net, tmp_path)


OPTIONS = {
    "layer_norm": {"layer_norm": True},
    "zoneout": {"zoneout": 0.3},
    "all": {"layer_norm": True, "zoneout": 0.2, "residual": True},
    "float64": {"dtype": "float64"},
}


@every_kind
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_the_operators_lack_is_a_loop_over_the_formula(kind, options, tmp_path):
    net = layers(kind, bidirectional=True, use_sequence_length=True, **options)
    found = exported(net, tmp_path, within=1e-13 if "dtype" in options else 1e-5)
    assert found.count("Scan") == 4 and kind.upper() not in found


@pytest.mark.parametrize(
    "options",
    [
        {"projection_size": 2},
        {"state_clip_min": 0.0, "state_clip_max": 0.1},
        {"state_clip_min": -0.1, "state_clip_max": 0.1, "state_clip_nan": True, "projection_size": 3},
    ],
    ids=["projection", "clip", "both"],
)
def test_options_of_the_lstm(options, tmp_path):
    assert "Scan" in exported(layers("lstm", 3, **options), tmp_path, within=1e-5)


def test_activations_and_residual(tmp_path):
    assert "Scan" not in exported(layers("rnn", 3, activation="tanh", residual=True), tmp_path)


@every_kind
@pytest.mark.parametrize(
    "options",
    [{}, {"embedding_size": 3}, {"embedding_size": 4, "tied": True, "residual": True}, {"layer_norm": True}],
    ids=["one-hot", "embedding", "tied", "layer-norm"],
)
def test_a_language_model(kind, options, tmp_path):
    found = exported(model(kind, **options), tmp_path, within=1e-5, vocabulary=TOKENS)
    assert ("Gather" in found) == ("embedding_size" in options)
    proto = onnx.load(str(tmp_path / "model" / "model.onnx"))
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["vocab"]) == TOKENS and json.loads(metadata["config"])["cell"] == kind


def test_a_large_model_keeps_its_parameters_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "EXTERNAL_ABOVE", 100)
    net = model("lstm", embedding_size=300)
    exported(net, tmp_path)
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["formats"]["onnx"]["files"] == ["model.onnx", "model.onnx.data"]
    assert {"model.onnx", "model.onnx.data"} <= manifest["files"].keys()


def test_float16_is_refused_by_name(tmp_path):
    net = layers("rnn")
    net.cast("float16")
    with pytest.raises(ValueError, match="onnx has no float16 here: cast the network to float32"):
        export.to_onnx(net, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_no_other_argument_of_the_operators_changes_the_numbers(tmp_path):
    """The order of the gates is what is easily wrong: with one gate's bias alone the answer depends on it."""
    for kind in KINDS:
        net = layers(kind, 1)
        for name, parameter in net.collect_params().items():
            if "i2h_bias" in name:
                parameter.set_data(parameter.data() * 0)
                parameter.data()[: 2 * 4 : 3] = 5
        exported(net, tmp_path / kind, sizes=[(4, 2)])
    assert np.isfinite(answers(net, arguments(net, 4, 2))[0]).all()
