#!/usr/bin/env python
"""A text larger than memory: what encoding, a second start and a batch cost, and that the limit of memory holds.

A made-up text (words of a Zipf distribution, a block of them repeated) is encoded and trained on for some steps, by a
process in a control group whose memory is limited to what the same training takes with a small text, and 1 GB. Then the
same again, with the codes that are there; and batches of mapped codes are compared with those of an array.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/large_corpus.py [--json FILE] [--gigabytes 4] [--units char word]

Needs the right to make a control group of memory (root, as a rule), or else limits the process's own data alone
(RLIMIT_DATA); and twice the size of the text on the disk. Exit code 1 if a target is missed: for a core 60 MB/s of
characters and 20 MB/s of words, 2 s for a second start, 1.05 times the time of a batch of an array.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Optional

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from deeprnn.data.symbols import UNITS
from tools.arguments import Parser

MODEL = {"hidden_size": 256, "num_layers": 2, "embedding_size": 64}
BATCH_SIZE, SEQ_LEN, STEPS = 32, 35, 5
WORDS, BLOCK = 33_000, 64 << 20
"""Different words, and bytes that are repeated."""
ALLOWED = 1 << 30
"""Bytes above what the same training takes with a small text."""
SPEED = {"char": 60e6, "word": 20e6}
SECOND_START, BATCH = 2.0, 1.05
ROUNDS, TIMED = 9, 300
SAMPLINGS = ("consecutive", "random")
GROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
"""Of version 1 and 2."""


def write_text(path: Path, size: int) -> None:
    """Write `size` bytes of words in lines."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(1, 10))) for _ in range(WORDS)])
    shares = 1 / np.arange(1, WORDS + 1)
    drawn = rng.choice(words, BLOCK // 5, p=shares / shares.sum())
    lines = [" ".join(drawn[begin : begin + 14]) for begin in range(0, len(drawn), 14)]
    block = ("\n".join(lines) + "\n").encode()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block[: size - file.tell()])


class First:
    """The first batches of an epoch."""

    def __init__(self, batches: Any, count: int) -> None:
        self.batches, self.count = batches, min(count, len(batches))
        self.carries_state, self.batch_size = batches.carries_state, batches.batch_size

    def __len__(self) -> int:
        return self.count

    def epoch(self, number: int) -> Iterator[Any]:
        """These batches."""
        return islice(self.batches.epoch(number), self.count)


def train(path: str, unit: str) -> dict[str, Any]:
    """Load a text, and train on it for some steps: seconds, and bytes of memory."""
    import mxnet as mx

    from deeprnn.config import TrainConfig
    from deeprnn.data.batches import Batches
    from deeprnn.data.text import load_corpus
    from deeprnn.models.language_model import LanguageModel
    from deeprnn.train.loop import fit

    begun, busy = time.perf_counter(), time.process_time()
    corpus = load_corpus(path, unit=unit)
    loaded, used = time.perf_counter() - begun, time.process_time() - busy
    batches = Batches(corpus.train, BATCH_SIZE, SEQ_LEN)
    valid = Batches(corpus.valid, BATCH_SIZE, SEQ_LEN, keep_last=True)
    net = LanguageModel(WORDS, **MODEL)  # of one size, whatever the vocabulary
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    history = fit(net, First(batches, STEPS), First(valid, STEPS), TrainConfig(epochs=1), ctx=mx.cpu())
    return {
        "load_seconds": loaded,
        "load_cpu_seconds": used,
        "symbols": len(corpus.train) + len(corpus.valid) + len(corpus.test),
        "vocabulary": len(corpus.vocab),
        "valid_loss": history.epochs[0].valid_loss,
        "notes": corpus.notes,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


def batches(path: str, unit: str) -> dict[str, Any]:
    """The time of a batch of mapped codes and of an array, in microseconds, best of some rounds; and their ratio."""
    from deeprnn.data.batches import Batches
    from deeprnn.data.text import load_corpus

    mapped = load_corpus(path, unit=unit).train[: 50 << 20]
    result: dict[str, Any] = {}
    for sampling in SAMPLINGS:
        sources = {
            name: Batches(ids, BATCH_SIZE, SEQ_LEN, sampling)
            for name, ids in (("array", np.array(mapped, np.int32)), ("mapped", mapped))
        }
        best = dict.fromkeys(sources, float("inf"))
        for _ in range(ROUNDS):
            for name, source in sources.items():
                epoch = source.epoch(0)
                next(epoch)  # what an epoch takes to begin
                begun = time.perf_counter()
                for _batch in islice(epoch, TIMED):
                    pass
                best[name] = min(best[name], (time.perf_counter() - begun) / TIMED * 1e6)
        result[sampling] = {**best, "ratio": best["mapped"] / best["array"]}
    return result


class Limited:
    """A control group of memory, or where none can be made, a limit of the process's own data; a context."""

    def __init__(self, limit: Optional[int]) -> None:
        self.limit, self.group = limit, None
        for parent, name in zip(GROUPS, ("memory.limit_in_bytes", "memory.max")):
            group = parent / f"deeprnn-{os.getpid()}"
            with contextlib.suppress(OSError):
                group.mkdir()
                if limit:
                    (group / name).write_text(str(limit))
                self.group = group
                break
        self.kind = "control group" if self.group else "RLIMIT_DATA"

    def __enter__(self) -> Limited:
        return self

    def __exit__(self, *error: object) -> None:
        if self.group:
            self.group.rmdir()

    def enter(self) -> None:
        """Called in the process that is limited."""
        if self.group:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))
        elif self.limit:
            resource.setrlimit(resource.RLIMIT_DATA, (self.limit, self.limit))


