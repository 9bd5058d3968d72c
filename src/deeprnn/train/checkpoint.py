"""Checkpoints: the parameters of a network, the state of its optimizer, and what a run needs to be resumed.

`storage` describes the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.ndarray import NDArray

from .._util.wording import counted
from .storage import FORMAT, Arrays, read_arrays, read_manifest, remove_unnamed, write_arrays, write_manifest

__all__ = ["STATE", "Checkpoint", "load", "save"]

STATE = ("epoch", "step", "best_epoch", "best_loss", "seed", "config", "vocabulary", "versions")
"""Required keys of the `state` of a checkpoint. The values are plain (JSON); more keys may be added."""

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and whose hashes were verified.

    Parameters
    ----------
    path
        The manifest.
    state
        As given to `save`: epoch, step, best_epoch, best_loss, seed, config, vocabulary, versions, ...
    parameters
        Arrays of the network by structural name.
    optimizer
        Name and update counts of the optimizer; None if it was not saved.
    optimizer_arrays
        Arrays of the optimizer: `<parameter>/0`, `<parameter>/1`, ... in MXNet's order (for Adam, mean and variance).
    """

    path: Path
    state: Mapping[str, Any]
    parameters: Arrays
    optimizer: Optional[Mapping[str, Any]]
    optimizer_arrays: Arrays

    @property
    def epoch(self) -> int:
        """The epoch after which it was saved, counted from 1."""
        return int(self.state["epoch"])

    @property
    def step(self) -> int:
        """Updates made until then."""
        return int(self.state["step"])

    @property
    def best_epoch(self) -> int:
        """The best epoch until then."""
        return int(self.state["best_epoch"])

    @property
    def best_loss(self) -> float:
        """Loss of the best epoch, in nats per token."""
        return float(self.state["best_loss"])

    def restore(
        self,
        net: gluon.Block,
        trainer: Optional[gluon.Trainer] = None,
        *,
        ctx: Optional[mx.Context] = None,
        vocabulary: Optional[Sequence[str]] = None,
    ) -> None:
        """Restore `net` and `trainer`. Everything is compared first, so an error leaves both unchanged.

        Parameters
        ----------
        net
            Of the same architecture; initialized or not.
        trainer
            With the same optimizer. It keeps its learning rate and schedule, which depend on the number of updates.
        ctx
            Device of a `net` that is not initialized.
        vocabulary
            Tokens that `net` will be used with, to be compared with the saved ones.

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
                f"{self.path} was trained with a vocabulary of {counted(len(saved), 'symbol')}, and this one has "
                f"{len(vocabulary):,}"
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
                raise ValueError(
                    f"{self.path} has no parameter {name!r}, and the network has one: is it the same model?"
                )
            if name not in parameters:
                raise ValueError(
                    f"{self.path} has a parameter {name!r}, and the network has none: is it the same model?"
                )
            parameter, array = parameters[name], self.parameters[name]
            shape = parameter.shape or (0,) * array.ndim  # 0: unknown before the first batch
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
            raise ValueError(f"{self.path} has no optimizer state, so training cannot continue from it")
        own = _optimizer_name(trainer)
        if self.optimizer["name"] != own:
            raise ValueError(
                f"{self.path} was trained with the optimizer {self.optimizer['name']}, and this one is {own}: "
                f"continue with optimizer={self.optimizer['name']!r}"
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
    """Write a checkpoint of `net` and `trainer`, replacing one of the same name; return the path of its manifest.

    Parameters
    ----------
    folder
        Created if it is missing.
    name
        Such as best or last.
    net
        The network; all devices have the same parameters.
    trainer
        None to save no optimizer state, if training will not continue from this checkpoint.
    state
        Plain values that JSON can represent; `STATE` lists the required keys.

    Raises
    ------
    ValueError
        If a required key is missing.
    OSError
        If a file cannot be written. The previous checkpoint then is still valid.
    """
    missing = [key for key in STATE if key not in state]
    if missing:
        raise ValueError(f"state must have the keys {', '.join(missing)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parameters = _named_parameters(net)
    arrays = {key: parameter.list_data()[0].asnumpy() for key, parameter in parameters.items()}
    files = {"parameters": write_arrays(folder, "parameters", arrays)}
    optimizer = None
    if trainer is not None:
        optimizer, arrays = _optimizer_state(parameters, trainer)
        files["optimizer"] = write_arrays(folder, "optimizer", arrays)
    path = folder / f"{name}.json"
    write_manifest(path, {"format": FORMAT, "state": dict(state), "optimizer": optimizer, "files": files})
    remove_unnamed(folder)
    return path


def load(folder: PathLike, name: str) -> Checkpoint:
    """Read the checkpoint `name` in `folder`, and verify it.

    Raises
    ------
    ValueError
        If it does not exist, or if one of its files is missing or damaged; the message names the file.
    """
    folder = Path(folder)
    path = folder / f"{name}.json"
    manifest = read_manifest(path)
    arrays = {kind: read_arrays(folder / entry["file"], entry["sha256"]) for kind, entry in manifest["files"].items()}
    return Checkpoint(
        path=path,
        state=manifest["state"],
        parameters=arrays["parameters"],
        optimizer=manifest["optimizer"],
        optimizer_arrays=arrays.get("optimizer", {}),
    )


def _named_parameters(net: gluon.Block) -> dict[str, gluon.Parameter]:
    """Each parameter once, by its structural name, as gluon's own names depend on what else the process has created."""
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
    """The state of a `gluon.Trainer` as plain values and arrays, of the first device, as all have the same."""
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
    """The arrays of a parameter's optimizer state, which is None, an array, or a nested tuple."""
    if state is None:
        return []
    if isinstance(state, NDArray):
        return [state]
    return [array for part in state for array in _flattened(part)]
