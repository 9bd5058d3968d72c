"""Large texts and large vocabularies from the command line: encoded once, resumed to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import TEXT

from deeprnn.cli.main import main
from deeprnn.data import text as texts
from deeprnn.data.reading import Reading

SMALL = ["--epochs=2", "--schedule=constant", "--batch-size=4", "--seq-len=9", "--hidden-size=4", "--embedding-size=3"]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train on two files, in which every text is large; gives the parameters of the best network."""
    monkeypatch.setattr("deeprnn.cli.training.curves", lambda *_, **__: None)
    monkeypatch.setattr(texts, "LARGE", 10)
    monkeypatch.setenv("DEEPRNN_CACHE", str(tmp_path / "cache"))
    for name in ("a1.txt", "a2.txt"):
        (tmp_path / name).write_text(TEXT[:300], encoding="utf-8")

    def run(name, *flags):
        assert main(["train", f"--corpus={tmp_path / 'a*.txt'}", "--out", str(tmp_path / name), *SMALL, *flags]) == 0
        [newest] = sorted((tmp_path / name / "checkpoints").glob("parameters-*.npz"))[-1:]
        return dict(np.load(newest))

    return run


def test_a_large_text_is_trained_on_and_resumed_without_being_read(train, tmp_path, monkeypatch):
    whole = train("whole", "--loss=sampled", "--samples=9")
    train("parts", "--loss=sampled", "--samples=9", "--epochs=1")
    monkeypatch.setattr(Reading, "__iter__", None)
    parts = train("parts", "--resume", "--loss=sampled", "--samples=9")
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["corpus"] == "a1.txt and 1 more"


def test_too_many_samples_are_refused_by_their_flag(train, tmp_path, capsys):
    with pytest.raises(AssertionError):
        train("run", "--loss=sampled")
    error = capsys.readouterr().err
    assert "--samples must be at most half of the vocabulary" in error and "use --loss full" in error
    assert error.count("\n") == 1
