"""How far a training has come: its place in the data, and the sums of the epoch so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from mxnet.ndarray import NDArray

__all__ = ["Position"]


@dataclass
class Position:
    """How far a training has come, between two steps: all that a run needs besides weights, optimizer and random state.

    Attributes
    ----------
    epoch, batch : int
        Epochs that are done, and batches of the next one that are done.
    step : int
        Updates made.
    best_epoch, best_loss
        The epoch with the lowest loss so far, and that loss in nats per token; 0 and infinity before the first.
    tokens, loss_sum, norm_sum, seconds
        Of the batches of this epoch that are done: tokens, losses times tokens, norms of the gradient, wall time.
    states : list of list of NDArray
        States that the next batch begins with, `(L, N, H)` each: a list for each part of the batch, in order, as
        several devices share it. Empty for zeros.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    tokens: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    seconds: float = 0.0
    states: list[list[NDArray]] = field(default_factory=list)

    def joined_states(self) -> list[np.ndarray]:
        """The states of the whole batch, however it was split."""
        return [np.concatenate([part.asnumpy() for part in parts], axis=1) for parts in zip(*self.states)]

    def next_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.tokens, self.loss_sum, self.norm_sum, self.seconds = 0, 0.0, 0.0, 0.0
        self.states = []

    def to_mapping(self) -> dict[str, Any]:
        """All but the states, in values that JSON can represent: an infinite loss is None."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "states"}
        return {**plain, "best_loss": None if math.isinf(self.best_loss) else self.best_loss}

    @classmethod
    def from_mapping(cls, plain: Mapping[str, Any], states: list[list[NDArray]]) -> Position:
        """The position that `to_mapping` gave.

        Raises
        ------
        ValueError
            For a value that no position has.
        """
        values: dict[str, Any] = {}
        for each in fields(cls):
            if each.name == "states" or each.name not in plain:  # a checkpoint at the end of an epoch has no sums
                continue
            value = math.inf if each.name == "best_loss" and plain[each.name] is None else plain[each.name]
            kinds = (int,) if each.type == "int" else (int, float)
            if each.name in ("best_loss", "loss_sum") and isinstance(value, float) and -1 < value < 0:
                value = 0.0  # a rounding error, in a checkpoint of an earlier version
            if type(value) not in kinds or not value >= 0:
                raise ValueError(f"{each.name} must be a number of at least 0, got {value!r}")
            values[each.name] = value
        return cls(**values, states=states)
