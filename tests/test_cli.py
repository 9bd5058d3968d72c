"""The command line: what is typed, what is said, what is left on disk, and the exit code."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from deeprnn import __version__, checkpoint, cli, corpus, training
from deeprnn.config import ModelConfig, RunConfig

PROJECT = Path(__file__).parent.parent
TEXT = "".join(
    f"{n} little ducks went out one day, over the hills and far away; {n * n} came back.\n" for n in range(40)
)
TINY = shlex.split(
    "--hidden-size 8 --embedding-size 4 --batch-size 8 --seq-len 10 --epochs 2 --sample-length 12 --lr 0.02"
)

ISSUED = shlex.split("""
--layers --hidden-size --embedding-size --cell --activation --dropout --init --corpus --max-chars --split --unit
--batch-size --seq-len --sampling --epochs --sample-every --optimizer --lr --schedule --clip --seed --threads --ctx
--out --resume --init-from --config --preset --backend --version
""")


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """The command line sets it; after each test it is what it was."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "ducks.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def trained(text, tmp_path_factory):
    """A run that is over, for the tests that only read it."""
    folder = tmp_path_factory.mktemp("runs") / "ducks"
    assert cli.main(["train", "--corpus", text, "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture
def train(text, tmp_path, capsys, monkeypatch):
    """Train, by default into tmp_path / "run"; what comes back is the exit code and what was said."""
    monkeypatch.setattr(cli, "curves", lambda *_, **__: None)  # half of the time of so small a run

    def call(*arguments, out=None):
        code = cli.main(["train", "--corpus", text, "--out", str(out or tmp_path / "run"), *TINY, *arguments])
        return code, capsys.readouterr()

    return call


def losses(folder):
    return [json.loads(line)["train_loss"] for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def diagnoses(folder):
    return [json.loads(line) for line in (Path(folder) / "diagnosis.jsonl").read_text().splitlines()]


def symbols(text):
    """How many there are, the unknown symbol counted as one."""
    return len(text.replace("<unk>", "?"))


def python(*arguments, **options):
    """This program in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent), **options.pop("env", {})}
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, **options)


# The flags


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    flags = re.findall(r"^  (?:-h, )?(--[a-z-]+)", said, flags=re.MULTILINE)
    assert set(ISSUED) <= set(flags)
    for block in re.split(r"^  (?=--)", said, flags=re.MULTILINE)[1:]:
        assert re.search(r"\s{2,}[A-Z0-9a-z].*[a-z]{2}", block), f"no help: {block}"


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"], ["generate", "--version"]])
def test_version(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"deeprnn {__version__}\n"


def test_help_and_mistakes_do_not_load_mxnet(tmp_path):
    (tmp_path / "bad.yaml").write_text("layers: 0\n")
    lines = [
        ["--help"],
        ["train", "--help"],
        ["generate", "--help"],
        ["--version"],
        ["train", "--layers", "0"],
        ["train", "--no-such-flag"],
        ["train", "--preset", "none"],
        ["train", "--config", str(tmp_path / "bad.yaml")],
        ["generate", "run", "--temperature", "0"],
    ]
    script = f"""
import sys
from deeprnn.cli import main
for arguments in {lines!r}:
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == (2 if len(arguments) > 2 or "--no-such-flag" in arguments else 0), (arguments, code)
    heavy = [name for name in ("mxnet", "gluonnlp", "matplotlib") if name in sys.modules]
    assert not heavy, (arguments, heavy)
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


def resolved(*arguments):
    given = cli.command_line().parse_args(["train", *arguments], defaults=False)
    return cli.resolve(given[given.command])


def test_defaults_then_preset_then_config_then_flags(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("epochs: 7\nlayers: 3\nlr: 1e-3\n")
    expected = RunConfig.from_mapping(
        {**yaml.safe_load((PROJECT / "configs" / "book.yaml").read_text()), "epochs": 7, "lr": 1e-3, "layers": 4}
    )
    orders = [
        ["--preset", "book", "--config", str(config), "--layers", "4"],
        ["--layers", "4", "--config", str(config), "--preset", "book"],
        ["--config", str(config), "--layers", "4", "--preset=book"],
    ]
    for order in orders:
        run = resolved(*order)
        assert {**run.to_mapping(), "out": None} == expected.to_mapping()


def test_nothing_given_is_the_defaults():
    run = resolved()
    assert {**run.to_mapping(), "out": None} == RunConfig().to_mapping()
    assert re.fullmatch(r"runs/pydoc-rnn-2x256-\d{8}-\d{6}", run.out)


@pytest.mark.parametrize(
    "corpus, name", [("timemachine", "timemachine"), ("a/b c.txt.gz", "b-c"), ("诗.txt", "诗"), (".txt", "text")]
)
def test_name_of_the_folder(corpus, name):
    assert resolved("--corpus", corpus).out.startswith(f"runs/{name}-rnn-2x256-")


@pytest.mark.parametrize(
    "arguments, name, value",
    [
        (["--split", "1,0,0"], "split", [1, 0, 0]),
        (["--split=0.5,0.25,0.25"], "split", [0.5, 0.25, 0.25]),
        (["--unknown", "false"], "unknown", False),
        (["--sample-greedy"], "sample_greedy", True),
        (["--sample-greedy", "--layers", "3"], "layers", 3),
        (["--max-chars", "10"], "max_chars", 10),
        (["--corpus", "123"], "corpus", "123"),
        (["--sample-prefix", "The |[1, 2]: x"], "sample_prefix", "The |[1, 2]: x"),
        (["--lr", "100"], "lr", 100),
        (["--lr", "1e-3"], "lr", 1e-3),
    ],
)
def test_spellings(arguments, name, value):
    assert resolved(*arguments).to_mapping()[name] == value


@pytest.mark.parametrize("name", cli.presets())
def test_presets_are_runs_and_say_why(name):
    path = PROJECT / "configs" / f"{name}.yaml"
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert cli.read_options(path)


def test_the_book_to_the_letter():
    run = resolved("--preset", "book").to_mapping()
    protocol = {
        "corpus": "jaychou",
        "max_chars": 10_000,
        "split": [1, 0, 0],
        "unit": "char",
        "unknown": False,
        "batch_size": 32,
        "seq_len": 35,
        "sampling": "consecutive",
        "cell": "rnn",
        "layers": 1,
        "hidden_size": 256,
        "embedding_size": 0,
        "activation": "tanh",
        "dropout": 0,
        "residual": False,
        "layer_norm": False,
        "zoneout": 0,
        "tied": False,
        "init": "normal",
        "epochs": 250,
        "optimizer": "sgd",
        "lr": 100,
        "schedule": "constant",
        "warmup": 0,
        "clip": 0.01,
        "patience": 0,
        "sample_every": 50,
        "sample_length": 50,
        "sample_prefix": "分开|不分开",
        "sample_greedy": True,
    }
    assert {name: run[name] for name in protocol} == protocol
    assert resolved("--layers", "2", "--preset", "book").model.layers == 2
    said = cli.read_options(PROJECT / "configs" / "book.yaml")
    assert {field.name for field in fields(ModelConfig)} - set(said) == {"backend"}, (
        "a default of ours, which may change"
    )


def test_the_book_runs(tmp_path, capsys):
    song = tmp_path / "song.txt"
    song.write_text("我们分开 又不分开 雨下了整夜 " * 100, encoding="utf-8")
    book = ["--preset", "book", "--corpus", str(song), "--layers", "2", "--hidden-size", "8", "--epochs", "1"]
    assert cli.main(["train", *book, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "    分开" in said and "    不分开" in said
    assert "vocabulary 12" in said  # the symbols alone
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_loss"] is None


# A run


def test_what_a_run_leaves(trained, text):
    assert {path.name for path in trained.iterdir()} == {
        *("config.yaml", "metrics.jsonl", "summary.json", "curves.png", "checkpoints")
    }
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    for name in ("train_loss", "valid_loss", "tokens_per_second", "seconds", "learning_rate", "grad_norm"):
        assert all(row[name] > 0 for row in rows)
    for row in rows:
        assert row["train_perplexity"] == pytest.approx(math.exp(row["train_loss"]))
        assert row["valid_perplexity"] == pytest.approx(math.exp(row["valid_loss"]))
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["test_perplexity"] == pytest.approx(math.exp(summary["test_loss"]))
    assert summary["corpus"] == "ducks.txt"
    assert re.fullmatch("[0-9a-f]{64}", summary["corpus_sha256"])
    assert summary["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert {"deeprnn", "mxnet", "numpy", "python"} == set(summary["versions"])
    assert "processor" in summary["machine"]
    symbols, h, e = len(checkpoint.load(trained / "checkpoints", "best").state["vocabulary"]), 8, 4
    layer = [h * e + h * h + 2 * h, h * h + h * h + 2 * h]
    assert summary["parameters"] == symbols * e + sum(layer) + h * symbols + symbols
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_configuration_is_shown_saved_and_can_be_given_back(train, tmp_path, capsys):
    code, said = train("--seed", "3", "--schedule", "constant")
    assert code == 0
    saved = tmp_path / "run" / "config.yaml"
    options = yaml.safe_load(saved.read_text(encoding="utf-8"))
    assert options["seed"] == 3 and options["layers"] == 2 and "out" not in options
    assert yaml.safe_load(said.out.partition("}")[0] + "}") == options
    assert cli.main(["train", "--config", str(saved), "--out", str(tmp_path / "again")]) == 0
    assert losses(tmp_path / "again") == losses(tmp_path / "run")
    assert (tmp_path / "again" / "config.yaml").read_text() == saved.read_text()


def test_what_is_said(train, tmp_path):
    code, said = train("--sample-every", "1", "--sample-prefix", "day|out")
    assert code == 0
    assert "\r" not in said.out + said.err  # nothing is drawn over where no one looks on
    assert (
        len(re.findall(r"^epoch \d/2  train [\d.]+ nats, perplexity [\d.]+  valid", said.out, flags=re.MULTILINE)) == 2
    )
    assert said.out.count("\n    day") == said.out.count("\n    out") == 2
    assert re.search(r"^test loss [\d.]+ nats per token, perplexity [\d.]+$", said.out, flags=re.MULTILINE)
    assert str(tmp_path / "run") in said.out


def test_the_command_that_is_shown_works(train):
    code, said = train("--epochs", "1")
    assert code == 0
    program, *arguments = shlex.split(re.search("write more: (.*)", said.out)[1])
    assert os.path.abspath(program) == sys.executable
    done = python(*arguments, "--length", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert symbols(done.stdout) == 20 + 1


def test_no_held_out_text_gives_nulls(train, tmp_path):
    code, said = train("--split", "1,0,0")
    assert code == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for name in ("test_loss", "test_perplexity", "valid_loss", "valid_perplexity"):
        assert summary[name] is None
    assert "valid" not in (tmp_path / "run" / "metrics.jsonl").read_text().replace('"valid_loss": null', "").replace(
        '"valid_perplexity": null', ""
    )
    assert "train loss" in said.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cell", "lstm", "--layers", "3"],
        ["--cell", "gru", "--optimizer", "rmsprop", "--sampling", "random"],
        ["--activation", "relu", "--dropout", "0.2", "--embedding-size", "0"],
        ["--residual", "--layer-norm", "--zoneout", "0.1", "--tied", "--embedding-size", "8"],
        ["--unit", "word", "--seq-len", "3", "--init", "xavier"],
        ["--backend", "gluon", "--dropout", "0", "--residual", "false", "--optimizer", "sgd"],
        ["--schedule", "step", "--warmup", "3", "--diagnose", "--init", "identity"],
    ],
)
def test_options_take_effect(train, tmp_path, arguments):
    assert train(out=tmp_path / "plain")[0] == 0
    assert train(*arguments)[0] == 0
    assert losses(tmp_path / "run")[0] != losses(tmp_path / "plain")[0]


def test_seeds(train, tmp_path):
    runs = [
        (train("--seed", seed, out=tmp_path / name), losses(tmp_path / name))[1] for name, seed in zip("abc", "001")
    ]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("more", [[], ["--dropout", "0.3", "--sampling", "random"]], ids=["plain", "random"])
def test_interrupted_and_taken_up_again(train, tmp_path, monkeypatch, more):
    assert train("--epochs", "3", *more, out=tmp_path / "whole")[0] == 0

    shown = cli.Progress.epoch

    def interrupt(progress, report):
        shown(progress, report)
        if report.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli.Progress, "epoch", interrupt)
        code, said = train("--epochs", "3", *more)
    assert code == 130
    assert said.err.count("\n") == 1
    assert "interrupted; epoch 2 is saved; go on with: " in said.err
    assert not (tmp_path / "run" / "summary.json").exists()

    command = shlex.split(said.err.partition("go on with: ")[2])
    assert cli.main(command[command.index("train") :]) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in ("run", "whole")]
    assert summaries[0]["test_loss"] == summaries[1]["test_loss"]


def test_interrupted_before_anything_is_saved(train, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        code, said = train()
    assert (code, said.err) == (
        130,
        "deeprnn: error: interrupted before the end of the first epoch: nothing is saved\n",
    )
    assert train()[0] == 0  # the same command again


def test_a_run_can_be_made_longer(train, tmp_path):
    assert train("--schedule", "constant")[0] == 0
    code, said = train("--schedule", "constant", "--resume", "--epochs", "3", "--sample-every", "1")
    assert code == 0
    assert len(losses(tmp_path / "run")) == 3
    assert "epoch 3/3" in said.out and "epoch 2/3" not in said.out


def test_diverged(train):
    code, said = train("--optimizer", "sgd", "--lr", "1e38", "--clip", "0", "--activation", "relu")
    assert code == 1
    assert said.err.count("\n") == 1
    assert re.match(r"deeprnn: error: the (loss|norm of the gradient) is (nan|inf) at step \d+ .*--lr", said.err)


def test_a_loss_beyond_all_perplexity(train, tmp_path):
    assert train("--optimizer", "sgd", "--lr", "1e10", "--clip", "0", "--epochs", "1")[0] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test_loss"] > 1000 and summary["test_perplexity"] is None


def test_disk_full(train, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "last.json")

    monkeypatch.setattr(checkpoint, "save", full)
    code, said = train()
    assert code == 1
    assert said.err.count("\n") == 1
    assert said.err.startswith("deeprnn: error: last.json: No space left on device; go on with: ")


def test_a_fault_of_ours_is_not_the_users(train, monkeypatch):
    monkeypatch.setattr(training, "train_epoch", lambda *_, **__: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        train()


def test_the_best_network_is_the_one_that_is_measured(train, tmp_path, monkeypatch, capsys):
    said = iter([1.0, 2.0])  # of the validation text, after the first epoch and the second
    evaluate = training.evaluate
    monkeypatch.setattr(training, "evaluate", lambda *arguments: next(said, None) or evaluate(*arguments))
    assert train()[0] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["best_epoch"], summary["epochs"]) == (1, 2)
    states = [checkpoint.load(tmp_path / "run" / "checkpoints", name).state for name in ("best", "last")]
    assert [state["epoch"] for state in states] == [1, 2]
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 0
    assert f"test loss {summary['test_loss']:.4f} nats" in capsys.readouterr().out


def test_stopped_early(train, tmp_path):
    code, said = train("--patience", "1", "--epochs", "9", "--lr", "1e-30", "--optimizer", "sgd")
    assert code == 0
    assert len(losses(tmp_path / "run")) == 2
    assert "stopped: no better validation loss for 1 epochs" in said.out


def test_weights_of_another_run(trained, train, tmp_path):
    assert train("--init-from", str(trained), "--epochs", "1")[0] == 0
    assert losses(tmp_path / "run")[0] < losses(trained)[0] - 0.2
    states = [checkpoint.load(run / "checkpoints", "best").state for run in (trained, tmp_path / "run")]
    assert states[0]["vocabulary"] == states[1]["vocabulary"]


def test_vocabulary_of_another_run(trained, train, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("out over the hills, é " * 100, encoding="utf-8")
    code, said = train("--init-from", str(trained), "--corpus", str(other))
    assert code == 0
    assert "'é' (U+00E9)" in said.out and "<unk>" in said.out


def test_tensorboard(train, tmp_path):
    pytest.importorskip("tensorboardX")
    assert train("--tensorboard")[0] == 0
    assert len(list((tmp_path / "run").glob("events.*"))) == 1


class Terminal:
    """Standard error of somebody who looks on."""

    def __init__(self):
        self.shown = ""

    def write(self, text):
        self.shown += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_live_line(train, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(training, "FIRST_REPORT", 0)
    code, said = train("--batch-size", "2")
    assert code == 0
    assert re.search(
        r"\repoch 1/2  loss [\d.]+ nats, perplexity [\d.]+, [\d,]+ tokens/s, \d\d:\d\d left", terminal.shown
    )
    assert "epoch 1/2  train" in said.out and "\r" not in said.out


def test_plain_lines_within_an_epoch(train, monkeypatch):
    monkeypatch.setattr(training, "FIRST_REPORT", 0)
    code, said = train("--batch-size", "2")
    assert code == 0
    assert len(re.findall("^epoch 1/2  loss .* left$", said.out, flags=re.MULTILINE)) == 1  # the next is 10 s later


def test_ctrl_c(interrupted, text, tmp_path):
    arguments = ["--corpus", text, *TINY, "--epochs", "100000", "--out", str(tmp_path / "run")]

    def trains(process):
        next(line for line in process.stdout if line.startswith("epoch 2/"))

    code, error = interrupted("-m", "deeprnn", "train", *arguments, ready=trains, within=30)
    assert code == 130
    assert re.fullmatch(r"deeprnn: error: interrupted; epoch \d+ is saved; go on with: .* --resume\n", error)


def test_the_built_in_text_is_shown_beside_one_layer(train, tmp_path, monkeypatch, text):
    record = json.loads(cli.ONE_LAYER.read_text())
    assert record["corpus"] == corpus.BUILT_IN
    with monkeypatch.context() as without:
        without.setattr(cli, "ONE_LAYER", tmp_path / "nowhere.json")  # for another text it need not be there
        code, said = train()
    assert code == 0 and "one layer" not in said.out
    monkeypatch.setattr(corpus, "BUILT_IN", Path(text).name)
    code, said = train(out=tmp_path / "again")
    ours, theirs = said.out.splitlines()[-4:-2]
    assert code == 0 and ours.startswith("validation loss ") and ours.endswith(" nats per token, 2 layers")
    assert theirs.startswith("in the same time, ") and record["date"] in theirs
    code, said = train("--layers", "1", out=tmp_path / "one")
    assert code == 0 and "in the same time" not in said.out


def test_diagnose_tells_what_is_wrong_and_keeps_it(train, tmp_path):
    code, said = train("--diagnose", "--init", "normal", "--residual", "false", "--layers", "3", "--sample-every", "0")
    assert code == 0
    rows = diagnoses(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [layer["number"] for layer in rows[0]["layers"]] == [1, 2, 3]
    assert {"spread", "saturated", "dead", "gradient", "back", "gain", "ratio"} <= set(rows[0]["layers"][0])
    assert rows[0]["layers"][0]["ratio"] is None and 0 < rows[2]["layers"][0]["ratio"] < 1
    assert len(rows[0]["layers"][0]["back"]) == 10
    sick = rows[0]["sentences"]
    assert "layer 1 receives" in sick[0] and sick[0].endswith("try init=deep, residual=True")
    assert sick[0] in said.out
    assert said.out.count("update/weight") == 2  # the table, at the beginning and at the end


def test_diagnose_finds_a_healthy_stack_healthy_and_changes_nothing(train, tmp_path):
    healthy = ("--layers", "3", "--embedding-size", "8", "--lr", "0.002")
    code, said = train("--diagnose", *healthy)
    assert code == 0 and "    nothing is wrong with the layers\n" in said.out
    assert train(*healthy, out=tmp_path / "other")[0] == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "other")


def test_diagnose_goes_on_with_a_run(train, tmp_path):
    assert train("--diagnose", "--epochs", "1")[0] == 0
    assert train("--diagnose", "--epochs", "2", "--resume")[0] == 0
    assert [row["epoch"] for row in diagnoses(tmp_path / "run")] == [0, 1, 2]


# Generate, evaluate


def generated(trained, capsys, *arguments):
    assert cli.main(["generate", str(trained), "--length", "30", *arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_generate(trained, capsys):
    text = generated(trained, capsys, "--prefix", "over ", "--seed", "1")
    assert text.startswith("over ") and symbols(text) == 5 + 30 + 1
    assert generated(trained, capsys, "--prefix", "over ", "--seed", "1") == text
    assert generated(trained, capsys, "--prefix", "over ", "--seed", "2") != text
    assert symbols(generated(trained, capsys)) == 30 + 1


def test_sampling_is_the_default(trained, capsys):
    assert len({generated(trained, capsys) for _ in range(4)}) > 1


def test_ways_to_choose(trained, capsys):
    greedy = generated(trained, capsys, "--greedy")
    assert generated(trained, capsys, "--greedy") == greedy
    assert generated(trained, capsys, "--top-k", "1") == greedy
    assert generated(trained, capsys, "--top-p", "1e-9") == greedy
    assert generated(trained, capsys, "--temperature", "1e-9") == greedy


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_evaluate(trained, capsys, part):
    assert cli.main(["evaluate", str(trained), "--part", part]) == 0
    said = capsys.readouterr().out
    match = re.fullmatch(rf"{part} loss ([\d.]+) nats per token, perplexity ([\d.]+), [\d,]+ tokens\n", said)
    if part != "train":  # measured as the weights changed there
        expected = json.loads((trained / "summary.json").read_text())[f"{part}_loss"]
        assert float(match[1]) == pytest.approx(expected, abs=1e-4)
    assert float(match[2]) == pytest.approx(math.exp(float(match[1])), rel=1e-3)


@pytest.mark.parametrize("script", ["train", "generate", "evaluate"])
def test_scripts(script):
    done = python(str(PROJECT / "scripts" / f"{script}.py"), "--version")
    assert (done.returncode, done.stdout) == (0, f"deeprnn {__version__}\n"), done.stderr


def test_a_terminal_that_cannot_show_it(tmp_path, capsys):
    song = tmp_path / "song.txt"
    song.write_text("我们分开 又不分开 雨下了整夜 " * 30, encoding="utf-8")
    run = tmp_path / "run"
    assert cli.main(["train", "--corpus", str(song), "--out", str(run), *TINY, "--epochs", "1"]) == 0
    done = python("-m", "deeprnn", "generate", str(run), "--prefix", "分开", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("??")


def test_nobody_reads_on(trained):
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    command = [sys.executable, "-W", "ignore", "-m", "deeprnn", "generate", str(trained)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_threads_are_settled_before_mxnet_is_loaded():
    script = """
import ctypes, os, sys
from deeprnn.cli import use_threads
os.environ.pop("OMP_NUM_THREADS", None)
use_threads(int(sys.argv[1]))
import mxnet
print(ctypes.CDLL("libgomp.so.1").omp_get_max_threads())
"""
    assert python("-c", script, "3").stdout == "3\n"


def test_threads_by_default(monkeypatch):
    monkeypatch.setattr("deeprnn.machine._digest", lambda _: pytest.fail("read all sources: a record alone needs that"))
    cli.use_threads(0)
    assert os.environ["OMP_NUM_THREADS"] == "1"  # as it was
    monkeypatch.delenv("OMP_NUM_THREADS")
    cli.use_threads(0)
    assert int(os.environ["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))


# Bad input: one line, exit code 2, and nothing is left behind

BAD_TEXTS = {
    "empty.txt": b"",
    "latin.txt": "caf\xe9 ".encode("latin-1") * 500,
    "short.txt": b"too short",
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
    "line, said",
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
        ("--activation sigmoid", "--activation must be one of 'tanh', 'relu', got 'sigmoid'"),
        ("--unit letter", "--unit must be one of 'char', 'word', got 'letter'"),
        ("--sampling sorted", "--sampling must be one of 'consecutive', 'random', got 'sorted'"),
        ("--optimizer adamw", "--optimizer must be one of 'adam', 'sgd', 'rmsprop', got 'adamw'; did you mean 'adam'?"),
        ("--ctx tpu", "--ctx must be one of 'cpu', 'gpu', got 'tpu'"),
        ("--sample-greedy maybe", "--sample-greedy must be true or false, got 'maybe'"),
        ("--backend gluon --residual false --dropout 0.5", "--backend gluon ignores --dropout 0.5 on the CPU"),
        ("--backend gluon --residual false --dropout 0 --diagnose", "--diagnose looks into the layers of "),
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
        ("--config type.yaml", "type.yaml: --layers must be a whole number, got 'two'"),
        ("--config fraction.yaml", "fraction.yaml: --layers must be a whole number, got 2.5"),
        ("--config switch.yaml", "switch.yaml: --sample-greedy must be true or false, got 1"),
        ("--config choice.yaml", "choice.yaml: --cell must be one of 'rnn', 'gru', 'lstm', got 'elman'"),
        ("--config bound.yaml", "bound.yaml: --epochs must be at least 1, got 0"),
        ("--config list.yaml", "list.yaml: expected options such as layers: 2, one a line, got ['layers']"),
        ("--config word.yaml", "word.yaml: expected options such as layers: 2, one a line, got 'layers'"),
        ("--config nested.yaml", "nested.yaml: unknown option 'model'"),
        ("--config broken.yaml", "broken.yaml is not YAML: "),
        ("--config object.yaml", "object.yaml is not YAML: "),
        ("--config latin.yaml", "latin.yaml is not UTF-8"),
        ("--corpus missing.txt", "--corpus missing.txt: no such file"),
        ("--corpus timemachin", "--corpus 'timemachin' is no corpus and no file; did you mean 'timemachine'?"),
        ("--corpus .", "--corpus . is a folder"),
        ("--corpus empty.txt", "--corpus empty.txt: the file is empty"),
        ("--corpus latin.txt", "--corpus latin.txt: not UTF-8"),
        ("--corpus broken.gz", "--corpus broken.gz: damaged"),
        ("--corpus broken.zip", "--corpus broken.zip: damaged"),
        ("--corpus short.txt", "the text is shorter than one batch: --batch-size 8 and --seq-len 10 need 88 symbols"),
        ("--max-chars 20", "the text is shorter than one batch"),
        ("--unknown false --max-chars 300", "test: 1 of 30 symbols not in the vocabulary: "),
        ("--sample-prefix day|né", "--sample-prefix 'né': not in the vocabulary of"),
        ("--out trained", "--out trained holds a run already: choose another folder, or go on with it by --resume"),
        ("--out file", "--out file cannot be written: "),
        ("--out file/run", "--out file/run cannot be written: "),
        ("--resume --out nothing", "--resume: there is no run to go on with in nothing"),
        ("--resume --out trained --layers 3", "--resume: the run in trained has --layers 2, got 3"),
        ("--resume --out trained --init-from trained", "--resume goes on with the run's own weights"),
        ("--init-from nothing", "nothing/checkpoints/best.json is missing"),
        ("--init-from trained --hidden-size 9", "parameter "),
        ("--init-from trained --unit word", "--init-from trained reads text by --unit char"),
    ],
)
def test_bad_input(bad, capsys, line, said):
    before = sorted(path.name for path in bad.iterdir())
    first = [] if line.startswith("--corpus") else ["--corpus", "ducks.txt"]
    out = [] if "--out" in line else ["--out", "new"]
    assert cli.main(["train", *first, *out, *TINY, *shlex.split(line)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"deeprnn: error: {said}")
    assert error.count("\n") == 1 and error.endswith("\n")
    assert sorted(path.name for path in bad.iterdir()) == before


@pytest.mark.parametrize(
    "line, said",
    [
        ("", 'expected "command" to be one of {train,generate,evaluate}'),
        ("trian", "argument COMMAND: invalid choice: 'trian'"),
        ("train --resume", "--resume needs --out, the folder of the run to go on with"),
        ("generate", "the following arguments are required: run"),
        ("generate nothing", "nothing is no folder of a run"),
        ("generate .", "checkpoints/best.json is missing"),
        ("generate trained --prefix né", "--prefix 'né': not in the vocabulary of"),
        ("generate trained --length 0", "--length must be at least 1, got 0"),
        ("generate trained --length x", "--length must be a whole number, got 'x'"),
        ("generate trained --temperature 0", "--temperature must be above 0 and finite, got 0.0"),
        ("generate trained --top-k -1", "--top-k must be at least 0, got -1"),
        ("generate trained --top-p 0", "--top-p must be above 0 and at most 1, got 0.0"),
        ("generate trained --top-p 1.5", "--top-p must be above 0 and at most 1, got 1.5"),
        ("generate trained --seed -1", "--seed must be at least 0, got -1"),
        ("generate trained --len 5", "unrecognized arguments: --len 5"),
        ("evaluate trained --part all", "--part must be one of 'train', 'valid', 'test', got 'all'"),
        ("evaluate nothing", "nothing is no folder of a run"),
    ],
)
def test_bad_commands(bad, capsys, line, said):
    assert cli.main(shlex.split(line)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"deeprnn: error: {said}")
    assert error.count("\n") == 1 and error.endswith("\n")


def test_a_prefix_without_words(train, tmp_path, capsys):
    assert train("--unit", "word", "--seq-len", "3", "--epochs", "1")[0] == 0
    assert cli.main(["generate", str(tmp_path / "run"), "--prefix", "  "]) == 2
    assert capsys.readouterr().err == "deeprnn: error: --prefix '  ' has no word in it\n"


def test_no_gpu(train):
    mx = pytest.importorskip("mxnet")
    if mx.context.num_gpus():
        pytest.skip("there is one")
    code, said = train("--ctx", "gpu")
    assert (code, said.err) == (2, "deeprnn: error: --ctx gpu: mxnet finds no GPU here; use --ctx cpu\n")


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_damaged_checkpoint(train, tmp_path, capsys, suffix):
    assert train("--epochs", "1")[0] == 0
    path = next(path for path in sorted((tmp_path / "run" / "checkpoints").iterdir(), reverse=True)
                if path.suffix == suffix and not path.name.startswith(("last", "optimizer")))  # fmt: skip
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for command in ("generate", "evaluate"):
        assert cli.main([command, str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"deeprnn: error: {path} is damaged") and error.count("\n") == 1


def test_the_text_has_changed(train, tmp_path, capsys):
    copy = tmp_path / "copy.txt"
    copy.write_text(TEXT, encoding="utf-8")
    assert train("--corpus", str(copy), "--epochs", "1")[0] == 0
    copy.write_text(TEXT.replace("hills", "lakes"), encoding="utf-8")
    code, said = train("--corpus", str(copy), "--epochs", "3", "--resume")
    assert code == 2 and "is not what it was" in said.err
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 2
    assert "is not what it was" in capsys.readouterr().err


def test_a_part_without_text(train, tmp_path, capsys):
    assert train("--split", "1,0,0", "--epochs", "1")[0] == 0
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "deeprnn: error: --part test has no text: the run has --split 1,0,0\n"
