"""The state of a `gluon.Trainer` as plain values and arrays, which `Trainer.save_states` would pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.ndarray import NDArray

__all__ = ["check_optimizer", "named_parameters", "optimizer_state", "restore_optimizer"]


def named_parameters(net: gluon.Block) -> dict[str, gluon.Parameter]:
    """Each parameter once, by its structural name, as gluon's own names depend on what else the process has created."""
    seen: dict[int, str] = {}
    named = net._collect_params_with_prefix()
    for name, parameter in named.items():
        seen.setdefault(id(parameter), name)
    return {name: named[name] for name in seen.values()}


def optimizer_state(
    parameters: Mapping[str, gluon.Parameter], trainer: gluon.Trainer
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Name and update counts, and the arrays of the first device; all devices have the same."""
    optimizer, updater = trainer.optimizer, trainer._updaters[0]
    optimizer._set_current_context(trainer._contexts[0].device_id)
    counts: dict[str, int] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, parameter in parameters.items():
        index = trainer._param2idx.get(parameter.name)
        if index in updater.states:
            counts[name] = optimizer._index_update_count[index]
            for slot, state in enumerate(_flattened(updater.states[index])):
                arrays[f"{name}/{slot}"] = state.asnumpy()
    plain = {
        "name": type(trainer.optimizer).__name__.lower(),
        "num_update": optimizer.num_update,
        "update_counts": counts,
    }
    return plain, arrays


def check_optimizer(
    path: Path,
    trainer: gluon.Trainer,
    parameters: Mapping[str, np.ndarray],
    plain: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Raise ValueError unless `restore_optimizer` can restore what was read from `path` for these `parameters`."""
    saved, own = plain["name"], type(trainer.optimizer).__name__.lower()
    if saved != own:
        raise ValueError(
            f"{path} was trained with the optimizer {saved}, and this one is {own}: continue with optimizer={saved!r}"
        )
    slots = len(_flattened(trainer.optimizer.create_state_multi_precision(0, mx.nd.zeros((1,)))))
    shapes = {f"{name}/{n}": array.shape for name, array in parameters.items() for n in range(slots)}
    needed = {f"{name}/{n}" for name in plain["update_counts"] for n in range(slots)}
    for name in needed | set(arrays):
        if name not in needed or name not in arrays or shapes.get(name) != arrays[name].shape:
            raise ValueError(f"{path} has another state of the optimizer than {own} needs for {name!r}")
    if not set(plain["update_counts"]) <= set(parameters):
        raise ValueError(f"{path} has optimizer state for something that is not a parameter")


def restore_optimizer(
    parameters: Mapping[str, gluon.Parameter],
    trainer: gluon.Trainer,
    plain: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Restore what `optimizer_state` gave, on each device."""
    optimizer, counts = trainer.optimizer, plain["update_counts"]
    index_of = {name: trainer._param2idx[parameters[name].name] for name in counts}
    for position, (updater, context) in enumerate(zip(trainer._updaters, trainer._contexts)):
        updater.states.clear()
        for name, index in index_of.items():
            weight = parameters[name].list_data()[position]
            updater.states[index] = optimizer.create_state_multi_precision(index, weight)
            updater.states_synced[index] = True
            for slot, state in enumerate(_flattened(updater.states[index])):
                array = arrays[f"{name}/{slot}"]
                state[:] = mx.nd.array(array, ctx=context, dtype=array.dtype)
        optimizer._set_current_context(context.device_id)
        optimizer._index_update_count.clear()
        optimizer._index_update_count.update({index: counts[name] for name, index in index_of.items()})
    optimizer.num_update = plain["num_update"]


def _flattened(state: Any) -> list[NDArray]:
    """The arrays of a parameter's optimizer state, which is None, an array, or a nested tuple."""
    if state is None:
        return []
    if isinstance(state, NDArray):
        return [state]
    return [array for part in state for array in _flattened(part)]
