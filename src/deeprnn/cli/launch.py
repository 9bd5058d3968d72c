"""`deeprnn launch`: starts all processes of a distributed run on this machine, and ends all when one ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Callable

from .._util.signals import restore, take
from .._util.wording import counted
from ..config import LaunchConfig, resolve, select
from .console import failed
from .options import parse

__all__ = ["build_launch"]

HERE = "127.0.0.1"
FIRST = "worker 0"
GRACE = 5.0
"""Seconds that a process gets to end after another one has ended."""

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def build_launch(given: Mapping[str, Any]) -> Callable[[], int]:
    """Check the arguments; the result starts the processes and waits for them."""
    counts = select(LaunchConfig, given)
    arguments = list(given.get("command_line") or [])
    if arguments[:1] != ["train"]:
        raise ValueError("launch needs a training to start: deeprnn launch --workers 2 -- train [options of train]")
    train = vars(parse(arguments)["train"])
    run = resolve(train)
    if run.data.batch_size < counts.workers:
        raise ValueError(f"batch_size={run.data.batch_size} cannot be shared by {counted(counts.workers, 'worker')}")
    if not run.train.kvstore.startswith("dist"):
        arguments.append("--kvstore=dist_sync")
    arguments.append(f"--out={run.out}")  # the default name contains the time, which differs between processes
    if train.get("resume"):
        arguments.append(f"--timeout={run.train.timeout}")  # servers and the scheduler do not read the run
    return lambda: launched(counts, arguments, run.train.timeout)


def launched(counts: LaunchConfig, arguments: list[str], timeout: float) -> int:
    """Start the processes of a training and wait for them; returns the exit code."""
    others = OtherOutput()
    with started(arguments, environments(counts.workers, counts.servers)) as processes:
        readers = [threading.Thread(target=others.pass_on, args=each) for each in processes.items() if each[1].stderr]
        for reader in readers:
            reader.start()
        with forwarded(processes[FIRST]):
            codes = waited_for(processes, timeout)
        for reader in readers:
            reader.join(GRACE)
    return next((code for name in (FIRST, *codes) if (code := codes[name])), 0)


def environments(workers: int, servers: int) -> dict[str, dict[str, str]]:
    """The variables of each process of a training on this machine, by its name: as ``worker 1``."""
    together = {
        "DMLC_PS_ROOT_URI": HERE,
        "DMLC_PS_ROOT_PORT": str(free_port()),
        "DMLC_NUM_WORKER": str(workers),
        "DMLC_NUM_SERVER": str(servers),
        "DMLC_INTERFACE": "lo",
    }
    roles = {"scheduler": {"DMLC_ROLE": "scheduler"}}
    for kind, count in (("server", servers), ("worker", workers)):
        for number in range(count):
            roles[f"{kind} {number}"] = {"DMLC_ROLE": kind, f"DMLC_{kind.upper()}_ID": str(number)}
    return {name: {**together, **role} for name, role in roles.items()}


class OtherOutput:
    """What the processes other than worker 0 write to standard error: shown with their names, each line once."""

    def __init__(self) -> None:
        self._lines: set[str] = set()

    def pass_on(self, name: str, process: subprocess.Popen[str]) -> None:
        """Show what a process writes, until it ends."""
        assert process.stderr
        for line in process.stderr:
            if line not in self._lines:
                self._lines.add(line)
                with contextlib.suppress(OSError, ValueError):
                    print(f"{name}: {line}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def started(arguments: list[str], environments: Mapping[str, dict[str, str]]) -> Iterator[dict[str, Any]]:
    """The processes by name, each in a session of its own, so that Ctrl-C comes to this process alone; none is left."""
    libc = ctypes.CDLL(None)
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for name, environment in environments.items():
            quiet = name != FIRST
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", "deeprnn", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if quiet else None,
                stderr=subprocess.PIPE if quiet else None,
                text=True,
                errors="replace",
                start_new_session=True,
                # If this process is killed, they end the training as at any SIGTERM.
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            )
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def forwarded(process: subprocess.Popen[str]) -> Iterator[None]:
    """Signals that would end this process go to another one."""
    before = take(lambda number, _: process.send_signal(number))
    try:
        yield
    finally:
        restore(before)


def waited_for(processes: Mapping[str, subprocess.Popen[str]], patience: float) -> dict[str, int]:
    """The exit codes of the processes. When one has ended the others follow, or are killed.

    Parameters
    ----------
    processes
        By name.
    patience
        Seconds that they may take to notice that another has ended, as long as the scheduler cannot inform them.
    """
    running, changed = set(processes), time.monotonic()
    while running:
        ended = {name for name in running if processes[name].poll() is not None}
        if ended:
            running, changed = running - ended, time.monotonic()
        informed = "scheduler" not in running or len(running) == 1
        limit = GRACE if informed else patience + GRACE
        if 0 < len(running) < len(processes) and time.monotonic() - changed > limit:
            for name in running:
                failed(f"{name} (process {processes[name].pid}) does not end and is killed", 1)
                processes[name].kill()
            changed = time.monotonic()
        time.sleep(0.05)
    return {name: code if (code := process.returncode) >= 0 else 128 - code for name, process in processes.items()}


def free_port() -> int:
    """A port of this machine that is free, as the one after it is."""
    while True:
        with socket.create_server((HERE, 0)) as first:
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError), socket.create_server((HERE, port + 1)):
                return port
