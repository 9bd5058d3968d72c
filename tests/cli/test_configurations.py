"""The space of configurations: a valid one trains, is resumed and exported; an invalid one names an argument."""

from __future__ import annotations

import json
import shutil

import mxnet as mx
import numpy as np
import pytest
from commands import TEXT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deeprnn import portable
from deeprnn.cli.main import main
from deeprnn.cli.runs import open_run
from deeprnn.config import RunConfig, spelled

SMALL = {"epochs": 1, "batch_size": 4, "seq_len": 5, "max_chars": 150, "sample_length": 3, "out": "run"}
LOADED = st.fixed_dictionaries(
    {},
    optional={
        "cell": st.sampled_from(["rnn", "gru", "lstm"]),
        "layers": st.integers(1, 3),
        "hidden_size": st.integers(1, 9),
        "embedding_size": st.integers(0, 9),
        "activation": st.sampled_from(["tanh", "relu"]),
        "dropout": st.sampled_from([0.0, 0.4, 0.9]),
        "zoneout": st.sampled_from([0.0, 0.3]),
        "residual": st.booleans(),
        "layer_norm": st.booleans(),
        "tied": st.booleans(),
        "init": st.sampled_from(["deep", "orthogonal", "identity", "normal", "xavier"]),
        "backend": st.sampled_from(["deeprnn", "gluon"]),
        "optimizer": st.sampled_from(["adam", "sgd", "rmsprop"]),
        "schedule": st.sampled_from(["constant", "cosine", "step"]),
        "sampling": st.sampled_from(["consecutive", "random"]),
        "unit": st.sampled_from(["char", "word"]),
        "unknown": st.booleans(),
        "split": st.sampled_from(["0.8,0.1,0.1", "1,0,0", "0.7,0.3,0"]),
        "warmup": st.integers(0, 3),
        "clip": st.sampled_from([0.0, 0.1, 1.0]),
        "on_nan": st.sampled_from(["stop", "rollback"]),
        "checkpoint_steps": st.integers(0, 3),
        "seed": st.integers(0, 2**31 - 1),
    },
)


def check(options, folder, monkeypatch, capsys):
    shutil.rmtree(folder / "run", ignore_errors=True)
    monkeypatch.setattr("deeprnn.cli.training.curves", lambda *_, **__: None)
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    if options.get("unit") == "word":
        options = {**options, "seq_len": 2, "batch_size": 2, "max_chars": 400}
    arguments = spelled({**SMALL, "corpus": str(folder / "text.txt"), **options, "out": str(folder / "run")})
    try:
        RunConfig.from_mapping({**SMALL, "corpus": "x", **options})
    except (ValueError, TypeError):
        assert main(["train", *arguments]) == 2
        assert "--" in capsys.readouterr().err
        assert not (folder / "run").exists()
        return
    code = main(["train", *arguments])
    error = capsys.readouterr().err
    if code == 2:  # a text that a split or a missing unknown symbol makes impossible
        assert "--" in error and not (folder / "run").exists()
        return
    assert (code, error) == (0, "")
    assert main(["train", *arguments, "--epochs=2", "--resume"]) == 0
    assert len((folder / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert json.loads((folder / "run" / "summary.json").read_text())["epochs"] == 2
    net, _, run, _ = open_run(folder / "run")
    if run.model.backend == "gluon":
        return  # which MXNet's own layers export
    ids = mx.nd.array([[1], [0], [1]], dtype="int32")
    states = net.begin_state(1)
    expected, _ = net(ids, states)
    portable(net)(ids, states)
    net.export(str(folder / "net"))
    names = ["data0", *(f"data{1 + n}" for n in range(len(states)))]
    again = mx.gluon.SymbolBlock.imports(str(folder / "net-symbol.json"), names, str(folder / "net-0000.params"))
    got = again(ids, *states)[0]
    assert np.linalg.norm((got - expected).asnumpy()) <= 1e-4 * np.linalg.norm(expected.asnumpy())


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=LOADED)
def test_a_few_configurations(options, tmp_path, monkeypatch, capsys):
    check(options, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=LOADED)
def test_many_configurations(options, tmp_path, monkeypatch, capsys):
    check(options, tmp_path, monkeypatch, capsys)
