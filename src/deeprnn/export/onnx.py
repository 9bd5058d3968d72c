"""ONNX: ``model.onnx`` with the standard operators RNN, GRU and LSTM, one per layer, for any length and batch size.

Options that these operators lack are written as one `Scan` per layer and direction, with the formula of the cell
inside: ``layer_norm``, ``zoneout`` (in inference an expectation), ``projection_size``, ``state_clip_min`` and ``max``
(the ``clip`` of ONNX's operators is something else: it acts on the inputs of the gates), and float64, which onnxruntime
does not implement for them. float16 is refused.

Opset 18, IR version 8: for onnxruntime 1.14 and later.

The graph is made from the configuration and the arrays only. Shapes: T steps, N sequences, C inputs, H units, G = gates
* H, D directions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from .. import __version__
from .._util.extras import extra
from .architecture import Config, is_language_model, kind_of
from .manifest import interface
from .onnx_graph import Graph
from .onnx_scan import Ends, needs_scan, scanned
from .torch import Parameters

__all__ = ["FILES", "IR_VERSION", "OPSET", "write_onnx"]

FILES = ("model.onnx",)
OPSET, IR_VERSION = 18, 8
"""The oldest versions with `Split` by number, `Scan` and `LayerNormalization`, so that older runtimes read the file."""

EXTERNAL_ABOVE = 2**31 - 2**24
"""Bytes of parameters above which they are written to a separate file: protobuf is limited to 2 GB."""

ORDER = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""ONNX's order of the gates, in terms of ours: r, z, h and i, f, c, o there are z, r, h and i, o, f, c."""


