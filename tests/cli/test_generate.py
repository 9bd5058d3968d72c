"""`deeprnn generate`: what is written, and to whom."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import SOURCES, TINY, python, symbols

from deeprnn.cli.main import main


def generated(trained, capsys, *arguments):
    assert main(["generate", str(trained), "--length", "30", *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


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


def test_a_terminal_that_cannot_show_it(tmp_path, capsys):
    song = tmp_path / "song.txt"
    song.write_text("我们分开 又不分开 雨下了整夜 " * 30, encoding="utf-8")
    run = tmp_path / "run"
    assert main(["train", "--corpus", str(song), "--out", str(run), *TINY, "--epochs", "1"]) == 0
    done = python("-m", "deeprnn", "generate", str(run), "--prefix", "分开", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("??")


def test_nobody_reads_on(trained):
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    command = [sys.executable, "-W", "ignore", "-m", "deeprnn", "generate", str(trained)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_standard_output_on_a_disk_that_is_full(trained, command):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    arguments = [sys.executable, "-W", "ignore", "-m", "deeprnn", command, str(trained)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            arguments, stdout=full, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": SOURCES}, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"deeprnn: error: [Errno 28] No space left on device\n")


def test_a_prefix_without_words(train, tmp_path, capsys):
    assert train("--unit", "word", "--seq-len", "3", "--epochs", "1")[0] == 0
    assert main(["generate", str(tmp_path / "run"), "--prefix", "  "]) == 2
    assert capsys.readouterr().err == "deeprnn: error: --prefix '  ' has no word in it\n"
