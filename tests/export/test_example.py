"""The example that generates text with onnxruntime and numpy alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import TOKENS, model

from deeprnn import export
from deeprnn.generation import generate
from deeprnn.sampling import Sampler

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "generate_onnx.py"


def test_it_writes_the_same_text_without_mxnet_and_deeprnn(tmp_path):
    for package in ("onnx", "onnxruntime", "safetensors"):
        pytest.importorskip(package, reason="pip install .[onnx]")
    net = model("lstm", embedding_size=3)
    file = export.to_onnx(net, tmp_path / "model", vocabulary=TOKENS) / "model.onnx"
    absent = "import runpy, sys\nfor name in ('mxnet', 'deeprnn', 'gluonnlp', 'onnx'): sys.modules[name] = None\n"
    run = f"{absent}sys.argv[1:] = [{str(file)!r}, '60', '3']\nrunpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ids = generate(net, [1], 60, sampler=Sampler(), rng=np.random.default_rng(3), banned=[0])
    assert done.stdout == "".join(TOKENS[i] for i in ids) + "\n"


def test_it_is_thirty_lines():
    assert len([line for line in EXAMPLE.read_text().splitlines() if line.strip()]) <= 30
