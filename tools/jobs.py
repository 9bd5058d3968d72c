"""Commands of deeprnn as processes, several at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

__all__ = ["PROGRAM", "Command", "side_by_side"]

PROGRAM = (sys.executable, "-W", "ignore", "-m", "deeprnn")


class Command(NamedTuple):
    """Arguments of deeprnn, and the files to which its output and its errors are appended."""

    arguments: Sequence[str]
    output: Path
    errors: Path


def side_by_side(commands: Sequence[Command], jobs: int) -> Iterator[tuple[int, int]]:
    """Run commands as processes of one thread, `jobs` at a time; yield index and exit code of each as it ends.

    All running processes are stopped if the iteration ends early, as by Ctrl-C.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    running: dict[int, subprocess.Popen[bytes]] = {}
    waiting = list(range(len(commands)))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                index = waiting.pop(0)
                arguments, *files = commands[index]
                with ExitStack() as stack:
                    output, errors = (stack.enter_context(open(file, "ab")) for file in files)
                    running[index] = subprocess.Popen(
                        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment
                    )
            ended = [index for index, process in running.items() if process.poll() is not None]
            for index in ended:
                yield index, running.pop(index).returncode
            if not ended:
                time.sleep(0.05)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
