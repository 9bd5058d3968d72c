"""The contestants of a benchmark: the same layer by this package, by Gluon in three ways, and by PyTorch.

A case is a layer and the shape of its inputs; its contestants get the same weights, inputs and states.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import rnn

from deeprnn._util.checks import check_choice, check_size
from deeprnn._util.types import Operators, Tensor
from deeprnn.models.language_model import CELLS, STACKS
from deeprnn.nn.cells import ACTIVATIONS
from deeprnn.nn.operators import split
from deeprnn.nn.stack import LAYOUTS
from deeprnn.testing import copy_parameters, randomize

from .clock import seconds_per_call

__all__ = [
    "ASIDES",
    "CONTESTANTS",
    "STATIC",
    "WORKS",
    "WORK_TITLES",
    "Case",
    "Contestant",
    "Here",
    "Problem",
    "Torch",
    "build",
    "installed",
    "memory",
]

WORKS = ("inference", "training")
"""The timed work: a forward pass, or a forward and a backward pass with the gradients of inputs and parameters."""

WORK_TITLES = {"inference": "inference", "training": "forward + backward"}


@dataclass(frozen=True)
class Case:
    """A layer and the shape of its inputs."""

    input_size: int
    hidden_size: int
    layers: int
    length: int
    batch_size: int
    cell: str = "rnn"
    activation: str = "tanh"
    bidirectional: bool = False
    layout: str = "TNC"

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "layers", "length", "batch_size"):
            check_size(name, getattr(self, name))
        check_choice("cell", self.cell, CELLS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("layout", self.layout, LAYOUTS)

    @property
    def name(self) -> str:
        """Its five sizes: input, hidden, layers, T, N."""
        return f"{self.input_size},{self.hidden_size},{self.layers},{self.length},{self.batch_size}"

    @property
    def weights(self) -> tuple[int, int]:
        """Elements of all input weights, and of all recurrent weights."""
        directions, gates = 1 + self.bidirectional, {"rnn": 1, "gru": 3, "lstm": 4}[self.cell]
        rows = directions * gates * self.hidden_size
        inputs = self.input_size + (self.layers - 1) * directions * self.hidden_size
        return rows * inputs, rows * self.layers * self.hidden_size

    def multiply_adds(self, work: str) -> int:
        """Of all matrix products: two more of the same size per weight in the backward pass."""
        return self.length * self.batch_size * sum(self.weights) * (3 if work == "training" else 1)

    def bytes_read(self, work: str) -> int:
        """Of float32 weights, at least: recurrent ones at each step, the others once; again in the backward pass."""
        inputs, recurrent = self.weights
        return 4 * (inputs + self.length * recurrent) * (2 if work == "training" else 1)

    def limit(self, work: str, flops: float, bytes_per_second: float) -> float:
        """Seconds that the work takes at least, at these rates."""
        return max(2 * self.multiply_adds(work) / flops, self.bytes_read(work) / bytes_per_second)


STATIC = {"static_alloc": True, "static_shape": True}


class Contestant(Protocol):
    """One implementation, set up for one case."""

    def results(self) -> dict[str, np.ndarray]:
        """Outputs, states and gradients, under the names of `testing.Run`."""

    def time(self, work: str, calls: int) -> float:
        """Seconds for one call of the work, the mean over `calls`."""

    def close(self) -> None:
        """Release what was set up."""


@dataclass(frozen=True)
class Problem:
    """What all contestants of a case get: the layer with the weights, inputs, states, the outputs' gradient."""

    case: Case
    layer: gluon.Block
    inputs: np.ndarray
    states: Sequence[np.ndarray]
    head: np.ndarray

    @classmethod
    def draw(cls, case: Case, seed: int = 0) -> Problem:
        """Weights at which signal and gradient neither explode nor die out, so that the results can be compared."""
        layer = build("deeprnn", case)
        layer.initialize()
        randomize(layer, seed, scale=(3 * case.hidden_size) ** -0.5)
        generator = np.random.default_rng(seed)

        def normal(*shape: int) -> np.ndarray:
            return generator.normal(size=shape).astype("float32")

        outer = (case.length, case.batch_size) if case.layout == "TNC" else (case.batch_size, case.length)
        states = [normal(*info["shape"]) for info in layer.state_info(case.batch_size)]
        width = case.hidden_size * (1 + case.bidirectional)
        return cls(case, layer, normal(*outer, case.input_size), states, normal(*outer, width))


