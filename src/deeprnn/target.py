"""What a graph is drawn for: a symbol knows neither its device nor whether a gradient will be asked of it.

The block that sees arrays knows both and says so while it draws (`drawn_for`); the rooms below ask (`target`) where one
formula has several forms of unequal speed. All forms give the same numbers up to rounding. Measured on one core with
AVX2, microseconds a step, forward + backward of the recurrent product alone, MXNet 1.9.1:

| sequences, units in and out | FullyConnected | dot |
|---|---|---|
| 16, 64 -> 64 | 11 + 44 | 11 + 24 |
| 32, 256 -> 256 | 80 + 210 | 115 + 200 |
| 32, 256 -> 1024 | 283 + 1016 | 440 + 711 |
| 128, 1024 -> 1024 | 3997 + 11570 | 4077 + 7848 |
| 1, 256 -> 1024 | 35 + 382 | 245 + 280 |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from mxnet import autograd
from mxnet.ndarray import NDArray

from .checks import check_choice

__all__ = ["DEVICES", "MANY", "Target", "drawn_for", "target"]

DEVICES = ("cpu", "gpu")

MANY = 16
"""Sequences from which the recurrent product of a training graph is a `dot`, see the table above."""


@dataclass(frozen=True)
class Target:
    """What a graph is drawn for; the defaults are right wherever nothing is known.

    Parameters
    ----------
    device : {'cpu', 'gpu'}
    training : bool
        Whether a gradient may be asked of the graph.
    many : bool
        Whether a training graph on a CPU takes `MANY` sequences at once.

    Raises
    ------
    ValueError
        For another device.
    """

    device: str = "cpu"
    training: bool = True
    many: bool = False

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)

    @classmethod
    def of(cls, inputs: NDArray, batch_size: int) -> Target:
        """That of a call with these arrays, now."""
        device = "gpu" if inputs.context.device_type == "gpu" else "cpu"
        training = autograd.is_recording()
        return cls(device, training, device == "cpu" and training and batch_size >= MANY)


_UNKNOWN = Target()
_target: ContextVar[Target] = ContextVar("target", default=_UNKNOWN)


def target() -> Target:
    """What the graph that is being drawn is for."""
    return _target.get()


@contextmanager
def drawn_for(target: Target) -> Iterator[None]:
    """Graphs drawn inside are for this target; for symbols that no block of this package draws, say it with this."""
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)
