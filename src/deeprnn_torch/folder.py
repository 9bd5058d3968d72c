"""Folders that `deeprnn export` wrote: checked, then read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Optional, Union

from safetensors.torch import load
from torch import Tensor, nn

__all__ = ["FORMAT", "Folder", "read_folder"]

FORMAT = 1
"""The latest layout of a folder that is known here."""

NOT_ARGUMENTS = ("model_type", "architectures", "unit", "unk_token", "training")
"""What ``config.json`` has besides the arguments of a class."""


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
        Symbols by their ids, what a symbol is, and that which replaces unknown ones; None without a vocabulary.
    """

    path: Path
    config: dict[str, Any]
    values: dict[str, Tensor]
    vocabulary: Optional[list[str]]
    unit: Optional[str]
    unknown: Optional[str]

    def load_into(self, module: nn.Module) -> None:
        """Give a module the parameters; raises ValueError in one line where they do not fit."""
        own, file = module.state_dict(), self.path / "model.safetensors"
        for what, names in (("lacks", own.keys() - self.values.keys()), ("also has", self.values.keys() - own.keys())):
            if names:
                raise ValueError(f"{file} {what} {', '.join(sorted(names))}")
        for name, value in own.items():
            wanted, came = tuple(value.shape), tuple(self.values[name].shape)
            if wanted != came:
                raise ValueError(f"{file}: {name} must have shape {wanted}, got {came}")
        module.load_state_dict(self.values)


def read_folder(path: Union[str, PathLike[str]], architecture: str) -> Folder:
    """Read a folder after its files have been checked against its manifest.

    Parameters
    ----------
    path
        The folder.
    architecture
        The class that it has to hold, such as 'DeepLSTM'.

    Raises
    ------
    ValueError
        If a file is missing, damaged, of a later format, or of another class.
    """
    path = Path(path)
    manifest = _plain(path, "manifest.json", _content(path, "manifest.json"))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise ValueError(f"{path / 'manifest.json'} is not the manifest of an exported folder")
    if manifest["format"] > FORMAT:
        raise ValueError(
            f"{path / 'manifest.json'} has format {manifest['format']}, and this deeprnn-torch reads {FORMAT}: "
            "install a later one"
        )

    def checked(name: str) -> bytes:
        content = _content(path, name)
        wanted, found = manifest["files"].get(name, {}).get("sha256"), hashlib.sha256(content).hexdigest()
        if found != wanted:
            raise ValueError(f"{path / name} is damaged: its SHA-256 should be {wanted} and is {found}")
        return content

    about = _plain(path, "config.json", checked("config.json"))
    if about["architectures"] != [architecture]:
        raise ValueError(f"{path} holds a {', '.join(about['architectures'])}, not a {architecture}")
    vocabulary = None
    if "unit" in about:
        ids = _plain(path, "vocab.json", checked("vocab.json"))
        vocabulary = sorted(ids, key=ids.__getitem__)
        if sorted(ids.values()) != list(range(about["vocab_size"])):
            raise ValueError(
                f"{path / 'vocab.json'} does not fit the network: {len(ids):,} symbols for {about['vocab_size']:,} ids"
            )
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


def _plain(path: Path, name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path / name} is not JSON: {error}") from error