class Unfused(gluon.HybridBlock):
    """Gluon's own cells, one layer after the other, called like a layer: for one length."""

    def __init__(self, case: Case, dtype: str = "float32") -> None:
        super().__init__()
        self._length, self._layout = case.length, case.layout
        self._rows = case.layers * (1 + case.bidirectional)
        new_cell = {"rnn": rnn.RNNCell, "gru": rnn.GRUCell, "lstm": rnn.LSTMCell}[case.cell]
        options = {"activation": case.activation} if case.cell == "rnn" else {}
        with self.name_scope():
            self.cells = rnn.HybridSequentialRNNCell(prefix="")
            for layer in range(case.layers):
                inputs = case.hidden_size * (1 + case.bidirectional) if layer else case.input_size
                pair = [
                    new_cell(case.hidden_size, input_size=inputs, prefix=f"{direction}{layer}_", **options)
                    for direction in ("lr" if case.bidirectional else "l")
                ]
                self.cells.add(rnn.BidirectionalCell(*pair) if case.bidirectional else pair[0])
        self.cast(dtype)

    def hybrid_forward(self, F: Operators, inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        rows = zip(*(split(F, state, self._rows) for state in states))
        begin = [state for row in rows for state in row]
        outputs, last = self.cells.unroll(self._length, inputs, begin, layout=self._layout, merge_outputs=True)
        return outputs, [F.stack(*last[i :: len(states)], axis=0) for i in range(len(states))]


def build(implementation: str, case: Case, dtype: str = "float32") -> gluon.HybridBlock:
    """The layer of a case by ``deeprnn``, ``gluon`` (the built-in layer), or ``gluon-cells``; not initialized yet."""
    if implementation == "gluon-cells":
        return Unfused(case, dtype)
    options = {"activation": case.activation} if case.cell == "rnn" else {}
    return STACKS[implementation][case.cell](
        case.hidden_size,
        case.layers,
        layout=case.layout,
        bidirectional=case.bidirectional,
        input_size=case.input_size,
        dtype=dtype,
        **options,
    )


class Here:
    """A Gluon block in this process, hybridized with these flags; without flags it stays eager."""

    def __init__(self, implementation: str, problem: Problem, flags: Mapping[str, bool] = STATIC) -> None:
        self._block = build(implementation, problem.case)
        self._block.initialize()
        copy_parameters(problem.layer, self._block)
        self._block.hybridize(bool(flags), **flags)
        self._inputs, self._head = mx.nd.array(problem.inputs), mx.nd.array(problem.head)
        self._states = [mx.nd.array(state) for state in problem.states]
        self._inputs.attach_grad()

    def inference(self) -> tuple[Any, list[Any]]:
        return self._block(self._inputs, self._states)

    def training(self) -> tuple[Any, list[Any]]:
        with autograd.record():
            outputs, last = self._block(self._inputs, self._states)
        outputs.backward(self._head)
        return outputs, last

    def results(self) -> dict[str, np.ndarray]:
        self.inference()  # so that what is compared has gone through both kinds of call, in the order of use
        outputs, last = self.training()
        results = {"outputs": outputs, "d inputs": self._inputs.grad}
        results.update({f"state {i}": state for i, state in enumerate(last)})
        for name, parameter in self._block.collect_params().items():
            results[f"d {name[len(self._block.prefix) :]}"] = parameter.grad()
        return {name: array.asnumpy() for name, array in results.items()}

    def time(self, work: str, calls: int) -> float:
        return seconds_per_call(getattr(self, work), calls)

    def close(self) -> None:
        pass


class Torch:
    """PyTorch's layer, in a process of its own."""

    def __init__(self, problem: Problem) -> None:
        path = str(Path(__file__).with_name("torch_worker.py"))
        program = f"import runpy; runpy.run_path({path!r}, run_name='__main__')"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the other
        )
        ready = self._answer()
        self.version, self.threads = ready["version"], ready["threads"]
        self.memory_before = memory(self._process.pid, "VmRSS")
        parameters = {name[len(problem.layer.prefix) :]: p for name, p in problem.layer.collect_params().items()}
        self._names = {f"d {_torch_name(name)}": f"d {name}" for name in parameters}
        arrays = {_torch_name(name): p.data().asnumpy() for name, p in parameters.items()}
        arrays.update({f"state {i}": state for i, state in enumerate(problem.states)})
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "problem.npz")
            np.savez(file, inputs=problem.inputs, head=problem.head, **arrays)
            self._order(do="load", case=asdict(problem.case), path=file)

    def results(self) -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "results.npz")
            self._order(do="results", path=file)
            with np.load(file) as arrays:
                return {self._names.get(name, name): arrays[name] for name in arrays.files}

    def time(self, work: str, calls: int) -> float:
        return float(self._order(do="time", work=work, calls=calls))

    def memory(self) -> Optional[int]:
        return memory(self._process.pid, "VmHWM")

    def close(self) -> None:
        self._process.communicate()

    def _order(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the PyTorch process ended with exit code {self._process.wait()}; its error is above")
        return json.loads(line)


def _torch_name(name: str) -> str:
    """``r0_i2h_weight`` -> ``weight_ih_l0_reverse``."""
    place, part, kind = name.split("_")
    return f"{kind}_{part[0]}h_l{place[1:]}" + ("_reverse" if place[0] == "r" else "")


CONTESTANTS: Mapping[str, Callable[[Problem], Contestant]] = {
    "deeprnn": lambda problem: Here("deeprnn", problem),
    "gluon": lambda problem: Here("gluon", problem),
    "pytorch": Torch,
    "gluon-eager": lambda problem: Here("gluon", problem, {}),
    "gluon-cells": lambda problem: Here("gluon-cells", problem),
}
"""By name; those of Gluon are hybridized with static_alloc and static_shape, all but ``gluon-eager``."""

ASIDES = ("gluon-eager", "gluon-cells")
"""Contestants that only give an idea: they may skip rounds of long work."""


def installed(names: Iterable[str]) -> list[str]:
    """Those of the contestants that are installed."""
    names = [check_choice("contestants", name, tuple(CONTESTANTS)) for name in names]
    return [name for name in names if name != "pytorch" or importlib.util.find_spec("torch")]


def memory(process: Any, field: str) -> Optional[int]:
    """Bytes of memory of a process, now (VmRSS) or at its peak (VmHWM, without its parent's, unlike `ru_maxrss`)."""
    status = Path(f"/proc/{process}/status")
    if not status.is_file():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return None
