"""`deeprnn train`: what is shown, what is left on disk, and the exit code."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys

import pytest
import yaml
from commands import LEARNT, TINY, diagnoses, losses, python, symbols

from deeprnn.cli.main import main
from deeprnn.train import checkpoint, loop, progress, saving


def test_the_book_runs(tmp_path, capsys):
    song = tmp_path / "song.txt"
    song.write_text("我们分开 又不分开 雨下了整夜 " * 100, encoding="utf-8")
    book = ["--preset", "book", "--corpus", str(song), "--layers", "2", "--hidden-size", "8", "--epochs", "1"]
    assert main(["train", *book, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "    分开" in shown and "    不分开" in shown
    assert "vocabulary 12" in shown  # the symbols alone
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_loss"] is None


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
    code, shown = train("--seed", "3", "--schedule", "constant")
    assert code == 0
    saved = tmp_path / "run" / "config.yaml"
    options = yaml.safe_load(saved.read_text(encoding="utf-8"))
    assert options["seed"] == 3 and options["layers"] == 2 and "out" not in options
    assert yaml.safe_load(shown.out.partition("}")[0] + "}") == options
    assert main(["train", "--config", str(saved), "--out", str(tmp_path / "again")]) == 0
    assert losses(tmp_path / "again") == losses(tmp_path / "run")
    assert (tmp_path / "again" / "config.yaml").read_text() == saved.read_text()


def test_the_output(train, tmp_path):
    code, shown = train("--sample-every", "1", "--sample-prefix", "day|out")
    assert code == 0
    assert "\r" not in shown.out + shown.err  # nothing is drawn over where no one looks on
    assert (
        len(
            re.findall(
                r"^epoch \d/2  running train [\d.]+ nats, perplexity [\d.]+  valid", shown.out, flags=re.MULTILINE
            )
        )
        == 2
    )
    assert shown.out.count("\n    day") == shown.out.count("\n    out") == 2
    assert re.search(r"^test loss [\d.]+ nats per token, perplexity [\d.]+$", shown.out, flags=re.MULTILINE)
    assert str(tmp_path / "run") in shown.out


def test_the_command_that_is_shown_works(train):
    code, shown = train("--epochs", "1")
    assert code == 0
    program, *arguments = shlex.split(re.search("generate more: (.*)", shown.out)[1])
    assert os.path.abspath(program) == sys.executable
    done = python(*arguments, "--length", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert symbols(done.stdout) == 20 + 1


def test_no_held_out_text_gives_nulls(train, tmp_path):
    code, shown = train("--split", "1,0,0")
    assert code == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for name in ("test_loss", "test_perplexity", "valid_loss", "valid_perplexity"):
        assert summary[name] is None
    assert "valid" not in (tmp_path / "run" / "metrics.jsonl").read_text().replace('"valid_loss": null', "").replace(
        '"valid_perplexity": null', ""
    )
    assert "running train loss" in shown.out


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
def test_options_take_effect(train, trained, tmp_path, arguments):
    assert train(*LEARNT, *arguments)[0] == 0  # as `trained`, but for the arguments
    assert losses(tmp_path / "run")[0] != losses(trained)[0]


def test_seeds(train, tmp_path):
    runs = [
        (train("--seed", seed, out=tmp_path / name), losses(tmp_path / name))[1] for name, seed in zip("abc", "001")
    ]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_can_be_made_longer(train, tmp_path, schedule):
    assert train("--schedule", schedule)[0] == 0
    code, shown = train("--schedule", schedule, "--resume", "--epochs", "3", "--sample-every", "1")
    assert code == 0
    assert len(losses(tmp_path / "run")) == 3
    assert "epoch 3/3" in shown.out and "epoch 2/3" not in shown.out
    note = "the run began with --epochs 2; the learning rate now follows the schedule of 3 epochs"
    assert (note in shown.out) == (schedule != "constant")


def test_diverged(train, tmp_path):
    code, shown = train("--optimizer", "sgd", "--lr", "1e38", "--clip", "0", "--activation", "relu")
    assert code == 1
    assert shown.err.count("\n") == 1
    assert re.match(r"deeprnn: error: the (loss|norm of the gradient) is (nan|inf) at step \d+ .*--lr", shown.err)
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["state"] == "diverged" and re.match(r"the (loss|norm of the gradient) is (nan|inf)", state["reason"])
    assert train()[0] == 0  # another attempt in the same folder
    assert not (tmp_path / "run" / "state.json").exists()


def test_a_loss_beyond_all_perplexity(train):
    code, shown = train("--optimizer", "sgd", "--lr", "1e10", "--clip", "0", "--epochs", "1")
    assert code == 1
    assert re.match(r"deeprnn: error: the (training|validation) loss is [\d.e+]+ after step \d+", shown.err)


def test_disk_full(train, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "step.json")

    monkeypatch.setattr(saving.Checkpoints, "save", full)
    code, shown = train()
    assert code == 1
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("deeprnn: error: step.json: No space left on device; continue with: ")


def test_a_fault_of_ours_is_not_the_users(train, monkeypatch):
    monkeypatch.setattr(loop, "train_epoch", lambda *_, **__: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        train()


def test_the_best_network_is_the_one_that_is_measured(train, tmp_path, monkeypatch, capsys):
    shown = iter([1.0, 2.0])  # of the validation text, after the first epoch and the second
    evaluate = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *arguments: next(shown, None) or evaluate(*arguments))
    assert train()[0] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["best_epoch"], summary["epochs"]) == (1, 2)
    loaded = [checkpoint.load(tmp_path / "run" / "checkpoints", name) for name in ("best", "last")]
    assert [each.epoch for each in loaded] == [1, 2]
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert f"test loss {summary['test_loss']:.4f} nats" in capsys.readouterr().out


def test_stopped_early(train, tmp_path):
    code, shown = train("--patience", "1", "--epochs", "9", "--lr", "1e-30", "--optimizer", "sgd")
    assert code == 0
    assert len(losses(tmp_path / "run")) == 2
    assert "stopped: no better validation loss for 1 epoch\n" in shown.out


def test_weights_of_another_run(trained, train, tmp_path):
    assert train("--init-from", str(trained), "--epochs", "1")[0] == 0
    assert losses(tmp_path / "run")[0] < losses(trained)[0] - 0.2
    states = [checkpoint.load(run / "checkpoints", "best").state for run in (trained, tmp_path / "run")]
    assert states[0]["vocabulary"] == states[1]["vocabulary"]


def test_vocabulary_of_another_run(trained, train, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("out over the hills, é " * 100, encoding="utf-8")
    code, shown = train("--init-from", str(trained), "--corpus", str(other))
    assert code == 0
    assert "'é' (U+00E9)" in shown.out and "<unk>" in shown.out


def test_tensorboard(train, tmp_path):
    pytest.importorskip("tensorboardX", reason="pip install .[tensorboard]")
    assert train("--tensorboard")[0] == 0
    assert len(list((tmp_path / "run").glob("events.*"))) == 1


def test_without_tensorboardx_nothing_is_read_and_nothing_made(train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr("deeprnn.cli.train.prepared", lambda *_: pytest.fail("too late"))
    code, shown = train("--tensorboard")
    assert code == 2
    assert shown.err == "deeprnn: error: tensorboardX is not installed: pip install 'deeprnn[tensorboard]'\n"
    assert not (tmp_path / "run").exists()


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
    monkeypatch.setattr(progress, "FIRST_REPORT", 0)
    code, shown = train("--batch-size", "2")
    assert code == 0
    assert re.search(
        r"\repoch 1/2  running train [\d.]+ nats, perplexity [\d.]+  [\d,]+ tokens/s, \d\d:\d\d left", terminal.shown
    )
    assert "epoch 1/2  running train" in shown.out and "\r" not in shown.out


def test_plain_lines_within_an_epoch(train, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_REPORT", 0)
    code, shown = train("--batch-size", "2")
    assert code == 0
    assert (
        len(re.findall("^epoch 1/2  running train .* left$", shown.out, flags=re.MULTILINE)) == 1
    )  # the next is 10 s later


def test_diagnose_shows_and_saves_what_is_wrong(train, tmp_path):
    code, shown = train("--diagnose", "--init", "normal", "--residual", "false", "--layers", "3", "--sample-every", "0")
    assert code == 0
    rows = diagnoses(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [layer["number"] for layer in rows[0]["layers"]] == [1, 2, 3]
    assert {"spread", "saturated", "dead", "gradient", "back", "gain", "ratio"} <= set(rows[0]["layers"][0])
    assert rows[0]["layers"][0]["ratio"] is None and 0 < rows[2]["layers"][0]["ratio"] < 1
    assert len(rows[0]["layers"][0]["back"]) == 20
    sick = rows[0]["sentences"]
    assert "layer 1 receives" in sick[0] and sick[0].endswith("; try init=deep, residual=True")
    assert f"{sick[0].partition('; try')[0]}; try --init deep, --residual true\n" in shown.out
    assert shown.out.count("update/weight") == 2  # the table, at the beginning and at the end


def test_diagnose_finds_a_healthy_stack_healthy_and_changes_nothing(train, tmp_path):
    healthy = ("--layers", "3", "--embedding-size", "8", "--lr", "0.002")
    code, shown = train("--diagnose", *healthy)
    assert code == 0 and "    no problem found in the layers\n" in shown.out
    assert train(*healthy, out=tmp_path / "other")[0] == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "other")


def test_diagnose_in_a_resumed_run(train, tmp_path):
    assert train("--diagnose", "--epochs", "1")[0] == 0
    assert train("--diagnose", "--epochs", "2", "--resume")[0] == 0
    assert [row["epoch"] for row in diagnoses(tmp_path / "run")] == [0, 1, 2]


def test_no_gpu(train):
    mx = pytest.importorskip("mxnet")
    if mx.context.num_gpus():
        pytest.skip("this machine has a GPU")
    code, shown = train("--ctx", "gpu")
    assert (code, shown.err) == (2, "deeprnn: error: --ctx gpu: MXNet finds no GPU here; use --ctx cpu\n")


def test_a_presets_prefix_that_the_text_lacks_is_left_out(train, tmp_path):
    book = ["--preset", "book", "--hidden-size", "8", "--epochs", "1", "--sample-length", "5"]
    code, shown = train(*book)
    assert code == 0
    note = "preset's --sample-prefix '分开', '不分开' left out, as it has symbols that the text lacks"
    assert f"{note}; generated texts start from the most frequent symbol instead\n" in shown.out
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["sample_prefix"] == ""
    code, shown = train(*book, "--sample-prefix", "分开|over", out=tmp_path / "given")
    assert code == 2 and shown.err.startswith("deeprnn: error: --sample-prefix '分开': not in the vocabulary of")
    mine = tmp_path / "mine.yaml"
    mine.write_text("sample_prefix: 分开\n", encoding="utf-8")
    code, shown = train(*book, "--config", str(mine), out=tmp_path / "given")
    assert code == 2 and shown.err.startswith("deeprnn: error: --sample-prefix '分开': not in the vocabulary of")


def test_the_order_of_the_output(train):
    code, shown = train("--epochs", "1")
    assert code == 0
    places = [
        shown.out.index(part) for part in ("{corpus: ", "vocabulary ", "parameters, ", "epoch 1/1  running train ")
    ]
    assert places == sorted(places) and places[0] == 0


def test_a_text_in_another_encoding(train, tmp_path, capsys):
    song = tmp_path / "song.txt"
    song.write_bytes(("想要有直升机 想要和你飞到宇宙去\n" * 60).encode("gb18030"))
    code, shown = train("--corpus", str(song), "--epochs", "1")
    assert code == 2 and "it looks like GB18030: give --encoding gb18030\n" in shown.err
    assert train("--corpus", str(song), "--encoding", "gb18030", "--epochs", "1")[0] == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0  # by the encoding of the run


def test_diagnose_does_not_advise_what_is_done_already(train, tmp_path):
    sick = ["--diagnose", "--layers", "3", "--activation", "relu", "--optimizer", "sgd", "--lr", "1e-9"]
    code, shown = train(*sick, "--init", "normal")
    assert code == 0 and "try --init deep" in shown.out and "--residual true" not in shown.out
    code, shown = train(*sick, "--init", "deep", out=tmp_path / "deep")
    assert code == 0 and "--init deep" not in shown.out
    assert "--layers 1" not in shown.out


def test_a_text_without_surprises(tmp_path, capsys):
    """Its loss is zero, of which MXNet's float32 makes -1e-6."""
    text, run = tmp_path / "a.txt", tmp_path / "run"
    text.write_text("a" * 3000)
    sizes = ["--layers", "1", "--hidden-size", "16", "--embedding-size", "8", "--batch-size", "8"]
    assert main(["train", "--corpus", str(text), *sizes, "--epochs", "3", "--lr", "0.2", "--out", str(run)]) == 0
    assert "test loss 0.0000 nats per token, perplexity 1\n" in capsys.readouterr().out
    assert main(["train", "--resume", "--out", str(run), "--epochs", "4"]) == 0


