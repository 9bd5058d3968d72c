"""When a checkpoint is due, and when training is to stop."""

from __future__ import annotations

import time
from collections import deque
from typing import Callable, Optional

import mxnet as mx
from mxnet.ndarray import NDArray

from .._util.signals import ENDING
from ..distributed.workers import Alone
from .position import Position
from .progress import IN_FLIGHT, EpochReport
from .signals import Signals, Stopped

__all__ = ["Keeper", "SharedKeeper"]

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
    signals : Signals
        As given.
    seconds : float
        Time spent on writing checkpoints so far.
    """

    def __init__(self, write: Save, *, minutes: float, steps: int, signals: Signals) -> None:
        self.signals = signals
        self.seconds = 0.0
        self._write = write
        self._every_seconds, self._every_steps = 60 * minutes, steps
        self._last = time.monotonic()  # unlike the time of day, it never jumps

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        self.signals.check()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after this step."""
        return (self._every_steps > 0 and step % self._every_steps == 0) or self.is_time()

    def is_time(self) -> bool:
        """Whether a checkpoint is to be saved by the clock."""
        return bool(self._every_seconds) and time.monotonic() - self._last >= self._every_seconds

    def save(self, position: Position, report: Optional[EpochReport] = None) -> None:
        """Save a checkpoint now."""
        begun = time.monotonic()
        self._write(position, report)
        self._last = time.monotonic()
        self.seconds += self._last - begun


class SharedKeeper(Keeper):
    """The same for several workers, which save and stop at the same step: at a signal to any of them, or by the clock.

    At each step they add up their requests. The sum of a step is read a few steps later, by all of them at the
    same step, as with the losses: none waits for the others here.
    """

    def __init__(self, write: Save, workers: Alone, *, minutes: float, steps: int, signals: Signals) -> None:
        super().__init__(write, minutes=minutes, steps=steps, signals=signals)
        self._workers = workers
        self._unread: deque[NDArray] = deque()
        self._is_time = False

    def check(self) -> None:
        """Raise `Stopped` if a signal has come to any of the workers. To be called once a step."""
        received = self.signals.received or self._workers.signal
        wishes = [float(received == number) for number in ENDING]
        wishes.append(float(super().is_time()))
        self._unread.append(self._workers.summed("wishes", mx.nd.array(wishes)))
        if len(self._unread) > IN_FLIGHT:
            *signals, time_is_up = self._unread.popleft().asnumpy().tolist()
            self._is_time = self._is_time or time_is_up > 0
            for number, wish in zip(ENDING, signals):
                if wish:
                    raise Stopped(number)

    def is_time(self) -> bool:
        return self._is_time

    def save(self, position: Position, report: Optional[EpochReport] = None) -> None:
        super().save(position, report)
        self._is_time = False
