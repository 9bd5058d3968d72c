"""A run on disk: plain arrays, hashed, atomic, resumable.

A folder of checkpoints holds manifests and arrays::

    best.json                              what the run was, and which array files belong to it, with their SHA-256
    last.json
    parameters-0123456789abcdef.npz        arrays by gluon's structural names; the file is named after its content
    optimizer-fedcba9876543210.npz

Arrays are written first, the manifest is renamed into place last, and only then does what no manifest names go. So a
crash at any moment leaves the checkpoint before, or the new one. Nothing is unpickled, and no array is read from a
file whose hash is not the manifest's; the manifest ends with a hash of itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.ndarray import NDArray

from .._util.files import write_bytes_atomic

__all__ = ["STATE", "Checkpoint", "load", "save"]

FORMAT = 1

STATE = ("epoch", "step", "best_epoch", "best_loss", "seed", "config", "vocabulary", "versions")
"""What the `state` of a checkpoint must hold, each a plain value; more may be added."""

_ARRAY_FILE = re.compile(r"(parameters|optimizer)-[0-9a-f]{16}\.npz")
_SEAL = b'"sha256": "'
_DIGITS = 64

PathLike = Union[str, "os.PathLike[str]"]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, and found to be what was written.

    Parameters
    ----------
    path
        The manifest.
    state
        What `save` was given: epoch, step, best_epoch, best_loss, seed, config, vocabulary, versions, ...
    parameters
        Arrays of the network by structural name.
    optimizer
        Name and update counts of the optimizer; None if it was not saved.
    optimizer_arrays
        Its arrays: `<parameter>/0`, `<parameter>/1`, ..., in the order MXNet keeps them (for Adam, mean and variance).
    """

    path: Path
    state: Mapping[str, Any]
    parameters: Arrays
    optimizer: Optional[Mapping[str, Any]]
    optimizer_arrays: Arrays

    @property
    def epoch(self) -> int:
        """The epoch it was saved after, counted from 1."""
        return int(self.state["epoch"])

    @property
    def step(self) -> int:
        """Updates done by then."""
        return int(self.state["step"])

    @property
    def best_epoch(self) -> int:
        """The best epoch by then."""
        return int(self.state["best_epoch"])

    @property
    def best_loss(self) -> float:
        """Its loss, in nats per token."""
        return float(self.state["best_loss"])

    def restore(
        self,
        net: gluon.Block,
        trainer: Optional[gluon.Trainer] = None,
        *,
        ctx: Optional[mx.Context] = None,
        vocabulary: Optional[Sequence[str]] = None,
    ) -> None:
        """Put everything back; all of it is compared first, so that an error leaves `net` and `trainer` as they were.

        Parameters
        ----------
        net
            Of the same shape; initialized or not.
        trainer
            With the same optimizer. Its rates and schedule stay its own: they are functions of the number of updates.
        ctx
            Where an uninitialized `net` is to be.
        vocabulary
            The tokens that `net` is to be used with, to be compared with the saved ones.

        Raises
        ------
        ValueError
            If parameters, shapes, vocabulary or optimizer differ from what was saved.
        """
        if vocabulary is not None:
            self._check_vocabulary(vocabulary)
        parameters = _named_parameters(net)
        self._check_parameters(parameters)
        if trainer is not None:
            self._check_optimizer(trainer)
        for name, parameter in parameters.items():
            array = self.parameters[name]
            parameter._load_init(mx.nd.array(array, dtype=array.dtype), ctx)
        if trainer is not None:
            self._restore_optimizer(parameters, trainer)

    def _check_vocabulary(self, vocabulary: Sequence[str]) -> None:
        saved = self.state["vocabulary"]
        if len(saved) != len(vocabulary):
            raise ValueError(
                f"{self.path} was trained with a vocabulary of {len(saved)} symbols, and this one has {len(vocabulary)}"
            )
        for index, (theirs, ours) in enumerate(zip(saved, vocabulary)):
            if theirs != ours:
                raise ValueError(
                    f"{self.path} was trained with another vocabulary: "
                    f"symbol {index} is {theirs!r} there and {ours!r} here"
                )

    def _check_parameters(self, parameters: Mapping[str, gluon.Parameter]) -> None:
        for name in [*parameters, *self.parameters]:
            if name not in self.parameters:
                raise ValueError(f"{self.path} has no parameter {name!r}, and the network has: is it the same model?")
            if name not in parameters:
                raise ValueError(f"{self.path} has a parameter {name!r}, and the network none: is it the same model?")
            parameter, array = parameters[name], self.parameters[name]
            shape = parameter.shape or (0,) * array.ndim  # 0: not known before the first batch
            fits = len(shape) == array.ndim and all(own in (0, saved) for own, saved in zip(shape, array.shape))
            if not fits:
                raise ValueError(
                    f"parameter {name!r} has shape {array.shape} in {self.path} and {parameter.shape} in the network: "
                    "is it the same vocabulary and size?"
                )
            if np.dtype(parameter.dtype) != array.dtype:
                raise ValueError(
                    f"parameter {name!r} is {array.dtype} in {self.path} and {np.dtype(parameter.dtype)} in the network"
                )

    def _check_optimizer(self, trainer: gluon.Trainer) -> None:
        if self.optimizer is None:
            raise ValueError(f"{self.path} holds no optimizer: it is for using the network, not for training on")
        own = _optimizer_name(trainer)
        if self.optimizer["name"] != own:
            raise ValueError(
                f"{self.path} was trained with the optimizer {self.optimizer['name']}, and this one is {own}: "
                f"go on with --optimizer {self.optimizer['name']}"
            )

    def _restore_optimizer(self, parameters: Mapping[str, gluon.Parameter], trainer: gluon.Trainer) -> None:
        assert self.optimizer is not None
        optimizer, counts = trainer.optimizer, self.optimizer["update_counts"]
        index_of = {name: trainer._param2idx[parameters[name].name] for name in counts}
        for position, (updater, context) in enumerate(zip(trainer._updaters, trainer._contexts)):
            updater.states.clear()
            for name, index in index_of.items():
                weight = parameters[name].list_data()[position]
                updater.states[index] = optimizer.create_state_multi_precision(index, weight)
                updater.states_synced[index] = True
                for slot, state in enumerate(_flattened(updater.states[index])):
                    array = self.optimizer_arrays[f"{name}/{slot}"]
                    state[:] = mx.nd.array(array, ctx=context, dtype=array.dtype)
            optimizer._set_current_context(context.device_id)
            optimizer._index_update_count.clear()
            optimizer._index_update_count.update({index: counts[name] for name, index in index_of.items()})
        optimizer.num_update = self.optimizer["num_update"]


