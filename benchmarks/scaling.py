#!/usr/bin/env python
"""What several workers gain: measured with one and two on this machine, and a model for more of them over a network.

python benchmarks/scaling.py measure      one and two workers of one thread each; writes benchmarks/scaling.json
python benchmarks/scaling.py              prints the tables
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Optional

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.machine import machine
from deeprnn.cli.launch import environments
from tools.records import measured_or_shown
from tools.tables import markdown_table

RECORD = Path(__file__).parent / "scaling.json"
SOURCES = Path(__file__).resolve().parents[1] / "src"
BATCH, SEQ_LEN, EPOCHS = 128, 35, 2
SIZES = ((2, 128), (2, 256), (2, 512), (2, 1024), (2, 2048))
RATES = (1, 10, 100)
"""Gbit/s."""
WORKERS = (2, 8, 64)


def trained(layers: int, size: int, workers: int, batch: int, symbols: int) -> dict[str, Any]:
    """Train for some epochs, each worker on a core of its own; the fastest epoch counts, as others were disturbed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        arguments = {
            **{"layers": layers, "hidden-size": size, "embedding-size": size, "cell": "lstm", "dropout": 0},
            **{"batch-size": batch, "seq-len": SEQ_LEN, "epochs": EPOCHS, "max-chars": symbols, "split": "1,0,0"},
            **{"sample-every": 0, "sample-length": 1, "threads": 1, "corpus": "pydoc", "out": run},
            **({"kvstore": "dist_sync"} if workers > 1 else {}),
        }
        command = [sys.executable, "-W", "ignore", "-m", "deeprnn", "train"]
        command += [f"--{name}={value}" for name, value in arguments.items()]
        by_name: dict[str, dict[str, str]] = environments(workers, 1) if workers > 1 else {"worker 0": {}}
        processes = [
            started(command, variables, int(name.split()[1]) if name.startswith("worker") else None)
            for name, variables in by_name.items()
        ]
        if any([process.wait() for process in processes]):
            raise RuntimeError(f"a training of {layers} x {size} with {workers} workers has failed")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        parameters = json.loads((run / "summary.json").read_text())["parameters"]
    rate = max(row["tokens_per_second"] for row in rows)
    step = batch * SEQ_LEN / rate
    print(f"{layers} x {size}, batch {batch}, {workers} workers: {rate:,.0f} characters a second", flush=True)
    return {
        **{"layers": layers, "size": size, "workers": workers, "batch": batch, "parameters": parameters},
        **{"characters_per_second": rate, "step_seconds": step},
    }


def started(command: list[str], environment: dict[str, str], core: Optional[int]) -> subprocess.Popen[bytes]:
    """A process, on a core of its own if there is a number of it."""
    cores = sorted(os.sched_getaffinity(0))
    own = cores if core is None else [cores[core % len(cores)]]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(SOURCES), **environment},
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, own),
    )


def measure() -> dict[str, Any]:
    """The step of each size; of 2 x 1024 with half a batch, the share of each of two workers; and of two workers."""
    steps = {128: 40, 256: 20, 512: 10, 1024: 4, 2048: 2}
    symbols = {size: BATCH * (SEQ_LEN * steps[size] + 1) for _, size in SIZES}
    sizes = [trained(layers, size, 1, BATCH, symbols[size]) for layers, size in SIZES]
    half = trained(2, 1024, 1, BATCH // 2, symbols[1024] // 2)
    two = trained(2, 1024, 2, BATCH, symbols[1024])
    return {"machine": machine(), "sizes": sizes, "half": half, "two": two}


def exchange_seconds(parameters: int, workers: int, servers: int, gigabits: float) -> float:
    """Seconds in which gradients go to the servers and their sums come back, none of it hidden behind computing.

    Each worker sends 4 bytes a parameter, and receives as many. A server's cable carries its part of them for all
    workers. Where there are as many servers as workers, each host has one of both, and what stays on it takes no time.
    """
    if workers == 1:
        return 0.0
    through_server = 4 * parameters * workers / servers
    if servers == workers:
        through_server *= (workers - 1) / workers
    busiest = max(through_server, 4 * parameters)
    return 2 * busiest * 8 / (gigabits * 1e9)


def efficiency(row: dict[str, Any], workers: int, servers: int, gigabits: float) -> float:
    """Of each worker, which keeps a batch of its own, against one alone."""
    compute: float = row["step_seconds"]
    return compute / (compute + exchange_seconds(row["parameters"], workers, servers, gigabits))


def predicted(record: dict[str, Any]) -> float:
    """How many times the characters of one worker two would make if the exchange took no time."""
    whole = next(row for row in record["sizes"] if row["size"] == record["two"]["size"])
    return float(whole["step_seconds"] / record["half"]["step_seconds"])


def table(record: dict[str, Any]) -> str:
    """Of the record: bytes and time of a step, and what each worker keeps of its speed.

    With as many servers as workers that is the same for any number: a worker's own cable is the busiest.
    """
    rates = [f"{rate} Gbit/s" for rate in RATES]
    shared = [f"{rate}, one server: {' / '.join(map(str, WORKERS))}" for rate in rates]
    rows = [["layers", "parameters", "MB a step, each way", "step, one core", *rates, *shared]]
    for row in record["sizes"]:
        kept = [f"{efficiency(row, 64, 64, rate):.0%}" for rate in RATES]
        kept += [" / ".join(f"{efficiency(row, count, 1, rate):.0%}" for count in WORKERS) for rate in RATES]
        megabytes = 4 * row["parameters"] / 1e6
        rows.append(
            [
                f"{row['layers']} x {row['size']}",
                f"{row['parameters'] / 1e6:.1f} M",
                f"{megabytes:.1f}",
                f"{row['step_seconds']:.3f} s",
                *kept,
            ]
        )
    two, one = record["two"], next(row for row in record["sizes"] if row["size"] == record["two"]["size"])
    gained = two["characters_per_second"] / one["characters_per_second"]
    return (
        f"{markdown_table(rows)}\n\nThe last columns: what each worker keeps of the speed of one alone, with a batch "
        f"of {BATCH}; with as many servers as workers, and with one server. Two workers that share a batch of {BATCH} "
        f"on this machine, {two['layers']} x {two['size']}: {gained:.2f} times the characters a second of one; "
        f"{predicted(record):.2f} if the exchange took no time."
    )


def main(arguments: list[str]) -> int:
    """Measure, if asked to, and print the tables."""
    return measured_or_shown(arguments, __doc__, RECORD, measure, table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
