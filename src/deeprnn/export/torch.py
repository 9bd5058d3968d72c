"""PyTorch's names: the parameters of a network as a state dict, and a state dict as a network.

A layer's parameters are called as `torch.nn.RNN`, `GRU` and `LSTM` call theirs, and have the same shapes and the same
order of gates, so the values are copied as they are::

    l0_i2h_weight   weight_ih_l0              l0_i2h_gamma   gamma_ih_l0    (layer_norm; no counterpart in PyTorch)
    r1_h2h_bias     bias_hh_l1_reverse        l0_cell_beta   beta_c_l0
    l0_h2r_weight   weight_hr_l0

A language model has them below ``stack.``, and ``embedding.weight``, ``decoder.weight``, ``decoder.bias``. With `tied`
there is no ``embedding.weight``: embedding and decoder share one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import mxnet as mx
import numpy as np

from .._util.checks import check_choice
from .._util.extras import extra
from .._util.files import read_regular
from ..models.language_model import LanguageModel
from ..nn.stack import RecurrentStack
from .architecture import GATES, LAYERS, Config, Network, build

__all__ = [
    "Parameters",
    "check_layers",
    "from_torch",
    "load_parameters",
    "named_parameters",
    "parameters_of",
    "pytorch_name",
    "read_safetensors",
]

Parameters = dict[str, np.ndarray]
"""Arrays by PyTorch's names."""

PARTS = {"i2h": "ih", "h2h": "hh", "h2r": "hr", "cell": "c"}


def pytorch_name(name: str) -> str:
    """What PyTorch calls a parameter of a layer: ``r0_i2h_weight`` is ``weight_ih_l0_reverse``."""
    place, part, kind = name.split("_")
    return f"{kind}_{PARTS[part]}_l{place[1:]}" + ("_reverse" if place[0] == "r" else "")


def parameters_of(net: Network) -> Parameters:
    """The values of all parameters, each once, as contiguous arrays.

    Raises
    ------
    ValueError
        If the network has not been initialized.
    """
    try:
        return {name: np.ascontiguousarray(p.data().asnumpy()) for name, p in named_parameters(net).items()}
    except (RuntimeError, mx.gluon.parameter.DeferredInitializationError) as error:
        raise ValueError("net has no parameters yet: initialize it, and call it once") from error


def load_parameters(net: Network, values: Mapping[str, Any], source: str = "the state dict") -> None:
    """Load the values of a state dict. All are compared first, so an error leaves the network as it was.

    Parameters
    ----------
    net
        Initialized or not.
    values
        Tensors of PyTorch, or arrays, by PyTorch's names.
    source
        Where the values are from, for error messages.

    Raises
    ------
    ValueError
        For a missing, superfluous or misshapen entry, which it names.
    """
    parameters = named_parameters(net)
    missing, more = parameters.keys() - values.keys(), values.keys() - parameters.keys()
    if missing or more:
        lists = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        lists += [f"has {', '.join(sorted(more))}, which the network lacks"] if more else []
        raise ValueError(f"{source} {' and '.join(lists)}")
    for name, parameter in parameters.items():
        if tuple(values[name].shape) != parameter.shape:
            raise ValueError(f"{source}: {name} must have shape {parameter.shape}, got {tuple(values[name].shape)}")
    if any(parameter._data is None for parameter in parameters.values()):
        net.initialize()
    for name, parameter in parameters.items():
        parameter.set_data(mx.nd.array(_array(values[name]), dtype=parameter.dtype))


def check_layers(config: Config, values: Mapping[str, Any], source: str) -> None:
    """Raise ValueError if there are fewer parameters than layers: a number in a file must not take all memory."""
    layers = config.get("num_layers", 1)
    if isinstance(layers, int) and layers > len(values):
        raise ValueError(f"{source} has {len(values):,} parameters, too few for num_layers={layers}")


