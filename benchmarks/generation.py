#!/usr/bin/env python
"""Characters a second in generation, in each runtime, and whether all of them write the same text.

A model of 2 layers of 256 units and 100 symbols (embedding, stack, decoder, and the draw in NumPy), one text and 64 at
once; beside them a loop over MXNet's built-in layer that does the same with the same draw. Weights are drawn by chance:
what they are does not matter to the time. Then 2,000 symbols for each of 20 seeds in every runtime: how many texts
differ, and from which symbol on.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/generation.py [--cell rnn] [--json FILE]

Takes a few minutes, on a machine that does nothing else. onnxruntime and torch take part where they are installed.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Callable

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mxnet as mx
import numpy as np

from deeprnn import LanguageModel, export
from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from deeprnn.generation import samples
from deeprnn.runtimes import Model, MXNetModel, ONNXModel, TorchModel
from deeprnn.sampling import Sampler
from tools.arguments import Parser
from tools.clock import Spread, ratio, steadiest
from tools.writer import LAYERS, SYMBOLS, TOKENS, UNITS, writer

SEEDS, LENGTH = 20, 2_000


class BuiltInLoop:
    """The loop that one writes around the built-in layer: an array of the symbol, the net, its logits."""

    def __init__(self, net: Any) -> None:
        self._net = net

    def begin(self, batch_size: int) -> Any:
        return self._net.begin_state(batch_size)

    def __call__(self, ids: np.ndarray, states: Any) -> tuple[np.ndarray, Any]:
        logits, states = self._net(mx.nd.array(ids, dtype="int32"), states)
        return logits.asnumpy(), states


def steps(model: Any, texts: int) -> Iterator[np.ndarray]:
    """The next symbols of some texts, for as long as they are asked for."""
    rngs = [np.random.default_rng(seed) for seed in range(texts)]
    while True:
        yield from samples(model, [1], LENGTH, sampler=Sampler(), rngs=rngs)


def timer(model: Any, texts: int) -> Callable[[int], float]:
    """Seconds for a symbol of each text."""
    symbols = steps(model, texts)

    def seconds(calls: int) -> float:
        begun = time.perf_counter()
        for _ in itertools.islice(symbols, calls):
            pass
        return (time.perf_counter() - begun) / calls

    return seconds


def models(cell: str, folder: Path) -> dict[str, Any]:
    """The same language model in each runtime that is installed, and in MXNet's built-in layer."""
    net = writer(cell)
    built_in = LanguageModel(SYMBOLS, UNITS, LAYERS, cell=cell, embedding_size=UNITS, backend="gluon")
    built_in.initialize()
    values = net._collect_params_with_prefix()
    for name, parameter in built_in._collect_params_with_prefix().items():
        parameter.set_data(values[name].data())
    for each in (net, built_in):
        each.hybridize(static_alloc=True, static_shape=True)
    found: dict[str, Any] = {"native": net.packed(), "mxnet": MXNetModel(net), "gluon.rnn": BuiltInLoop(built_in)}
    for name, made in {
        "onnxruntime": lambda: ONNXModel(export.to_onnx(net, folder / "onnx", vocabulary=TOKENS) / "model.onnx", 1),
        "torch": lambda: TorchModel(export.to_torch(net, folder / "torch", vocabulary=TOKENS), 1),
    }.items():
        try:
            found[name] = made()
        except ValueError as error:
            print(f"without {name}: {error}", file=sys.stderr)
    return found


def differences(runtimes: dict[str, Model]) -> dict[str, Any]:
    """For each runtime but the first, the texts that differ from the first one's: the seed, and the first symbol."""
    first, *others = (
        {
            seed: np.array(list(samples(model, [1], LENGTH, sampler=Sampler(), rngs=[np.random.default_rng(seed)])))
            for seed in range(SEEDS)
        }
        for model in runtimes.values()
    )
    found: dict[str, Any] = {}
    for name, texts in zip(list(runtimes)[1:], others):
        unequal = {seed: np.flatnonzero((texts[seed] != first[seed]).ravel()) for seed in texts}
        found[name] = {str(seed): int(places[0]) for seed, places in unequal.items() if len(places)}
    return found


def main() -> int:
    """Time, compare and print."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=("rnn", "gru", "lstm"), default="rnn", help="Cell of the layers.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="Write the record here.")
    args = parser.parse_args()
    record: dict[str, Any] = {"date": date.today().isoformat(), "machine": machine(), "cell": args.cell}
    with tempfile.TemporaryDirectory() as scratch:
        runtimes = models(args.cell, Path(scratch))
        for texts in (1, 64):
            times, tries = steadiest({name: timer(model, texts) for name, model in runtimes.items()})
            rows = {}
            for name, seconds in times.items():
                spread, against = Spread.of(seconds), ratio(times["gluon.rnn"], seconds)
                rows[name] = {
                    "characters_per_second": texts / spread.median,
                    "times_gluon": against.median,
                    "steady": against.steady or name == "gluon.rnn",
                }
                print(
                    f"{texts:>3} at once  {name:<12} {texts / spread.median:>10,.0f} characters/s  {against.median:.1f}"
                )
            record[f"texts_{texts}"] = {"tries": tries, "runtimes": rows}
        record["differences"] = differences({name: m for name, m in runtimes.items() if name != "gluon.rnn"})
    for name, unequal in record["differences"].items():
        print(f"{name}: {len(unequal)} of {SEEDS} texts of {LENGTH:,} symbols differ from the first {unequal or ''}")
    if args.json:
        write_json_atomic(args.json, record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
