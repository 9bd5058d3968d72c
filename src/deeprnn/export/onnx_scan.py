"""Recurrent layers as ONNX's `Scan` over the formula of their cell, for options that the standard operators lack.

Shapes: T steps, N sequences, H units, G = gates * H, D directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np

from .architecture import GATES, Config, kind_of, state_shapes
from .onnx_graph import Graph
from .torch import Parameters

__all__ = ["Ends", "needs_scan", "scanned"]

EPSILON = float(np.float32(1e-5))
"""Of layer normalization, in float32 as in MXNet."""


def needs_scan(config: Config) -> bool:
    """Whether the layers have an option that ONNX's recurrent operators lack."""
    lacking = config["layer_norm"] or config["zoneout"] or config.get("projection_size")
    return bool(lacking) or config.get("state_clip_min") is not None or config["dtype"] != "float32"


class Ends:
    """Masks of the ends of sequences: lengths, at most T; which have any step; and which are alive at each step."""

    def __init__(self, graph: Graph, x: str, lengths: str) -> None:
        constant = {n: graph.array(n, dtype="int64") for n in (0, 1)}
        steps = graph.add("Squeeze", graph.add("Shape", x, start=0, end=1))
        within = graph.add("Min", lengths, steps)
        across = graph.add("Unsqueeze", within, graph.array([0, 2], dtype="int64"))  # (1, N, 1)
        self.lengths = graph.add("Cast", within, to=graph.onnx.TensorProto.INT32)
        self.begun = graph.add("Greater", across, constant[0])
        numbers = graph.add("Range", constant[0], steps, constant[1])
        along = graph.add("Unsqueeze", numbers, graph.array([1, 2], dtype="int64"))  # (T, 1, 1)
        self.alive = graph.add("Less", along, across)


def scanned(
    graph: Graph, config: Config, of_layer: Mapping[str, Parameters], x: str, begin: Sequence[str], ends: Optional[Ends]
) -> tuple[str, list[str]]:
    """A layer as a loop over the formula of its cell, one per direction."""
    outputs, last = [], []
    states = [graph.parts(state, len(of_layer)) for state in begin]
    first = graph.array([0], dtype="int64")
    for direction, (suffix, own) in enumerate(of_layer.items()):
        names = {name: graph.array(value, name + suffix) for name, value in own.items()}
        transposed = {n: graph.add("Transpose", names[n], perm=[1, 0]) for n in names if n.startswith("weight")}
        names.update(transposed)
        projected = dense(graph, x, "ih", names)
        body = Graph(graph.onnx, graph.dtype, outer=graph)
        old = [graph.fresh("state") for _ in states]
        slices = [graph.fresh("projected")] + ([graph.fresh("alive")] if ends else [])
        results = step(body, config, names, slices, old)
        sequences = [projected] + ([ends.alive] if ends else [])
        y, *end = _scan(graph, config, body, [*old, *slices], results, states, direction, sequences, first)
        outputs.append(graph.add("Where", ends.alive, y, graph.array(0)) if ends else y)
        last.append([graph.add("Unsqueeze", state, first) for state in end])
    return graph.joined(outputs, axis=-1), [graph.joined(list(state)) for state in zip(*last)]


def _scan(
    graph: Graph,
    config: Config,
    body: Graph,
    inputs: Sequence[str],
    results: Sequence[str],
    states: Sequence[Sequence[str]],
    direction: int,
    sequences: Sequence[str],
    first: str,
) -> list[str]:
    """The loop over `body`: all outputs and the last states."""
    helper, kind = graph.onnx.helper, graph.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(graph.dtype))
    sizes = [size for _, size in state_shapes(config).values()]
    shapes = [*sizes, config["hidden_size"] * GATES[kind_of(config)], 1]
    kinds = [kind] * (len(states) + 1) + [graph.onnx.TensorProto.BOOL]
    begins = [graph.add("Squeeze", state[direction], first) for state in states]
    *end, y = graph.add(
        "Scan",
        *begins,
        *sequences,
        outputs=len(states) + 1,
        num_scan_inputs=len(sequences),
        scan_input_directions=[direction] * len(sequences),
        scan_output_directions=[direction],
        body=helper.make_graph(
            body.nodes,
            "step",
            [helper.make_tensor_value_info(n, k, [None, s]) for n, k, s in zip(inputs, kinds, shapes)],
            [helper.make_tensor_value_info(n, kind, [None, s]) for n, s in zip(results, [*sizes, sizes[0]])],
        ),
    )
    return [y, *end]


