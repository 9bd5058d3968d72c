"""Kills a training (SIGKILL) at random moments and resumes it each time; it must end as an undisturbed one.

python -m tools.faults.kill [KILLS]
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deeprnn.train import storage

from .calls import ROOT, whole
from .damage import TEXT

__all__ = ["killed_and_resumed", "outcome", "training"]

OPTIONS = [
    *("--hidden-size=16", "--embedding-size=8", "--batch-size=8", "--seq-len=20", "--dropout=0.2", "--sampling=random"),
    *("--checkpoint-steps=3", "--sample-every=0", "--sample-length=5"),
]


def training(folder: Path, text: Path, epochs: int, *more: str) -> list[str]:
    """The command of a training."""
    command = [sys.executable, "-W", "ignore", "-m", "deeprnn", "train", f"--corpus={text}", f"--epochs={epochs}"]
    return [*command, f"--out={folder}", *OPTIONS, *more]


def outcome(folder: Path) -> tuple[object, ...]:
    """Weights and metrics of a finished run, without its times."""
    manifest = storage.read_manifest(storage.manifests(folder / "checkpoints")[0])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(row["epoch"], row["train_loss"], row["valid_loss"], row["grad_norm"]) for row in rows]
    summary = json.loads((folder / "summary.json").read_text())
    return manifest["files"]["parameters"]["sha256"], losses, summary["test_loss"]


def holds_its_lock(folder: Path, process: int) -> bool:
    """Whether this process has begun to train in `folder`."""
    try:
        return bool(json.loads((folder / "lock").read_text(encoding="utf-8"))["process"] == process)
    except (OSError, ValueError, KeyError):
        return False


def killed_and_resumed(work: Path, kills: int, epochs: int, longest: float, seed: int = 0) -> dict[str, int]:
    """Kill a training of `epochs` epochs `kills` times, each time up to `longest` seconds after it has begun.

    Raises
    ------
    RuntimeError
        If a file with a final name is incomplete, a run cannot be resumed, or its results differ.
    """
    rng = random.Random(seed)
    text = work / "text.txt"
    text.write_text(TEXT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    subprocess.run(training(work / "whole", text, epochs), check=True, env=environment, stdout=subprocess.DEVNULL)
    seen = {"killed": 0, "runs": 0, "before the first checkpoint": 0}
    while seen["killed"] < kills:
        seen["runs"] += 1
        folder = work / f"run-{seen['runs']}"
        while True:
            begun = storage.holds_checkpoints(folder / "checkpoints")
            command = training(folder, text, epochs, *(["--resume"] if begun else []))
            process = subprocess.Popen(
                command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            while process.poll() is None and not holds_its_lock(folder, process.pid):
                time.sleep(0.01)
            if seen["killed"] < kills:
                time.sleep(rng.uniform(0, longest))
                process.kill()
            error = process.communicate()[1]
            if process.returncode == 0:
                break
            if process.returncode != -9:
                raise RuntimeError(f"exit code {process.returncode}: {error}")
            seen["killed"] += 1
            whole(folder / "checkpoints")
            seen["before the first checkpoint"] += not storage.holds_checkpoints(folder / "checkpoints")
        if outcome(folder) != outcome(work / "whole"):
            raise RuntimeError(f"run {seen['runs']} has other results than the undisturbed one")
    return seen


def main() -> int:
    """Many kills; prints the counts."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as work:
        print(json.dumps(killed_and_resumed(Path(work), kills, epochs=20, longest=1.5)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
