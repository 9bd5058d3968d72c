"""`deeprnn generate`: what is written, and to whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from commands import SOURCES, TINY, python, symbols

from deeprnn.cli.generate import read_prefix
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


def test_json_in_a_terminal_of_another_encoding_loses_nothing(tmp_path, capsys):
    song = tmp_path / "song.txt"
    song.write_text("\u6211\u4eec\u5206\u5f00 " * 300, encoding="utf-8")
    assert main(["train", "--corpus", str(song), "--out", str(tmp_path / "run"), *TINY, "--epochs", "1"]) == 0
    wanted = ["generate", str(tmp_path / "run"), "--seed", "1", "--length", "9", "--json"]
    capsys.readouterr()
    assert main(wanted) == 0
    expected = json.loads(capsys.readouterr().out)
    done = python("-m", "deeprnn", *wanted, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert json.loads(done.stdout) == expected and done.stdout.isascii()


@pytest.mark.parametrize("content", [b"over the\r\n", b"\xef\xbb\xbfover the\n", b"over the"])
def test_a_file_with_the_prefix_is_read_as_a_text_is(content, tmp_path):
    (tmp_path / "prefix.txt").write_bytes(content)
    assert read_prefix(str(tmp_path / "prefix.txt")) == "over the"
