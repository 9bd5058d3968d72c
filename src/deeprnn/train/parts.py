"""The parts of a batch that several devices share, and the states that each part begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx
from mxnet.gluon.utils import split_and_load
from mxnet.ndarray import NDArray

from .._util.wording import counted
from ..distributed.workers import Alone
from .position import Position

__all__ = ["carried", "parted", "split"]


def split(array: NDArray, contexts: Sequence[mx.Context]) -> list[NDArray]:
    """The parts of an array `(T, N)` or `(L, N, H)`, one on each device, as equal as can be.

    Raises
    ------
    ValueError
        If there are fewer sequences than devices.
    """
    if array.shape[1] < len(contexts):
        raise ValueError(
            f"a batch of {counted(array.shape[1], 'sequence')} cannot be shared by {len(contexts)} devices"
        )
    return split_and_load(array, list(contexts), batch_axis=1, even_split=False)


def parted(start: Position, workers: Alone, contexts: Sequence[mx.Context]) -> list[list[NDArray]]:
    """The states of a position for each device of this process, whatever it was saved with."""
    own = (state[:, workers.share(state.shape[1])] for state in start.joined_states())
    return list(map(list, zip(*(split(mx.nd.array(state, dtype=state.dtype), contexts) for state in own))))


def carried(net: Any, states: Sequence[Sequence[NDArray]], parts: Sequence[NDArray]) -> list[list[NDArray]]:
    """Initial states `(L, N, H)` of the parts of a batch: the last ones of the batch before, detached, or zeros."""
    if [state[0].shape[1] for state in states] != [part.shape[1] for part in parts]:
        return [net.begin_state(part.shape[1], ctx=part.ctx) for part in parts]
    return [[state.as_in_context(part.ctx).detach() for state in own] for own, part in zip(states, parts)]
