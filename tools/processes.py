"""Functions called in new processes, with a given number of threads on as many cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Callable, Optional

__all__ = ["alone", "check_threads", "using"]


def alone(function: Callable[..., Any], *args: Any, threads: Optional[int] = None) -> Any:
    """Call `function` in a new process; returns its result.

    Parameters
    ----------
    function, *args
        The function, which must be at the top of its module, and its arguments.
    threads : int, optional
        Threads of the process, on as many cores. By default those of this process.
    """
    # spawn, not fork: a child that inherits MXNet's threads and memory would be measured with them.
    context = multiprocessing.get_context("spawn")
    with using(threads), ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(function, *args).result()


@contextmanager
def using(threads: Optional[int]) -> Iterator[None]:
    """A context in which new processes have ``OMP_NUM_THREADS=threads`` and run on the last `threads` cores.

    Both must be set before a process starts: OpenMP reads them when it is loaded.
    """
    if threads is None:
        yield
        return
    check_threads(threads)
    before = os.environ.get("OMP_NUM_THREADS")
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        if cores is not None:
            os.sched_setaffinity(0, sorted(cores)[-threads:])
        yield
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def check_threads(threads: int) -> None:
    """Refuse more threads than this process has cores: they would wait for each other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise ValueError(f"--threads must be between 1 and {cores}, the cores of this process, got {threads}")
