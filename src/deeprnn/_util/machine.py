"""What a number was measured on: processor, cores, instruction set, versions; and the memory of this process."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Optional

__all__ = ["cores", "keep_freed_memory", "machine", "versions"]

INSTRUCTION_SETS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse4_2": "SSE4.2"}
"""From the kernel's name of a processor flag to what the set is called, the widest first."""


def machine() -> dict[str, Any]:
    """Processor model, usable cores, instruction set, and versions, as they stand in every record of a measurement.

    Returns
    -------
    dict
        ``processor``, ``cores``, ``instruction_set``, ``threads`` (what ``OMP_NUM_THREADS`` allows; None: all cores),
        ``python``, ``mxnet``, ``numpy``, ``deeprnn``, and ``code``, a digest of this package's sources, as one version
        has many of them while it is written. What cannot be found out is None.
    """
    name, flags = _processor()
    return {
        "processor": name or platform.processor() or platform.machine() or None,
        "cores": cores(),
        "instruction_set": next((title for flag, title in INSTRUCTION_SETS.items() if flag in flags), None),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        **versions(),
        "code": _digest(Path(__file__).parent.parent),
    }


def cores() -> Optional[int]:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def versions() -> dict[str, Optional[str]]:
    """Of Python, and of the packages that a result depends on."""
    from .. import __version__  # here, so that the front door may import this room

    return {
        "python": platform.python_version(),
        "mxnet": _version("mxnet"),
        "numpy": _version("numpy"),
        "deeprnn": __version__,
    }


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for the next array, instead of giving it back to the system.

    MXNet has no pool for the CPU. glibc gives arrays above 128 KB back at once, and takes them anew, page by page, at
    every step of training: a tenth of the time of a small language model. Elsewhere than in glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, mmap_threshold = -1, -3  # the numbers of the two settings in <malloc.h>
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def _digest(folder: Path) -> str:
    """The first digits of the SHA-256 of all Python files, in the order of their names."""
    files = sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _processor() -> tuple[str, set[str]]:
    """The processor's name, and its flags in the kernel's spelling."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line.partition(":") for line in info.read_text(errors="replace").splitlines())
        first: dict[str, str] = {}
        for key, _, value in lines:
            first.setdefault(key.strip(), value.strip())
        return first.get("model name", ""), set(first.get("flags", "").split())
    if platform.system() == "Darwin":
        keys = ("machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features")
        name, *flags = (_sysctl(key) for key in keys)
        return name, set(" ".join(flags).lower().replace(".", "_").replace("avx1_0", "avx").split())
    return "", set()


def _sysctl(key: str) -> str:
    done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _version(package: str) -> Optional[str]:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
