"""The kernels without MXNet: a C++ program runs them under the sanitizers, another asks their functions for accuracy.

What is compiled, and how, is in `kernels/Makefile`. In all of them a warning is an error.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent / "kernels"
COMPILER = os.environ.get("CXX", "g++")
PROCESSOR = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64" or not PROCESSOR, reason="the kernels are for Linux on x86-64"),
    pytest.mark.skipif(not (shutil.which(COMPILER) and shutil.which("make")), reason="needs a C++ compiler and make"),
    pytest.mark.skipif("avx2" not in PROCESSOR or "fma" not in PROCESSOR, reason="needs a processor with AVX2"),
]

AVX512 = pytest.mark.skipif("avx512vl" not in PROCESSOR, reason="needs a processor with AVX-512")


@pytest.mark.parametrize(
    "run",
    [
        "address",
        "thread",
        "wide",
        pytest.param("address512", marks=AVX512),
        "functions",
        "functions_wide",
        "warnings",
    ],
)
def test_run(run: str, tmp_path: Path) -> None:
    """It compiles without a warning, a sanitizer has nothing to say, and all numbers are right."""
    done = subprocess.run(
        ["make", f"CXX={COMPILER}", f"BUILD={tmp_path}", f"{tmp_path}/{run}.done"],
        cwd=KERNELS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0
