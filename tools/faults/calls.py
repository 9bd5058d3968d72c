"""Kills each system call that writes a checkpoint, or lets it fail: a whole checkpoint must be left.

    python -m tools.faults.calls [FAULT ...]

A wrapper of the C library's functions (calls.c) is preloaded. A child of this process writes a checkpoint into a folder
that has one already; the call that fails is the first one, then the second one, until none is left.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from deeprnn.train import storage

__all__ = ["FAULTS", "ROOT", "state_of", "step_of", "survey", "whole", "write"]

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("calls.c")

KILL, SHORT_WRITE = -1, 0
FAULTS = {
    "SIGKILL": KILL,
    "short write": SHORT_WRITE,
    **{name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EACCES", "EDQUOT", "EINTR")},
}


def write(folder: Path, step: int) -> None:
    """Write a checkpoint whose arrays depend on the step."""
    rng = np.random.default_rng(step)
    parameters = {"weight": rng.normal(size=(20, 30)).astype("f4"), "bias": rng.normal(size=30).astype("f4")}
    training = {f"optimizer/{name}/0": array * 2 for name, array in parameters.items()}
    best = {"epoch": 0, "step": step, "parameters": None}
    storage.write_checkpoint(folder, step, parameters, training, {"state": {"step": step}, "optimizer": None}, best)


def step_of(path: Path) -> int:
    """The step of a checkpoint; raises ValueError if it is not whole."""
    manifest = storage.read_manifest(path)
    for entry in storage.entries(manifest):
        storage.check_entry(path, entry)
        storage.read_arrays(path.parent, entry)
    return int(manifest["state"]["step"])


def whole(folder: Path) -> list[int]:
    """The steps of the checkpoints that are whole, the newest first.

    Raises
    ------
    ValueError
        If a file with a final name is damaged.
    """
    steps = [step_of(path) for path in storage.manifests(folder)]
    for path in folder.glob("*.npz"):
        if storage.sha256(path.read_bytes())[:16] != path.stem.rpartition("-")[2]:
            raise ValueError(f"{path} is not whole")
    return steps


def state_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder with their content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def survey(work: Path, name: str, fault: int) -> dict[str, Any]:
    """Let each call of writing a checkpoint fail in turn; counts the outcomes. Runs with the wrapper preloaded."""
    library = ctypes.CDLL(None)
    seen = {"calls": 0, "stopped": 0, "went on": 0, "killed": 0}
    before = work / f"{name}-before"
    for step in (1, 2, 3):
        write(before, step)
    while True:
        folder = work / f"{name}-{seen['calls']}"
        folder.mkdir()
        for path in before.iterdir():
            os.link(path, folder / path.name)  # files are replaced, never changed
        child = os.fork()
        if not child:
            library.calls_arm(seen["calls"] + 1, fault)
            try:
                write(folder, 4)
                code = 0
            except OSError:
                code = 1
            except BaseException:
                code = 2
            reached = library.calls_arm(-1, -2) > seen["calls"]
            os._exit(code if reached else 3)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 3:
            return seen
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        outcome = "killed" if killed else {0: "went on", 1: "stopped"}.get(os.WEXITSTATUS(status))
        where = f"{name} at call {seen['calls'] + 1}"
        if outcome is None or killed != (fault == KILL):
            raise RuntimeError(f"{where}: the child ended with status {status}")
        found = whole(folder)
        if found[:1] not in ([3], [4]) or (outcome == "went on" and found[0] != 4):
            raise RuntimeError(f"{where}: {outcome}, and the checkpoints {found} are left")
        write(folder, 5)
        if whole(folder)[0] != 5 or list(folder.glob("*.tmp")):
            raise RuntimeError(f"{where}: what it left disturbs the next checkpoint: {sorted(state_of(folder))}")
        seen["calls"] += 1
        seen[outcome] += 1
        shutil.rmtree(folder)


def compiled(folder: Path) -> Path:
    """The wrapper, compiled."""
    library = folder / "calls.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def main() -> int:
    """All faults, each in turn; prints what happened as JSON."""
    if "LD_PRELOAD" in os.environ:
        work, names = Path(sys.argv[1]), sys.argv[2:]
        print(json.dumps({name: survey(work, name.replace(" ", "-"), FAULTS[name]) for name in names or FAULTS}))
        return 0
    # In memory, where flushing takes no time: what is tested is the order of the calls.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        environment = {
            **os.environ,
            "LD_PRELOAD": str(compiled(Path(folder))),
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        }
        return subprocess.run(
            [sys.executable, "-m", "tools.faults.calls", folder, *sys.argv[1:]], env=environment, cwd=ROOT, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
