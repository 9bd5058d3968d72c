"""Checkpoints: the parameters of a network, the state of its optimizer, and what a run needs to be resumed.

`storage` describes the files. A folder holds the last few checkpoints, each of them whole: it names its own arrays and
those of the best network so far.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.ndarray import NDArray

from .._util.wording import counted
from .optimizer_state import check_optimizer, named_parameters, restore_optimizer
from .position import Position
from .random_state import restore_random
from .storage import Arrays, check_entry, entries, holds_checkpoints, manifests, read_arrays, read_manifest

__all__ = ["REQUIRED_STATE", "Checkpoint", "load"]

REQUIRED_STATE = {"seed": int, "config": dict, "vocabulary": list, "versions": dict}
"""Required keys of the `state` of a checkpoint, beside those of `Position`. The values are plain (JSON); more keys may
be added."""

PLACE = ("epoch", "step")
"""Keys of the best network in a manifest, beside its array file."""

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and whose hashes were verified.

    Parameters
    ----------
    path
        The manifest.
    state
        As given to `saving.Checkpoints`: seed, config, vocabulary, versions, ..., and the values of `position`.
    parameters
        Arrays of the network by structural name.
    position
        How far the training had come.
    optimizer
        Name and update counts of the optimizer; None if it was not saved.
    optimizer_arrays
        Arrays of the optimizer: `<parameter>/0`, `<parameter>/1`, ... in MXNet's order (for Adam, mean and variance).
    random
        State of the random numbers, by `random_arrays`; empty in format 1.
    best
        Epoch, step and array file of the best network so far; None before the end of the first epoch.
    damaged
        Newer checkpoints that were not used, each with the reason.
    """

    path: Path
    state: Mapping[str, Any]
    parameters: Arrays
    position: Position
    optimizer: Optional[Mapping[str, Any]] = None
    optimizer_arrays: Arrays = field(default_factory=dict)
    random: Arrays = field(default_factory=dict)
    best: Optional[Mapping[str, Any]] = None
    damaged: tuple[str, ...] = ()

    @property
    def epoch(self) -> int:
        """Epochs that were done when it was saved."""
        return self.position.epoch

    @property
    def step(self) -> int:
        """Updates made until then."""
        return self.position.step

    def restore(
        self,
        net: gluon.Block,
        trainer: Optional[gluon.Trainer] = None,
        *,
        ctx: Optional[mx.Context] = None,
        vocabulary: Optional[Sequence[str]] = None,
    ) -> None:
        """Restore `net`. With a `trainer`, restore that too, and the state of the random numbers of Python and NumPy.

        Everything is compared before anything is changed, so an error leaves both as they were.

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
        parameters = named_parameters(net)
        self._check_parameters(parameters)
        if trainer is not None:
            if self.optimizer is None:
                raise ValueError(f"{self.path} has no optimizer state, so training cannot continue from it")
            check_optimizer(self.path, trainer, self.parameters, self.optimizer, self.optimizer_arrays)
        for name, parameter in parameters.items():
            array = self.parameters[name]
            parameter._load_init(mx.nd.array(array, dtype=array.dtype), ctx)
        if trainer is not None:
            assert self.optimizer is not None
            restore_optimizer(parameters, trainer, self.optimizer, self.optimizer_arrays)
            if self.random:
                restore_random(self.random)

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


def load(folder: PathLike, name: str = "last") -> Checkpoint:
    """Read and verify the newest checkpoint in `folder` that is whole.

    Parameters
    ----------
    folder
        Folder of checkpoints.
    name
        last: the one from which training continues; best: the best network so far, without optimizer (before the first
        epoch ends: the last one).

    Raises
    ------
    ValueError
        If there is none, or if all are damaged; the message names the file. Newer checkpoints that are damaged are in
        `Checkpoint.damaged`.
    """
    folder = Path(folder)
    damaged: list[str] = []
    for path in manifests(folder) or [folder / f"{name}.json"]:
        try:
            return _read(path, name, tuple(damaged))
        except ValueError as error:
            damaged.append(str(error))
    if not holds_checkpoints(folder):
        raise ValueError(f"{folder} has no checkpoint")
    raise ValueError("; ".join(damaged))


def _read(path: Path, name: str, damaged: tuple[str, ...]) -> Checkpoint:
    """Read the checkpoint of a manifest and verify all its files: `load` falls back to the one before on any error."""
    content, folder = _content(path), path.parent
    state, files, best = content["state"], content["files"], content["best"]
    if name == "best":
        if best:
            state = {**state, **{key: best[key] for key in PLACE}}
        arrays = read_arrays(folder, best["parameters"] if best else files["parameters"])
        return Checkpoint(path, state, arrays, _position(path, state, []), best=best, damaged=damaged)
    arrays = read_arrays(folder, files["parameters"])
    if best and best["parameters"] != files["parameters"]:
        read_arrays(folder, best["parameters"])
    training = read_arrays(folder, files["training"])
    states = [mx.nd.array(array, dtype=array.dtype) for array in _below(training, "states").values()]
    return Checkpoint(
        path,
        state,
        arrays,
        _position(path, state, [states] if states else []),
        optimizer=content["optimizer"],
        optimizer_arrays=training if content["format"] == 1 else _below(training, "optimizer"),
        random=_below(training, "random"),
        best=best,
        damaged=damaged,
    )


def _content(path: Path) -> dict[str, Any]:
    """A manifest whose hash is right, with the keys and types of format 2; raises ValueError otherwise."""
    content = {"state": None, "files": None, "optimizer": None, "best": None, **read_manifest(path)}
    state, files, optimizer = content["state"], content["files"], content["optimizer"]
    if not isinstance(state, dict) or not isinstance(files, dict):
        raise ValueError(f"{path} is damaged: it has no state, or no files")
    for key, kind in REQUIRED_STATE.items():
        if not isinstance(state.get(key), kind):
            raise ValueError(f"{path} is damaged: its {key} is {str(state.get(key))[:100]}")
    if not all(isinstance(symbol, str) for symbol in state["vocabulary"]):
        raise ValueError(f"{path} is damaged: its vocabulary has symbols that are not text")
    if content["format"] == 1:
        content["files"] = {"training": files.get("optimizer", files.get("parameters")), **files}
        best_path = path.with_name("best.json")
        if path != best_path and best_path.exists():
            of_best = _content(best_path)
            place = {key: of_best["state"].get(key) for key in PLACE}
            content["best"] = {**place, "parameters": of_best["files"]["parameters"]}
    best = content["best"]
    if best is not None and not (isinstance(best, dict) and all(type(best.get(key)) is int for key in PLACE)):
        raise ValueError(f"{path} is damaged: its best network is {str(best)[:100]}")
    for entry in entries(content):
        check_entry(path, entry)
    if optimizer is not None:
        counts = optimizer.get("update_counts") if isinstance(optimizer, dict) else None
        numbers = [optimizer.get("num_update"), *counts.values()] if isinstance(counts, dict) else [None]
        fine = all(type(number) is int and 0 <= number < 2**31 for number in numbers)
        if not fine or not isinstance(optimizer.get("name"), str):
            raise ValueError(f"{path} is damaged: its optimizer is {str(optimizer)[:100]}")
    return content


def _position(path: Path, state: Mapping[str, Any], states: list[list[NDArray]]) -> Position:
    try:
        return Position.from_mapping(state, states)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _below(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays called `prefix`/..., without the prefix."""
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}/")}
