#!/usr/bin/env python
"""Times of an exported model on a GPU: eager, captured in a CUDA graph, and a captured step of generation.

Needs torch, safetensors and deeprnn-torch alone, and a folder that `deeprnn export` wrote. The folder's model says
cell and options; a grid of sizes with these is timed, and then the model itself in generation. Milliseconds, the median
of several calls, wall time until the device is done; float32 without TF32. Written out is the stack step by step, in
place of cuDNN's: for one step of an Elman layer `deeprnn_torch` takes that.

    python benchmarks/gpu.py FOLDER [--json FILE] [--device cuda]

With ``--device cpu`` nothing is captured: that shows that the program runs, and no more.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any, Callable, Optional

import torch

from deeprnn_torch import DeepGRU, DeepLSTM, DeepRNN, LanguageModel
from deeprnn_torch.capture import recorded

GRID = (
    *((64, 64, 2, 50, 16), (128, 128, 3, 100, 100), (256, 256, 1, 35, 32), (256, 256, 2, 35, 32)),
    *((256, 256, 4, 35, 32), (256, 256, 2, 35, 1), (256, 256, 2, 1, 1), (512, 512, 2, 35, 64)),
    *((512, 512, 8, 35, 32), (1024, 1024, 2, 35, 1), (1024, 1024, 2, 35, 128), (128, 128, 8, 512, 16)),
)
"""Inputs, units, layers, steps, sequences."""

LONGEST = 100
"""Steps up to which the stack is also captured written out: the graph of a longer one is large."""

TEXTS = (1, 64)


def milliseconds(work: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """The median time of a call until the device is done."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for i in range(rounds + 3):
        wait()
        begun = time.perf_counter()
        work()
        wait()
        if i >= 3:  # the first ones warm up
            times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def written_out(layer: Any, x: torch.Tensor) -> Callable[[], Any]:
    """The stack step by step instead of cuDNN's kernels."""
    layer._singles = ()  # torch's own layers, one a layer
    return lambda: layer._stacked(x, layer._begin(x), None)


def size_row(kind: str, size: tuple[int, ...], residual: bool, device: torch.device, rounds: int) -> dict[str, Any]:
    """The times of one size in inference."""
    inputs, units, layers, steps, sequences = size
    made = {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM}[kind]
    layer = made(inputs, units, layers, residual=residual, device=device).eval()
    x = torch.randn(steps, sequences, inputs, device=device)
    row: dict[str, Any] = {"size": size, "eager": milliseconds(lambda: layer(x), device, rounds)}
    row["captured"] = milliseconds(recorded(lambda: layer(x), device), device, rounds)
    if steps <= LONGEST:
        row["written_out_captured"] = milliseconds(recorded(written_out(layer, x), device), device, rounds)
    return row


def generation_row(net: LanguageModel, texts: int, device: torch.device, rounds: int) -> dict[str, Any]:
    """A step of generation with this model, as it is and captured."""
    ids = torch.zeros((1, texts), dtype=torch.long, device=device)
    states = net.begin_state(texts)

    def eager() -> torch.Tensor:
        logits, _ = net(ids, states)
        return torch.distributions.Categorical(logits=logits).sample()

    step = net.capture_step(texts)
    step.begin(ids[0])
    return {
        "texts": texts,
        "eager": milliseconds(eager, device, rounds),
        "captured": milliseconds(step, device, rounds),
    }


def main(argv: Optional[list[str]] = None) -> int:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="What `deeprnn export` wrote.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu.")
    parser.add_argument("--rounds", type=int, default=50, help="Calls of each.")
    parser.add_argument("--sizes", type=int, default=len(GRID), help="How many sizes of the grid.")
    parser.add_argument("--json", metavar="FILE", help="Write the record here.")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        net = LanguageModel.from_pretrained(args.folder).to(device).eval()
    except ValueError as error:
        parser.error(str(error))
    kind = type(net.stack).__name__.replace("Deep", "").lower()
    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        **{"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()},
        **{"cell": kind, "residual": net.stack.residual, "sizes": [], "generation": []},
    }
    with torch.no_grad():
        for size in GRID[: args.sizes]:
            record["sizes"].append(size_row(kind, size, net.stack.residual, device, args.rounds))
            print(json.dumps(record["sizes"][-1]), flush=True)
        for texts in TEXTS:
            record["generation"].append(generation_row(net, texts, device, args.rounds))
            print(json.dumps(record["generation"][-1]), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
