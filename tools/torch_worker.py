"""PyTorch's side of a benchmark: a process of its own, so that the two libraries share neither threads nor memory.

`contestants` runs this file by its path, not as a module of the tools, because those import MXNet. It reads requests
from standard input and writes answers to standard output as lines of JSON; arrays are in .npz files that requests name.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
import torch


def load(case: dict[str, Any], path: str) -> dict[str, Any]:
    """The layer with the weights of the file, and its inputs; arrays become tensors of their dtype."""
    with np.load(path) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    options = {"nonlinearity": case["activation"]} if case["cell"] == "rnn" else {}
    layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[case["cell"]](
        case["input_size"],
        case["hidden_size"],
        case["layers"],
        batch_first=case["layout"] == "NTC",
        bidirectional=case["bidirectional"],
        **options,
    )
    layer.load_state_dict({name: tensors[name] for name in layer.state_dict()})
    states = [tensors[f"state {i}"] for i in range(2 if case["cell"] == "lstm" else 1)]
    inputs = tensors["inputs"].requires_grad_()
    return {"layer": layer, "inputs": inputs, "states": states, "head": tensors["head"]}


def call(layer: Any, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
    """Outputs and the list of last states, as Gluon's layers return them."""
    outputs, last = layer(inputs, tuple(states) if len(states) == 2 else states[0])
    return outputs, list(last) if len(states) == 2 else [last]


def work(kind: str, problem: dict[str, Any]) -> tuple[Any, list[Any]]:
    """One inference, or one forward and backward pass whose gradients replace the last ones."""
    layer, inputs, states = problem["layer"], problem["inputs"], problem["states"]
    if kind == "inference":
        with torch.inference_mode():
            return call(layer, inputs, states)
    for tensor in (inputs, *layer.parameters()):
        tensor.grad = None
    outputs, last = call(layer, inputs, states)
    outputs.backward(problem["head"])
    return outputs, last


def timed(kind: str, problem: dict[str, Any], calls: int) -> float:
    """Seconds per call."""
    begun = time.perf_counter()
    for _ in range(calls):
        work(kind, problem)
    return (time.perf_counter() - begun) / calls


def write_results(path: str, problem: dict[str, Any]) -> None:
    """Outputs, states and gradients, under PyTorch's names of the parameters."""
    outputs, last = work("training", problem)
    results = {"outputs": outputs, "d inputs": problem["inputs"].grad}
    results.update({f"state {i}": state for i, state in enumerate(last)})
    results.update({f"d {name}": parameter.grad for name, parameter in problem["layer"].named_parameters()})
    np.savez(path, **{name: tensor.detach().numpy() for name, tensor in results.items()})


def main() -> None:
    """Answer one request after the other."""
    problem: dict[str, Any] = {}
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # as MXNet does; the defaults of the two differ
    print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer: Any = None
        if order["do"] == "load":
            problem = load(order["case"], order["path"])
        elif order["do"] == "time":
            answer = timed(order["work"], problem, order["calls"])
        elif order["do"] == "results":
            write_results(order["path"], problem)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
