"""ONNX: ``model.onnx`` with the standard operators RNN, GRU and LSTM, one a layer, for any length and batch size.

What these operators cannot express is one `Scan` a layer and direction, with the formula of the cell inside:
``layer_norm``, ``zoneout`` (in inference an expectation), ``projection_size``, ``state_clip_min`` and ``max`` (the
``clip`` of ONNX's operators is another thing: it acts on the gates' inputs), and float64, which onnxruntime has not
implemented for them. float16 is refused.

Opset 18, IR version 8: for onnxruntime 1.14 and later.

The graph is made of the configuration and the arrays alone. Shapes: T steps, N sequences, C inputs, H units, G = gates
* H, D directions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from .. import __version__
from .architecture import Config, is_language_model, kind_of, state_shapes
from .extras import extra
from .manifest import interface
from .torch import Parameters

__all__ = ["FILES", "IR_VERSION", "OPSET", "write_onnx"]

FILES = ("model.onnx",)
OPSET, IR_VERSION = 18, 8
"""The oldest that have `Split` by number, `Scan` and `LayerNormalization`, so that older runtimes read the file."""

EXTERNAL_ABOVE = 2**31 - 2**24
"""Bytes of parameters above which they go into a file of their own: protobuf ends at 2 GB."""

ORDER = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""ONNX's order of the gates, in terms of ours: r, z, h and i, f, c, o there are z, r, h and i, o, f, c."""

EPSILON = float(np.float32(1e-5))
"""Of layer normalisation, as MXNet keeps it."""


