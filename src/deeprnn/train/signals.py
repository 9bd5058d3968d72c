"""Signals that end a training after its position has been saved."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Optional

from .._util.signals import restore, take

__all__ = ["Signals", "Stopped"]


class Stopped(Exception):
    """Training ends because of a signal; the position it has reached is saved.

    Parameters
    ----------
    number : int
        Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Signals:
    """Remembers the first signal that asks to end; the second one ends the process at once. A context manager.

    A signal that is ignored, as SIGHUP is below nohup, stays so. Outside the main thread nothing is changed.
    """

    def __init__(self) -> None:
        self.received: Optional[int] = None
        """Number of the first signal that came."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._before = take(self._remember)
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        restore(self._before)

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self.received is not None:
            raise Stopped(self.received)

    def _remember(self, number: int, frame: Optional[FrameType]) -> None:
        self.received = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)  # not by Python, which may be waiting for MXNet's engine
