"""MXNet's own format: ``model-symbol.json``, ``model-0000.params``, and ``step-symbol.json`` that shares them.

The graphs have MXNet's own operators only, so `SymbolBlock.imports` and `mx.mod.Module` run them without this package.
``model`` takes any number of steps and sequences, ``step`` one step of any number of sequences. Inputs are called as
in PyTorch, and so are the parameters; MXNet adds ``_output`` to the names of outputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import mxnet as mx

from ..nn.context import Trace, tracing
from .architecture import Config, Network
from .manifest import interface
from .torch import Parameters, named_parameters

__all__ = ["FILES", "write_symbol"]

FILES = ("model-symbol.json", "model-0000.params", "step-symbol.json")


def write_symbol(net: Network, config: Config, parameters: Parameters, folder: Path) -> dict[str, Any]:
    """Write the files of this format into `folder`; returns their entry in the manifest."""
    names = {parameter.name: name for name, parameter in named_parameters(net).items()}
    for file, length in ((FILES[0], None), (FILES[2], 1)):
        graph = json.loads(_traced(net, config, length).tojson())
        (folder / file).write_text(json.dumps(_renamed(graph, names, net.prefix), indent=1) + "\n", encoding="utf-8")
    arrays = {f"arg:{name}": mx.nd.array(value, dtype=value.dtype) for name, value in parameters.items()}
    mx.nd.save(str(folder / FILES[1]), arrays)
    return {"files": list(FILES), "output_suffix": "_output"}


def _traced(net: Network, config: Config, length: Optional[int]) -> mx.sym.Symbol:
    """The graph of a network, for any length or for one."""
    inputs, outputs = interface(config)
    first, *rest = (mx.sym.var(each["name"]) for each in inputs)
    lengths = [rest.pop()] if config.get("use_sequence_length") else []
    with tracing(Trace(training=False, portable=True, length=length)):
        y, states = net(first, rest, *lengths)
    return mx.sym.Group([mx.sym.identity(x, name=each["name"]) for x, each in zip([y, *states], outputs)])


def _renamed(graph: Any, names: dict[str, str], prefix: str) -> Any:
    """A graph with its variables renamed, and without the counters of this process in its names."""
    for node in graph["nodes"]:
        node.get("attrs", {}).pop("__subgraph_name__", None)  # used while tracing only
        node["name"] = names.get(node["name"], node["name"].removeprefix(prefix))
        for inner in node.get("subgraphs", []):  # a loop's
            _renamed(inner, names, prefix)
    return graph
