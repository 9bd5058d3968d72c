"""An exported folder: its files, written as a whole or not at all, and checked before any of them is read.

::

    manifest.json        every file with its size and SHA-256; inputs and outputs; the formats; the version
    config.json          class, options and dtype of the network
    vocab.json           symbol to id, of a language model
    model.safetensors    the parameters under PyTorch's names
    README.md            a card: what it is, what it was trained on, how to load it
    model-symbol.json, model-0000.params, step-symbol.json      with the format symbol
    model.onnx           with the format onnx

It contains no code, and nothing in it is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from .._util.files import open_regular, read_json, read_regular, sync_folder
from .architecture import Config, is_language_model, state_shapes

__all__ = ["FORMAT", "MANIFEST", "Folder", "interface", "read_folder", "whole_folder", "write_manifest"]

FORMAT = 1
"""Version of the layout of a folder."""

LARGEST = 64 << 20
"""Bytes of JSON that are read; the vocabulary is the largest."""

MANIFEST = "manifest.json"
CONFIG, VOCABULARY, PARAMETERS, CARD = "config.json", "vocab.json", "model.safetensors", "README.md"


def interface(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of a network in every format, in order: name, shape, layout and dtype of each.

    A size that may differ from call to call is given as a name.
    """
    steps, batch, dtype = "sequence_length", "batch_size", config["dtype"]
    shapes = state_shapes(config)
    states = [
        [tensor(f"{name}{suffix}", (rows, batch, units), "LNC", dtype) for name, (rows, units) in shapes.items()]
        for suffix in "0n"
    ]
    if is_language_model(config):
        ids = tensor("ids", (steps, batch), "TN", "int64")
        return [ids, *states[0]], [tensor("logits", (steps, batch, config["vocab_size"]), "TNC", dtype), *states[1]]
    layout = config["layout"]
    order = (steps, batch) if layout == "TNC" else (batch, steps)
    units = shapes["h"][1] * (2 if config["bidirectional"] else 1)
    lengths = [tensor("lengths", (batch,), "N", "int64")] if config["use_sequence_length"] else []
    inputs = [tensor("input", (*order, config["input_size"]), layout, dtype), *states[0], *lengths]
    return inputs, [tensor("output", (*order, units), layout, dtype), *states[1]]


def tensor(name: str, shape: tuple[Any, ...], layout: str, dtype: str) -> dict[str, Any]:
    """The description of an input or output."""
    return {"name": name, "shape": list(shape), "layout": layout, "dtype": dtype}


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which is renamed to `out` at the end, or removed after an error.

    Raises
    ------
    ValueError
        If `out` exists, or cannot be made.
    """
    if out.exists() or out.is_symlink():
        raise ValueError(f"out {out} exists already: choose another folder")
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"out {out} cannot be made: {error.strerror}") from error
    try:
        yield beside
        for path in beside.iterdir():
            sync_folder(path)
        sync_folder(beside)
        os.rename(beside, out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_manifest(folder: Path, config: Config, formats: Mapping[str, Any]) -> None:
    """Write the manifest of all files that are in `folder`."""
    inputs, outputs = interface(config)
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
    }
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "inputs": inputs,
        "outputs": outputs,
        "formats": dict(formats),
        "files": files,
    }
    (folder / MANIFEST).write_text(as_json(manifest), encoding="utf-8")


def as_json(content: Any) -> str:
    """Indented JSON, as all files of a folder have it."""
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Folder:
    """An exported folder whose files have been checked.

    Attributes
    ----------
    path
    config
        The network, see `architecture.describe`.
    card
        What ``config.json`` has besides: of a language model the ``unit`` and ``unk_token`` of its vocabulary, and what
        it was trained on.
    formats
        The formats in it, with their files.
    """

    path: Path
    config: dict[str, Any]
    card: dict[str, Any]
    formats: dict[str, Any]

    @property
    def tokens(self) -> list[str]:
        """The symbols of the vocabulary, by their ids.

        Raises
        ------
        ValueError
            If they do not fit the network.
        """
        ids, size = _json(self.path, VOCABULARY), self.config.get("vocab_size")
        if (
            type(size) is not int
            or len(ids) != size
            or not all(type(each) is int for each in ids.values())
            or {*ids.values()} != {*range(size)}
        ):
            raise ValueError(
                f"{self.path / VOCABULARY} does not fit the network: {len(ids):,} symbols, and the embedding has {size}"
            )
        return sorted(ids, key=ids.__getitem__)


def read_folder(path: Path) -> Folder:
    """Check the files of an exported folder and read its configuration.

    Raises
    ------
    ValueError
        If it is not an exported folder, if a file is missing or has changed since the export, and for a later format.
    """
    manifest = _json(path, MANIFEST)
    version = manifest.get("format")
    if type(version) is not int or version < 1:
        raise ValueError(f"{path / MANIFEST} is not the manifest of an exported folder")
    if version > FORMAT:
        raise ValueError(
            f"{path / MANIFEST} has format {version}, written by deeprnn {manifest.get('version')}; this "
            f"version, {__version__}, reads format {FORMAT}: install a later one"
        )
    problem = _problem(manifest)
    if problem:
        raise ValueError(f"{path / MANIFEST} is damaged: {problem}")
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{file} is missing, and {MANIFEST} names it")
        found = _sha256(file)
        if found != entry["sha256"]:
            raise ValueError(f"{file} is damaged: its SHA-256 should be {entry['sha256']} and is {found}")
    config = _json(path, CONFIG)
    own = {name: config.pop(name) for name in ("model_type", *OF_THE_CARD) if name in config}
    architectures = config.get("architectures")
    if not (isinstance(architectures, list) and len(architectures) == 1 and isinstance(architectures[0], str)):
        raise ValueError(f"{path / CONFIG} describes no network of this package: architectures must name one class")
    whole = "unk_token" in own and isinstance(own["unk_token"], (str, type(None)))
    if "unit" in own and not (own["unit"] in ("char", "word") and whole):
        raise ValueError(f"{path / CONFIG} is damaged: unit and unk_token do not describe a vocabulary")
    return Folder(path, config, own, manifest["formats"])


OF_THE_CARD = ("unit", "unk_token", "training")
"""Keys of ``config.json`` besides those of the network."""


def _problem(manifest: Mapping[str, Any]) -> str:
    """What is wrong with the entries of a manifest, which anybody may have written; empty if nothing is."""
    files, formats = manifest.get("files"), manifest.get("formats")
    if not isinstance(files, dict) or not isinstance(formats, dict):
        return "it must have files and formats"
    for name, entry in files.items():
        if Path(name).name != name or len(name.encode()) > 255:
            return f"{name!r} is not the name of a file in the folder"
        if not (isinstance(entry, dict) and isinstance(entry.get("sha256"), str)):
            return f"{name!r} has no SHA-256"
    for name, entry in formats.items():
        names = entry.get("files") if isinstance(entry, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(each, str) for each in names):
            return f"the format {name!r} names no files"
        if not files.keys() >= set(names):
            return f"the format {name!r} names a file that is not among its files"
    lacking = {CONFIG, PARAMETERS} - files.keys()
    return f"it does not name {lacking.pop()}" if lacking else ""


def _json(path: Path, name: str) -> dict[str, Any]:
    file = path / name
    if not file.exists():
        raise ValueError(f"{file} is missing: is {path} an exported folder?")
    content = read_regular(file, largest=LARGEST, follow=True)
    try:
        return read_json(content)
    except ValueError as error:  # not UTF-8, or not JSON
        raise ValueError(f"{file} is not JSON of an exported folder: {error}") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path, follow=True) as file:  # a folder of the hub's cache has links
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
