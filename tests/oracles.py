"""Other implementations of the same layers, to hold ours against.

Each is a gluon block with the parameters of the layer under the layer's own names, called as the layer is, so that
`deeprnn.testing` runs, differentiates and trains it like any other:

- `fused`: the built-in layer, one operator; right in float32 where it has the option at all.
- `Unfused`: the built-in cells (and contrib's LSTMPCell), stacked and unrolled by gluon itself.
- `NumpyOracle`: the formulas as the books print them, in float64, one sequence and one step after the other; its
  gradients are complex-step derivatives, exact to rounding, with no backward pass to get wrong.
- `TorchOracle`: PyTorch's layers in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import rnn
from mxnet.gluon.contrib.rnn import LSTMPCell

import deeprnn
from deeprnn import testing

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
DEEP = {"rnn": deeprnn.DeepRNN, "gru": deeprnn.DeepGRU, "lstm": deeprnn.DeepLSTM}
FUSED = {"rnn": rnn.RNN, "gru": rnn.GRU, "lstm": rnn.LSTM}
UNFUSED = {"rnn": rnn.RNNCell, "gru": rnn.GRUCell, "lstm": rnn.LSTMCell}


@dataclass(frozen=True)
class Config:
    """A layer, and the shape of what it is given."""

    cell: str = "rnn"
    activation: str = "tanh"
    layers: int = 2
    length: int = 3
    batch_size: int = 2
    input_size: int = 3
    hidden_size: int = 4
    layout: str = "TNC"
    bidirectional: bool = False
    dtype: str = "float64"
    projection: Optional[int] = None
    clip: Optional[tuple[float, float]] = None
    ragged: bool = False

    @property
    def directions(self) -> str:
        return "lr" if self.bidirectional else "l"

    @property
    def output_size(self) -> int:
        """Of one direction."""
        return self.projection or self.hidden_size

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        rows = self.layers * len(self.directions)
        sizes = [self.output_size, self.hidden_size] if self.cell == "lstm" else [self.hidden_size]
        return [(rows, self.batch_size, size) for size in sizes]

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        rows = GATES[self.cell] * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            inputs = self.output_size * len(self.directions) if layer else self.input_size
            for d in self.directions:
                shapes[f"{d}{layer}_i2h_weight"] = (rows, inputs)
                shapes[f"{d}{layer}_h2h_weight"] = (rows, self.output_size)
                shapes[f"{d}{layer}_i2h_bias"] = shapes[f"{d}{layer}_h2h_bias"] = (rows,)
                if self.projection:
                    shapes[f"{d}{layer}_h2r_weight"] = (self.projection, self.hidden_size)
        return shapes

    def draw(self, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Inputs, states and, where the sequences are ragged, their lengths: a whole one, then shorter and shorter."""
        rng = np.random.default_rng(seed)
        shape = (self.length, self.batch_size, self.input_size)
        inputs = rng.normal(size=shape if self.layout == "TNC" else (shape[1], shape[0], shape[2]))
        states = [rng.normal(size=shape) for shape in self.state_shapes]
        lengths = [np.array([max(self.length - i, 1) for i in range(self.batch_size)])] if self.ragged else []
        return inputs.astype(self.dtype), [state.astype(self.dtype) for state in states], lengths


def _arguments(config: Config) -> dict[str, Any]:
    """What our layers and the built-in ones take under the same names."""
    arguments = {
        "hidden_size": config.hidden_size,
        "num_layers": config.layers,
        "layout": config.layout,
        "bidirectional": config.bidirectional,
        "input_size": config.input_size,
        "dtype": config.dtype,
    }
    return {**arguments, "activation": config.activation} if config.cell == "rnn" else arguments


def deep(config: Config, **more: Any) -> gluon.HybridBlock:
    """Our layer."""
    options: dict[str, Any] = {"use_sequence_length": config.ragged}
    if config.projection:
        options["projection_size"] = config.projection
    if config.clip:
        options["state_clip_min"], options["state_clip_max"] = config.clip
    layer = DEEP[config.cell](**{**_arguments(config), **options, **more})
    layer.initialize()
    return layer


