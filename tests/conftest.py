"""Seeds for every test: the same in each run, printed where a test fails, and replaceable.

Each test has a seed of its own, made from its name, so that neither the order nor the number of processes matters.
`DEEPRNN_TEST_SEED=7` gives all tests that seed and lets hypothesis draw new examples: a way to look for trouble.
"""

from __future__ import annotations

import os
import random
import signal
import zlib

import hypothesis
import mxnet as mx
import numpy as np
import pytest

REPLAYED = os.environ.get("DEEPRNN_TEST_SEED")

# No deadline: the first call of a graph builds it. No database of examples: each run is a new one.
hypothesis.settings.register_profile("deeprnn", database=None, deadline=None, derandomize=REPLAYED is None)
hypothesis.settings.load_profile("deeprnn")


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Seed Python, NumPy and MXNet for one test."""
    seed = zlib.crc32(request.node.nodeid.encode()) >> 1 if REPLAYED is None else int(REPLAYED)
    random.seed(seed)
    np.random.seed(seed)
    mx.random.seed(seed)
    # pytest keeps this to itself unless the test fails.
    print(f"seed {seed}: DEEPRNN_TEST_SEED={seed} gives it again")


@pytest.fixture
def heed_ctrl_c():
    """For a process that is to be interrupted: one in a shell's background inherits that SIGINT is ignored."""
    return lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
