"""Progress of a training: what is reported during an epoch and after it, and when a loss is read."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Optional

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.ndarray import NDArray

from ..config import TrainConfig
from .loss import perplexity

__all__ = ["FIRST_REPORT", "IN_FLIGHT", "Diverged", "EpochReport", "Progress", "StepReport", "divergence"]

IN_FLIGHT = 4
"""Steps that Python may be ahead of the device. With fewer the device is idle now and then; without a limit a whole
epoch would be queued in memory within seconds, and nothing could be reported before its end."""

FIRST_REPORT = 2.0
"""Seconds until the first progress report, at most."""


@dataclass(frozen=True)
class StepReport:
    """Progress in the middle of an epoch.

    Parameters
    ----------
    epoch, epochs : int
        The current epoch, counted from 1, and the number of epochs.
    step, steps : int
        Updates made so far, and updates of the whole run.
    loss, perplexity : float
        Mean training loss of the steps since the last report, in nats per token, and its exponential.
    tokens_per_second : float
        Since the last report.
    seconds_left : float
        Estimated time to the end of the run, validation included.
    learning_rate : float
        Of the last update.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    perplexity: float
    tokens_per_second: float
    seconds_left: float
    learning_rate: float


@dataclass(frozen=True)
class EpochReport:
    """Results of an epoch.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    train_loss, valid_loss : float
        In nats per token. The running training loss is the mean over the tokens of the epoch, each measured before the
        update of its step, with dropout; the validation loss is measured after the last step (None without validation
        text).
    train_perplexity, valid_perplexity : float
        Their exponentials.
    tokens_per_second : float
        Of the training steps, without validation.
    seconds : float
        Wall time of the epoch, validation included.
    learning_rate : float
        Of the last update.
    grad_norm : float
        Mean over the steps of the gradient's global norm before clipping.
    step : int
        Updates made since the beginning of the run.
    best_epoch, best_loss
        The epoch with the lowest loss so far, and that loss: the validation loss, or without validation text the
        running training loss.
    """

    epoch: int
    train_loss: float
    train_perplexity: float
    valid_loss: Optional[float]
    valid_perplexity: Optional[float]
    tokens_per_second: float
    seconds: float
    learning_rate: float
    grad_norm: float
    step: int
    best_epoch: int
    best_loss: float

    @property
    def is_best(self) -> bool:
        """Whether this epoch is the best so far."""
        return self.epoch == self.best_epoch


class Diverged(RuntimeError):
    """The loss, its perplexity, or the norm of its gradient is no longer a finite number."""


class Progress:
    """Losses and gradient norms of the steps, and their timing.

    Reading an array waits for the device. Therefore losses stay on the device until a report is due, and only those of
    steps that have finished by then are read.
    """

    def __init__(
        self,
        trainer: gluon.Trainer,
        config: TrainConfig,
        first_step: int,
        steps: int,
        on_step: Optional[Callable[[StepReport], None]],
        report_every: float,
    ) -> None:
        self.step = first_step
        self._trainer = trainer
        self._config = config
        self._first_step = first_step
        self._steps = steps
        self._on_step = on_step
        self._report_every = report_every
        self._unread: deque[tuple[int, int, NDArray, NDArray]] = deque()
        self._begun = time.perf_counter()
        self._due = self._begun + min(report_every, FIRST_REPORT)

    def begin_epoch(self, epoch: int) -> None:
        """Start the clock and the sums of an epoch."""
        self._epoch = epoch
        self._epoch_begun = self._last_report = time.perf_counter()
        self._tokens = 0
        self._loss_sum = 0.0
        self._norms: list[float] = []

    def add(self, tokens: int, loss: NDArray, norm: NDArray) -> None:
        """Add a step of so many tokens with its loss and gradient norm; report if it is time to."""
        self.step += 1
        self._unread.append((self.step, tokens, loss, norm))
        if len(self._unread) > IN_FLIGHT:
            self._unread[-1 - IN_FLIGHT][-1].wait_to_read()
            if time.perf_counter() >= self._due:
                self._report()

    def end_epoch(self) -> tuple[float, float, float]:
        """Mean loss per token, mean gradient norm and tokens per second over the steps of the epoch."""
        self._read(len(self._unread))
        mx.nd.waitall()  # the time includes the last update
        return self._loss_sum / self._tokens, float(np.mean(self._norms)), self._tokens / self.epoch_seconds()

    def epoch_seconds(self) -> float:
        """Seconds since `begin_epoch`."""
        return time.perf_counter() - self._epoch_begun

    def _report(self) -> None:
        tokens, loss_sum = self._tokens, self._loss_sum
        self._read(len(self._unread) - IN_FLIGHT)
        now = time.perf_counter()
        if self._on_step:
            loss = (self._loss_sum - loss_sum) / (self._tokens - tokens)
            pace = (now - self._begun) / (self.step - self._first_step)
            self._on_step(
                StepReport(
                    epoch=self._epoch,
                    epochs=self._config.epochs,
                    step=self.step,
                    steps=self._steps,
                    loss=loss,
                    perplexity=perplexity(loss),
                    tokens_per_second=(self._tokens - tokens) / (now - self._last_report),
                    seconds_left=pace * (self._steps - self.step),
                    learning_rate=self._trainer.learning_rate,
                )
            )
        self._last_report = now
        self._due = now + self._report_every

    def _read(self, count: int) -> None:
        """Read the oldest `count` of the unread steps."""
        for _ in range(count):
            step, tokens, loss, norm = self._unread.popleft()
            # The norm too: MXNet's log_softmax can give a finite loss although logits of other symbols are NaN.
            loss, norm = float(loss.asscalar()), float(norm.asscalar())
            for name, value in (("loss", loss), ("norm of the gradient", norm)):
                if not math.isfinite(value):
                    raise Diverged(divergence(f"the {name} is {value} at", step, self._epoch, self._config))
            self._tokens += tokens
            self._loss_sum += loss * tokens
            self._norms.append(norm)


def divergence(what: str, step: int, epoch: int, config: TrainConfig) -> str:
    """The message of `Diverged`: what is not finite, where, and what to try."""
    clipping = (
        f"stricter clipping (clip={config.clip:g} now)" if config.clip > 0 else "clipping (clip=1; it is off now)"
    )
    return (
        f"{what} step {step} (epoch {epoch}): try a lower learning rate (lr={config.lr:g} now), {clipping}, or another "
        "initialization"
    )