def from_torch(source: Union[Mapping[str, Any], str, os.PathLike[str]], **options: Any) -> Network:
    """A `DeepRNN`, `DeepGRU` or `DeepLSTM` with the parameters of a `torch.nn.RNN`, `GRU` or `LSTM`.

    Sizes, layers, directions, projection and layer normalization follow from names and shapes. A state dict of
    `deeprnn_torch.LanguageModel` gives a `LanguageModel`.

    Parameters
    ----------
    source
        A state dict, or the path of a ``.safetensors`` file with one.
    **options
        Options that the parameters do not show: ``activation`` of a `DeepRNN`, by default tanh as in PyTorch;
        ``layout``, ``residual``, ``zoneout``, ``state_clip_min``, ...

    Raises
    ------
    ValueError
        For missing, superfluous or misshapen entries, and for a file that is not safetensors.

    Examples
    --------
    >>> layer = from_torch(torch.nn.LSTM(8, 64, num_layers=2).state_dict())
    """
    name = "the state dict"
    if not isinstance(source, Mapping):
        name, source = str(source), read_safetensors(Path(source))
    config = {**_shown_by(source, name, options.get("tied")), **options}
    check_layers(config, source, name)
    net = build(config)
    load_parameters(net, source, name)
    return net


def read_safetensors(path: Path) -> Parameters:
    """The arrays of a ``.safetensors`` file.

    Raises
    ------
    ValueError
        If it is not one, as a pickle of PyTorch is not, or safetensors is not installed.
    """
    library = extra("safetensors.numpy", "hub")
    content = read_regular(path, follow=True)
    try:
        return library.load(content)
    except Exception as error:  # safetensors has an exception of its own for each version
        raise ValueError(
            f"{path} is not a safetensors file ({error}); write it with safetensors.torch.save_file, as a pickle may "
            "hold code"
        ) from error


def named_parameters(net: Network) -> dict[str, Any]:
    """The parameters, each once, by PyTorch's names."""
    if isinstance(net, RecurrentStack):
        return {pytorch_name(name): parameter for name, parameter in net._reg_params.items()}
    assert isinstance(net, LanguageModel)
    named = {f"stack.{name}": parameter for name, parameter in named_parameters(net.stack).items()}
    if net.embedding is not None and not net.tied:
        named["embedding.weight"] = net.embedding.weight
    return {**named, "decoder.weight": net.decoder.weight, "decoder.bias": net.decoder.bias}


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _shown_by(values: Mapping[str, Any], source: str, tied: Optional[bool] = None) -> dict[str, Any]:
    """The configuration of the network whose parameters these are, of a language model that is `tied` or not."""
    prefix = "stack." if any(name.startswith("stack.") for name in values) else ""

    def shape(name: str) -> tuple[int, ...]:
        if name not in values:
            raise ValueError(f"{source} lacks {name}: is it that of a torch.nn.RNN, GRU or LSTM?")
        return tuple(values[name].shape)

    (rows, inputs), (_, state_size) = shape(f"{prefix}weight_ih_l0"), shape(f"{prefix}weight_hh_l0")
    projection = shape(f"{prefix}weight_hr_l0")[0] if f"{prefix}weight_hr_l0" in values else None
    hidden_size = shape(f"{prefix}weight_hr_l0")[1] if projection else state_size
    kind = next((kind for kind, gates in GATES.items() if rows == gates * hidden_size), None)
    if kind is None:
        raise ValueError(f"{source}: weight_ih_l0 has {rows} rows, which is not 1, 3 or 4 times {hidden_size} units")
    dtype = check_choice("dtype", str(values[f"{prefix}weight_ih_l0"].dtype).split(".")[-1], ("float32", "float64"))
    found: dict[str, Any] = {
        "dtype": dtype,
        "hidden_size": hidden_size,
        "num_layers": 1 + max(int(m[1]) for m in map(re.compile(r"^.*weight_hh_l(\d+)").match, values) if m),
        "layer_norm": f"{prefix}gamma_ih_l0" in values,
    }
    if kind == "rnn":
        found["activation"] = "tanh"
    if prefix:
        vocab_size, _ = shape("decoder.weight")
        if "embedding.weight" in values:
            tied, embedding = False, shape("embedding.weight")[1]
        else:
            if tied is None and inputs == hidden_size == vocab_size:
                raise ValueError(
                    f"{source} fits a tied embedding as well as one-hot inputs: give tied=True or tied=False"
                )
            tied = inputs == hidden_size if tied is None else tied
            embedding = hidden_size if tied else 0
        sizes = {"vocab_size": vocab_size, "embedding_size": embedding, "tied": tied}
        return {"architectures": ["LanguageModel"], "cell": kind, **found, **sizes}
    found.update(input_size=inputs, bidirectional=f"{prefix}weight_ih_l0_reverse" in values)
    if kind == "lstm":
        found["projection_size"] = projection
    return {"architectures": [LAYERS[kind].__name__], **found}