def write_onnx(config: Config, parameters: Parameters, vocab: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the file of this format into `folder`; returns its entry in the manifest.

    Parameters
    ----------
    config, parameters
        From `describe` and `parameters_of`.
    vocab
        What generation needs besides, as plain values; stored in the file's metadata, with the configuration.

    Raises
    ------
    ValueError
        For float16, and if onnx is not installed.
    """
    onnx = extra("onnx", "onnx")
    if config["dtype"] not in ("float32", "float64"):
        raise ValueError(f"onnx has no {config['dtype']} here: cast the network to float32 before the export")
    graph = Graph(onnx, config["dtype"])
    inputs, outputs = interface(config)
    model(graph, config, parameters, [each["name"] for each in inputs], [each["name"] for each in outputs])
    proto = onnx.helper.make_model(
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
    metadata = {name: json.dumps(value) for name, value in {"config": dict(config), **vocab}.items()}
    onnx.helper.set_model_props(proto, {"deeprnn": __version__, **metadata})
    files = list(FILES)
    if sum(array.nbytes for array in parameters.values()) > EXTERNAL_ABOVE:
        files.append(f"{FILES[0]}.data")
        onnx.save(proto, folder / FILES[0], save_as_external_data=True, location=files[1])
    else:
        onnx.save(proto, folder / FILES[0])
    onnx.checker.check_model(str(folder / FILES[0]), full_check=True)
    return {"files": files, "opset": OPSET, "ir_version": IR_VERSION}


def model(graph: Graph, config: Config, parameters: Parameters, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Add all nodes from `inputs` to `outputs`."""
    first, *states = inputs
    lengths = states.pop() if config.get("use_sequence_length") else None
    if is_language_model(config):
        own = {name[len("stack.") :]: value for name, value in parameters.items() if name.startswith("stack.")}
        y, last = layers(graph, config, own, embedded(graph, config, parameters, first), states, None)
        if not config["tied"]:
            graph.array(parameters["decoder.weight"], "decoder.weight")
        y = graph.add("MatMul", y, graph.add("Transpose", "decoder.weight", perm=[1, 0]))
        graph.add("Add", y, graph.array(parameters["decoder.bias"], "decoder.bias"), name=outputs[0])
    elif config["layout"] == "NTC":
        time_major = graph.add("Transpose", first, perm=[1, 0, 2])
        y, last = layers(graph, config, parameters, time_major, states, lengths)
        graph.add("Transpose", y, name=outputs[0], perm=[1, 0, 2])
    else:
        y, last = layers(graph, config, parameters, first, states, lengths)
        graph.add("Identity", y, name=outputs[0])
    for state, name in zip(last, outputs[1:]):
        graph.add("Identity", state, name=name)


def embedded(graph: Graph, config: Config, parameters: Parameters, ids: str) -> str:
    """The vectors of the symbols, (T, N, E)."""
    if not config["embedding_size"]:
        depth = graph.array(config["vocab_size"], dtype="int64")
        return graph.add("OneHot", ids, depth, graph.array([0, 1]), axis=-1)
    name = "decoder.weight" if config["tied"] else "embedding.weight"
    x = graph.add("Gather", graph.array(parameters[name], name), ids, axis=0)
    return graph.add("Mul", x, graph.array(config["embedding_size"] ** 0.5)) if config["tied"] else x


def layers(
    graph: Graph, config: Config, parameters: Parameters, x: str, states: Sequence[str], lengths: Optional[str]
) -> tuple[str, list[str]]:
    """The recurrent layers, time first: outputs (T, N, D * H) and the last states (L * D, N, H)."""
    count, directions = config["num_layers"], 2 if config.get("bidirectional") else 1
    split = [graph.parts(state, count) for state in states]  # (D, N, H) for each layer
    last = []
    scan = needs_scan(config)
    ends = Ends(graph, x, lengths) if lengths else None
    for layer in range(count):
        begin = [state[layer] for state in split]
        of_layer = {
            suffix: {name[: -len(suffix)]: value for name, value in parameters.items() if name.endswith(suffix)}
            for suffix in [f"_l{layer}", f"_l{layer}_reverse"][:directions]
        }
        y, end = (scanned if scan else standard)(graph, config, of_layer, x, begin, ends)
        x = graph.add("Add", y, x) if config["residual"] and layer > 0 else y
        last.append(end)
    return x, [graph.joined(list(state)) for state in zip(*last)]


def standard(
    graph: Graph, config: Config, of_layer: Mapping[str, Parameters], x: str, begin: Sequence[str], ends: Optional[Ends]
) -> tuple[str, list[str]]:
    """A layer as one of ONNX's recurrent operators."""
    kind, directions, suffix = kind_of(config), len(of_layer), next(iter(of_layer))

    def gathered(*names: str) -> np.ndarray:
        rows = [[_reordered(own[name], kind) for name in names] for own in of_layer.values()]
        return np.stack([np.concatenate(each) for each in rows])

    attributes: dict[str, Any] = {
        "hidden_size": config["hidden_size"],
        "direction": "forward" if directions == 1 else "bidirectional",
    }
    if kind == "rnn":
        attributes["activations"] = [config["activation"].capitalize()] * directions
    if kind == "gru":
        attributes["linear_before_reset"] = 1
    y, *end = graph.add(
        kind.upper(),
        x,
        graph.array(gathered("weight_ih"), f"W{suffix}"),
        graph.array(gathered("weight_hh"), f"R{suffix}"),
        graph.array(gathered("bias_ih", "bias_hh"), f"B{suffix}"),
        ends.lengths if ends else "",
        *begin,
        outputs=1 + len(begin),
        **attributes,
    )
    if directions == 1:
        y = graph.add("Squeeze", y, graph.array([1], dtype="int64"))
    else:
        wide = graph.array([0, 0, directions * config["hidden_size"]], dtype="int64")
        y = graph.add("Reshape", graph.add("Transpose", y, perm=[0, 2, 1, 3]), wide)  # (T, D, N, H) there
    if ends:  # a sequence of no steps keeps its state; ONNX's operators return zeros
        end = [graph.add("Where", ends.begun, after, before) for after, before in zip(end, begin)]
    return y, end


def _reordered(value: np.ndarray, kind: str) -> np.ndarray:
    """The rows of a weight or bias with the gates in ONNX's order."""
    gates: Union[list[np.ndarray], np.ndarray] = np.split(value, len(ORDER[kind]))
    return np.concatenate([gates[i] for i in ORDER[kind]])
