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

and of the rest of a step, oneDNN's operators (`Activation`, `elemwise_add`) against MXNet's own, in a whole training
step of 2 layers of 256 units over the built-in layer's time: one sequence, Elman 1.09 against 0.99, LSTM 1.15 against
1.00, GRU 1.11 against 1.02; 8 sequences, 1.37 and 1.37, 1.30 and 1.29, 1.20 and 1.16.
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

BATCHES = ("any", "few", "many")

MANY = 16
"""Sequences from which on a training graph is drawn for many, see the figures above."""


@dataclass(frozen=True)
class Target:
    """What a graph is drawn for; the defaults are right wherever nothing is known.

    Parameters
    ----------
    device : {'cpu', 'gpu'}
    training : bool
        Whether a gradient may be asked of the graph.
    batch : {'any', 'few', 'many'}
        Whether a training graph on a CPU takes `MANY` sequences at once, where that is known.

    Raises
    ------
    ValueError
        For another device or batch.
    """

    device: str = "cpu"
    training: bool = True
    batch: str = "any"

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        check_choice("batch", self.batch, BATCHES)

    @classmethod
    def of(cls, inputs: NDArray, batch_size: int) -> Target:
        """That of a call with these arrays, now."""
        device = "gpu" if inputs.context.device_type == "gpu" else "cpu"
        training = autograd.is_recording()
        if device == "gpu" or not training:
            return cls(device, training)
        return cls(device, training, "many" if batch_size >= MANY else "few")


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
