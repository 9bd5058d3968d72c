"""Run exported symbols in a process that has no deeprnn.

Each argument is a folder with an exported one, ``model``, and inputs; the outputs are written beside them. Prints what
was imported of deeprnn, which has to be nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import gluon


def run(scratch: Path) -> None:
    folder = scratch / "model"
    inputs = json.loads((folder / "manifest.json").read_text())["inputs"]
    names = [each["name"] for each in inputs]
    results = {}
    for number, calls in enumerate(sorted(scratch.glob("inputs*.npz"))):
        with np.load(calls) as arrays:
            given = [mx.nd.array(arrays[name], dtype=arrays[name].dtype) for name in names]
        block = gluon.SymbolBlock.imports(str(folder / "model-symbol.json"), names, str(folder / "model-0000.params"))
        symbol, arg_params, aux_params = mx.mod.module.load_checkpoint(str(folder / "model"), 0)
        module = mx.mod.Module(symbol, names, label_names=None)
        shapes = [
            mx.io.DataDesc(each["name"], array.shape, array.dtype, each["layout"]) for each, array in zip(inputs, given)
        ]
        module.bind(shapes, for_training=False)
        module.set_params(arg_params, aux_params)
        module.forward(mx.io.DataBatch(given), is_train=False)
        step = gluon.SymbolBlock.imports(str(folder / "step-symbol.json"), names, str(folder / "model-0000.params"))
        states, outputs = given[1:], []
        if "lengths" not in names and names[0] == "ids":
            for t in range(len(given[0])):
                output, *states = step(given[0][t : t + 1], *states)
                outputs.append(output)
            results[f"{number} step"] = [mx.nd.concat(*outputs, dim=0), *states]
        results[f"{number} block"], results[f"{number} module"] = block(*given), module.get_outputs()
    flat = {f"{key} {i}": array.asnumpy() for key, all in results.items() for i, array in enumerate(all)}
    np.savez(scratch / "outputs.npz", **flat)


for argument in sys.argv[1:]:
    run(Path(argument))
loaded = {name for name in sys.modules if name.partition(".")[0] == "deeprnn"}
print(sorted(loaded - {"deeprnn", "deeprnn._util", "deeprnn._util.old_numpy"}))  # what lets mxnet load may be there
