"""Bad input: one line, exit code 2, and nothing is left behind."""

from __future__ import annotations

import shlex

import pytest
from commands import LEARNT, TEXT

from deeprnn.cli.main import main

BAD_TEXTS = {
    "empty.txt": b"",
    "latin.txt": "caf\xe9 ".encode("latin-1") * 500,
    "short.txt": b"too short",
    "one.txt": b"a",
    "gb.txt": "想要有直升机 想要和你飞到宇宙去 想要和你融化在一起\n".encode("gb18030") * 20,
    "broken.gz": b"no gzip",
    "broken.zip": b"no zip",
}
BAD_YAML = {
    "unknown.yaml": b"layrs: 2\n",
    "dashes.yaml": b"hidden-size: 2\n",
    "type.yaml": b"layers: two\n",
    "fraction.yaml": b"layers: 2.5\n",
    "switch.yaml": b"sample_greedy: 1\n",
    "choice.yaml": b"cell: elman\n",
    "bound.yaml": b"epochs: 0\n",
    "list.yaml": b"- layers\n",
    "word.yaml": b"layers\n",
    "nested.yaml": b"model:\n  layers: 2\n",
    "broken.yaml": b"layers: [2\n",
    "latin.yaml": b"corpus: caf\xe9\n",
    "object.yaml": b"layers: !!python/object/apply:os.getpid []\n",
}


