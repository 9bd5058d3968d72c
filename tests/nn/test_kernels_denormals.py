"""Loading the library leaves the process's arithmetic as it is: a denormal survives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import deeprnn

LIBRARY = Path(deeprnn.__file__).parent / "nn" / "_kernels.so"

COMMAND = """
import ctypes, sys
import numpy as np

def survives():
    small = np.array([1e-40], dtype=np.float32) * np.float32(1)
    return bool(small[0] > 0) and bool((np.array([1e-310]) * 1.0)[0] > 0)

before = survives()
for library in sys.argv[1:]:
    ctypes.CDLL(library)
print(before, survives())
"""


def read(*libraries: Path) -> str:
    """Whether a denormal survives before and after a process loads these."""
    command = [sys.executable, "-c", COMMAND, *map(str, libraries)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(not LIBRARY.exists(), reason="built without the native operator")
def test_a_denormal_survives_loading() -> None:
    assert read(LIBRARY) == "True True"


@pytest.mark.skipif(not LIBRARY.exists(), reason="built without the native operator")
def test_what_the_test_before_is_about(tmp_path: Path) -> None:
    library = tmp_path / "fast.so"
    command = [os.environ.get("CXX", "g++"), "-x", "c++", "/dev/null", "-shared", "-fPIC", "-ffast-math", "-o", library]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a C++ compiler")
    if read(library) == "True True":
        pytest.skip("this compiler does not touch it (gcc 13 and later, clang)")
    assert read(library) == "True False"
