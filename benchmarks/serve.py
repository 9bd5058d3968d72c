#!/usr/bin/env python
"""How fast `deeprnn serve` is, seen from a client in another process, beside a plain loop without batching.

Models of 2 layers of 256 units and 100 symbols, one for each cell, with weights drawn by chance. For each:

- first symbol: time from sending a request to the first symbol, with nothing else going on;
- symbols a second of one client, and of 32 together, streamed;
- with 64 clients, the time from one line with symbols to the next, of each client: 99th percentile over median. A line
  has all symbols since the one before, so the record also has their mean number;
- what a loop of `deeprnn.generation.samples` makes of one text in a process of its own, without a service.

The processor time of the service for a symbol is recorded as well: other work on the machine changes it least.

    python benchmarks/serve.py [--cell rnn] [--runtime native] [--seconds 5] [--json FILE]

Takes two minutes, on a machine that does nothing else, with two cores for service and client.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from deeprnn import export
from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from deeprnn.cli.models import open_model
from deeprnn.generation import samples
from deeprnn.sampling import Sampler
from tools.arguments import Parser
from tools.processes import alone
from tools.service import Service
from tools.writer import TOKENS, writer

CELLS = ("rnn", "gru", "lstm")
FIRST = 50
"""Requests for the time to the first symbol."""

TOGETHER, MANY = 32, 64


@dataclass
class Client:
    """A connection that reads a stream, and what has come."""

    sock: socket.socket
    rest: bytes = b""
    symbols: int = 0
    times: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def take(self) -> bool:
        """Read what there is; false at the end."""
        chunk = self.sock.recv(1 << 16)
        now = time.perf_counter()
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        # A line of the stream begins with this; chunk sizes and heads lie between the lines.
        made = sum(len(json.loads(line)["text"]) for line in lines if line.startswith(b'{"index"'))
        if made:
            self.symbols += made
            self.times.append(now)
            self.counts.append(made)
        return bool(chunk) and not any(line.startswith(b'{"done"') for line in lines)


def ask(service: Service, length: int, seed: int) -> Client:
    """Send a request."""
    body = json.dumps({"prefix": chr(0x4E00 + seed), "length": length, "seed": seed, "stream": True}).encode()
    head = "POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sock = socket.create_connection(("127.0.0.1", service.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return Client(sock)


def streamed(service: Service, clients: int, seconds: float) -> dict[str, Any]:
    """Some clients that read for so long, once all of them have begun."""
    several = [ask(service, 1_000_000, seed) for seed in range(clients)]
    with selectors.DefaultSelector() as ready:
        for client in several:
            ready.register(client.sock, selectors.EVENT_READ, client)
        begun = used = 0.0
        while not begun or time.perf_counter() - begun < seconds:
            for key, _ in ready.select(1.0):
                key.data.take()
            if not begun and all(client.symbols > 50 for client in several):
                begun, used = time.perf_counter(), service.cpu_seconds()
                for client in several:
                    client.symbols, client.times, client.counts = 0, [], []
        took, used = time.perf_counter() - begun, service.cpu_seconds() - used
    for client in several:
        client.sock.close()
    symbols = sum(client.symbols for client in several)
    gaps = np.concatenate([np.diff(client.times) for client in several])
    median, last = np.percentile(gaps, (50, 99)).tolist()
    return {
        "symbols_per_second": symbols / took,
        "cpu_microseconds_per_symbol": used / symbols * 1e6,
        "gap_median_ms": median * 1e3,
        "gap_99_ms": last * 1e3,
        "gap_99_over_median": last / median,
        "symbols_per_line": float(np.mean([count for client in several for count in client.counts])),
        "slowest_over_fastest_client": min(c.symbols for c in several) / max(c.symbols for c in several),
    }


def first_symbols(service: Service) -> dict[str, float]:
    """Time to the first symbol."""
    times = []
    for seed in range(FIRST):
        begun, client = time.perf_counter(), ask(service, 1, seed)
        while not client.symbols:
            client.take()
        times.append((client.times[0] - begun) * 1e3)
        client.sock.close()
    return {"median_ms": statistics.median(times), "worst_ms": max(times)}


def plain_loop(folder: Path, runtime: str, seconds: float) -> float:
    """Symbols a second of a loop that makes one text."""
    model = open_model(folder, runtime).model
    steps = samples(model, [1], 1_000_000, sampler=Sampler(), rngs=[np.random.default_rng(0)])
    for _ in range(50):
        next(steps)
    begun, made = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        next(steps)
        made += 1
    return made / (time.perf_counter() - begun)


def figures(cell: str, runtime: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Everything of one cell."""
    export.export(writer(cell), folder, ["onnx" if runtime == "onnx" else "torch"], vocabulary=TOKENS)
    found: dict[str, Any] = {"plain_loop": alone(plain_loop, folder, runtime, seconds, threads=1)}
    options = ("--max-length", "1000000", "--max-seconds", "600", "--runtime", runtime)
    with Service(folder, *options) as service:
        found["first_symbol"] = first_symbols(service)
        for clients in (1, TOGETHER, MANY):
            found[f"clients_{clients}"] = streamed(service, clients, seconds)
            service.idle(5)
    return found


def main() -> int:
    """Measure, compare with what is wanted, and print."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=CELLS, help="One cell alone.")
    runtimes = ("native", "mxnet", "onnx", "torch")
    parser.add_argument("--runtime", choices=runtimes, default=runtimes[0], help="What computes.")
    parser.add_argument("--seconds", type=float, default=5.0, help="Time for each figure.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="Write the record here.")
    args = parser.parse_args()
    about = {"date": date.today().isoformat(), "machine": machine(), "runtime": args.runtime}
    record: dict[str, Any] = {**about, "cells": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for cell in (args.cell,) if args.cell else CELLS:
            found = record["cells"][cell] = figures(cell, args.runtime, Path(scratch) / cell, args.seconds)
            one, together, many = (found[f"clients_{n}"] for n in (1, TOGETHER, MANY))
            first, plain, all_rate = found["first_symbol"], found["plain_loop"], together["symbols_per_second"]
            for name, value, unit, wanted, met in (
                ("first symbol", first["median_ms"], "ms", "20", first["median_ms"] <= 20),
                ("plain loop", plain, "symbols/s", "", True),
                ("one client", one["symbols_per_second"], "symbols/s", "3,000", one["symbols_per_second"] >= 3000),
                ("32 clients", all_rate, "symbols/s", "25,000", all_rate >= 25000),
                (
                    "32 over one",
                    all_rate / one["symbols_per_second"],
                    "",
                    "8",
                    all_rate >= 8 * one["symbols_per_second"],
                ),
                ("64: p99/median", many["gap_99_over_median"], "", "5", many["gap_99_over_median"] <= 5),
            ):
                print(
                    f"{cell:<5} {name:<15} {value:>10,.1f} {unit:<10} {wanted:>8} {'' if met else 'missed'}", flush=True
                )
    if args.json:
        write_json_atomic(args.json, record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
