"""The machine that a measurement was made on (processor, cores, instruction set, versions), and its allocator."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Optional

__all__ = ["cores", "keep_freed_memory", "machine", "source_digest", "versions"]

INSTRUCTION_SETS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse4_2": "SSE4.2"}
"""Instruction sets by the kernel's name of the processor flag, widest first."""


def machine() -> dict[str, Any]:
    """Describe this machine, for the record of a measurement.

    Returns
    -------
    dict
        ``processor``, ``cores``, ``instruction_set``, ``threads`` (what ``OMP_NUM_THREADS`` allows; None: all cores),
        ``python``, ``mxnet``, ``numpy``, ``deeprnn`` (versions), and ``code``, a digest of this package's sources,
        which change within one version during development. A value that cannot be determined is None.
    """
    name, flags = _processor()
    return {
        "processor": name or platform.processor() or platform.machine() or None,
        "cores": cores(),
        "instruction_set": next((title for flag, title in INSTRUCTION_SETS.items() if flag in flags), None),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        **versions(),
        "code": source_digest(Path(__file__).parent.parent),
    }


def cores() -> Optional[int]:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def versions() -> dict[str, Optional[str]]:
    """Versions of Python and of the packages that a result depends on."""
    from .. import __version__  # a module-level import would be circular

    return {
        "python": platform.python_version(),
        "mxnet": _version("mxnet"),
        "numpy": _version("numpy"),
        "deeprnn": __version__,
    }


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of returning it to the system; does nothing with another C library.

    MXNet has no memory pool for the CPU. By default glibc returns every array above 128 KB to the system when it is
    freed and requests it again, page by page, at the next training step. For a small language model that takes a tenth
    of the time.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in <malloc.h>
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


@cache
def source_digest(folder: Path) -> str:
    """First 12 digits of the SHA-256 of all files of Python and C++ below `folder`, sorted by name; read once."""
    files = sorted(
        (path for path in folder.rglob("*") if path.suffix in (".py", ".h", ".cc")),
        key=lambda path: path.relative_to(folder).as_posix(),
    )
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _processor() -> tuple[str, set[str]]:
    """Name of the processor, and its flags as the kernel spells them."""
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
