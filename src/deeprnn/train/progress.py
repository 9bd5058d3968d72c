"""Progress of a training: what is reported during an epoch and after it, and when a loss is read."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Optional

import mxnet as mx
from mxnet import gluon
from mxnet.ndarray import NDArray

from ..config import TrainConfig
from .loss import perplexity
from .position import Position

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

    Reading an array waits for the device, so the loss of a step is read a few steps later. The sums are kept in
    `position`, and so in each checkpoint.
    """

    def __init__(
        self,
        position: Position,
        trainer: gluon.Trainer,
        config: TrainConfig,
        steps: int,
        on_step: Optional[Callable[[StepReport], None]],
        report_every: float,
    ) -> None:
        self._position = position
        self._trainer = trainer
        self._config = config
        self._first_step = position.step
        self._steps = steps
        self._on_step = on_step
        self._report_every = report_every
        self._unread: deque[tuple[int, int, NDArray, NDArray]] = deque()
        self._begun = time.perf_counter()
        self._due = self._begun + min(report_every, FIRST_REPORT)

    def begin_epoch(self) -> None:
        """Start the clock of an epoch, or of what is left of it."""
        self._resumed_at = self._last_report = time.perf_counter()
        self._seconds_before = self._position.seconds
        self._reported_tokens, self._reported_loss = self._position.tokens, self._position.loss_sum

    def add(self, tokens: int, loss: NDArray, norm: NDArray) -> None:
        """Count a step of so many tokens with its loss and gradient norm; report if a report is due."""
        self._position.step += 1
        self._position.batch += 1
        self._unread.append((self._position.step, tokens, loss, norm))
        if len(self._unread) > IN_FLIGHT:
            self._read()
            if time.perf_counter() >= self._due:
                self._report()

    def settle(self) -> None:
        """Read what is unread, so that the sums are those of all steps so far.

        Raises
        ------
        Diverged
            If a loss or gradient norm is not finite.
        """
        while self._unread:
            self._read()
        mx.nd.waitall()  # the time includes the last update
        self._position.seconds = self.epoch_seconds()

    def epoch_seconds(self) -> float:
        """Seconds that this epoch has taken so far."""
        return self._seconds_before + time.perf_counter() - self._resumed_at

    def _report(self) -> None:
        now, position = time.perf_counter(), self._position
        if self._on_step:
            tokens = position.tokens - self._reported_tokens
            loss = (position.loss_sum - self._reported_loss) / tokens
            pace = (now - self._begun) / (position.step - self._first_step)
            self._on_step(
                StepReport(
                    epoch=position.epoch + 1,
                    epochs=self._config.epochs,
                    step=position.step,
                    steps=self._steps,
                    loss=loss,
                    perplexity=perplexity(loss),
                    tokens_per_second=tokens / (now - self._last_report),
                    seconds_left=pace * (self._steps - position.step),
                    learning_rate=self._trainer.learning_rate,
                )
            )
        self._reported_tokens, self._reported_loss = position.tokens, position.loss_sum
        self._last_report = now
        self._due = now + self._report_every

    def _read(self) -> None:
        """Read the oldest step that is unread."""
        step, tokens, loss, norm = self._unread.popleft()
        # The norm too: MXNet's log_softmax can give a finite loss although logits of other symbols are NaN.
        loss, norm = float(loss.asscalar()), float(norm.asscalar())
        for name, value in (("loss", loss), ("norm of the gradient", norm)):
            if not math.isfinite(value):
                raise Diverged(divergence(f"the {name} is {value} at", step, self._position.epoch + 1, self._config))
        self._position.tokens += tokens
        self._position.loss_sum += max(loss, 0.0) * tokens  # in float32 that of a text without surprises is -1e-6
        self._position.norm_sum += norm


def divergence(what: str, step: int, epoch: int, config: TrainConfig) -> str:
    """The message of `Diverged`: what is not finite, where, and what to try."""
    clipping = (
        f"stricter clipping (clip={config.clip:g} now)" if config.clip > 0 else "clipping (clip=1; it is off now)"
    )
    return (
        f"{what} step {step} (epoch {epoch}): try a lower learning rate (lr={config.lr:g} now), {clipping}, or another "
        "initialization"
    )
