"""Several processes that train one model: started, waited for, compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from commands import LEARNT, SOURCES

from deeprnn.cli.main import main

SAME = [*LEARNT, "--batch-size", "7", "--dropout", "0", "--epochs", "1", "--max-chars", "2200", "--sample-every", "0"]
"""7 sequences: no two workers have as many. 25 updates."""
PATIENT = 540
"""Seconds for what takes ten where nothing else runs."""


def deeprnn(*arguments, environment=None, **options):
    """This program in a process of its own, which is not waited for."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "deeprnn", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": SOURCES, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def launched(*arguments, counts=(), **options):
    """`deeprnn launch` to its end: exit code, standard output, standard error."""
    with deeprnn("launch", *counts, "--", "train", *arguments, **options) as process:
        try:
            out, error = process.communicate(timeout=PATIENT)
        finally:
            process.terminate()
    return process.returncode, out, error


def rows(folder):
    """The metrics of each epoch, without what is measured by a clock."""
    read = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "tokens_per_second")} for row in read
    ]


def alone(text, folder, *arguments):
    """Train in this process alone; the folder."""
    assert main(["train", "--corpus", text, "--out", str(folder), *SAME, *arguments]) == 0
    return folder


def roles(port, **changes):
    """The variables of a process of two workers and a server on this machine."""
    variables = {"PS_ROOT_URI": "127.0.0.1", "PS_ROOT_PORT": port, "NUM_WORKER": 2, "NUM_SERVER": 1, **changes}
    return {f"DMLC_{name}": str(value) for name, value in variables.items()}


def ip(*arguments):
    """Configure the network."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def far_from_worker_1(namespaces, variables, *arguments, own=None, program=("-m", "deeprnn")):
    """Scheduler, server and worker 0 in the first of two network namespaces, worker 1 in the second: processes.

    Each has the `variables`, and its `own` ones, by its name.
    """
    places = [(0, "SCHEDULER", 0), (0, "SERVER", 0), (0, "WORKER", 0), (1, "WORKER", 1)]
    command = [sys.executable, "-W", "ignore", *program, "train", *map(str, arguments)]
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", namespaces[place], *command, "--kvstore", "dist_sync"],
            env={
                **{**os.environ, "PYTHONPATH": SOURCES, "OMP_NUM_THREADS": "1"},
                **{**variables, "DMLC_ROLE": role.lower(), f"DMLC_{role}_ID": str(number)},
                **(own or {}).get(f"{role.lower()} {number}", {}),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place, role, number in places
    ]
