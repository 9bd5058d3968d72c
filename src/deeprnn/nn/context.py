"""What a graph is drawn for: a symbol knows neither its device nor whether a gradient will be asked of it.

The block that sees arrays knows both and says so while it draws (`drawn_for`); the rooms below ask (`target`) where one
formula has several forms of unequal speed. All forms give the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from mxnet import autograd
from mxnet.ndarray import NDArray

from .._util.checks import check_choice

__all__ = ["DEVICES", "Target", "drawn_for", "target"]

DEVICES = ("cpu", "gpu")


@dataclass(frozen=True)
class Target:
    """What a graph is drawn for; the defaults are right wherever nothing is known.

    Parameters
    ----------
    device : {'cpu', 'gpu'}
    training : bool
        Whether a gradient may be asked of the graph.
    here : bool
        Whether the graph stays in this process, so that Python may have a part in it: `bptt` has one.

    Raises
    ------
    ValueError
        For another device.
    """

    device: str = "cpu"
    training: bool = True
    here: bool = False

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)

    @classmethod
    def of(cls, inputs: NDArray) -> Target:
        """That of a call with this array, now."""
        device = "gpu" if inputs.context.device_type == "gpu" else "cpu"
        return cls(device, autograd.is_recording(), here=True)

    @property
    def by_hand(self) -> bool:
        """Whether a layer's gradient is to be that of `bptt`."""
        # On a GPU, Python in a graph would break its capture.
        return self.here and self.training and self.device == "cpu"


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
