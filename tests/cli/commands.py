"""Shared by the tests of the commands: a text, small options, the files of a run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

import deeprnn
from deeprnn.cli.options import parse
from deeprnn.config import resolve
from deeprnn.train import checkpoint

PROJECT = Path(__file__).parents[2]
SOURCES = str(Path(deeprnn.__file__).parents[1])
TEXT = "".join(
    f"{n} little ducks went out one day, over the hills and far away; {n * n} came back.\n" for n in range(40)
)
TINY = shlex.split(
    "--hidden-size 8 --embedding-size 4 --batch-size 8 --seq-len 20 --epochs 2 --sample-length 12 --lr 0.02"
)
LEARNT = [*TINY, "--seq-len", "10"]
"""Twice the updates: those of the fixture `trained`, which has learnt something."""


def losses(folder):
    return [json.loads(line)["train_loss"] for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    arrays = checkpoint.load(Path(folder) / "checkpoints").parameters
    return np.concatenate([array.ravel() for _, array in sorted(arrays.items())]).astype("float64")


def distance(one, other):
    """How far the weights of two runs are apart."""
    return np.linalg.norm(weights(one) - weights(other)) / np.linalg.norm(weights(other))


def diagnoses(folder):
    return [json.loads(line) for line in (Path(folder) / "diagnosis.jsonl").read_text().splitlines()]


def symbols(text):
    """How many there are, the unknown symbol counted as one."""
    return len(text.replace("<unk>", "?"))


def python(*arguments, **options):
    """This program in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": SOURCES, **options.pop("env", {})}
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, **options)


def resolved(*arguments):
    return resolve(vars(parse(["train", *arguments])["train"]))
