"""Several processes that train one model: real ones, on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from commands import distance
from processes import PATIENT, SAME, alone, deeprnn, far_from_worker_1, ip, launched, roles, rows

from deeprnn.cli import launch
from deeprnn.cli.launch import free_port
from deeprnn.cli.main import main
from deeprnn.train import checkpoint


def test_two_workers_are_as_one(text, tmp_path):
    """With unequal shares, carried states, clipping, and checkpoints in between."""
    one = alone(text, tmp_path / "one", "--cell", "lstm", "--clip", "0.2")
    options = ["--cell", "lstm", "--clip", "0.2", "--checkpoint-steps", "6"]
    # Memory that was never set is not 0 by chance.
    code, shown, error = launched(
        "--corpus", text, "--out", tmp_path / "two", *SAME, *options, environment={"MALLOC_PERTURB_": "1"}
    )
    assert (code, error) == (0, "")
    assert distance(tmp_path / "two", one) < 1e-5
    (row,) = rows(tmp_path / "two")
    assert row == pytest.approx(rows(one)[0], rel=1e-5)
    assert row["valid_loss"] != float(np.float32(row["valid_loss"]))  # it has come to the others, and back, in float64
    assert shown.count("epoch 1/1") == 1 and "test loss" in shown  # of worker 0 alone
    assert not list(tmp_path.rglob("lock"))


# -- the same with more workers, after a stop, with another number


@pytest.mark.slow
@pytest.mark.parametrize(
    "counts, options",
    [
        ([4, 2], ["--cell", "gru"]),
        ([4, 1], ["--cell", "rnn", "--sampling", "random", "--optimizer", "sgd"]),
        ([2, 2], ["--cell", "lstm", "--kvstore", "dist_device_sync"]),
        ([3, 1], ["--ctx", "cpu(0),cpu(1)"]),
        ([2, 1], ["--loss", "sampled", "--samples", "9"]),
        ([2, 1], ["--loss", "nce", "--samples", "9"]),
    ],
    ids=["four", "random batches", "dist_device_sync", "two devices each", "sampled softmax", "NCE"],
)
def test_workers_are_as_one(text, tmp_path, counts, options):
    one = alone(text, tmp_path / "one", *(each.replace("dist_device_sync", "device") for each in options))
    counts = [f"--workers={counts[0]}", f"--servers={counts[1]}"]
    code, _, error = launched("--corpus", text, "--out", tmp_path / "several", *SAME, *options, counts=counts)
    assert (code, error) == (0, "")
    assert distance(tmp_path / "several", one) < 1e-5


@pytest.mark.slow
def test_stopped_and_resumed(text, tmp_path):
    """Two workers bit for bit, with dropout; with another number of them, or alone, nearly."""
    options = ["--corpus", text, *SAME, "--epochs", "2", "--cell", "gru"]
    random = [*options, "--dropout", "0.3"]
    for name in ("whole", "again"):
        assert launched("--out", tmp_path / name, *random)[0] == 0
    assert distance(tmp_path / "whole", tmp_path / "again") == 0
    assert rows(tmp_path / "whole") == rows(tmp_path / "again")
    for name, given in (("run", random), ("three", options), ("alone", options)):
        code, _, error = fault(signal.SIGTERM, "worker 1", "--out", tmp_path / name, *given, "--checkpoint-steps", 3)
        assert code == 143 and " is saved; continue with: " in error and error.count("\n") == 1
        start = checkpoint.load(tmp_path / name / "checkpoints")
        assert [state.shape[1] for state in start.position.states[0]] == [7]
    command = shlex.split(error.partition("continue with: ")[2])
    assert command[command.index("launch") :][:4] == ["launch", "--workers=2", "--servers=1", "--"]
    assert launched("--out", tmp_path / "run", "--resume")[0] == 0
    assert distance(tmp_path / "run", tmp_path / "whole") == 0
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    one = alone(text, tmp_path / "one", *options[2:])
    assert launched("--out", tmp_path / "three", "--resume", counts=["--workers", "3"])[0] == 0
    assert main(["train", "--out", str(tmp_path / "alone"), "--resume", "--kvstore", "device"]) == 0
    for name in ("three", "alone"):
        assert distance(tmp_path / name, one) < 1e-5


STILL = ["--optimizer", "sgd", "--lr", "1e-12"]
"""Nothing is learnt."""


@pytest.mark.slow
def test_early_stop_and_rollback(text, tmp_path):
    """Decided alike by all."""
    options = ["--corpus", text, *SAME, "--epochs", "9"]
    code, shown, error = launched("--out", tmp_path / "early", *options, *STILL, "--patience", "1")
    assert (code, error) == (0, "") and "stopped: no better validation loss for 1 epoch" in shown
    hot = [*options, "--lr", "1e30", "--clip", "0"]
    code, shown, error = launched("--out", tmp_path / "hot", *hot)
    assert code == 1 and error.startswith("deeprnn: error: the ") and error.count("\n") == 1
    code, shown, error = launched("--out", tmp_path / "back", *hot, "--on-nan", "rollback")
    assert code == 1 and shown.count(": returning to step 0") == 3


# -- one of them dies, or is stopped


def children(process):
    """The processes that a launcher has started, by role and number."""
    found = {}
    for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            content = Path(f"/proc/{number}/environ").read_bytes().decode().split("\0")
            variables = dict(line.split("=", 1) for line in content if "=" in line)
            kind = variables.get("DMLC_ROLE", "")
            found[" ".join([kind, *filter(None, [variables.get(f"DMLC_{kind.upper()}_ID")])])] = int(number)
    return found


def fault(number, name, *arguments):
    """Send a signal to one of the processes when there is a checkpoint; the result as of `launched`."""
    folder = Path(arguments[arguments.index("--out") + 1])
    with deeprnn("launch", "--", "train", *arguments) as process:
        try:
            while not list(folder.glob("checkpoints/step-*.json")):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            started = children(process)
            assert sorted(started) == ["scheduler", "server 0", "worker 0", "worker 1"]
            os.kill(started.get(name, process.pid), number)
            out, error = process.communicate(timeout=PATIENT)
        finally:
            process.terminate()
    assert not any(Path(f"/proc/{each}").exists() for each in started.values())
    return process.returncode, out, error


LONG = [*SAME, "--epochs", "1000", "--checkpoint-steps", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worker 0", "worker 1", "server 0", "scheduler"])
@pytest.mark.parametrize(
    "number, expected", [(signal.SIGKILL, " died"), (signal.SIGSTOP, " not been heard of for 20 s")]
)
def test_one_is_lost(text, tmp_path, name, number, expected):
    run = tmp_path / "run"
    code, _, error = fault(number, name, "--corpus", text, "--out", run, *LONG, "--timeout", "20")
    lines = [line for line in error.splitlines() if expected in line]
    assert lines and all(f"{name} (process " in line or "the scheduler at" in line for line in lines), error
    assert code == (137 if name == "worker 0" else 1)
    saved = checkpoint.load(run / "checkpoints")
    assert not saved.damaged and saved.step % 3 == 0
    assert main(["train", "--out", str(run), "--resume", "--kvstore", "device", "--epochs", str(saved.epoch + 1)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worker 0", "server 0", "scheduler", "the launcher"])
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_to_any_of_them_ends_all_in_order(text, tmp_path, name, number, code):
    got, _, error = fault(number, name, "--corpus", text, "--out", tmp_path / "run", *LONG)
    assert got == code and error.startswith(f"deeprnn: error: stopped by {signal.Signals(number).name}; step "), error


# -- they do not come together


def started(text, tmp_path, *environments, timeout=4):
    """Processes with these environments: their exit codes, and what they write to standard error."""
    arguments = ["train", "--corpus", text, "--out", tmp_path / "run", *SAME, "--kvstore", "dist_sync"]
    with contextlib.ExitStack() as stack:
        processes = []
        for each in environments:
            own = each.pop("arguments", [])
            command = [*arguments, "--timeout", timeout, *own]
            processes.append(stack.enter_context(deeprnn(*command, environment=each)))
        try:
            return [(process.wait(PATIENT), process.stderr.read()) for process in processes]
        finally:
            for process in processes:
                process.kill()


def test_there_is_no_scheduler(text, tmp_path):
    port = free_port()
    (code, error), *_ = started(text, tmp_path, roles(port, ROLE="worker"), timeout=1)
    expected = f"deeprnn: error: there is no scheduler at 127.0.0.1, port {port + 1} (Connection refused), for 1 s: "
    assert code == 2 and error.startswith(expected) and error.count("\n") == 1


@pytest.mark.slow
def test_mistakes_of_the_environment(text, tmp_path):
    import socket

    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        (code, error), *_ = started(text, tmp_path, roles(port, ROLE="scheduler"))
        assert code == 2 and f"the scheduler cannot listen at 127.0.0.1, port {port}: Address already in use" in error
    (code, error), *_ = started(text, tmp_path, roles(port, ROLE="scheduler", PS_ROOT_URI="192.0.2.1"))
    assert code == 2 and "cannot listen at 192.0.2.1" in error
    two = started(text, tmp_path, roles(port, ROLE="scheduler"), roles(port, ROLE="worker", WORKER_ID=1), timeout=20)
    for code, error in two:
        assert code == 1 and error == "deeprnn: error: worker 0, server 0 have not come within 20 s\n"
    same = [roles(port, ROLE="worker", WORKER_ID=0) for _ in range(2)]
    results = started(text, tmp_path, roles(port, ROLE="scheduler"), *same, timeout=20)
    assert any("was given the same number: DMLC_WORKER_ID" in error for _, error in results)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_with_other_options(text, tmp_path):
    port = free_port()
    everybody = [roles(port, ROLE=role) for role in ("scheduler", "server")]
    workers = [roles(port, ROLE="worker", WORKER_ID=number) for number in range(2)]
    workers[1]["arguments"] = ["--lr", "0.03"]
    for code, error in started(text, tmp_path, *everybody, *workers, timeout=60):
        assert code == 1
        assert "worker 1 (" in error and "has --lr 0.03 and worker 0 (" in error and "has 0.02: all must" in error
    assert not (tmp_path / "run").exists()


# -- two hosts


@pytest.fixture
def hosts(namespaces):
    """Two network namespaces with a cable between them, of 4 Mbit/s: their names."""
    first, second = namespaces
    end = f"v{first[-8:]}"
    ip("link", "add", end, "netns", first, "type", "veth", "peer", "cable", "netns", second)
    ip("-n", first, "link", "set", end, "name", "cable")
    for number, name in enumerate(namespaces, start=1):
        ip("-n", name, "addr", "add", f"10.99.0.{number}/24", "dev", "cable")
        ip("-n", name, "link", "set", "cable", "up")
        slow = f"tc -n {name} qdisc add dev cable root tbf rate 4mbit burst 16kb latency 100ms"
        subprocess.run(shlex.split(slow), check=True)
    return namespaces


def on_two_hosts(hosts, text, folder, *options):
    """Scheduler, server and worker 0 on the first host, worker 1 on the second."""
    variables = roles(9091, PS_ROOT_URI="10.99.0.1", INTERFACE="cable")
    return far_from_worker_1(hosts, variables, "--corpus", text, "--out", folder, *SAME, *options)


@pytest.mark.slow
def test_two_hosts(hosts, text, tmp_path):
    """As one process, over a slow cable; they listen at its addresses alone."""
    processes, seen = on_two_hosts(hosts, text, tmp_path / "two", "--checkpoint-steps", "3"), set()
    while processes[0].poll() is None:
        for name in hosts:
            shown = subprocess.run(["ip", "netns", "exec", name, "ss", "-Hltn"], capture_output=True, text=True).stdout
            seen |= {line.split()[3].rpartition(":")[0] for line in shown.splitlines()}
        time.sleep(0.5)
    output = [process.communicate(timeout=PATIENT)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4 and not any(output), output
    assert seen == {"10.99.0.1", "10.99.0.2"}
    assert distance(tmp_path / "two", alone(text, tmp_path / "one")) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True], ids=["for good", "for a moment"])
def test_the_cable_is_cut(hosts, text, tmp_path, back):
    processes = on_two_hosts(
        hosts, text, tmp_path / "run", "--checkpoint-steps", "3", "--epochs", "1000", "--timeout", "20"
    )
    try:
        while not list(tmp_path.glob("run/checkpoints/step-*.json")):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
        ip("-n", hosts[1], "link", "set", "cable", "down")
        if back:
            time.sleep(3)
            ip("-n", hosts[1], "link", "set", "cable", "up")
            before = max(tmp_path.glob("run/checkpoints/step-*.json"))
            while max(tmp_path.glob("run/checkpoints/step-*.json")) <= before:
                assert all(process.poll() is None for process in processes), [
                    (process.wait(PATIENT), process.stderr.read()) for process in processes
                ]
                time.sleep(0.05)
            processes[0].send_signal(signal.SIGTERM)
            assert [process.wait(PATIENT) for process in processes] == [0, 0, 143, 143]
            return
        results = [(process.wait(PATIENT), process.stderr.read()) for process in processes]
        assert [code for code, _ in results] == [1] * 4
        assert all("worker 1 (process " in error and "heard of for 20 s" in error for _, error in results[:3])
        assert "the scheduler at 10.99.0.1, port 9092, has not been heard of for 20 s" in results[3][1]
        assert not checkpoint.load(tmp_path / "run" / "checkpoints").damaged
    finally:
        for process in processes:
            process.kill()
            process.communicate()


# -- mistakes


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ("launch", "launch needs a training to start: deeprnn launch --workers 2 -- train [options of train]"),
        ("launch -- evaluate run", "launch needs a training to start"),
        ("launch --workers 0 -- train", "--workers must be at least 1, got 0"),
        ("launch --workers 40 -- train", "--batch-size 32 cannot be shared by 40 workers"),
        ("launch -- train --layers 0", "--layers must be at least 1, got 0"),
        ("train --kvstore dist_sync", "--kvstore dist_sync is for several processes: deeprnn launch --workers 2 "),
        ("train --timeout 0", "--timeout must be above 0, got 0"),
    ],
)
def test_mistakes(capsys, arguments, expected):
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err.startswith(f"deeprnn: error: {expected}")


def test_all_processes_have_one_folder_and_one_timeout(tmp_path, monkeypatch):
    """The default folder has the time in its name, and a resumed run its own timeout."""
    started = []
    monkeypatch.setattr(launch, "launched", lambda counts, arguments, timeout: started.append(arguments) or 0)
    assert main(["launch", "--", "train"]) == 0
    (given,) = [argument for argument in started[-1] if argument.startswith("--out=")]
    assert re.fullmatch(r"--out=runs/pydoc-rnn-2x256-\d{8}-\d{6}", given)
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "config.yaml").write_text("timeout: 600\n")
    assert main(["launch", "--", "train", f"--out={out}", "--resume"]) == 0
    assert "--timeout=600" in started[-1]


def test_a_role_without_a_store(monkeypatch, capsys):
    for name, value in roles(9000, ROLE="worker").items():
        monkeypatch.setenv(name, value)
    assert main(["train"]) == 2
    expected = "deeprnn: error: DMLC_ROLE=worker is set, so --kvstore device must be 'dist_sync'\n"
    assert capsys.readouterr().err == expected
    assert main(["train", "--corpus", "-", "--kvstore", "dist_sync"]) == 2
    assert "--corpus - is standard input, which several workers cannot read" in capsys.readouterr().err
    assert main(["train", "--kvstore", "dist_sync", "--on-nan", "rollback"]) == 2
    assert "read the checkpoints: give all the same --out FOLDER" in capsys.readouterr().err