@pytest.fixture
def bad(tmp_path, text, trained, monkeypatch):
    """A folder with the files that the lines below name, and us in it."""
    for name, content in {**BAD_TEXTS, **BAD_YAML}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "ducks.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "trained").symlink_to(trained)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "line, expected",
    [
        ("--layers 0", "--layers must be at least 1, got 0"),
        ("--layers -2", "--layers must be at least 1, got -2"),
        ("--layers two", "--layers must be a whole number, got 'two'"),
        ("--layers 2.5", "--layers must be a whole number, got '2.5'"),
        ("--layers", "argument --layers: expected one argument"),
        ("--hidden-size 0", "--hidden-size must be at least 1, got 0"),
        ("--embedding-size -1", "--embedding-size must be at least 0, got -1"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--seq-len -5", "--seq-len must be at least 1, got -5"),
        ("--max-chars 0", "--max-chars must be at least 1, got 0"),
        ("--max-chars many", "--max-chars must be a whole number or null, got 'many'"),
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--epochs -1", "--epochs must be at least 1, got -1"),
        ("--lr 0", "--lr must be above 0, got 0"),
        ("--lr nan", "--lr must be a finite number, got 'nan'"),
        ("--clip -1", "--clip must be at least 0, got -1"),
        ("--dropout 1", "--dropout must be at least 0 and below 1, got 1"),
        ("--seed -1", "--seed must be at least 0, got -1"),
        ("--threads -1", "--threads must be at least 0, got -1"),
        ("--split 1,0", "--split must be three shares of at least 0 with sum 1"),
        ("--split a,b,c", "--split must be three shares of at least 0 with sum 1"),
        ("--split 0,0.5,0.5", "--split 0,0.5,0.5 leaves nothing to train on"),
        ("--cell rnm", "--cell must be one of 'rnn', 'gru', 'lstm', got 'rnm'; did you mean 'rnn'?"),
        ("--cell qrnn-x", "--cell must be one of 'rnn', 'gru', 'lstm', got 'qrnn-x'"),
        ("--plugin mgu.py", "--cell rnn is built in: name the cell that --plugin mgu.py registers"),
        ("--plugin none.py --cell mgu", "--plugin none.py: no such file"),
        ("--plugin nowhere --cell mgu", "--plugin nowhere cannot be loaded: No module named 'nowhere'"),
        ("--activation sigmoid", "--activation must be one of 'tanh', 'relu', got 'sigmoid'"),
        ("--unit letter", "--unit must be one of 'char', 'word', got 'letter'"),
        ("--sampling sorted", "--sampling must be one of 'consecutive', 'random', got 'sorted'"),
        ("--optimizer adamw", "--optimizer must be one of 'adam', 'sgd', 'rmsprop', got 'adamw'; did you mean 'adam'?"),
        ("--ctx tpu", "--ctx must be cpu or gpu, or several devices such as 'gpu(0),gpu(1)', got 'tpu'"),
        ("--kvstore dist_async", "--kvstore must be one of 'device', 'local', 'dist_sync', 'dist_device_sync', got"),
        ("--ctx cpu,gpu", "--ctx must name devices of one kind, got 'cpu,gpu'"),
        ("--ctx cpu,cpu(0)", "--ctx must name each device once, got 'cpu,cpu(0)'"),
        ("--ctx cpu(0),cpu(1) --batch-size 1", "--batch-size 1 cannot be shared by the 2 devices of ctx"),
        ("--sample-greedy maybe", "--sample-greedy must be true or false, got 'maybe'"),
        ("--backend gluon --residual false --dropout 0.5", "--backend gluon ignores --dropout 0.5 on the CPU"),
        ("--backend gluon --residual false --dropout 0 --diagnose", "--diagnose true needs --backend deeprnn: "),
        ("--cell gru --activation relu", "--activation relu is for --cell rnn; gru has its own"),
        ("--hiden-size 3", "unrecognized arguments: --hiden-size 3 (did you mean --hidden-size?)"),
        ("--layer 3", "unrecognized arguments: --layer 3 (did you mean --layers?)"),
        ("stray", "unrecognized arguments: stray"),
        ("--preset bok", "--preset must be one of 'book', 'deep', got 'bok'; did you mean 'book'?"),
        ("--preset ../setup", "--preset must be one of 'book', 'deep', got '../setup'"),
        ("--config missing.yaml", "missing.yaml: No such file or directory"),
        ("--config .", ".: Is a directory"),
        ("--config unknown.yaml", "unknown.yaml: unknown option 'layrs' (did you mean 'layers'?)"),
        ("--config dashes.yaml", "dashes.yaml: unknown option 'hidden-size' (did you mean 'hidden_size'?)"),
        ("--config type.yaml", "type.yaml: layers must be a whole number, got 'two'"),
        ("--config fraction.yaml", "fraction.yaml: layers must be a whole number, got 2.5"),
        ("--config switch.yaml", "switch.yaml: sample_greedy must be true or false, got 1"),
        ("--config choice.yaml", "choice.yaml: cell must be one of 'rnn', 'gru', 'lstm', got 'elman'"),
        ("--config bound.yaml", "bound.yaml: epochs must be at least 1, got 0"),
        ("--config list.yaml", "list.yaml: expected options such as layers: 2, one per line, got ['layers']"),
        ("--config word.yaml", "word.yaml: expected options such as layers: 2, one per line, got 'layers'"),
        ("--config nested.yaml", "nested.yaml: unknown option 'model'"),
        ("--config broken.yaml", "broken.yaml is not YAML: "),
        ("--config object.yaml", "object.yaml: anchors (&), aliases (*) and tags (!) are not read"),
        ("--config latin.yaml", "latin.yaml is not UTF-8"),
        ("--corpus missing.txt", "--corpus missing.txt: no such file"),
        (
            "--corpus timemachin",
            "--corpus 'timemachin' is neither a known text nor a file; did you mean 'timemachine'?",
        ),
        ("--corpus .", "--corpus . is a folder"),
        ("--corpus empty.txt", "--corpus empty.txt: the file is empty"),
        (
            "--corpus latin.txt",
            "--corpus latin.txt: not UTF-8 (byte 0xE9 at offset 3); give its encoding, perhaps --encoding ",
        ),
        (
            "--corpus gb.txt",
            "--corpus gb.txt: not UTF-8 (byte 0xCF at offset 0); it looks like GB18030: give --encoding gb18",
        ),
        ("--encoding utf8x", "--encoding must be an encoding such as 'utf-8' or 'gb18030', got 'utf8x'"),
        ("--corpus broken.gz", "--corpus broken.gz: damaged"),
        ("--corpus broken.zip", "--corpus broken.zip: damaged"),
        ("--corpus short.txt", "the text is shorter than one batch: --batch-size 8 and --seq-len 10 need 88 symbols"),
        ("--max-chars 20", "the text is shorter than one batch"),
        ("--unknown false --max-chars 300", "test: 1 of 30 symbols not in the vocabulary: "),
        ("--sample-prefix day|né", "--sample-prefix 'né': not in the vocabulary of"),
        ("--out trained", "--out trained holds a run already: choose another folder, or continue that run by --resume"),
        ("--out file", "--out file cannot be written: "),
        ("--out file/run", "--out file/run cannot be written: "),
        ("--resume --out nothing", "--resume: there is no run in nothing"),
        ("--resume --out trained --layers 3", "--resume: the run in trained has --layers 2, got 3"),
        ("--resume --out trained --init-from trained", "--resume continues with the run's own weights"),
        ("--init-from nothing", "nothing/checkpoints has no checkpoint"),
        ("--init-from trained --hidden-size 9", "parameter "),
        ("--init-from trained --unit word", "--init-from trained was trained with --unit char"),
    ],
)
def test_bad_input(bad, capsys, line, expected):
    before = sorted(path.name for path in bad.iterdir())
    first = [] if line.startswith("--corpus") else ["--corpus", "ducks.txt"]
    out = [] if "--out" in line else ["--out", "new"]
    assert main(["train", *first, *out, *LEARNT, *shlex.split(line)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""  # the configuration is printed after everything has been checked
    error = shown.err
    assert error.startswith(f"deeprnn: error: {expected}")
    assert error.count("\n") == 1 and error.endswith("\n")
    assert sorted(path.name for path in bad.iterdir()) == before


@pytest.mark.parametrize(
    "line, expected",
    [
        ("", "a command is missing: train, generate, evaluate, export, serve, launch, or --help"),
        ("trian", "'trian' is not a command (did you mean train?)"),
        ("model.params", "'model.params' is not a command: train, generate, evaluate, export, serve, launch"),
        ("train --resume", "--resume needs --out FOLDER, that of the run to be continued"),
        ("generate", "the following arguments are required: model"),
        ("generate nothing", "nothing does not exist: give the folder of a run, an exported folder,"),
        ("generate .", "checkpoints has no checkpoint"),
        ("generate trained --prefix né", "--prefix 'né': not in the vocabulary of"),
        ("generate trained --length 0", "--length must be at least 1, got 0"),
        ("generate trained --length x", "--length must be a whole number, got 'x'"),
        ("generate trained --temperature 0", "--temperature must be above 0 and finite, got 0.0"),
        ("generate trained --top-k -1", "--top-k must be at least 0, got -1"),
        ("generate trained --top-p 0", "--top-p must be above 0 and at most 1, got 0.0"),
        ("generate trained --top-p 1.5", "--top-p must be above 0 and at most 1, got 1.5"),
        ("generate trained --seed -1", "--seed must be at least 0, got -1"),
        ("generate trained --len 5", "unrecognized arguments: --len 5"),
        (
            "generate trained --corpus a",
            "unrecognized arguments: --corpus a (a flag of deeprnn train and deeprnn evaluate)",
        ),
        ("generate trained --layers 5", "unrecognized arguments: --layers 5 (a flag of deeprnn train)"),
        ("train --temperature 1", "unrecognized arguments: --temperature 1 (a flag of deeprnn generate)"),
        ("train --part test", "unrecognized arguments: --part test (a flag of deeprnn evaluate)"),
        ("evaluate trained --corpus empty.txt", "--corpus empty.txt: the file is empty"),
        ("evaluate trained --corpus one.txt", "--corpus one.txt is too short: 1 symbol, and 2 are needed"),
        (
            "generate trained --plugin mgu.py",
            "--plugin mgu.py is not needed: the run in trained uses the built-in cell",
        ),
        ("evaluate trained --part all", "--part must be one of 'train', 'valid', 'test', got 'all'"),
        ("evaluate nothing", "nothing does not exist: give the folder of a run, an exported folder,"),
    ],
)
def test_bad_commands(bad, capsys, line, expected):
    assert main(shlex.split(line)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"deeprnn: error: {expected}")
    assert error.count("\n") == 1 and error.endswith("\n")


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_damaged_checkpoint(train, tmp_path, capsys, suffix):
    assert train("--epochs", "1")[0] == 0
    resumed = ["--out", str(tmp_path / "run"), "--resume"]
    path = next((tmp_path / "run" / "checkpoints").glob(f"[ps]*{suffix}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for command in (["generate", str(tmp_path / "run")], ["evaluate", str(tmp_path / "run")], ["train", *resumed]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"deeprnn: error: {path} is damaged") and error.count("\n") == 1


def test_the_text_has_changed(train, tmp_path, capsys):
    copy = tmp_path / "copy.txt"
    copy.write_text(TEXT, encoding="utf-8")
    assert train("--corpus", str(copy), "--epochs", "1")[0] == 0
    copy.write_text(TEXT.replace("hills", "lakes"), encoding="utf-8")
    code, shown = train("--corpus", str(copy), "--epochs", "3", "--resume")
    assert code == 2 and "differs from the one that" in shown.err
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "differs from the one that" in capsys.readouterr().err
