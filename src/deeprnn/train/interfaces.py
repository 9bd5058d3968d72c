"""Interfaces that the loop needs: of batches, of what keeps checkpoints, and of a loss by samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional, Protocol

from mxnet.ndarray import NDArray

from .position import Position
from .progress import EpochReport

__all__ = ["BatchSource", "Checked", "CheckpointPolicy", "Sampled"]


class BatchSource(Protocol):
    """Batches as the loop needs them; `data.batches.Batches` is one."""

    batch_size: int
    """Sequences in a batch, with those of other processes."""
    carries_state: bool
    """Whether a batch continues the one before."""

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[tuple[NDArray, NDArray]]:
        """The batches ``(data, target)`` of an epoch, ids of shape (T, N) each: the sequences of this process."""


class Checked(Protocol):
    """What the loop calls between two batches; `signals.Signals` is one."""

    def check(self) -> None:
        """Raise `Stopped` if training is to end."""


class CheckpointPolicy(Checked, Protocol):
    """What the loop calls between two steps; `keeping.Keeper` is one."""

    @property
    def signals(self) -> Checked:
        """What may end the validation."""

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved now."""

    def save(self, position: Position, report: Optional[EpochReport] = None) -> None:
        """Save a checkpoint; with the report of the epoch at its end."""


class Sampled(Protocol):
    """What replaces network and loss of a step; `models.sampled.SampledLoss` is one."""

    outputs: Any
    """The network without its decoder: called with ids and states, it returns outputs (T, N, H) and states."""

    def __call__(self, outputs: NDArray, target: NDArray, whole: int) -> tuple[NDArray, NDArray]:
        """The loss of a part of a batch of `whole` sequences, and its gradient with respect to the outputs."""
