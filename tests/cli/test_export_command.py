"""`deeprnn export`, and what the commands do with what it wrote."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from commands import symbols

import deeprnn
from deeprnn.cli import evaluate
from deeprnn.cli.main import main
from deeprnn.data.symbols import split_symbols
from deeprnn.evaluation import Surprise
from deeprnn.train import checkpoint, storage

pytest.importorskip("safetensors", reason="pip install .[hub]")


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """The run in every format, for tests that only read it."""
    pytest.importorskip("onnx", reason="pip install .[onnx]")
    pytest.importorskip("onnxruntime", reason="pip install .[onnx]")
    folder = tmp_path_factory.mktemp("exported") / "ducks"
    assert main(["export", str(trained), "--out", str(folder)]) == 0
    return folder


def printed(capsys, *arguments):
    assert main(list(arguments)) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def test_the_folder_says_what_the_model_was_trained_on(exported, trained):
    training = json.loads((exported / "config.json").read_text())["training"]
    summary = json.loads((trained / "summary.json").read_text())
    assert training["corpus"] == "ducks.txt" and training["corpus_sha256"] == summary["corpus_sha256"]
    assert training["test_loss"] == summary["test_loss"] and training["best_epoch"] == summary["best_epoch"]
    assert training["command"].startswith("deeprnn train --corpus=ducks.txt --batch-size=8")
    card = (exported / "README.md").read_text()
    assert training["command"] in card and summary["corpus_sha256"] in card
    assert str(trained.parent) not in card + (exported / "config.json").read_text()


@pytest.mark.parametrize("content", ["", '{"test_loss": 1', "[]", '{"test_loss": NaN}'])
def test_a_damaged_summary_is_named(trained, tmp_path, capsys, content):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    path.write_text(content)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"deeprnn: error: {path} is damaged: ") and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_without_the_hash_of_its_text_is_named(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        del manifest["state"]["corpus_sha256"]
        storage.write_manifest(path, manifest)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "new")]) == 2
    newest = max((tmp_path / "run" / "checkpoints").glob("*.json"))
    assert capsys.readouterr().err == f"deeprnn: error: {newest} is damaged: its corpus_sha256 is None\n"


def test_a_format_alone(trained, tmp_path, capsys):
    for name, files in (("symbol", {"step-symbol.json"}), ("torch", set())):
        out = printed(capsys, "export", str(trained), "--format", name, "--out", str(tmp_path / name))
        assert "generate" in out and str(tmp_path / name) in out
        written = {path.name for path in (tmp_path / name).iterdir()}
        assert files <= written and "model.onnx" not in written
        assert isinstance(deeprnn.from_pretrained(tmp_path / name)[0], deeprnn.LanguageModel)


WAYS = ["", "--greedy", "--temperature 0.5 --top-k 5", "--top-p 0.8", "--repetition-penalty 0.5", "--beam 3"]


@pytest.mark.parametrize("way", WAYS)
def test_all_runtimes_write_the_same_text(trained, exported, capsys, way):
    rest = ["--seed", "4", "--length", "80", "--prefix", "over ", *way.split()]
    expected = printed(capsys, "generate", str(trained), *rest)
    assert expected.startswith("over ") and symbols(expected) == 5 + 80 + 1
    for source in (
        [exported],
        [exported, "--runtime", "mxnet"],
        [exported, "--runtime", "onnx"],
        [exported / "model.onnx"],
    ):
        assert printed(capsys, "generate", *map(str, source), *rest) == expected


def test_torch_writes_the_same_text(exported, trained, text, capsys):
    pytest.importorskip("torch", reason="pip install .[torch]")
    rest = ["--seed", "4", "--length", "80"]
    expected = printed(capsys, "generate", str(trained), *rest)
    assert printed(capsys, "generate", str(exported), "--runtime", "torch", *rest) == expected
    measured = printed(capsys, "evaluate", str(trained), "--corpus", text)
    assert printed(capsys, "evaluate", str(exported), "--corpus", text, "--runtime", "torch") == measured


def test_all_runtimes_measure_the_same_loss(trained, exported, text, capsys):
    expected = printed(capsys, "evaluate", str(trained), "--corpus", text, "--per-symbol")
    assert len(expected.splitlines()) == 1 + 1 + 20
    for runtime in ("native", "mxnet", "onnx"):
        out = printed(capsys, "evaluate", str(exported), "--corpus", text, "--per-symbol", "--runtime", runtime)
        assert out == expected
    # A file alone does not say how long a sequence was, and each begins with states of zeros.
    out = printed(capsys, "evaluate", str(exported / "model.onnx"), "--corpus", text)
    assert float(out.split()[2]) == pytest.approx(float(expected.split()[2]), abs=0.05)


def test_the_most_surprising_places_are_where_the_table_says(trained, tmp_path, capsys):
    lines = ["over the hills and far away; 9 came back."] * 12
    lines[5] = "over the hills and;far away; 9 came back."
    (tmp_path / "odd.txt").write_text("\n".join(lines), encoding="utf-8")
    table = printed(
        capsys, "evaluate", str(trained), "--corpus", str(tmp_path / "odd.txt"), "--per-symbol"
    ).splitlines()[1:]
    assert table[0].split() == ["nats", "line", "column", "actual", "expected", "context"]
    losses = [float(row.split()[0]) for row in table[1:]]
    assert losses == sorted(losses, reverse=True)
    (odd,) = (row for row in table if r"\nover the hills and'" in row and "';'" in row)
    assert odd.split()[1:4] == ["6", "19", "';'"]


@pytest.mark.parametrize("unit", ["char", "word"])
def test_the_table_reads_no_more_of_a_text_than_it_shows(unit, monkeypatch):
    import gluonnlp

    from deeprnn.data import text as texts

    lines = ["over the hills and far away", "", "nine little ducks", "x " * 40 + "came back"]
    tokens = split_symbols("\n".join(lines), unit)
    vocab = gluonnlp.Vocab(gluonnlp.data.count_tokens(tokens), padding_token=None, bos_token=None, eos_token=None)
    ids = np.array(vocab[tokens])
    decoded = []
    original = texts.decode
    monkeypatch.setattr(
        texts, "decode", lambda vocab, ids, unit: decoded.append(len(ids)) or original(vocab, ids, unit)
    )
    monkeypatch.setattr(evaluate, "CHUNK", 7)
    places = [Surprise(1.0, position, 0, 0.5) for position in range(len(ids))]
    _, *rows = evaluate.surprises(places, ids, vocab, unit).splitlines()
    pattern = "." if unit == "char" else r"\S+"
    expected = [
        (number, place + 1)  # of a character, or of a word
        for number, line in enumerate(lines, 1)
        for place in range(len(re.findall(pattern, line)) + 1)
    ]
    assert [tuple(map(int, row.split()[1:3])) for row in rows] == expected[:-1]  # the last line has no end
    assert max(decoded) == evaluate.BEFORE
    assert rows[-1].endswith(repr(original(vocab, ids[:-1], unit)[-evaluate.BEFORE :]))


def test_an_exported_model_finds_its_text_again(exported, text, capsys, monkeypatch):
    monkeypatch.chdir(os.path.dirname(text))
    assert printed(capsys, "evaluate", str(exported)).startswith("test loss ")
    assert main(["evaluate", str(exported / "model.onnx")]) == 2
    assert "has no record of the text it was trained on: give a text, --corpus PATH" in capsys.readouterr().err


def test_several_texts(trained, capsys):
    alone = printed(capsys, "generate", str(trained), "--seed", "7", "--length", "30").rstrip("\n")
    answer = json.loads(
        printed(capsys, "generate", str(trained), "--seed", "7", "--length", "30", "--samples", "3", "--json")
    )
    texts = [sample["text"] for sample in answer["samples"]]
    assert texts[0] == alone and len(set(texts)) == 3 and answer["seed"] == 7 and answer["runtime"] == "native"
    shown = printed(capsys, "generate", str(trained), "--seed", "7", "--length", "30", "--samples", "3")
    assert shown == "\n\n".join(texts) + "\n"


def test_a_beam_gives_several_texts_the_best_first(trained, capsys):
    answer = json.loads(
        printed(capsys, "generate", str(trained), "--beam", "4", "--samples", "4", "--length", "12", "--json")
    )
    texts = [sample["text"] for sample in answer["samples"]]
    assert len(set(texts)) == 4 and all(symbols(text) == 12 for text in texts) and answer["seed"] is None
    best = printed(capsys, "generate", str(trained), "--beam", "4", "--length", "12")
    assert best == texts[0] + "\n"


def test_a_beam_that_finds_fewer_texts_gives_those(trained, capsys):
    ways = ["--beam", "50", "--samples", "50", "--length", "1"]  # there are not so many symbols
    answer = json.loads(printed(capsys, "generate", str(trained), *ways, "--json"))
    vocabulary = checkpoint.load(trained / "checkpoints").state["vocabulary"]
    assert {sample["text"] for sample in answer["samples"]} == {*vocabulary} - {"<unk>"}
    assert len(answer["samples"]) == len(vocabulary) - 1


def test_a_text_stops(trained, capsys):
    whole = printed(capsys, "generate", str(trained), "--seed", "2", "--length", "200")
    end = whole[40:42]
    cut = printed(capsys, "generate", str(trained), "--seed", "2", "--length", "200", "--stop", end)
    assert cut == whole[: whole.index(end) + len(end)] + "\n"
    answer = json.loads(
        printed(
            capsys,
            "generate",
            str(trained),
            "--seed",
            "2",
            "--length",
            "200",
            "--stop",
            end,
            "--json",
            "--samples",
            "2",
        )
    )
    assert answer["samples"][0] == {"text": cut[:-1], "stopped": True}


def test_the_prefix_is_not_searched_for_the_stop(trained, capsys):
    text = printed(
        capsys, "generate", str(trained), "--prefix", "over", "--stop", "over", "--length", "5", "--seed", "1"
    )
    assert len(text) > 5


def test_a_prefix_from_a_file_and_from_standard_input(trained, tmp_path, capsys, monkeypatch):
    rest = ["--seed", "1", "--length", "20"]
    expected = printed(capsys, "generate", str(trained), "--prefix", "over the", *rest)
    (tmp_path / "prefix.txt").write_text("over the\n")
    assert printed(capsys, "generate", str(trained), "--prefix-file", str(tmp_path / "prefix.txt"), *rest) == expected
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"over the\n")))
    assert printed(capsys, "generate", str(trained), "--prefix-file", "-", *rest) == expected
    monkeypatch.setattr("sys.stdin", None)  # closed before the program began
    assert main(["generate", str(trained), "--prefix-file", "-"]) == 2
    assert capsys.readouterr().err == "deeprnn: error: --prefix-file -: standard input is closed\n"


def test_text_is_shown_as_it_is_made(trained, monkeypatch):
    shown = []
    monkeypatch.setattr("builtins.print", lambda *words, **_: shown.append("".join(words)))
    assert main(["generate", str(trained), "--length", "25", "--prefix", "o"]) == 0
    assert len(shown) == 1 + 25 + 1 and shown[0] == "o"


def test_words_have_spaces_between_them():
    import gluonnlp

    from deeprnn.data.text import decode
    from deeprnn.data.writing import Text

    vocab = gluonnlp.Vocab({"over": 4, "hills": 3, "\n": 2, "far": 1}, unknown_token=None, padding_token=None)
    ids = [vocab[token] for token in ("over", "hills", "\n", "far", "far", "\n", "\n", "over")]
    text = Text(vocab, "word", ids[:1])
    assert text.text + "".join(text.add(symbol) for symbol in ids[1:]) == decode(vocab, ids, "word") == text.text
    text = Text(vocab, "word", ids[:1], ["ll", "ill"])
    assert (text.add(ids[1]), text.add(ids[2]), text.text) == (" hill", "", "over hill")


@pytest.mark.parametrize(
    "line, expected",
    [
        ("export trained", "--out is missing: give the folder to write, --out FOLDER"),
        ("export trained --out ducks", "--out ducks exists already: choose another folder"),
        ("export trained --out file/new", "--out file/new cannot be made: Not a directory"),
        ("export trained --out new --format tflite", "--format must be one of 'symbol', 'onnx', 'torch', 'all'"),
        ("export nothing --out new", "nothing is not the folder of a run"),
        ("export ducks --out new", "ducks/checkpoints has no checkpoint"),
        ("generate lacking", "lacking/model.onnx is missing, and manifest.json names it"),
        ("generate changed", "changed/model.safetensors is damaged: its SHA-256 should be"),
        ("generate later", "later/manifest.json has format 2, written by deeprnn "),
        (
            "generate ducks --runtime tensorrt",
            "--runtime must be one of 'native', 'mxnet', 'onnx', 'torch', got 'tensorrt'",
        ),
        ("generate trained --runtime onnx", "--runtime onnx needs an exported folder: deeprnn export trained"),
        ("generate symbol --runtime onnx", "--runtime onnx needs the format onnx, and symbol has symbol"),
        ("generate ducks/model.onnx --runtime mxnet", "--runtime mxnet cannot run the file ducks/model.onnx"),
        ("generate file", "file is not an ONNX file that onnxruntime can load: "),
        ("generate foreign.onnx", "foreign.onnx is not a language model that deeprnn exported with its vocabulary"),
        ("generate layer", "layer is not a language model with a vocabulary but a DeepRNN"),
        ("generate ducks --plugin mgu.py", "--plugin mgu.py is not needed: ducks is not a run, and needs no code"),
        ("generate ducks --samples 0", "--samples must be at least 1, got 0"),
        ("generate ducks --beam -1", "--beam must be at least 0, got -1"),
        ("generate ducks --beam 2 --samples 3", "--beam 2 finds no more than 2 texts, got --samples 3"),
        ("generate ducks --beam 2 --top-k 3", "--beam 2 does not sample: leave out temperature"),
        ("generate ducks --stop ''", "--stop is empty: give at least one character"),
        ("generate ducks --prefix a --prefix-file file", "--prefix a and --prefix-file file exclude each other"),
        ("generate ducks --prefix-file none", "none: No such file or directory"),
        ("generate ducks --prefix-file latin", "--prefix-file latin is not UTF-8"),
        ("generate ducks --prefix-file unknown", "--prefix-file: not in the vocabulary of 36 symbols: 'Z' (U+005A)"),
    ],
)
def test_bad_commands(exported, trained, tmp_path, monkeypatch, capsys, line, expected):
    import mxnet as mx
    import onnx

    monkeypatch.chdir(tmp_path)
    for name in ("ducks", "lacking", "changed", "later"):
        shutil.copytree(exported, name)
    (tmp_path / "lacking" / "model.onnx").unlink()
    with open("changed/model.safetensors", "ab") as file:
        file.write(b"?")
    manifest = (tmp_path / "later" / "manifest.json").read_text().replace('"format": 1', '"format": 2')
    (tmp_path / "later" / "manifest.json").write_text(manifest)
    (tmp_path / "trained").symlink_to(trained)
    for name, content in (("file", b"none"), ("latin", b"caf\xe9"), ("unknown", b"Z")):
        (tmp_path / name).write_bytes(content)
    if "symbol" in line:
        net, vocabulary = deeprnn.from_pretrained("ducks")
        deeprnn.export.to_symbol(net, "symbol", vocabulary=vocabulary)
    if "layer" in line:
        layer = deeprnn.DeepRNN(2, input_size=2)
        layer.initialize(mx.init.Zero())
        deeprnn.export.to_torch(layer, "layer")
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", 1, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [result])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), "foreign.onnx")
    before = sorted(tmp_path.rglob("*"))
    assert main(shlex.split(line)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"deeprnn: error: {expected}"), error
    assert error.count("\n") == 1 and error.endswith("\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_card_of_a_run_that_has_gone_on_has_no_figures_of_before(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "best_epoch": summary["best_epoch"] + 1}))
    assert main(["export", str(run), "--out", str(tmp_path / "out"), "--format", "torch"]) == 0
    training = json.loads((tmp_path / "out" / "config.json").read_text())["training"]
    assert "best_loss" in training and not {"valid_loss", "test_loss", "epochs"} & training.keys()


def test_the_card_names_no_folder_and_its_command_can_be_copied(trained, tmp_path):
    from dataclasses import replace

    from deeprnn.cli.export import trained_on
    from deeprnn.cli.runs import open_run

    _, _, run, best = open_run(trained)
    data = replace(run.data, corpus="a/x.txt,b/y.txt")
    train = replace(run.train, sample_prefix="the|fox jumps")
    shown = trained_on(trained, replace(run, data=data, train=train), best)
    assert shown["corpus"] == "x.txt,y.txt"
    assert {"--corpus=x.txt,y.txt", "--sample-prefix=the|fox jumps"} <= {*shlex.split(shown["command"])}