def step(
    graph: Graph, config: Config, names: Mapping[str, str], slices: Sequence[str], old: Sequence[str]
) -> list[str]:
    """One step: the new states, and the output."""
    new = STEPS[kind_of(config)](graph, config, names, slices[0], old)
    if config["zoneout"]:  # in inference every unit takes the expectation
        kept = graph.array(1 - config["zoneout"])
        moved = [graph.add("Mul", graph.add("Sub", after, before), kept) for after, before in zip(new, old)]
        new = [graph.add("Add", before, by) for before, by in zip(old, moved)]
    output = graph.add("Identity", new[0])
    if len(slices) == 2:
        new = [graph.add("Where", slices[1], after, before) for after, before in zip(new, old)]
    return [*new, output]


def _rnn(graph: Graph, config: Config, names: Mapping[str, str], projected: str, old: Sequence[str]) -> list[str]:
    total = graph.add("Add", projected, dense(graph, old[0], "hh", names))
    return [graph.add(config["activation"].capitalize(), total)]


def _gru(graph: Graph, config: Config, names: Mapping[str, str], projected: str, old: Sequence[str]) -> list[str]:
    of_x, of_h = gates(graph, projected, 3), gates(graph, dense(graph, old[0], "hh", names), 3)
    reset, update = (graph.add("Sigmoid", graph.add("Add", of_x[i], of_h[i])) for i in (0, 1))
    candidate = graph.add("Tanh", graph.add("Add", of_x[2], graph.add("Mul", reset, of_h[2])))
    moved = graph.add("Mul", update, graph.add("Sub", old[0], candidate))
    return [graph.add("Add", candidate, moved)]


def _lstm(graph: Graph, config: Config, names: Mapping[str, str], projected: str, old: Sequence[str]) -> list[str]:
    hidden, cell = old
    i, f, c, o = gates(graph, graph.add("Add", projected, dense(graph, hidden, "hh", names)), 4)
    kept = graph.add("Mul", graph.add("Sigmoid", f), cell)
    cell = graph.add("Add", kept, graph.add("Mul", graph.add("Sigmoid", i), graph.add("Tanh", c)))
    if config.get("state_clip_min") is not None:
        low, high = graph.array(config["state_clip_min"]), graph.array(config["state_clip_max"])
        if config["state_clip_nan"]:
            cell = graph.add("Where", graph.add("IsNaN", cell), low, cell)
        cell = graph.add("Min", graph.add("Max", cell, low), high)
    seen = normalized(graph, cell, names["gamma_c"], names["beta_c"]) if "gamma_c" in names else cell
    hidden = graph.add("Mul", graph.add("Sigmoid", o), graph.add("Tanh", seen))
    if "weight_hr" in names:
        hidden = graph.add("MatMul", hidden, names["weight_hr"])
    return [hidden, cell]


def dense(graph: Graph, x: str, part: str, names: Mapping[str, str]) -> str:
    """The product with a weight, and its bias; with layer normalization the bias is the shift."""
    product = graph.add("MatMul", x, names[f"weight_{part}"])
    if f"gamma_{part}" not in names:
        return graph.add("Add", product, names[f"bias_{part}"])
    return normalized(graph, product, names[f"gamma_{part}"], names[f"bias_{part}"])


def normalized(graph: Graph, x: str, gamma: str, beta: str) -> str:
    """Layer normalization over the units."""
    return graph.add("LayerNormalization", x, gamma, beta, axis=-1, epsilon=EPSILON)


def gates(graph: Graph, x: str, count: int) -> list[str]:
    """The gates, which are side by side."""
    return graph.add("Split", x, outputs=count, axis=-1, num_outputs=count)


STEPS = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}
