"""The architecture of a network in plain values: `describe` derives them from a network, `build` makes it from them.

They are the ``config.json`` of an exported folder, and all that the exporters know of a network besides its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Union

from .._util.checks import check_choice
from ..models.language_model import CELLS, STACKS, LanguageModel
from ..nn.layers import DeepGRU, DeepLSTM, DeepRNN
from ..nn.stack import RecurrentStack

__all__ = [
    "GATES",
    "LAYERS",
    "Config",
    "Network",
    "as_deeprnn",
    "build",
    "describe",
    "is_language_model",
    "kind_of",
    "state_shapes",
]

Network = Union[LanguageModel, RecurrentStack]
Config = Mapping[str, Any]
"""``architectures`` is a list with the name of the class; the other keys are arguments of it."""

LAYERS: dict[str, type[RecurrentStack]] = {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM}

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Rows of a layer's weights for each hidden unit."""

DEEP = ("residual", "layer_norm", "zoneout")
"""Options of a language model that it passes on to its layers."""


def describe(net: Network) -> dict[str, Any]:
    """The class of a network, its arguments and its dtype.

    Raises
    ------
    TypeError
        For a block that is neither a layer nor a language model of this package.
    ValueError
        For layers that are not those of this package, and for a network that has not been called yet and so has no
        input size.
    """
    if type(net) is LanguageModel:  # a subclass may compute something else
        layers = _of_layers(net.stack)
        return {
            "architectures": ["LanguageModel"],
            "dtype": layers["dtype"],
            "vocab_size": net.vocab_size,
            "cell": net.stack.cell.kind,
            "activation": layers.get("activation", "tanh"),
            **{name: layers[name] for name in ("hidden_size", "num_layers", "dropout", *DEEP)},
            "embedding_size": net.embedding_size,
            "tied": net.tied,
        }
    if isinstance(net, RecurrentStack):
        return {"architectures": [type(net).__name__], **_of_layers(net)}
    raise TypeError(f"net must be a LanguageModel, DeepRNN, DeepGRU or DeepLSTM, got {type(net).__name__}")


def _of_layers(stack: RecurrentStack) -> dict[str, Any]:
    cell = getattr(stack, "cell", None)  # a plugin's layers may have none
    if cell is None or LAYERS.get(cell.kind) is not type(stack):
        of_cell = f" with the cell {type(cell).__name__}" if cell else ""
        raise ValueError(
            f"layers of the class {type(stack).__name__}{of_cell} cannot be exported to a folder, which contains no "
            "code: use DeepRNN, DeepGRU or DeepLSTM, or write an MXNet symbol by net.export(path)"
        )
    if stack.input_size <= 0:
        raise ValueError("net does not know its input_size yet: give it, or call net once before the export")
    options: dict[str, Any] = {
        "dtype": stack.dtype,
        "input_size": stack.input_size,
        "hidden_size": stack.hidden_size,
        "num_layers": stack.num_layers,
        "layout": stack.layout,
        "bidirectional": len(stack.directions) == 2,
        "use_sequence_length": stack.use_sequence_length,
        "dropout": stack.dropout,
        "dropout_mode": stack.dropout_mode,
        "residual": stack.residual,
        "layer_norm": cell.layer_norm,
        "zoneout": stack.zoneout,
    }
    if cell.kind == "rnn":
        options["activation"] = cell.activation
    if cell.kind == "lstm":
        low, high = cell.clip or (None, None)
        if low is not None and not math.isfinite(high - low):
            raise ValueError(f"state_clip_min and state_clip_max must be finite in an export, got {low} and {high}")
        options.update(projection_size=cell.projection_size, state_clip_min=low, state_clip_max=high)
        options["state_clip_nan"] = cell.clip_nan
    return options


def build(config: Config) -> Network:
    """The network that `describe` described, not initialized.

    Raises
    ------
    ValueError, TypeError
        For an unknown class, and for arguments that it does not take.
    """
    options = dict(config)
    (name,) = options.pop("architectures")
    check_choice("architectures", name, ("LanguageModel", *(layer.__name__ for layer in LAYERS.values())))
    if name == "LanguageModel":
        check_choice("cell", options["cell"], CELLS)
        return LanguageModel(**options)
    return {layer.__name__: layer for layer in LAYERS.values()}[name](**options)


def as_deeprnn(net: Network) -> Network:
    """The same network with this package's layers in place of MXNet's built-in ones."""
    if not isinstance(net, LanguageModel) or type(net.stack) not in STACKS["gluon"].values():
        return net
    built_in = net.stack
    ours = LanguageModel(
        net.vocab_size,
        built_in._hidden_size,
        built_in._num_layers,
        cell=built_in._mode.partition("_")[0],
        activation=built_in._mode.partition("_")[2] or "tanh",
        embedding_size=net.embedding_size,
        dropout=built_in._dropout,
        tied=net.tied,
        dtype=built_in._dtype,
    )
    ours.initialize()
    theirs = net._collect_params_with_prefix()
    for key, parameter in ours._collect_params_with_prefix().items():
        parameter.set_data(theirs[key].data())
    return ours


def is_language_model(config: Config) -> bool:
    """Whether a configuration is that of a `LanguageModel`, and not of a layer alone."""
    return config["architectures"] == ["LanguageModel"]


def state_shapes(config: Config) -> dict[str, tuple[int, int]]:
    """Rows, ``num_layers * directions``, and units of each state, by PyTorch's names: ``h``, and for an LSTM ``c``."""
    rows = config["num_layers"] * (2 if config.get("bidirectional") else 1)
    shapes = {"h": (rows, config.get("projection_size") or config["hidden_size"])}
    if kind_of(config) == "lstm":
        shapes["c"] = (rows, config["hidden_size"])
    return shapes


def kind_of(config: Config) -> str:
    """``rnn``, ``gru`` or ``lstm``."""
    if is_language_model(config):
        return config["cell"]
    return next(kind for kind, layer in LAYERS.items() if [layer.__name__] == config["architectures"])
