"""The kernels without MXNet: a C++ program runs them under the sanitizers, another asks their functions for accuracy.

What is compiled, and how, is in `kernels/Makefile`. In all of them a warning is an error.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

KERNELS = Path(__file__).parent / "kernels"
COMPILER = os.environ.get("CXX", "g++")
PROCESSOR = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not PROCESSOR, reason="the kernels are for Linux on x86-64"),
    pytest.mark.skipif(not (shutil.which(COMPILER) and shutil.which("make")), reason="needs a C++ compiler and make"),
    pytest.mark.skipif("avx2" not in PROCESSOR or "fma" not in PROCESSOR, reason="needs a processor with AVX2"),
]

AVX512 = pytest.mark.skipif("avx512vl" not in PROCESSOR, reason="needs a processor with AVX-512")
AVX2_ALONE = pytest.mark.skipif("avx512vl" in PROCESSOR, reason="address512 runs the same, and looks for more")


def make(target: Path) -> None:
    """Build or run what `kernels/Makefile` names so."""
    done = subprocess.run(
        ["make", f"CXX={COMPILER}", f"BUILD={target.parent}", str(target)],
        cwd=KERNELS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all runs, with what they share: the driver. The processes of pytest-xdist share it, too."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "kernels"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make(folder / "driver.o")
    return folder


@pytest.mark.parametrize(
    "run",
    [
        "address",
        "thread",
        pytest.param("wide", marks=AVX2_ALONE),
        pytest.param("address512", marks=AVX512),
        "functions",
        "functions_wide",
        "warnings",
    ],
)
def test_run(run: str, build: Path) -> None:
    """It compiles without a warning, a sanitizer has nothing to say, and all numbers are right."""
    make(build / f"{run}.done")


@st.composite
def calls(draw: st.DrawFn) -> str:
    """A line of the driver's input; sizes near those of tiles, vectors and chunks come most often."""
    tanh, relu, gru, lstm = range(4)
    size = st.one_of(st.integers(1, 40), st.sampled_from([47, 48, 49, 63, 64, 65, 95, 96, 97, 129]))
    cell = draw(st.sampled_from([tanh, relu, gru, lstm, lstm]))
    steps, batch = draw(st.one_of(st.tuples(st.integers(1, 9), size), st.tuples(size, st.integers(1, 9))))
    inputs, hidden = draw(size), draw(size)
    projection = draw(st.one_of(st.just(0), size)) if cell == lstm else 0
    clip = draw(st.booleans()) if cell == lstm else False
    low = draw(st.floats(-2, 0.5))
    high = draw(st.floats(low, 2.5))
    flags = [clip, *(draw(st.booleans()) for _ in ("reverse", "lengths", "save"))]
    seed = draw(st.integers(0, 2**63))
    dtype = draw(st.sampled_from(["float", "double"]))
    numbers = [cell, steps, batch, inputs, hidden, projection, *map(int, flags), low, high, seed]
    return " ".join([dtype, *map(str, numbers)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "run", ["address", "thread", pytest.param("wide", marks=AVX2_ALONE), pytest.param("address512", marks=AVX512)]
)
def test_drawn_calls(run: str, build: Path) -> None:
    """Any sizes, cells, directions, lengths and clips."""
    make(build / run)

    @settings(max_examples=300)
    @given(call=calls())
    def check(call: str) -> None:
        done = subprocess.run(
            [build / run, "-"], input=call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, f"{call}\n{done.stdout}"

    check()
