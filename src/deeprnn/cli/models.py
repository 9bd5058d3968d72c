"""The models of `generate` and `evaluate`: a run, an exported folder or an ONNX file, opened in a runtime."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from .._util.checks import check_choice
from .._util.machine import cores
from ..config import DataConfig, select
from ..data.symbols import UNITS
from ..runtimes import Model, MXNetModel, ONNXModel, TorchModel, model_of
from .runs import open_run

if TYPE_CHECKING:
    import gluonnlp

__all__ = ["Opened", "open_model"]


@dataclass(frozen=True)
class Opened:
    """A language model that is ready to be called.

    Attributes
    ----------
    model, vocab
    unit
        What a symbol is.
    runtime
        native, mxnet, onnx or torch.
    data, state
        The text that it was trained on, if that is recorded, and its hash and path: see `runs.saved_corpus`.
    """

    model: Model
    vocab: gluonnlp.Vocab
    unit: str
    runtime: str
    data: Optional[DataConfig] = None
    state: Mapping[str, Any] = field(default_factory=dict)


def open_model(source: Path, runtime: Optional[str] = None, plugin: Optional[str] = None) -> Opened:
    """Open a model.

    Parameters
    ----------
    source
        Folder of a run, exported folder, or .onnx file.
    runtime : {'native', 'mxnet', 'onnx', 'torch'}, optional
        What runs the model; by default the native kernels, where they serve it, or MXNet.
    plugin
        As for `open_run`.

    Raises
    ------
    ValueError
        If there is no model, or it is damaged, cannot run there, or lacks a vocabulary.
    """
    if source.is_dir() and not (source / "manifest.json").exists():
        if runtime not in (None, "native", "mxnet"):
            raise ValueError(f"runtime={runtime!r} needs an exported folder: deeprnn export {source} --out FOLDER")
        net, vocab, run, best = open_run(source, plugin)
        model = model_of(net, runtime=runtime)
        return Opened(model, vocab, run.data.unit, _name_of(model), run.data, best.state)
    if plugin:
        raise ValueError(f"plugin {plugin} is not needed: {source} is not a run, and needs no code")
    if source.is_dir():
        return _of_folder(source, runtime)
    if not source.exists():
        raise ValueError(f"{source} does not exist: give the folder of a run, an exported folder, or an .onnx file")
    if runtime not in (None, "onnx"):
        raise ValueError(f"runtime={runtime!r} cannot run the file {source}: give its whole exported folder")
    onnx = ONNXModel(source, _threads())
    try:
        tokens, unit, unknown = (json.loads(onnx.metadata[name]) for name in ("vocab", "unit", "unk_token"))
        check_choice("unit", unit, UNITS)
        if onnx.vocab_size != len(tokens):
            raise ValueError(f"it has {len(tokens):,} symbols, and the model {onnx.vocab_size}")
        return Opened(onnx, _vocabulary(tokens, unknown), unit, "onnx")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source} has no vocabulary that can be read in its metadata: {error}") from error


def _of_folder(path: Path, runtime: Optional[str]) -> Opened:
    from ..export.folder import network_of
    from ..export.manifest import CONFIG, read_folder

    folder = read_folder(path)
    if "unit" not in folder.card:
        raise ValueError(f"{path} is not a language model with a vocabulary but a {folder.config['architectures'][0]}")
    vocab = _vocabulary(folder.tokens, folder.card["unk_token"])
    model: Model
    if runtime == "onnx":
        if "onnx" not in folder.formats:
            raise ValueError(f"runtime='onnx' needs the format onnx, and {path} has {', '.join(folder.formats)}")
        model = ONNXModel(path / folder.formats["onnx"]["files"][0], _threads())
    elif runtime == "torch":
        model = TorchModel(path, _threads())
    else:
        net = network_of(folder)
        net.hybridize(static_alloc=True, static_shape=True)
        model = model_of(net, runtime=runtime)
        runtime = _name_of(model)
    training: Mapping[str, Any] = folder.card.get("training", {})
    try:
        data = select(DataConfig, training["data"]) if "data" in training else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path / CONFIG} has no training that can be read: {error}") from error
    return Opened(model, vocab, folder.card["unit"], runtime, data, training)


def _name_of(model: Model) -> str:
    """What runs a gluon network."""
    return "mxnet" if isinstance(model, MXNetModel) else "native"


def _vocabulary(tokens: list[str], unknown: Optional[str]) -> gluonnlp.Vocab:
    from ..data.text import vocabulary

    return vocabulary(tokens, unknown)


def _threads() -> Optional[int]:
    """The first number of OMP_NUM_THREADS, as for the native kernels, or the cores; other runtimes do not read it."""
    first = re.match(r"\s*\+?0*([1-9][0-9]*)", os.environ.get("OMP_NUM_THREADS", ""))
    return int(first[1]) if first else cores()
