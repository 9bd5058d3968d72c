"""Fixtures of the commands: a text, a finished run, and a way to train."""

from __future__ import annotations

import os
import subprocess

import pytest
from commands import LEARNT, TEXT, TINY
from processes import ip

from deeprnn.cli import training
from deeprnn.cli.main import main


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Restore what the command line sets."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "ducks.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def trained(text, tmp_path_factory):
    """A finished run, for tests that only read it."""
    folder = tmp_path_factory.mktemp("runs") / "ducks"
    assert main(["train", "--corpus", text, "--out", str(folder), *LEARNT]) == 0
    return folder


@pytest.fixture
def train(text, tmp_path, capsys, monkeypatch):
    """Train, by default into tmp_path / "run"; gives the exit code and the output."""
    monkeypatch.setattr(training, "curves", lambda *_, **__: None)  # half of the time of so small a run

    def call(*arguments, out=None):
        code = main(["train", "--corpus", text, "--out", str(out or tmp_path / "run"), *TINY, *arguments])
        return code, capsys.readouterr()

    def capture(command):
        return command(), capsys.readouterr()

    call.capture = capture
    return call


@pytest.fixture
def namespaces():
    """Two network namespaces, each with a loopback interface alone: their names."""
    names = [f"deeprnn{os.getpid()}{end}" for end in "ab"]
    try:
        ip("netns", "add", names[0])
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs root, ip and network namespaces")
    try:
        ip("netns", "add", names[1])
        for name in names:
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