def in_process(work: str, path: Path, unit: str, cache: Path, limit: Optional[int] = None) -> dict[str, Any]:
    """What `work` gives in a process of its own, and how long that took."""
    with Limited(limit) as limited:
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "--work", work, str(path), unit],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "DEEPRNN_CACHE": str(cache)},
            preexec_fn=limited.enter,
        )
        seconds = time.perf_counter() - begun
        if done.returncode:
            raise SystemExit(f"{work} of {unit} ended with {done.returncode}")
        return {**json.loads(done.stdout), "process_seconds": seconds, "limited_by": limited.kind, "limit": limit}


def measured(unit: str, folder: Path, large: Path, small: Path) -> dict[str, Any]:
    """One unit: the small text, the large one twice, batches."""
    own = in_process("train", small, unit, folder / "cache")
    limit = own["peak_rss"] + ALLOWED
    first, second = (in_process("train", large, unit, folder / "cache", limit) for _ in range(2))
    size = large.stat().st_size
    return {
        "unit": unit,
        "bytes": size,
        "own": own,
        "first": first,
        "second": second,
        "bytes_per_cpu_second": size / first["load_cpu_seconds"],
        "bytes_per_second": size / first["load_seconds"],
        "batches": in_process("batches", large, unit, folder / "cache"),
    }


def missed(record: dict[str, Any]) -> list[str]:
    """What is beyond its target."""
    unit, lines = record["unit"], []
    if record["bytes_per_cpu_second"] < SPEED[unit]:
        lines.append(f"{unit}: {record['bytes_per_cpu_second'] / 1e6:.0f} MB/s, below {SPEED[unit] / 1e6:.0f}")
    if record["second"]["load_seconds"] > SECOND_START:
        lines.append(f"{unit}: a second start takes {record['second']['load_seconds']:.1f} s, above {SECOND_START:g}")
    for sampling in SAMPLINGS:
        ratio = record["batches"][sampling]["ratio"]
        if ratio > BATCH:
            lines.append(f"{unit}: a batch ({sampling}) takes {ratio:.3f} times that of an array, above {BATCH}")
    return lines


def main() -> int:
    """Measure, print, write; the exit code."""
    if sys.argv[1:2] == ["--work"]:
        work, path, unit = sys.argv[2:]
        print(json.dumps({"train": train, "batches": batches}[work](path, unit)))
        return 0
    parser = Parser(description=__doc__.splitlines()[0], done="within the targets", failed="a target is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the record to this file.")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="Size of the text.")
    parser.add_argument("--units", nargs="+", choices=UNITS, default=list(UNITS), help="Kinds of symbols.")
    parser.add_argument("--folder", type=Path, help="Where the text is written, and removed from in the end.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        large, small = folder / "large.txt", folder / "small.txt"
        write_text(large, int(arguments.gigabytes * 1e9))
        with large.open("rb") as file:
            small.write_bytes(file.read(4 << 20))
        records = [measured(unit, folder, large, small) for unit in arguments.units]
    for record in records:
        first, second, own = (record[name] for name in ("first", "second", "own"))
        ratios = ", ".join(f"{record['batches'][sampling]['ratio']:.3f} ({sampling})" for sampling in SAMPLINGS)
        print(
            f"{record['unit']}: {record['bytes'] / 1e9:.1f} GB, {record['bytes_per_cpu_second'] / 1e6:.0f} MB/s; "
            f"second start {second['load_seconds']:.2f} s; memory {own['peak_rss'] >> 20} MB with a small text, and "
            f"at most {first['limit'] >> 20} MB ({first['limited_by']}); a batch {ratios}"
        )
    lines = [line for record in records for line in missed(record)]
    print("\n".join(lines) or "within the targets")
    if arguments.json:
        write_json_atomic(arguments.json, {"model": MODEL, "machine": machine(), "units": records})
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
