"""When a checkpoint is due, and when training is to stop."""

from __future__ import annotations

import time
from typing import Callable, Optional

from .position import Position
from .progress import EpochReport
from .signals import Signals

__all__ = ["Keeper"]

Save = Callable[[Position, Optional[EpochReport]], None]


class Keeper:
    """Saves a checkpoint every so many minutes and steps, at the end of each epoch, and when a signal ends training.

    Parameters
    ----------
    write
        Writes a checkpoint of a position; with the report of the epoch at its end.
    minutes
        Minutes between two checkpoints; 0: none by the clock.
    steps
        Updates between two checkpoints; 0: none by the number of updates.
    signals
        Signals that may end training.

    Attributes
    ----------
    seconds : float
        Time spent on writing checkpoints so far.
    """

    def __init__(self, write: Save, *, minutes: float, steps: int, signals: Signals) -> None:
        self.check = signals.check
        self.seconds = 0.0
        self._write = write
        self._every_seconds, self._every_steps = 60 * minutes, steps
        self._last = time.monotonic()  # unlike the time of day, it never jumps

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after this step."""
        if self._every_steps and step % self._every_steps == 0:
            return True
        return bool(self._every_seconds) and time.monotonic() - self._last >= self._every_seconds

    def save(self, position: Position, report: Optional[EpochReport] = None) -> None:
        """Save a checkpoint now."""
        begun = time.monotonic()
        self._write(position, report)
        self._last = time.monotonic()
        self.seconds += self._last - begun