def save(
    folder: PathLike, name: str, net: gluon.Block, trainer: Optional[gluon.Trainer], state: Mapping[str, Any]
) -> Path:
    """Write the checkpoint `name` of `net` (and `trainer`), in the place of an older one; return its manifest's path.

    Parameters
    ----------
    folder
        Made where it is missing.
    name
        Such as best or last.
    trainer
        None if the checkpoint is for using the network only, and not for training on.
    state
        Plain values (what JSON can hold); `STATE` lists those that must be there.
    """
    missing = [key for key in STATE if key not in state]
    if missing:
        raise ValueError(f"the state of a checkpoint must hold {', '.join(missing)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parameters = _named_parameters(net)
    arrays = {key: parameter.list_data()[0].asnumpy() for key, parameter in parameters.items()}
    files = {"parameters": _write_arrays(folder, "parameters", arrays)}
    optimizer = None
    if trainer is not None:
        optimizer, arrays = _optimizer_state(parameters, trainer)
        files["optimizer"] = _write_arrays(folder, "optimizer", arrays)
    manifest = {"format": FORMAT, "state": dict(state), "optimizer": optimizer, "files": files}
    path = folder / f"{name}.json"
    write_bytes_atomic(path, _sealed(manifest))
    _remove_unnamed(folder)
    return path


def load(folder: PathLike, name: str) -> Checkpoint:
    """Read the checkpoint `name` in `folder`.

    Raises
    ------
    ValueError
        If there is none, or one of its files is missing or is not what was written; it says which.
    """
    folder = Path(folder)
    path = folder / f"{name}.json"
    manifest = _read_manifest(path)
    arrays = {kind: _read_arrays(folder / entry["file"], entry["sha256"]) for kind, entry in manifest["files"].items()}
    return Checkpoint(
        path=path,
        state=manifest["state"],
        parameters=arrays["parameters"],
        optimizer=manifest["optimizer"],
        optimizer_arrays=arrays.get("optimizer", {}),
    )


def _named_parameters(net: gluon.Block) -> dict[str, gluon.Parameter]:
    """Each parameter once, by its structural name; names from gluon's counters differ from process to process."""
    seen: dict[int, str] = {}
    named = net._collect_params_with_prefix()
    for name, parameter in named.items():
        seen.setdefault(id(parameter), name)
    return {name: named[name] for name in seen.values()}


def _optimizer_name(trainer: gluon.Trainer) -> str:
    return type(trainer.optimizer).__name__.lower()


def _optimizer_state(
    parameters: Mapping[str, gluon.Parameter], trainer: gluon.Trainer
) -> tuple[dict[str, Any], Arrays]:
    """What a `gluon.Trainer` remembers, as plain values and as arrays; every device holds the same, so one will do."""
    optimizer, updater = trainer.optimizer, trainer._updaters[0]
    optimizer._set_current_context(trainer._contexts[0].device_id)
    counts: dict[str, int] = {}
    arrays: Arrays = {}
    for name, parameter in parameters.items():
        index = trainer._param2idx.get(parameter.name)
        if index in updater.states:
            counts[name] = optimizer._index_update_count[index]
            for slot, state in enumerate(_flattened(updater.states[index])):
                arrays[f"{name}/{slot}"] = state.asnumpy()
    plain = {"name": _optimizer_name(trainer), "num_update": optimizer.num_update, "update_counts": counts}
    return plain, arrays


def _flattened(state: Any) -> list[NDArray]:
    """The arrays of one parameter's optimizer state, which is None, an array or a tuple of such."""
    if state is None:
        return []
    if isinstance(state, NDArray):
        return [state]
    return [array for part in state for array in _flattened(part)]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_arrays(folder: Path, kind: str, arrays: Arrays) -> dict[str, str]:
    """Write an .npz file named after its content, unless it is there already; return its name and hash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # Not numpy.savez: it writes the time into each member, and the same arrays must give the same file.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    content = buffer.getvalue()
    digest = _sha256(content)
    path = folder / f"{kind}-{digest[:16]}.npz"
    if not path.exists() or _sha256(path.read_bytes()) != digest:
        write_bytes_atomic(path, content)
    return {"file": path.name, "sha256": digest}


def _read_arrays(path: Path, expected: str) -> Arrays:
    if not path.exists():
        raise ValueError(f"{path} is missing, and the checkpoint cannot be read without it")
    content = path.read_bytes()
    _check_hash(path, expected, _sha256(content))
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} does not hold plain arrays: {error}") from error


def _check_hash(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise ValueError(f"{path} is damaged: its SHA-256 should be {expected} and is {found}")


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """`manifest` as JSON, whose last entry is the hash of the file without that hash's digits."""
    text = json.dumps({**manifest, "sha256": ""}, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    before, mark, after = text.encode("utf-8").rpartition(_SEAL)
    return before + mark + _sha256(before + mark + after).encode("ascii") + after


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.json")))
        raise ValueError(f"{path} is missing: {'there is ' + others if others else 'no checkpoint is there'}")
    before, mark, rest = path.read_bytes().rpartition(_SEAL)
    digits, after = rest[:_DIGITS], rest[_DIGITS:]
    _check_hash(path, digits.decode("ascii", "backslashreplace"), _sha256(before + mark + after))
    manifest: dict[str, Any] = json.loads(before + mark + rest)
    if manifest["format"] != FORMAT:
        raise ValueError(f"{path} has format {manifest['format']}, and this version of deeprnn reads format {FORMAT}")
    return manifest


def _remove_unnamed(folder: Path) -> None:
    """Remove the array files that no manifest names, and what a crash left half-written."""
    named: set[str] = set()
    for path in folder.glob("*.json"):
        try:
            named.update(entry["file"] for entry in _read_manifest(path)["files"].values())
        except ValueError:
            return  # a damaged manifest may name anything, so nothing is known to be of no use
    for path in folder.iterdir():
        if path.suffix == ".tmp" or (_ARRAY_FILE.fullmatch(path.name) and path.name not in named):
            path.unlink()