def write_onnx(config: Config, parameters: Parameters, vocab: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the file of this format into `folder`; returns what the manifest tells of it.

    Parameters
    ----------
    config, parameters
        From `describe` and `parameters_of`.
    vocab
        What generation needs besides, as plain values; it travels in the file's metadata, with the configuration.

    Raises
    ------
    ValueError
        For float16, and if onnx is not installed.
    """
    onnx = extra("onnx", "onnx")
    if config["dtype"] not in ("float32", "float64"):
        raise ValueError(f"onnx has no {config['dtype']} here: cast the network to float32 before the export")
    graph = _Graph(onnx, config["dtype"])
    inputs, outputs = interface(config)
    graph.model(config, parameters, [each["name"] for each in inputs], [each["name"] for each in outputs])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            config["architectures"][0],
            [graph.value(each) for each in inputs],
            [graph.value(each) for each in outputs],
            graph.initializers,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="deeprnn",
        producer_version=__version__,
    )
    told = {"deeprnn": __version__, "config": json.dumps(dict(config)), **{k: json.dumps(v) for k, v in vocab.items()}}
    onnx.helper.set_model_props(model, told)
    files = list(FILES)
    if sum(array.nbytes for array in parameters.values()) > EXTERNAL_ABOVE:
        files.append(f"{FILES[0]}.data")
        onnx.save(model, folder / FILES[0], save_as_external_data=True, location=files[1])
    else:
        onnx.save(model, folder / FILES[0])
    onnx.checker.check_model(str(folder / FILES[0]), full_check=True)
    return {"files": files, "opset": OPSET, "ir_version": IR_VERSION}


class _Graph:
    """A graph under construction: its nodes, and the arrays that they use.

    `body` is that of a loop: its nodes are its own, its arrays those of the graph around it.
    """

    def __init__(self, onnx: Any, dtype: str, outer: Optional[_Graph] = None) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.nodes: list[Any] = []
        self.initializers: list[Any] = outer.initializers if outer else []
        self._names: dict[str, int] = outer._names if outer else {}

    def add(self, operator: str, *inputs: str, name: Optional[str] = None, outputs: int = 1, **attributes: Any) -> Any:
        """A node; returns the name of its output, or the list of them."""
        name = name or self.fresh(operator.lower())
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def fresh(self, stem: str) -> str:
        """A name that is not used yet."""
        self._names[stem] = self._names.get(stem, 0) + 1
        return f"{stem}_{self._names[stem]}"

    def array(self, value: Any, name: Optional[str] = None, dtype: Optional[str] = None) -> str:
        """An array among the initializers; numbers have the dtype of the network unless another is given."""
        name = name or self.fresh("constant")
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype or self.dtype), name))
        return name

    def value(self, each: Mapping[str, Any]) -> Any:
        """The description of an input or output."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(each["dtype"]))
        return self.onnx.helper.make_tensor_value_info(each["name"], kind, each["shape"])

    # The model

    def model(self, config: Config, parameters: Parameters, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """All nodes from `inputs` to `outputs`."""
        first, *states = inputs
        lengths = states.pop() if config.get("use_sequence_length") else None
        swap = {"perm": [1, 0, 2]}
        if not is_language_model(config):
            batch_first = config["layout"] == "NTC"
            x = self.add("Transpose", first, **swap) if batch_first else first
            y, last = self.layers(config, parameters, x, states, lengths)
            self.add(*(("Transpose", y) if batch_first else ("Identity", y)), name=outputs[0], **swap if batch_first else {})
        else:
            x = self.embedded(config, parameters, first)
            own = {name[len("stack.") :]: value for name, value in parameters.items() if name.startswith("stack.")}
            y, last = self.layers(config, own, x, states, None)
            if config["tied"]:
                weight = "decoder.weight"
            else:
                weight = self.array(parameters["decoder.weight"], "decoder.weight")
            y = self.add("MatMul", y, self.add("Transpose", weight, perm=[1, 0]))
            self.add("Add", y, self.array(parameters["decoder.bias"], "decoder.bias"), name=outputs[0])
        for state, name in zip(last, outputs[1:]):
            self.add("Identity", state, name=name)

    def embedded(self, config: Config, parameters: Parameters, ids: str) -> str:
        """The vectors of the symbols, (T, N, E)."""
        if not config["embedding_size"]:
            depth = self.array(config["vocab_size"], dtype="int64")
            return self.add("OneHot", ids, depth, self.array([0, 1]), axis=-1)
        name = "decoder.weight" if config["tied"] else "embedding.weight"
        x = self.add("Gather", self.array(parameters[name], name), ids, axis=0)
        return self.add("Mul", x, self.array(config["embedding_size"] ** 0.5)) if config["tied"] else x

    def layers(
        self, config: Config, parameters: Parameters, x: str, states: Sequence[str], lengths: Optional[str]
    ) -> tuple[str, list[str]]:
        """The recurrent layers, time first: outputs (T, N, D * H) and the last states (L * D, N, H)."""
        count, directions = config["num_layers"], 2 if config.get("bidirectional") else 1
        split = [self.parts(state, count) for state in states]  # (D, N, H) for each layer
        last = []
        scan = needs_scan(config)
        ends = _Ends(self, x, lengths) if lengths else None
        for layer in range(count):
            begin = [state[layer] for state in split]
            suffixes = [f"_l{layer}", f"_l{layer}_reverse"][:directions]
            of_layer = [
                {name[: -len(suffix)]: value for name, value in parameters.items() if name.endswith(suffix)}
                for suffix in suffixes
            ]
            if scan:
                y, end = self.scanned(config, of_layer, suffixes, x, begin, ends)
            else:
                y, end = self.standard(config, of_layer, suffixes, x, begin, ends)
            x = self.add("Add", y, x) if config["residual"] and layer > 0 else y
            last.append(end)
        return x, [self.joined(list(state)) for state in zip(*last)]

    def parts(self, x: str, count: int) -> list[str]:
        """Equal parts along the first axis."""
        return [x] if count == 1 else self.add("Split", x, outputs=count, axis=0, num_outputs=count)

    def joined(self, parts: Sequence[str], axis: int = 0) -> str:
        """The inverse of `parts`."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=axis)

    def standard(
        self,
        config: Config,
        of_layer: Sequence[Parameters],
        suffixes: Sequence[str],
        x: str,
        begin: Sequence[str],
        ends: Optional[_Ends],
    ) -> tuple[str, list[str]]:
        """A layer as one of ONNX's recurrent operators."""
        kind, directions = kind_of(config), len(of_layer)

        def gathered(*names: str) -> np.ndarray:
            rows = [[_reordered(own[name], kind) for name in names] for own in of_layer]
            return np.stack([np.concatenate(each) for each in rows])

        attributes: dict[str, Any] = {
            "hidden_size": config["hidden_size"],
            "direction": "forward" if directions == 1 else "bidirectional",
        }
        if kind == "rnn":
            attributes["activations"] = [config["activation"].capitalize()] * directions
        if kind == "gru":
            attributes["linear_before_reset"] = 1
        y, *end = self.add(
            kind.upper(),
            x,
            self.array(gathered("weight_ih"), f"W{suffixes[0]}"),
            self.array(gathered("weight_hh"), f"R{suffixes[0]}"),
            self.array(gathered("bias_ih", "bias_hh"), f"B{suffixes[0]}"),
            ends.lengths if ends else "",
            *begin,
            outputs=1 + len(begin),
            **attributes,
        )
        if directions == 1:
            y = self.add("Squeeze", y, self.array([1], dtype="int64"))
        else:
            wide = self.array([0, 0, directions * config["hidden_size"]], dtype="int64")
            y = self.add("Reshape", self.add("Transpose", y, perm=[0, 2, 1, 3]), wide)  # (T, D, N, H) there
        if ends:  # a sequence of no steps keeps its state; ONNX's operators return zeros
            end = [self.add("Where", ends.begun, after, before) for after, before in zip(end, begin)]
        return y, end

    # What is written out

    def scanned(
        self,
        config: Config,
        of_layer: Sequence[Parameters],
        suffixes: Sequence[str],
        x: str,
        begin: Sequence[str],
        ends: Optional[_Ends],
    ) -> tuple[str, list[str]]:
        """A layer as a loop over the formula of its cell, one a direction."""
        outputs, last = [], []
        states = [self.parts(state, len(of_layer)) for state in begin]
        first = self.array([0], dtype="int64")
        for direction, (own, suffix) in enumerate(zip(of_layer, suffixes)):
            names = {name: self.array(value, name + suffix) for name, value in own.items()}
            transposed = {n: self.add("Transpose", names[n], perm=[1, 0]) for n in names if n.startswith("weight")}
            names.update(transposed)
            projected = self.dense(x, "ih", names)
            body = _Graph(self.onnx, self.dtype, outer=self)
            old = [self.fresh("state") for _ in states]
            slices = [self.fresh("projected")] + ([self.fresh("alive")] if ends else [])
            results = body.step(config, names, slices, old)
            sequences = [projected] + ([ends.alive] if ends else [])
            y, *end = self._scan(config, body, [*old, *slices], results, states, direction, sequences, first)
            outputs.append(self.add("Where", ends.alive, y, self.array(0)) if ends else y)
            last.append([self.add("Unsqueeze", state, first) for state in end])
        return self.joined(outputs, axis=-1), [self.joined(list(state)) for state in zip(*last)]

    def _scan(
        self,
        config: Config,
        body: _Graph,
        inputs: Sequence[str],
        results: Sequence[str],
        states: Sequence[Sequence[str]],
        direction: int,
        sequences: Sequence[str],
        first: str,
    ) -> list[str]:
        """The loop over `body`: all outputs and the last states."""
        helper, kind = self.onnx.helper, self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        sizes = [size for _, size in state_shapes(config).values()]
        shapes = [*sizes, config["hidden_size"] * len(ORDER[kind_of(config)]), 1]
        kinds = [kind] * (len(states) + 1) + [self.onnx.TensorProto.BOOL]
        begins = [self.add("Squeeze", state[direction], first) for state in states]
        *end, y = self.add(
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
        self, config: Config, names: Mapping[str, str], slices: Sequence[str], old: Sequence[str]
    ) -> list[str]:
        """One step: the states that go on, and the output."""
        new = getattr(self, f"_{kind_of(config)}")(config, names, slices[0], old)
        if config["zoneout"]:  # in inference every unit takes the expectation
            kept = self.array(1 - config["zoneout"])
            moved = [self.add("Mul", self.add("Sub", after, before), kept) for after, before in zip(new, old)]
            new = [self.add("Add", before, by) for before, by in zip(old, moved)]
        output = self.add("Identity", new[0])
        if len(slices) == 2:
            new = [self.add("Where", slices[1], after, before) for after, before in zip(new, old)]
        return [*new, output]

    def dense(self, x: str, part: str, names: Mapping[str, str]) -> str:
        """The product with a weight, and its bias; with layer normalisation the bias is the shift."""
        product = self.add("MatMul", x, names[f"weight_{part}"])
        if f"gamma_{part}" not in names:
            return self.add("Add", product, names[f"bias_{part}"])
        return self.normalised(product, names[f"gamma_{part}"], names[f"bias_{part}"])

    def normalised(self, x: str, gamma: str, beta: str) -> str:
        """Layer normalisation over the units."""
        return self.add("LayerNormalization", x, gamma, beta, axis=-1, epsilon=EPSILON)

    def gates(self, x: str, count: int) -> list[str]:
        """The gates, which are side by side."""
        return self.add("Split", x, outputs=count, axis=-1, num_outputs=count)

    def _rnn(self, config: Config, names: Mapping[str, str], projected: str, old: Sequence[str]) -> list[str]:
        total = self.add("Add", projected, self.dense(old[0], "hh", names))
        return [self.add(config["activation"].capitalize(), total)]

    def _gru(self, config: Config, names: Mapping[str, str], projected: str, old: Sequence[str]) -> list[str]:
        of_x, of_h = self.gates(projected, 3), self.gates(self.dense(old[0], "hh", names), 3)
        reset, update = (self.add("Sigmoid", self.add("Add", of_x[i], of_h[i])) for i in (0, 1))
        candidate = self.add("Tanh", self.add("Add", of_x[2], self.add("Mul", reset, of_h[2])))
        moved = self.add("Mul", update, self.add("Sub", old[0], candidate))
        return [self.add("Add", candidate, moved)]

    def _lstm(self, config: Config, names: Mapping[str, str], projected: str, old: Sequence[str]) -> list[str]:
        hidden, cell = old
        i, f, c, o = self.gates(self.add("Add", projected, self.dense(hidden, "hh", names)), 4)
        kept = self.add("Mul", self.add("Sigmoid", f), cell)
        cell = self.add("Add", kept, self.add("Mul", self.add("Sigmoid", i), self.add("Tanh", c)))
        if config.get("state_clip_min") is not None:
            low, high = self.array(config["state_clip_min"]), self.array(config["state_clip_max"])
            if config["state_clip_nan"]:
                cell = self.add("Where", self.add("IsNaN", cell), low, cell)
            cell = self.add("Min", self.add("Max", cell, low), high)
        seen = self.normalised(cell, names["gamma_c"], names["beta_c"]) if "gamma_c" in names else cell
        hidden = self.add("Mul", self.add("Sigmoid", o), self.add("Tanh", seen))
        if "weight_hr" in names:
            hidden = self.add("MatMul", hidden, names["weight_hr"])
        return [hidden, cell]


def needs_scan(config: Config) -> bool:
    """Whether ONNX's recurrent operators lack something that the layers have."""
    lacking = config["layer_norm"] or config["zoneout"] or config.get("projection_size")
    return bool(lacking) or config.get("state_clip_min") is not None or config["dtype"] != "float32"


class _Ends:
    """Where sequences end: their lengths, at most T; which have a step at all; and which are alive at each step."""

    def __init__(self, graph: _Graph, x: str, lengths: str) -> None:
        constant = {n: graph.array(n, dtype="int64") for n in (0, 1)}
        steps = graph.add("Squeeze", graph.add("Shape", x, start=0, end=1))
        within = graph.add("Min", lengths, steps)
        across = graph.add("Unsqueeze", within, graph.array([0, 2], dtype="int64"))  # (1, N, 1)
        self.lengths = graph.add("Cast", within, to=graph.onnx.TensorProto.INT32)
        self.begun = graph.add("Greater", across, constant[0])
        numbers = graph.add("Range", constant[0], steps, constant[1])
        along = graph.add("Unsqueeze", numbers, graph.array([1, 2], dtype="int64"))  # (T, 1, 1)
        self.alive = graph.add("Less", along, across)


def _reordered(value: np.ndarray, kind: str) -> np.ndarray:
    """The rows of a weight or bias with the gates in ONNX's order."""
    gates: Union[list[np.ndarray], np.ndarray] = np.split(value, len(ORDER[kind]))
    return np.concatenate([gates[i] for i in ORDER[kind]])
