"""`deeprnn evaluate`: what is measured."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest
from commands import TINY

from deeprnn.cli.main import main
from deeprnn.cli.runs import saved_vocabulary
from deeprnn.train import checkpoint, storage


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_evaluate(trained, capsys, part):
    assert main(["evaluate", str(trained), "--part", part]) == 0
    output = capsys.readouterr().out
    match = re.fullmatch(rf"{part} loss ([\d.]+) nats per token, perplexity ([\d.]+), [\d,]+ tokens\n", output)
    if part != "train":  # measured as the weights changed there
        expected = json.loads((trained / "summary.json").read_text())[f"{part}_loss"]
        assert float(match[1]) == pytest.approx(expected, abs=1e-4)
    assert float(match[2]) == pytest.approx(math.exp(float(match[1])), rel=1e-3)


def test_a_part_without_text(train, tmp_path, capsys):
    assert train("--split", "1,0,0", "--epochs", "1")[0] == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "deeprnn: error: --part test has no text: the run has --split 1,0,0\n"


def test_another_text_with_the_vocabulary_of_the_run(trained, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("over the hills and far away; 3 little ducks.\n" * 20, encoding="utf-8")
    assert main(["evaluate", str(trained), "--corpus", str(other)]) == 0
    shown = capsys.readouterr()
    match = re.fullmatch(r"other\.txt loss ([\d.]+) nats per token, perplexity ([\d.]+), ([\d,]+) tokens\n", shown.out)
    assert float(match[2]) == pytest.approx(math.exp(float(match[1])), rel=1e-3)
    assert 0 <= 20 * 45 - 1 - int(match[3]) < 8  # all but what the last batch leaves
    assert shown.err == ""
    other.write_bytes("想要有直升机 a\n".encode("gb18030") * 30)
    assert main(["evaluate", str(trained), "--corpus", str(other), "--encoding", "gb18030"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("other.txt loss ")
    assert re.search(r"^warning: most of the text \(\d+%\) is unknown", shown.err, flags=re.MULTILINE)


def test_a_text_with_symbols_that_a_run_without_an_unknown_token_lacks(train, tmp_path, capsys):
    assert train("--split", "1,0,0", "--unknown", "false", "--epochs", "1")[0] == 0
    other = tmp_path / "other.txt"
    other.write_text("é over the hills", encoding="utf-8")
    assert main(["evaluate", str(tmp_path / "run"), "--corpus", str(other)]) == 2
    error = capsys.readouterr().err
    assert "1 of 16 symbols not in the vocabulary: 'é' (U+00E9); it has no unknown token\n" in error


def test_a_word_that_looks_like_the_unknown_token(train, tmp_path, capsys):
    ptb = tmp_path / "ptb.txt"
    ptb.write_text("over the <unk> and far away\n" * 30, encoding="utf-8")
    words = ["--unit", "word", "--seq-len", "3", "--split", "1,0,0", "--epochs", "1"]
    assert train("--corpus", str(ptb), *words, "--unknown", "false")[0] == 0
    assert saved_vocabulary(checkpoint.load(tmp_path / "run" / "checkpoints")).unknown_token is None
    other = tmp_path / "other.txt"
    other.write_text("over the hills", encoding="utf-8")
    assert main(["evaluate", str(tmp_path / "run"), "--corpus", str(other)]) == 2
    assert "'hills'; it has no unknown token\n" in capsys.readouterr().err


def test_a_run_of_before_the_unknown_token_was_saved(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        assert manifest["state"].pop("unk_token") == "<unk>"
        storage.write_manifest(path, manifest)
    assert saved_vocabulary(checkpoint.load(tmp_path / "run" / "checkpoints")).unknown_token == "<unk>"


def test_a_text_that_has_moved_is_given_with_its_part(trained, text, tmp_path, capsys):
    assert main(["evaluate", str(trained)]) == 0
    expected = capsys.readouterr().out
    moved, run = tmp_path / "moved.txt", tmp_path / "run"
    moved.write_bytes(Path(text).read_bytes())
    shutil.copytree(trained, run)
    assert main(["evaluate", str(run), "--part", "test", "--corpus", str(moved)]) == 0
    assert capsys.readouterr().out == expected
    moved.write_text("another text " * 500)
    assert main(["evaluate", str(run), "--part", "test", "--corpus", str(moved)]) == 2
    assert "differs from the one that" in capsys.readouterr().err


def test_another_text_of_the_same_name_in_this_folder_is_not_taken(text, tmp_path, capsys, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, content in ((here, Path(text).read_text()), (there, "another text " * 500)):
        folder.mkdir()
        (folder / "input.txt").write_text(content)
    monkeypatch.chdir(here)
    assert main(["train", "--corpus", "input.txt", "--out", str(tmp_path / "run"), *TINY]) == 0
    monkeypatch.chdir(there)
    assert main(["evaluate", str(tmp_path / "run")]) == 0
