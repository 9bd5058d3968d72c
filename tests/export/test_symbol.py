"""MXNet's symbols: the same function in a process that never imports this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from networks import answers, arguments, layers, model

from deeprnn import export
from deeprnn.nn import native
from deeprnn.testing import distance

pytest.importorskip("safetensors", reason="pip install .[hub]")
SIZES = [(5, 3), (1, 1), (9, 2)]
NETWORKS = {
    "language-model": lambda: model("lstm", embedding_size=4, residual=True, tied=True),
    "one-hot": lambda: model("rnn", layer_norm=True, zoneout=0.2),
    "lengths": lambda: layers("gru", 3, bidirectional=True, layout="NTC", use_sequence_length=True),
    "projection": lambda: layers("lstm", projection_size=2, state_clip_min=-0.1, state_clip_max=0.1, dtype="float64"),
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Networks and arguments, and what their symbols answer in a process that has no deeprnn, by the way of running."""
    scratch, asked = tmp_path_factory.mktemp("elsewhere"), {}
    for name, made in NETWORKS.items():
        net = made()
        export.to_symbol(net, scratch / name / "model")
        asked[name] = (net, [arguments(net, *size) for size in SIZES])
        for i, given in enumerate(asked[name][1]):
            np.savez(scratch / name / f"inputs{i}.npz", **given)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("elsewhere.py")), *NETWORKS],
        capture_output=True,
        text=True,
        cwd=scratch,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    found = {}
    for name in NETWORKS:
        with np.load(scratch / name / "outputs.npz") as arrays:
            found[name] = dict(arrays)
    return asked, found


@pytest.mark.parametrize("name", NETWORKS)
def test_a_symbol_is_the_same_function_where_deeprnn_is_not(elsewhere, name):
    (net, asked), found = elsewhere[0][name], elsewhere[1][name]
    for number, given in enumerate(asked):
        ways = {key.split()[1] for key in found if key.startswith(f"{number} ")}
        assert ways == ({"block", "module", "step"} if "ids" in given else {"block", "module"})
        for i, value in enumerate(answers(net, given)):
            for way in ways:
                assert distance(found[f"{number} {way} {i}"], value) <= 1e-6, (number, way, i)


def test_names_are_pytorchs_and_operators_mxnets(tmp_path):
    folder = export.to_symbol(model("lstm", embedding_size=4), tmp_path / "model")
    whole, step = (mx.sym.load(str(folder / f"{name}-symbol.json")) for name in ("model", "step"))
    parameters = set(mx.nd.load(str(folder / "model-0000.params")))
    assert "arg:stack.weight_ih_l1" in parameters and "arg:decoder.bias" in parameters
    for symbol in (whole, step):
        assert symbol.list_outputs() == ["logits_output", "hn_output", "cn_output"]
        assert {f"arg:{name}" for name in symbol.list_inputs()} - parameters == {"arg:ids", "arg:h0", "arg:c0"}
    texts = [(folder / f"{name}-symbol.json").read_text() for name in ("model", "step")]
    assert all(native.OPERATOR not in text and '"RNN"' not in text for text in texts)
    assert "_foreach" in texts[0] and "_foreach" not in texts[1]


def test_the_same_network_gives_the_same_files(tmp_path):
    folders = []
    for i in range(2):
        net = model("gru", embedding_size=4)  # gluon's own names count on from net to net
        folders.append(export.to_symbol(net, tmp_path / str(i) / "model"))
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    assert manifests[0] == manifests[1]