def fused(config: Config) -> gluon.HybridBlock:
    """The built-in layer."""
    layer = FUSED[config.cell](**_arguments(config))
    layer.initialize()
    return layer


class Unfused(gluon.Block):
    """The built-in cells, put together and carried through time by gluon."""

    def __init__(self, config: Config) -> None:
        super().__init__(prefix="unfused_")
        self.config = config
        with self.name_scope():
            self.stack = rnn.HybridSequentialRNNCell(prefix="")
            for layer in range(config.layers):
                cells = [self._cell(f"{d}{layer}_", layer) for d in config.directions]
                self.stack.add(rnn.BidirectionalCell(*cells) if config.bidirectional else cells[0])
        self.initialize()
        self.cast(config.dtype)

    def _cell(self, name: str, layer: int) -> rnn.HybridRecurrentCell:
        config = self.config
        inputs = config.output_size * len(config.directions) if layer else config.input_size
        arguments = {"hidden_size": config.hidden_size, "input_size": inputs, "prefix": name}
        if config.projection:
            return LSTMPCell(projection_size=config.projection, **arguments)
        if config.cell == "rnn":
            arguments["activation"] = config.activation
        return UNFUSED[config.cell](**arguments)

    def forward(self, inputs: Any, states: list[Any], sequence_length: Any = None) -> Any:
        rows = range(self.config.layers * len(self.config.directions))
        begin = [state[row] for row in rows for state in states]
        # Always TNC: gluon's BidirectionalCell joins ragged NTC sequences along the wrong axis.
        x = self._exchanged(inputs)
        outputs, last = self.stack.unroll(
            self.config.length, x, begin, layout="TNC", merge_outputs=True, valid_length=sequence_length
        )
        kinds = len(states)
        return self._exchanged(outputs), [mx.nd.stack(*last[kind::kinds], axis=0) for kind in range(kinds)]

    def _exchanged(self, x: Any) -> Any:
        return x if self.config.layout == "TNC" else x.swapaxes(0, 1)


class _Foreign(gluon.Block):
    """A function of arrays from outside MXNet, with parameters inside it."""

    def __init__(self, config: Config) -> None:
        super().__init__(prefix="foreign_")
        self.config = config
        for name, shape in config.parameter_shapes.items():
            self.params.get(name, shape=shape, dtype=config.dtype)
        self.initialize()

    def forward(self, inputs: Any, states: list[Any], sequence_length: Any = None) -> Any:
        lengths = None if sequence_length is None else sequence_length.asnumpy().astype(int)
        parameters = [p.data() for p in self.params.values()]
        outputs, *last = _Bridge(self, lengths)(inputs, *states, *parameters)
        return outputs, last

    def value(self, arrays: list[np.ndarray], lengths: Optional[np.ndarray]) -> list[np.ndarray]:
        """Outputs and last states, of inputs, states and parameters one after the other, in float64."""
        raise NotImplementedError

    def gradient(
        self, arrays: list[np.ndarray], lengths: Optional[np.ndarray], seeds: list[np.ndarray]
    ) -> list[np.ndarray]:
        """The gradient in each of `arrays` of the sum of what `value` returns, weighed with `seeds`."""
        raise NotImplementedError


