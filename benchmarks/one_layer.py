#!/usr/bin/env python
"""What one layer comes to in the time of the default training: a record to hold it against.

Trains on the built-in text with all options at their defaults but for one layer, for as many epochs as are asked for,
so that it takes about as long as the default training of two, and records time and validation loss of each epoch.

    python benchmarks/one_layer.py [--epochs 20]      writes benchmarks/one_layer.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import date
from itertools import accumulate
from pathlib import Path

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from deeprnn.train.reports import read_metrics
from tools.arguments import Parser


def main() -> int:
    """Train and record."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="Epochs of the run.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "run")
        command = [sys.executable, "-W", "ignore", "-m", "deeprnn", "train", "--layers=1", f"--epochs={args.epochs}"]
        subprocess.run([*command, "--sample-every=0", f"--out={folder}"], check=True)
        rows = read_metrics(folder / "metrics.jsonl")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    record = {
        "date": date.today().isoformat(),
        "machine": machine(),
        **{name: summary[name] for name in ("corpus", "corpus_sha256", "parameters", "test_loss")},
        "epochs": [
            {"seconds": seconds, "valid_loss": row["valid_loss"]}
            for row, seconds in zip(rows, accumulate(row["seconds"] for row in rows))
        ],
    }
    write_json_atomic(Path(__file__).with_suffix(".json"), record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
