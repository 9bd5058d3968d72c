"""All commands: version, what is loaded, threads."""

from __future__ import annotations

import os

import pytest
from commands import PROJECT, python

from deeprnn import __version__
from deeprnn.cli import models
from deeprnn.cli.main import main
from deeprnn.cli.runs import use_threads
from deeprnn.nn import native


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"], ["generate", "--version"]])
def test_version(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"deeprnn {__version__}\n{native.status()}\n"


def test_help_and_mistakes_do_not_load_mxnet(tmp_path):
    (tmp_path / "bad.yaml").write_text("layers: 0\n")
    lines = [
        ["--help"],
        ["train", "--help"],
        ["generate", "--help"],
        ["train", "--layers", "0"],
        ["train", "--no-such-flag"],
        ["train", "--preset", "none"],
        ["train", "--config", str(tmp_path / "bad.yaml")],
        ["generate", "run", "--temperature", "0"],
    ]
    script = f"""
import sys
from deeprnn.cli.main import main
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


@pytest.mark.parametrize("script", ["train", "generate", "evaluate"])
def test_scripts(script):
    done = python(str(PROJECT / "scripts" / f"{script}.py"), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: deeprnn {script} ")


def test_threads_are_settled_before_mxnet_is_loaded():
    script = """
import ctypes, os, sys
from deeprnn.cli.runs import use_threads
os.environ.pop("OMP_NUM_THREADS", None)
use_threads(int(sys.argv[1]))
import mxnet
print(ctypes.CDLL("libgomp.so.1").omp_get_max_threads())
"""
    assert python("-c", script, "3").stdout == "3\n"


def test_threads_by_default(monkeypatch):
    digest = "deeprnn._util.machine.source_digest"
    monkeypatch.setattr(digest, lambda _: pytest.fail("reads all sources, which only a record needs"))
    use_threads(0)
    assert os.environ["OMP_NUM_THREADS"] == "1"  # as it was
    monkeypatch.delenv("OMP_NUM_THREADS")
    use_threads(0)
    assert int(os.environ["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    use_threads(0)
    assert int(os.environ["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    "value, expected", [("3", 3), ("4,2", 4), (" +05 ", 5), ("", None), ("0", None), ("-2", None), ("all", None)]
)
def test_threads_of_the_other_runtimes_are_those_of_the_kernels(monkeypatch, value, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert models._threads() == (expected or len(os.sched_getaffinity(0)))
