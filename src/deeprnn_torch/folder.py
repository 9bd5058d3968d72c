"""Folders that `deeprnn export` wrote: checked, then read."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

import torch
from safetensors.torch import load
from torch import Tensor, nn

__all__ = ["FORMAT", "Folder", "read_folder"]

FORMAT = 1
"""The latest layout of a folder that this version reads."""

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}

Module = TypeVar("Module", bound=nn.Module)

NOT_ARGUMENTS = ("model_type", "architectures", "unit", "unk_token", "training")
"""Keys of ``config.json`` that are not arguments of the class."""


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Attributes
    ----------
    path
    config
        The arguments of the class, by deeprnn's names.
    values
        The parameters.
    vocabulary, unit, unknown
        Symbols by their ids, what a symbol is, and the one that replaces unknown ones; None without a vocabulary.
    """

    path: Path
    config: dict[str, Any]
    values: dict[str, Tensor]
    vocabulary: Optional[list[str]]
    unit: Optional[str]
    unknown: Optional[str]

    def network(self, make: Callable[..., Module], **options: Any) -> Module:
        """The module that `make` makes from the options, with the parameters.

        Raises
        ------
        ValueError
            If they do not fit. No memory is taken for a module that the parameters do not fill.
        """
        file = self.path / "model.safetensors"
        layers = options.get("num_layers", 1)
        if isinstance(layers, int) and layers > len(self.values):
            raise ValueError(f"{file} has {len(self.values):,} parameters, too few for num_layers={layers}")
        try:
            options["dtype"] = DTYPES[options["dtype"]]
            with torch.device("meta"):
                expected = make(**options).state_dict()
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{self.path / 'config.json'} describes no network of this package: {reason}") from error
        found = self.values
        for what, names in (("lacks", expected.keys() - found.keys()), ("also has", found.keys() - expected.keys())):
            if names:
                raise ValueError(f"{file} {what} {', '.join(sorted(names))}")
        for name, value in expected.items():
            wanted, came = tuple(value.shape), tuple(found[name].shape)
            if wanted != came:
                raise ValueError(f"{file}: {name} must have shape {wanted}, got {came}")
        module = make(**options)
        module.load_state_dict(found)
        return module


def read_folder(path: Union[str, PathLike[str]], architecture: str, verify: bool = True) -> Folder:
    """Read a folder, each file after it has been checked against the manifest.

    Parameters
    ----------
    path
        The folder.
    architecture
        The class that it has to hold, such as 'DeepLSTM'.
    verify
        Whether to check the files.

    Raises
    ------
    ValueError
        If a file is missing, damaged, of a later format, or of another class.
    """
    path = Path(path)
    manifest = _plain(path, "manifest.json", _content(path, "manifest.json"))
    version, files = manifest.get("format"), manifest.get("files")
    if type(version) is not int or version < 1 or not isinstance(files, dict):
        raise ValueError(f"{path / 'manifest.json'} is not the manifest of an exported folder")
    if version > FORMAT:
        raise ValueError(
            f"{path / 'manifest.json'} has format {version}, and this deeprnn-torch reads {FORMAT}: install a later one"
        )

    def checked(name: str) -> bytes:
        content = _content(path, name)
        if verify:
            entry, found = files.get(name), hashlib.sha256(content).hexdigest()
            wanted = entry.get("sha256") if isinstance(entry, dict) else None
            if found != wanted:
                raise ValueError(f"{path / name} is damaged: its SHA-256 should be {wanted} and is {found}")
        return content

    about = _plain(path, "config.json", checked("config.json"))
    if about.get("architectures") != [architecture]:
        raise ValueError(f"{path} holds {str(about.get('architectures'))[:100]}, not ['{architecture}']")
    vocabulary = None
    if "unit" in about:
        ids, size = _plain(path, "vocab.json", checked("vocab.json")), about.get("vocab_size")
        if (
            type(size) is not int
            or len(ids) != size
            or not all(type(each) is int for each in ids.values())
            or {*ids.values()} != {*range(size)}
        ):
            raise ValueError(f"{path / 'vocab.json'} does not fit the network: {len(ids):,} symbols for {size} ids")
        vocabulary = sorted(ids, key=ids.__getitem__)
        unit, unknown = about["unit"], about.get("unk_token", 0)
        if unit not in ("char", "word") or not (unknown is None or (isinstance(unknown, str) and unknown in ids)):
            raise ValueError(f"{path / 'config.json'} is damaged: unit and unk_token do not describe a vocabulary")
    try:
        values = load(checked("model.safetensors"))
    except Exception as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{path / 'model.safetensors'} is not a safetensors file: {error}") from error
    config = {name: value for name, value in about.items() if name not in NOT_ARGUMENTS}
    return Folder(path, config, values, vocabulary, about.get("unit"), about.get("unk_token"))


def _content(path: Path, name: str) -> bytes:
    if not (path / name).is_file():
        raise ValueError(f"{path / name} is missing: is {path} a whole exported folder?")
    return (path / name).read_bytes()


def _plain(path: Path, name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path / name} is not JSON of an exported folder: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path / name} is not JSON of an exported folder: it holds no object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a JSON number")
    return value