def test_a_loss_below_zero_in_a_checkpoint_of_before():
    from deeprnn.train.position import Position

    plain = {**Position().to_mapping(), "best_loss": -1.07e-6, "loss_sum": -0.02}
    assert (Position.from_mapping(plain, []).best_loss, Position.from_mapping(plain, []).loss_sum) == (0, 0)
    with pytest.raises(ValueError, match=r"best_loss must be a number of at least 0, got -3\.0"):
        Position.from_mapping({**plain, "best_loss": -3.0}, [])


def test_a_finished_run_whose_metrics_are_lost_ends_all_the_same(train, tmp_path):
    train()
    before = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert train.capture(lambda: main(["train", "--resume", "--out", str(tmp_path / "run")]))[0] == 0
    after = json.loads((tmp_path / "run" / "summary.json").read_text())
    for name in ("test_loss", "valid_loss", "best_epoch", "epochs"):
        assert after[name] == before[name]


def test_a_run_whose_options_were_edited_is_not_continued_with_them(train, tmp_path):
    train()
    options = tmp_path / "run" / "config.yaml"
    options.write_text(re.sub("(?m)^lr: .*$", "lr: 0.5", options.read_text()))
    code, shown = train.capture(lambda: main(["train", "--resume", "--out", str(tmp_path / "run"), "--epochs", "9"]))
    assert code == 2 and "has --lr " in shown.err and ", got 0.5" in shown.err


def test_a_folder_with_a_dash_in_front(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--corpus", text, "--out=-run", *TINY]) == 0
    assert "generate ./-run" in capsys.readouterr().out


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    from deeprnn.config import resolution

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolution.time, "strftime", lambda _: "now")
    run = resolution.RunConfig()
    first = resolution.default_folder(run)
    (tmp_path / first).mkdir(parents=True)
    assert resolution.default_folder(run) == f"{first}-2"
    long = resolution.RunConfig.from_mapping({"corpus": "\u6587" * 80 + ".txt"})
    assert len(resolution.default_folder(long).encode()) < 150
