#!/usr/bin/env python
"""Sampled softmax and NCE against the full softmax: words a second, memory and perplexity at large vocabularies.

A made-up text of words: half of the words follow from the word before, the others are drawn from a Zipf distribution.
Each loss and vocabulary has a process of its own, which makes some updates and then finds the loss of held-out words,
always over the whole vocabulary.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/sampled_softmax.py [--json FILE] [--vocabularies 33000 267000]
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from tools.arguments import Parser
from tools.tables import terminal_table

MODEL = {"hidden_size": 256, "num_layers": 1, "cell": "lstm", "embedding_size": 256}
BATCH_SIZE, SEQ_LEN, VALIDATED = 32, 35, 4
LOSSES = ("full", "sampled", "nce")


def measured(vocab_size: int, loss: str, samples: int, steps: int) -> dict[str, Any]:
    """Make so many updates: words a second of the best of them, peak memory, and the loss over the whole vocabulary."""
    import mxnet as mx
    import numpy as np

    from deeprnn.config import TrainConfig
    from deeprnn.data.batches import Batches
    from deeprnn.distributed.workers import Alone
    from deeprnn.models.language_model import LanguageModel
    from deeprnn.models.sampled import SampledLoss
    from deeprnn.train.loop import evaluate, make_trainer, train_epoch
    from deeprnn.train.position import Position
    from deeprnn.train.progress import Progress

    rng = np.random.default_rng(0)
    length = BATCH_SIZE * (SEQ_LEN * (steps + VALIDATED) + 2)
    shares = 1 / np.arange(1, vocab_size + 1)
    drawn = rng.choice(vocab_size, length, p=shares / shares.sum())
    follows, after = rng.random(length) < 0.5, rng.choice(vocab_size, vocab_size, p=shares / shares.sum())
    ids = drawn.astype(np.int32)
    for place in np.flatnonzero(follows[1:]) + 1:
        ids[place] = after[ids[place - 1]]
    cut = BATCH_SIZE * (SEQ_LEN * steps + 1)
    train, valid = Batches(ids[:cut], BATCH_SIZE, SEQ_LEN), Batches(ids[cut:], BATCH_SIZE, SEQ_LEN, keep_last=True)
    net = LanguageModel(vocab_size, **MODEL)
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    config = TrainConfig(epochs=1, lr=2e-3, schedule="constant", loss=loss, samples=samples)
    trainer = make_trainer(net, config, steps)
    sampled = None
    if loss != "full":
        sampled = SampledLoss(net, loss, samples, config.seed, lambda: trainer.optimizer.num_update)
    position, times, busy = Position(), [], []

    class Timed:
        """Waits for each update, and takes its time."""

        carries_state, batch_size = True, BATCH_SIZE

        def __len__(self) -> int:
            return steps

        def epoch(self, number: int) -> Any:
            for batch in islice(train.epoch(number), steps):
                mx.nd.waitall()
                begun, used = time.perf_counter(), time.process_time()
                yield batch
                mx.nd.waitall()
                times.append(time.perf_counter() - begun)
                busy.append(time.process_time() - used)

    progress = Progress(position, trainer, config, steps, None, 1.0)
    progress.begin_epoch()
    how: dict[str, Any] = {"position": position, "contexts": [mx.cpu()], "workers": Alone(), "sampled": sampled}
    train_epoch(net, Timed(), trainer, config, **how, progress=progress)
    progress.settle()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    valid_loss = evaluate(net, valid, mx.cpu())
    assert valid_loss is not None
    return {
        "vocabulary": vocab_size,
        "loss": loss,
        "samples": samples if sampled else None,
        "updates": steps,
        "seconds": min(times),
        "words_per_second": BATCH_SIZE * SEQ_LEN / min(times),
        "words_per_cpu_second": BATCH_SIZE * SEQ_LEN / min(busy),
        "peak_rss": peak,
        "valid_loss": valid_loss,
        "valid_perplexity": math.exp(valid_loss),
    }


def in_process(*arguments: Any) -> dict[str, Any]:
    """`measured` in a process of its own, for its memory."""
    command = [sys.executable, "-W", "ignore", __file__, "--work", *map(str, arguments)]
    result: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return result


def main() -> int:
    """Measure, print, write; the exit code."""
    if sys.argv[1:2] == ["--work"]:
        vocab_size, loss, samples, steps = sys.argv[2:]
        print(json.dumps(measured(int(vocab_size), loss, int(samples), int(steps))))
        return 0
    parser = Parser(description=__doc__.splitlines()[0], done="measured", failed="a measurement failed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the record to this file.")
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[33_000, 267_000], help="Numbers of words.")
    parser.add_argument("--samples", type=int, default=8192, help="Words in a sample.")
    parser.add_argument("--steps", type=int, nargs="+", default=[40, 5], help="Updates, for each vocabulary.")
    arguments = parser.parse_args()
    records = [
        in_process(vocab_size, loss, arguments.samples, steps)
        for vocab_size, steps in zip(arguments.vocabularies, arguments.steps)
        for loss in LOSSES
    ]
    rows = [["words", "loss", "words/s", "words/s of CPU", "memory (MB)", "updates", "valid perplexity"]]
    for r in records:
        figures = [f"{r['words_per_second']:,.0f}", f"{r['words_per_cpu_second']:,.0f}"]
        figures += [f"{r['peak_rss'] >> 20:,}", str(r["updates"])]
        rows.append([f"{r['vocabulary']:,}", r["loss"], *figures, f"{r['valid_perplexity']:,.0f}"])
    print(terminal_table(rows))
    if arguments.json:
        sizes = {**MODEL, "batch_size": BATCH_SIZE, "seq_len": SEQ_LEN}
        write_json_atomic(arguments.json, {"model": sizes, "machine": machine(), "losses": records})
    return 0


if __name__ == "__main__":
    sys.exit(main())
