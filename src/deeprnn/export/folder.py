"""Writing a network to an exported folder, and reading it back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from .._util.checks import check_choice
from .._util.extras import extra
from ..data.symbols import UNITS
from . import onnx, symbol
from .architecture import Network, as_deeprnn, build, describe, is_language_model
from .card import card
from .manifest import CARD, CONFIG, PARAMETERS, VOCABULARY, Folder, as_json, read_folder, whole_folder, write_manifest
from .torch import check_layers, load_parameters, parameters_of, read_safetensors

if TYPE_CHECKING:
    import gluonnlp

__all__ = ["FORMATS", "export", "from_pretrained", "network_of", "to_onnx", "to_symbol", "to_torch"]

FORMATS = ("symbol", "onnx", "torch")

PathLike = Union[str, "os.PathLike[str]"]


def export(
    net: Network,
    out: PathLike,
    formats: Sequence[str] = FORMATS,
    *,
    vocabulary: Union[gluonnlp.Vocab, Sequence[str], None] = None,
    unit: str = "char",
    training: Optional[Mapping[str, Any]] = None,
) -> Path:
    """Write a network to a folder. After an error there is no folder.

    Parameters
    ----------
    net
        A `LanguageModel`, `DeepRNN`, `DeepGRU` or `DeepLSTM`, initialized. A language model with MXNet's built-in
        layers is written with this package's, whose parameters are the same.
    out
        The folder; must not exist.
    formats
        Any of 'symbol' (MXNet), 'onnx' and 'torch' (PyTorch). The last needs no more than ``model.safetensors``, which
        every folder has.
    vocabulary
        Of a language model: its symbols, by their ids.
    unit : {'char', 'word'}
        What a symbol is.
    training
        What the network was trained on, for the card: plain values, see `card`.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ValueError, TypeError
        For a network that a format cannot express, a vocabulary that does not fit, a folder that exists, and a package
        that is not installed.
    """
    net = as_deeprnn(net)
    config = describe(net)
    parameters = parameters_of(net)
    for each in formats:
        check_choice("formats", each, FORMATS)
    projection = config.get("projection_size")
    if "torch" in formats and projection and projection >= config["hidden_size"]:
        raise ValueError(
            f"formats: torch.nn.LSTM has no projection_size={projection} with hidden_size={config['hidden_size']}, as "
            f"it is not smaller; leave out 'torch'"
        )
    check_choice("unit", unit, UNITS)
    about: dict[str, Any] = {}
    tokens: Optional[list[str]] = None
    if vocabulary is not None:
        from ..data import text

        tokens = list(getattr(vocabulary, "idx_to_token", vocabulary))
        unknown = text.UNKNOWN_TOKEN if text.UNKNOWN_TOKEN in tokens else None
        about = {"unit": unit, "unk_token": getattr(vocabulary, "unknown_token", unknown)}
        if not is_language_model(config) or len(tokens) != config["vocab_size"]:
            raise ValueError(
                f"vocabulary has {len(tokens):,} symbols, and the network {config.get('vocab_size', 'none')}"
            )
        text.vocabulary(tokens, about["unk_token"])  # raises what `from_pretrained` would
    library = extra("safetensors.numpy", "hub")
    with whole_folder(Path(out)) as folder:
        if tokens is not None:
            (folder / VOCABULARY).write_text(as_json({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
        (folder / PARAMETERS).write_bytes(library.save(parameters, metadata={"format": "pt"}))
        written: dict[str, Any] = {}
        for each in formats:
            if each == "symbol":
                written[each] = symbol.write_symbol(net, config, parameters, folder)
            elif each == "onnx":
                metadata = {} if tokens is None else {"vocab": tokens, **about}
                written[each] = onnx.write_onnx(config, parameters, metadata, folder)
            else:
                written[each] = {"files": [PARAMETERS]}
        if training:
            about["training"] = dict(training)
        (folder / CONFIG).write_text(as_json({"model_type": "deeprnn", **config, **about}), encoding="utf-8")
        (folder / CARD).write_text(card(config, Path(out).name, parameters, written, training or {}), encoding="utf-8")
        write_manifest(folder, config, written)
    return Path(out)


def to_symbol(net: Network, out: PathLike, **about: Any) -> Path:
    """`export` in MXNet's format only; the other arguments are those of `export`."""
    return export(net, out, ["symbol"], **about)


def to_onnx(net: Network, out: PathLike, **about: Any) -> Path:
    """`export` in ONNX's format only; the other arguments are those of `export`."""
    return export(net, out, ["onnx"], **about)


def to_torch(net: Network, out: PathLike, **about: Any) -> Path:
    """`export` in PyTorch's format only; the other arguments are those of `export`."""
    return export(net, out, ["torch"], **about)


def from_pretrained(path: PathLike) -> tuple[Network, Optional[gluonnlp.Vocab]]:
    """The network of an exported folder, and its vocabulary; None for layers alone.

    Every file is checked against the manifest before anything is read, and none contains code.

    Raises
    ------
    ValueError
        If the folder is incomplete, damaged, inconsistent or of a later format; the message names the file.

    Examples
    --------
    >>> net, vocabulary = deeprnn.from_pretrained("models/ducks")
    """
    folder = read_folder(Path(path))
    net = network_of(folder)
    if "unit" not in folder.card:
        return net, None
    from ..data.text import vocabulary

    return net, vocabulary(folder.tokens, folder.card["unk_token"])


def network_of(folder: Folder) -> Network:
    """The network of a folder whose files have been checked; raises ValueError if they do not fit together."""
    file = folder.path / PARAMETERS
    values = read_safetensors(file)
    check_layers(folder.config, values, str(file))
    try:
        net = build(folder.config)
        if dict(describe(net)) != folder.config:  # further arguments, or values of another kind
            raise ValueError("it is not what a network's configuration is written as")
    except (AttributeError, AssertionError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder.path / CONFIG} describes no network of this package: {error}") from error
    load_parameters(net, values, str(file))
    return net