class _Bridge(autograd.Function):
    """One call of a `_Foreign`, recorded by autograd as one operator."""

    def __init__(self, block: _Foreign, lengths: Optional[np.ndarray]) -> None:
        super().__init__()
        self._block, self._lengths = block, lengths

    def forward(self, *arrays: Any) -> Any:
        self._arrays = [array.asnumpy().astype("float64") for array in arrays]
        return tuple(map(self._back, self._block.value(self._arrays, self._lengths)))

    def backward(self, *seeds: Any) -> Any:
        seeds = [seed.asnumpy().astype("float64") for seed in seeds]
        return tuple(map(self._back, self._block.gradient(self._arrays, self._lengths, seeds)))

    def _back(self, array: np.ndarray) -> Any:
        return mx.nd.array(array, dtype=self._block.config.dtype)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _clip(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.where(x.real < low, low, np.where(x.real > high, high, x))  # np.clip orders complex numbers otherwise


class NumpyOracle(_Foreign):
    """The formulas. Every array may have one more axis in front: that of the complex steps."""

    def value(self, arrays: list[np.ndarray], lengths: Optional[np.ndarray]) -> list[np.ndarray]:
        config, kinds = self.config, len(self.config.state_shapes)
        inputs, states = arrays[0], arrays[1 : 1 + kinds]
        parameters = dict(zip(config.parameter_shapes, arrays[1 + kinds :]))
        x = inputs if config.layout == "TNC" else inputs.swapaxes(-3, -2)
        if lengths is None:
            outputs, last = self._whole(x, states, parameters)
        else:
            outputs, last = self._ragged(x, states, parameters, lengths)
        return [outputs if config.layout == "TNC" else outputs.swapaxes(-3, -2), *last]

    def _ragged(self, x: Any, states: Any, parameters: Any, lengths: np.ndarray) -> Any:
        """Each sequence as if it were alone and ended where it ends; zeros after that."""
        outputs, last = [], []
        width = self.config.output_size * len(self.config.directions)
        for n, length in enumerate(lengths):
            y, end = np.zeros((*x.shape[:-2], 1, width)), [s[..., n : n + 1, :] for s in states]
            if length:
                within, end = self._whole(x[..., :length, n : n + 1, :], end, parameters)
                y = np.concatenate([within, y[..., length:, :, :]], axis=-3)
            outputs.append(y)
            last.append(end)
        return np.concatenate(outputs, axis=-2), [np.concatenate(kind, axis=-2) for kind in zip(*last)]

    def _whole(self, x: Any, states: Any, parameters: Any) -> Any:
        last, row = [], 0
        for layer in range(self.config.layers):
            directions = []
            for d in self.config.directions:
                own = {
                    name[len(d + str(layer)) + 1 :]: p
                    for name, p in parameters.items()
                    if name.startswith(f"{d}{layer}_")
                }
                state = [s[..., row, :, :] for s in states]
                steps = range(x.shape[-3]) if d == "l" else reversed(range(x.shape[-3]))
                outputs = {}
                for t in steps:
                    outputs[t], state = self._step(x[..., t, :, :], state, own)
                directions.append(np.stack([outputs[t] for t in sorted(outputs)], axis=-3))
                last.append(state)
                row += 1
            x = np.concatenate(directions, axis=-1)
        return x, [np.stack(kind, axis=-3) for kind in zip(*last)]

    def _step(self, x: Any, states: Any, p: Any) -> Any:
        """One cell, one step, as printed: X_t W_xh + b_xh and H_{t-1} W_hh + b_hh, gate by gate."""
        h = states[0]
        number = GATES[self.config.cell]
        of_x = np.split(x @ p["i2h_weight"].swapaxes(-1, -2) + p["i2h_bias"][..., None, :], number, axis=-1)
        of_h = np.split(h @ p["h2h_weight"].swapaxes(-1, -2) + p["h2h_bias"][..., None, :], number, axis=-1)
        if self.config.cell == "rnn":
            total = of_x[0] + of_h[0]
            h = np.tanh(total) if self.config.activation == "tanh" else np.where(total.real > 0, total, 0)
            return h, [h]
        if self.config.cell == "gru":
            reset, update = _sigmoid(of_x[0] + of_h[0]), _sigmoid(of_x[1] + of_h[1])
            candidate = np.tanh(of_x[2] + reset * of_h[2])
            h = update * h + (1 - update) * candidate
            return h, [h]
        enter, forget, candidate, leave = (a + b for a, b in zip(of_x, of_h))
        c = _sigmoid(forget) * states[1] + _sigmoid(enter) * np.tanh(candidate)
        if self.config.clip:
            c = _clip(c, *self.config.clip)
        h = _sigmoid(leave) * np.tanh(c)
        if self.config.projection:
            h = h @ p["h2r_weight"].swapaxes(-1, -2)
        return h, [h, c]

    def gradient(
        self, arrays: list[np.ndarray], lengths: Optional[np.ndarray], seeds: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Im f(x + ih) / h for every number in `arrays` at once: no difference is taken, so h can be tiny."""
        flat, h = np.concatenate([a.ravel() for a in arrays]), 1e-30
        ends = np.cumsum([a.size for a in arrays])[:-1]
        stepped = np.split(flat + 1j * h * np.eye(flat.size), ends, axis=1)
        results = self.value([s.reshape(-1, *a.shape) for s, a in zip(stepped, arrays)], lengths)
        total = sum((r.imag / h * seed).reshape(flat.size, -1).sum(axis=1) for r, seed in zip(results, seeds))
        return [part.reshape(a.shape) for part, a in zip(np.split(total, ends), arrays)]


class TorchOracle(_Foreign):
    """PyTorch: the gates lie in the same order, so that the weights need new names alone."""

    def _run(self, arrays: list[np.ndarray], lengths: Optional[np.ndarray]) -> tuple[list[Any], list[Any]]:
        import torch

        config, kinds = self.config, len(self.config.state_shapes)
        options: dict[str, Any] = {"nonlinearity": config.activation} if config.cell == "rnn" else {}
        if config.projection:
            options["proj_size"] = config.projection
        layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[config.cell](
            config.input_size,
            config.hidden_size,
            config.layers,
            bidirectional=config.bidirectional,
            batch_first=config.layout == "NTC",
            dtype=torch.float64,
            **options,
        )
        inputs, *states = [torch.tensor(a, requires_grad=True) for a in arrays[: 1 + kinds]]
        leaves = [inputs, *states]
        own = dict(layer.named_parameters())
        for name, array in zip(config.parameter_shapes, arrays[1 + kinds :]):
            parameter = own[torch_name(name)]
            parameter.data = torch.tensor(array)
            leaves.append(parameter)
        begin = tuple(states) if config.cell == "lstm" else states[0]
        if lengths is None:
            outputs, last = layer(inputs, begin)
        else:
            batch_first = config.layout == "NTC"
            packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first, enforce_sorted=False)
            packed, last = layer(packed, begin)
            outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first, total_length=config.length)
        return [outputs, *(last if config.cell == "lstm" else [last])], leaves

    def value(self, arrays: list[np.ndarray], lengths: Optional[np.ndarray]) -> list[np.ndarray]:
        return [result.detach().numpy() for result in self._run(arrays, lengths)[0]]

    def gradient(
        self, arrays: list[np.ndarray], lengths: Optional[np.ndarray], seeds: list[np.ndarray]
    ) -> list[np.ndarray]:
        import torch

        results, leaves = self._run(arrays, lengths)
        return [g.numpy() for g in torch.autograd.grad(results, leaves, [torch.tensor(seed) for seed in seeds])]


def torch_name(name: str) -> str:
    """``r0_i2h_weight`` is PyTorch's ``weight_ih_l0_reverse``."""
    place, part, kind = name.split("_")
    part = {"i2h": "ih", "h2h": "hh", "h2r": "hr"}[part]
    return f"{kind}_{part}_l{place[1:]}" + ("_reverse" if place[0] == "r" else "")


class Parent(gluon.HybridBlock):
    """Somebody else's hybridized block, in which the layer sees symbols and knows no length."""

    def __init__(self, layer: gluon.HybridBlock) -> None:
        super().__init__(prefix="parent_")
        self.layer = layer

    def hybrid_forward(self, F: Any, x: Any, *rest: Any) -> Any:
        return self.layer(x, *rest)


def differences(ours: testing.Run, theirs: testing.Run, dtype: str) -> dict[str, float]:
    """What of `ours` is farther from `theirs` than the dtype allows, by name, with its distance."""
    result = testing.compare(ours, theirs, testing.TOLERANCE[dtype])
    return {name: d for name, d in result.distances.items() if not d <= result.tolerance}
