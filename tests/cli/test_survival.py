"""Runs that are stopped, killed, damaged or disturbed, and go on as if nothing had been."""

from __future__ import annotations

import io
import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest
from commands import SOURCES, TEXT, TINY, distance, losses

from deeprnn.cli import training
from deeprnn.cli.main import main
from deeprnn.nn import native
from deeprnn.train import loop
from deeprnn.train.keeping import Keeper
from deeprnn.train.lock import RunLock

CLOCKED = ("seconds", "tokens_per_second")


def outcome(folder):
    """All of a finished run that does not depend on the clock."""
    newest = json.loads(max((folder / "checkpoints").glob("step-*.json")).read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    return (
        newest["files"]["parameters"]["sha256"],
        newest["best"],
        [{name: value for name, value in row.items() if name not in CLOCKED} for row in rows],
        {name: value for name, value in summary.items() if name != "seconds"},
    )


def samples(shown):
    """The texts that were generated, below the reports of their epochs; the configuration is above these."""
    return [line for line in shown.out.partition("\nepoch ")[2].splitlines() if line.startswith("    ")]


@pytest.fixture(autouse=True)
def signals_as_usual():
    """Whoever runs the tests in the background may have had some ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def at_step(monkeypatch):
    """Call something after so many steps of the next training."""
    original = Keeper.is_due

    def call(step, action):
        def is_due(keeper, now):
            if now == step:
                action()
            return original(keeper, now)

        monkeypatch.setattr(Keeper, "is_due", is_due)

    return call


def signalled(number):
    return lambda: os.kill(os.getpid(), number)


RANDOM = ["--dropout", "0.3", "--sample-every", "1"]
EVERYTHING = [*RANDOM, "--zoneout", "0.1"]  # for which there is no kernel: on MXNet's own operators
RUNS = {
    "rnn, random batches": ["--cell", "rnn", "--sampling", "random", *EVERYTHING],
    "gru": ["--cell", "gru", *EVERYTHING],
    "lstm, random batches": ["--cell", "lstm", "--sampling", "random", "--layer-norm", *EVERYTHING],
    "lstm, native": ["--cell", "lstm", *RANDOM],
    "gru, two devices": ["--cell", "gru", "--ctx", "cpu(0),cpu(1)", "--batch-size", "7", *RANDOM],
    "rnn, native": ["--activation", "relu", "--optimizer", "rmsprop", "--schedule", "step", "--warmup", "5"],
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_stopped_in_an_epoch_and_resumed_bit_for_bit(train, tmp_path, at_step, options):
    """Parameters, metrics and samples."""
    code, whole = train(*options, out=tmp_path / "whole")
    assert code == 0
    steps = outcome(tmp_path / "whole")[2][-1]["step"]
    at_step(steps // 2 + 3, signalled(signal.SIGTERM))
    code, shown = train(*options)
    assert code == 143
    assert not (tmp_path / "run" / "summary.json").exists()
    start = f"deeprnn: error: stopped by SIGTERM; step {steps // 2 + 4} (1 epoch done) is saved; continue with: "
    assert shown.err.startswith(start) and shown.err.count("\n") == 1
    at_step(0, None)
    command = shlex.split(shown.err.partition("continue with: ")[2])
    code, again = train_again(command[command.index("train") :], train)
    assert code == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert samples(shown) + samples(again) == samples(whole)


def train_again(arguments, train):
    """Run a command that `train` did not make, with its way to capture what is shown."""
    return train.capture(lambda: main(arguments))


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals(train, tmp_path, at_step, number, code):
    at_step(1, signalled(number))
    got, shown = train()
    assert got == code
    assert f"stopped by {signal.Signals(number).name}; step 2 (0 epochs done) is saved" in shown.err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # as before


def test_a_signal_during_validation(train, tmp_path, monkeypatch):
    """The epoch's steps are not made again."""
    assert train("--sample-every", "0", out=tmp_path / "whole")[0] == 0
    original = loop.evaluate

    def evaluate(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", evaluate)
        assert train("--sample-every", "0")[0] == 143
    updates = []
    monkeypatch.setattr(training.ProgressLine, "epoch", lambda _, report: updates.append(report.epoch))
    assert train("--resume", "--sample-every", "0")[0] == 0
    assert updates == [1, 2]
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_ctrl_c(interrupted, text, tmp_path):
    arguments = ["--corpus", text, *TINY, "--epochs", "100000", "--out", str(tmp_path / "run")]

    def trains(process):
        next(line for line in process.stdout if line.startswith("epoch 2/"))

    code, error = interrupted("-m", "deeprnn", "train", *arguments, ready=trains, within=60)
    assert code == 130
    assert error.startswith("deeprnn: error: stopped by SIGINT; step ") and error.count("\n") == 1
    assert error.endswith(" --resume\n")


def test_the_second_signal_ends_at_once():
    """Even where Python does not come to look at it."""
    code = "import time; from deeprnn.train.signals import Signals\nwith Signals(): print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SOURCES}, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == -signal.SIGHUP


def test_killed(train, text, tmp_path):
    """Without any chance to save: the last checkpoint is at most one interval old."""
    assert train("--epochs", "4", out=tmp_path / "whole")[0] == 0
    command = [sys.executable, "-W", "ignore", "-m", "deeprnn", "train", "--corpus", text, *TINY, "--epochs", "4"]
    command += ["--checkpoint-steps", "2", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": SOURCES}, stdout=subprocess.DEVNULL)
    try:
        while not list((tmp_path / "run").glob("checkpoints/step-*4.json")):
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    code, shown = train("--epochs", "4", "--resume")
    assert code == 0
    assert f"process {process.pid}, which trained this run, has died: its lock is taken over" in shown.out
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert not list((tmp_path / "run").rglob("*.tmp")) and not (tmp_path / "run" / "lock").exists()


def test_the_newest_checkpoint_is_damaged(train, tmp_path, capsys):
    assert train("--checkpoint-steps", "5", out=tmp_path / "whole")[0] == 0
    assert train("--checkpoint-steps", "5")[0] == 0
    (tmp_path / "run" / "summary.json").unlink()
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*.json"))
    newest.write_bytes(newest.read_bytes()[:-9])
    assert main(["generate", str(tmp_path / "run"), "--length", "5"]) == 0
    assert f"{newest} is damaged" in capsys.readouterr().err
    code, shown = train("--checkpoint-steps", "5", "--resume")
    assert code == 0
    assert f"{newest} is damaged: " in shown.out and "; the checkpoint before it is used\n" in shown.out
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_checkpoints_by_the_clock(train, tmp_path, monkeypatch):
    """Every few minutes, whatever the time of day does meanwhile."""
    minutes = itertools.count(step=60.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(minutes))
    days = itertools.cycle([4e9, 0.0, 1e9])
    monkeypatch.setattr(time, "time", lambda: next(days))
    saved = []
    original = training.Training.write
    monkeypatch.setattr(training.Training, "write", lambda *given: saved.append(given[1].step) or original(*given))
    assert train("--epochs", "1", "--checkpoint-minutes", "5")[0] == 0
    assert len(saved) > 3 and all(after - before <= 6 for before, after in zip(saved, saved[1:]))


# -- another process, another text, another machine


def test_two_processes_cannot_write_one_run(train, tmp_path):
    assert train("--epochs", "1")[0] == 0
    with RunLock(tmp_path / "run"):
        code, shown = train("--resume")
        assert code == 2
        owner = f"is being written by process {os.getpid()} on {socket.gethostname()}"
        assert shown.err == f"deeprnn: error: the run in {tmp_path / 'run'} {owner}\n"
    assert train("--resume")[0] == 0


def test_a_lock_of_another_machine_is_obeyed(train, tmp_path):
    assert train("--epochs", "1")[0] == 0
    lock = tmp_path / "run" / "lock"
    lock.write_text(json.dumps({"host": "elsewhere", "process": 5}))
    code, shown = train("--resume")
    assert code == 2
    assert f"by process 5 on the machine elsewhere; if that has ended, delete {lock}\n" in shown.err
    lock.unlink()
    assert train("--resume")[0] == 0


def test_the_text_may_change_while_a_run_trains_but_not_before_it_is_resumed(train, tmp_path, at_step):
    copy = tmp_path / "copy.txt"
    copy.write_text(TEXT, encoding="utf-8")
    at_step(3, lambda: copy.write_text("another"))
    assert train("--corpus", str(copy), "--epochs", "1")[0] == 0
    for other, difference in (
        (TEXT + "!", f"{len(TEXT) + 1:,} symbols now, {len(TEXT):,} then"),
        (TEXT.replace("ducks", "geese"), "same length, different symbols"),
    ):
        copy.write_text(other, encoding="utf-8")
        code, shown = train("--corpus", str(copy), "--resume")
        assert code == 2
        began = f"deeprnn: error: the text copy.txt differs from the one that {tmp_path / 'run'} was trained on: "
        assert shown.err.startswith(began) and difference in shown.err


def test_a_text_that_is_no_longer_where_it_was(train, tmp_path, monkeypatch, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "there" / "copy.txt"
    copy.write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "there")
    assert main(["train", "--corpus", "copy.txt", "--out", str(tmp_path / "run"), *TINY, "--epochs", "1"]) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["evaluate", str(tmp_path / "run")]) == 0  # the path of then serves
    copy.unlink()
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    message = f"--corpus copy.txt: no such file; it was at {copy} when the run began"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("other", ["none", "avx2"])
def test_resumed_with_another_instruction_set(train, tmp_path, at_step, other):
    """Other bits, as a note says, and nearly the same numbers."""
    usual = native.status().instruction_set
    if usual in ("", other):
        pytest.skip(f"{native.status()}: there is no other")
    assert train(out=tmp_path / "whole")[0] == 0
    at_step(9, signalled(signal.SIGTERM))
    assert train()[0] == 143
    at_step(0, None)
    try:
        native.set_instruction_set("" if other == "none" else other)
        with native.switched(other != "none"):
            code, shown = train("--resume")
    finally:
        native.set_instruction_set(usual)
    assert code == 0
    assert f"native was {usual} and is {other} now: the results may differ in their last digits" in shown.out
    assert 0 < distance(tmp_path / "run", tmp_path / "whole") < 1e-4


def test_a_run_from_standard_input(tmp_path, monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(TEXT.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    run = str(tmp_path / "run")
    assert main(["train", "--corpus", "-", "--out", run, *TINY, "--epochs", "1"]) == 0
    assert "standard input: train" in capsys.readouterr().out
    assert main(["evaluate", run]) == 0
    assert main(["train", "--out", run, "--resume", "--epochs", "2"]) == 0


# -- what goes wrong beside the training


def test_a_loss_that_is_not_finite_stops_at_once(train, tmp_path, at_step):
    at_step(8, poison)
    code, shown = train("--checkpoint-steps", "5")
    assert code == 1
    assert shown.err.startswith("deeprnn: error: the loss is nan at step 9 (epoch 1): ")
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").glob("*.json")] == ["step-000000005"]
    at_step(0, None)
    assert train("--resume")[0] == 0


def poison():
    """Set a weight of the network that trains to NaN."""
    import gc

    from deeprnn.models.language_model import LanguageModel

    for net in (each for each in gc.get_objects() if isinstance(each, LanguageModel)):
        net.decoder.bias.data()[:] = float("nan")


@pytest.mark.parametrize("at", [1, 8])
def test_rollback(train, tmp_path, monkeypatch, at):
    times = iter([True, False])
    original = Keeper.is_due

    def is_due(keeper, now):
        if now == at and next(times):
            poison()
        return original(keeper, now)

    monkeypatch.setattr(Keeper, "is_due", is_due)
    code, shown = train("--checkpoint-steps", "5", "--on-nan", "rollback")
    assert code == 0
    back = 5 if at == 8 else 0
    assert (
        f"the loss is nan at step {at + 1} (epoch 1): returning to step {back}, with lr=0.01 (rollback 1 of 3)"
        in shown.out
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [(each["to_step"], each["lr"]) for each in summary["rollbacks"]] == [(back, 0.01)]


def test_rollback_at_most_three_times(train, tmp_path, monkeypatch):
    original = Keeper.is_due
    monkeypatch.setattr(Keeper, "is_due", lambda keeper, now: (poison() if now == 3 else None) or original(keeper, now))
    code, shown = train("--on-nan", "rollback")
    assert code == 1
    assert shown.out.count("returning to step 0") == 3 and "with lr=0.0025 (rollback 3 of 3)" in shown.out
    assert "at step 4 (epoch 1): try a lower learning rate (--lr 0.0025 now)" in shown.err


class Full(io.StringIO):
    """Standard output on a disk that is full."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_where_nothing_can_be_shown_training_goes_on(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        code, _ = train()
    assert code == 0 and (tmp_path / "run" / "summary.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        code, _ = train("--resume", "--epochs", "3")
    assert code == 0 and len(losses(tmp_path / "run")) == 3


def test_a_picture_that_fails_costs_nothing(train, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "curves", lambda *_, **__: 1 / 0)
    code, shown = train("--epochs", "1")
    assert code == 0
    assert "curves.png: not written, as ZeroDivisionError: division by zero\n" in shown.out


def test_metrics_that_cannot_be_written_cost_nothing(train, tmp_path, monkeypatch):
    assert train(out=tmp_path / "whole")[0] == 0

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "append_metrics", full)
    monkeypatch.setattr(training, "append_row", full)
    code, shown = train("--diagnose")
    assert code == 0 and shown.err == ""
    for name, times in (("metrics", 2), ("diagnosis", 3)):
        note = f"{name}.jsonl: not written, as OSError: [Errno 28] No space left on device\n"
        assert shown.out.count(note) == times
    one, other = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("whole", "run"))
    assert {**one, "seconds": 0} == {**other, "seconds": 0} and other["seconds"] > 0


def test_metrics_that_lack_the_best_epoch_cost_nothing(train, tmp_path, monkeypatch):
    shown = iter([1.0, 2.0])  # of the validation text, after the first epoch and the second
    evaluate = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *arguments: next(shown, None) or evaluate(*arguments))
    assert train()[0] == 0
    (tmp_path / "run" / "summary.json").unlink()
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text().splitlines()[1] + "\n")
    assert train("--resume")[0] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["best_epoch"], summary["epochs"], summary["valid_loss"]) == (1, 2, 2.0)


def test_names_that_are_not_utf_8(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    corpus = folder / os.fsdecode(b"$text\xff.txt")
    corpus.write_text(TEXT, encoding="utf-8")
    run = str(folder / os.fsdecode(b"run\xe9"))
    assert main(["train", "--corpus", str(corpus), "--out", run, *TINY, "--epochs", "1"]) == 0
    assert main(["train", "--out", run, "--resume", "--epochs", "2"]) == 0
    assert main(["evaluate", run]) == 0


WITHOUT_CURVES = """
import sys
from deeprnn.cli import main, training
training.curves = lambda *_, **__: None  # matplotlib takes as long as all the rest
sys.exit(main.main())
"""


def test_the_same_run_again(train, text, tmp_path):
    """In another process, to the last bit with the same number of threads; with another number, close."""
    assert train(*EVERYTHING, out=tmp_path / "first")[0] == 0
    runs = [outcome(tmp_path / "first")]
    for name, threads in (("again", "1"), ("two threads", "2")):
        environment = {**os.environ, "PYTHONPATH": SOURCES, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-W", "ignore", "-c", WITHOUT_CURVES, "train", "--corpus", text, *TINY, *EVERYTHING]
        command += ["--out", str(tmp_path / name), "--threads", threads]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=300)
        runs.append(outcome(tmp_path / name))
    assert runs[0] == runs[1]
    assert runs[0][2][-1]["train_loss"] == pytest.approx(runs[2][2][-1]["train_loss"], rel=1e-4)
