"""`deeprnn evaluate`: what is measured."""

from __future__ import annotations

import json
import math
import re

import pytest

from deeprnn.cli.main import main


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_evaluate(trained, capsys, part):
    assert main(["evaluate", str(trained), "--part", part]) == 0
    said = capsys.readouterr().out
    match = re.fullmatch(rf"{part} loss ([\d.]+) nats per token, perplexity ([\d.]+), [\d,]+ tokens\n", said)
    if part != "train":  # measured as the weights changed there
        expected = json.loads((trained / "summary.json").read_text())[f"{part}_loss"]
        assert float(match[1]) == pytest.approx(expected, abs=1e-4)
    assert float(match[2]) == pytest.approx(math.exp(float(match[1])), rel=1e-3)


def test_a_part_without_text(train, tmp_path, capsys):
    assert train("--split", "1,0,0", "--epochs", "1")[0] == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "deeprnn: error: --part test has no text: the run has --split 1,0,0\n"
