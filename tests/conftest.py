"""What tests share: seeds, the same in each run, printed where a test fails, and replaceable; scripts; Ctrl-C.

Each test has a seed of its own, made from its name, so that neither the order nor the number of processes matters.
`DEEPRNN_TEST_SEED=7` gives all tests that seed and lets hypothesis draw new examples: a way to look for trouble.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Callable

import deeprnn  # isort: skip  # before mxnet: under today's numpy it loads with deeprnn's help alone

import hypothesis
import mxnet as mx
import numpy as np
import pytest

REPLAYED = os.environ.get("DEEPRNN_TEST_SEED")

# No deadline: the first call of a graph builds it. No database of examples: each run is a new one.
hypothesis.settings.register_profile("deeprnn", database=None, deadline=None, derandomize=REPLAYED is None)
hypothesis.settings.load_profile("deeprnn")


def pytest_configure() -> None:
    """Let what the tests start be stopped by signals, also where the tests are a background job, which ignores them."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Seed Python, NumPy and MXNet for one test."""
    seed = zlib.crc32(request.node.nodeid.encode()) >> 1 if REPLAYED is None else int(REPLAYED)
    random.seed(seed)
    np.random.seed(seed)
    mx.random.seed(seed)
    # pytest keeps this to itself unless the test fails.
    print(f"seed {seed}: DEEPRNN_TEST_SEED={seed} gives it again")


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> ModuleType:
    """The script of which a file of tests has the path, as `SCRIPT`."""
    path: Path = request.module.SCRIPT
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def refusal(
    script: ModuleType, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Callable[[Sequence[str]], str]:
    """Give the script arguments that are wrong: it ends with exit code 2, and says why in the one line that it says."""

    def refused(arguments: Sequence[str]) -> str:
        with pytest.raises(SystemExit) as stopped:
            script.main(arguments)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(request.module.SCRIPT.name) and ": error: " in error and error.count("\n") == 1
        return error

    return refused


@pytest.fixture
def interrupted() -> Callable[..., tuple[int, str]]:
    """Have Python run in a process of its own, interrupt it when it is `ready`: its exit code, and its errors.

    It has to end `within` so many seconds.
    """

    def interrupt(*arguments: str, ready: Callable[[subprocess.Popen[str]], None], within: float) -> tuple[int, str]:
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments],
            env={**os.environ, "PYTHONPATH": str(Path(deeprnn.__file__).parent.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # One in a shell's background inherits that SIGINT is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            try:
                ready(process)
                process.send_signal(signal.SIGINT)
                _, error = process.communicate(timeout=within)
            finally:
                process.kill()  # where it did not end by itself
        return process.returncode, error

    return interrupt
