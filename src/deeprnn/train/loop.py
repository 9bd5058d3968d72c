"""The training loop: truncated back-propagation through time over batches of text, with a `gluon.Trainer`.

It knows no model: a network is something that is called with `(data, states)`, makes its own `begin_state`, and says
by `draws_random` whether its training graph draws random numbers. What happens meanwhile goes out through callbacks.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol

import mxnet as mx
import numpy as np
from gluonnlp.utils import clip_grad_global_norm, grad_global_norm
from mxnet import autograd, gluon
from mxnet.ndarray import NDArray

from .._util.types import Operators, Tensor
from ..config import TrainConfig
from .schedule import learning_rate_schedule

__all__ = [
    "Batches",
    "Diverged",
    "EpochReport",
    "History",
    "Progress",
    "StepReport",
    "evaluate",
    "fit",
    "make_trainer",
    "perplexity",
    "token_losses",
    "train_epoch",
]

IN_FLIGHT = 4
"""Steps that Python may be ahead of the device. Fewer leave it idle now and then; without a bound a whole epoch would
be queued in memory within seconds, and nothing said about it until it is over."""

FIRST_REPORT = 2.0
"""Seconds until the first progress report at the latest."""


class Batches(Protocol):
    """What the loop asks of a corpus cut into batches."""

    carries_state: bool

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[tuple[NDArray, NDArray]]: ...


class Start(Protocol):
    """The end of an epoch, to go on from: an `EpochReport` or a checkpoint."""

    @property
    def epoch(self) -> int: ...

    @property
    def step(self) -> int: ...

    @property
    def best_epoch(self) -> int: ...

    @property
    def best_loss(self) -> float: ...


@dataclass(frozen=True)
class StepReport:
    """How it goes, in the middle of an epoch.

    Parameters
    ----------
    epoch, epochs : int
        The epoch that runs, counted from 1, and their number.
    step, steps : int
        Updates done and to be done, over the whole run.
    loss, perplexity : float
        Mean over the steps since the last report, in nats per token, and its exponential.
    tokens_per_second : float
        Since the last report.
    seconds_left : float
        To the end of the run at the pace so far, validation included.
    learning_rate : float
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
    """What an epoch came to.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    train_loss, valid_loss : float
        Nats per token, weighted by tokens: over the epoch's steps as they went, and after the last of them over the
        validation text (None where there is none).
    train_perplexity, valid_perplexity : float
        Their exponentials.
    tokens_per_second : float
        Of the training steps alone.
    seconds : float
        Wall time of the epoch, validation included.
    learning_rate : float
        Of the last update.
    grad_norm : float
        Mean over the steps of the gradient's global norm before clipping.
    step : int
        Updates done since the run began.
    best_epoch, best_loss
        The epoch with the lowest loss so far, and that loss: on the validation text, or where there is none on the
        training text.
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
        """Whether the network as it is now is the best so far, and so the one to keep."""
        return self.epoch == self.best_epoch


@dataclass(frozen=True)
class History:
    """The epochs that `fit` ran, and whether it stopped before the last because none got better any more."""

    epochs: tuple[EpochReport, ...]
    stopped_early: bool


class Diverged(RuntimeError):
    """The loss, or its gradient, is not a finite number any more."""


def fit(
    net: Any,
    train: Batches,
    valid: Optional[Batches],
    config: TrainConfig,
    *,
    ctx: mx.Context,
    trainer: Optional[gluon.Trainer] = None,
    start: Optional[Start] = None,
    on_step: Optional[Callable[[StepReport], None]] = None,
    on_epoch: Optional[Callable[[EpochReport], None]] = None,
    report_every: float = 1.0,
) -> History:
    """Train `net` in place for `config.epochs` epochs.

    Parameters
    ----------
    net
        Initialized on `ctx`; hybridized or not.
    train, valid
        Batches `(data, target)` of ids, each `(sequence_length, batch_size)`. Without `valid`, the training loss
        stands in for the validation loss where the best epoch is chosen.
    trainer
        From `make_trainer`, where its state is to be saved or has been restored; by default a new one.
    start
        Go on after this epoch: `net` and `trainer` hold what was saved at its end. The run then takes the very course
        that it would have taken uninterrupted.
    on_step
        Called within the first two seconds and then every `report_every` seconds, between two steps.
    on_epoch
        Called after each epoch and its validation; the place to save a checkpoint.

    Raises
    ------
    Diverged
        At most `report_every` seconds, or an epoch's end, after a loss that is NaN or infinite.
    ValueError
        If `trainer` has not done as many updates as `start` says, or no epoch is left after `start`.
    """
    first_epoch, first_step = (start.epoch + 1, start.step) if start else (1, 0)
    if first_epoch > config.epochs:
        raise ValueError(f"nothing is left to train: epoch {first_epoch - 1} is done, and --epochs is {config.epochs}")
    steps = first_step + (config.epochs - first_epoch + 1) * len(train)
    trainer = trainer or make_trainer(net, config, steps)
    if trainer.optimizer.num_update != first_step:
        raise ValueError(
            f"the trainer has done {trainer.optimizer.num_update} updates, and training goes on after {first_step}; "
            "restore it from the checkpoint that is given as start"
        )
    best_epoch, best_loss = (start.best_epoch, start.best_loss) if start else (0, math.inf)
    reports: list[EpochReport] = []
    stopped_early = False
    progress = Progress(trainer, config, first_step, steps, on_step, report_every)
    try:
        for epoch in range(first_epoch, config.epochs + 1):
            progress.begin_epoch(epoch)
            train_epoch(net, train, trainer, config, epoch=epoch, ctx=ctx, progress=progress)
            train_loss, grad_norm, tokens_per_second = progress.end_epoch()
            valid_loss = evaluate(net, valid, ctx)
            if valid_loss is not None and not math.isfinite(valid_loss):
                raise Diverged(_diverged(f"the validation loss is {valid_loss} after", progress.step, epoch, config))
            loss = train_loss if valid_loss is None else valid_loss
            if loss < best_loss:
                best_epoch, best_loss = epoch, loss
            report = EpochReport(
                epoch=epoch,
                train_loss=train_loss,
                train_perplexity=perplexity(train_loss),
                valid_loss=valid_loss,
                valid_perplexity=None if valid_loss is None else perplexity(valid_loss),
                tokens_per_second=tokens_per_second,
                seconds=progress.epoch_seconds(),
                learning_rate=trainer.learning_rate,
                grad_norm=grad_norm,
                step=progress.step,
                best_epoch=best_epoch,
                best_loss=best_loss,
            )
            reports.append(report)
            if on_epoch:
                on_epoch(report)
            if config.patience and epoch - best_epoch >= config.patience and epoch < config.epochs:
                stopped_early = True
                break
    finally:
        mx.nd.waitall()  # whatever ended it (Ctrl-C too): nothing runs on behind the caller's back
    return History(tuple(reports), stopped_early)


def train_epoch(
    net: Any,
    batches: Batches,
    trainer: gluon.Trainer,
    config: TrainConfig,
    *,
    epoch: int,
    ctx: mx.Context,
    progress: Progress,
) -> None:
    """One pass over `batches`: an update for each, and nothing that waits for its result."""
    parameters = list(net.collect_params().values())
    cross_entropy = _CrossEntropy()
    cross_entropy.hybridize(static_alloc=True, static_shape=True)
    states = None
    for data, target in batches.epoch(epoch):
        data, target = data.as_in_context(ctx), target.as_in_context(ctx)  # (T, N)
        states = _carried(net, states if batches.carries_state else None, data.shape[1], ctx)
        if net.draws_random:
            mx.random.seed(_step_seed(config.seed, progress.step))
        with autograd.record():
            logits, states = net(data, states)  # (T, N, V)
        loss, gradient = cross_entropy(logits, target)
        logits.backward(gradient)
        trainer.allreduce_grads()
        if config.clip > 0:
            norm = clip_grad_global_norm(parameters, config.clip, check_isfinite=False)
        else:
            norm = grad_global_norm(parameters)
        trainer.update(1)  # the loss is a mean already
        progress.add(data.size, loss, norm)


def evaluate(net: Any, batches: Optional[Batches], ctx: mx.Context) -> Optional[float]:
    """Mean cross-entropy of `net` on `batches`, in nats per token; each token counts once, whatever batch it is in.

    States are carried where `batches.carries_state`, and begin anew where the batch size changes. None if there is
    nothing to evaluate.
    """
    if batches is None:
        return None
    losses: list[tuple[int, NDArray]] = []
    states = None
    for data, target in batches.epoch(0):
        data, target = data.as_in_context(ctx), target.as_in_context(ctx)
        states = _carried(net, states if batches.carries_state else None, data.shape[1], ctx)
        logits, states = net(data, states)
        losses.append((data.size, token_losses(logits, target).mean()))
        if len(losses) > IN_FLIGHT:
            losses[-1 - IN_FLIGHT][1].wait_to_read()
    tokens = sum(count for count, _ in losses)
    return sum(count * float(loss.asscalar()) for count, loss in losses) / tokens if tokens else None


def token_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each prediction, `(T, N, V)` against `(T, N)`, in nats; shape `(T, N)`."""
    return -logits.log_softmax().pick(target)


def make_trainer(net: Any, config: TrainConfig, steps: int) -> gluon.Trainer:
    """The `gluon.Trainer` of a run of `steps` updates in all; plain update rules, without weight decay or momentum.

    Raises
    ------
    ValueError
        For a network that is not in float32, which gradient clipping and MXNet's RMSProp are.
    """
    for name, parameter in net.collect_params().items():
        if np.dtype(parameter.dtype) != np.float32:
            raise ValueError(f"training is in float32, and the network's {name} is in {np.dtype(parameter.dtype)}")
    # MXNet's optimizers overwrite the scheduler's rate by a default of their own unless they are given it as well.
    options = {"learning_rate": config.lr, "lr_scheduler": learning_rate_schedule(config, steps), "wd": 0.0}
    # Gradients are clipped between their reduction and the update, so the update cannot be the key-value store's.
    return gluon.Trainer(net.collect_params(), config.optimizer, options, kvstore="device", update_on_kvstore=False)


def perplexity(loss: float) -> float:
    """`exp(loss)` of a loss in nats per token; infinite where that is no float any more."""
    return math.exp(loss) if loss < 709 else math.inf


class Progress:
    """The losses and gradient norms of the steps, left on the device until somebody looks, and the clock.

    Reading a result waits for it, so results are read when a report is due, and only of steps that are done by then.
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
        self._epoch = epoch
        self._epoch_begun = self._last_report = time.perf_counter()
        self._tokens = 0
        self._loss_sum = 0.0
        self._norms: list[float] = []

    def add(self, tokens: int, loss: NDArray, norm: NDArray) -> None:
        """Count one more step, and report if it is time to."""
        self.step += 1
        self._unread.append((self.step, tokens, loss, norm))
        if len(self._unread) > IN_FLIGHT:
            self._unread[-1 - IN_FLIGHT][-1].wait_to_read()
            if time.perf_counter() >= self._due:
                self._report()

    def end_epoch(self) -> tuple[float, float, float]:
        """Mean loss per token, mean gradient norm, and tokens per second of the epoch's steps."""
        self._read(len(self._unread))
        mx.nd.waitall()  # the last update too, before the clock is read
        return self._loss_sum / self._tokens, float(np.mean(self._norms)), self._tokens / self.epoch_seconds()

    def epoch_seconds(self) -> float:
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
        """Take in the oldest `count` of the steps not read yet."""
        for _ in range(count):
            step, tokens, loss, norm = self._unread.popleft()
            # The norm as well: MXNet's log_softmax may give a finite loss where the logits of other symbols are NaN.
            loss, norm = float(loss.asscalar()), float(norm.asscalar())
            for name, value in (("loss", loss), ("norm of the gradient", norm)):
                if not math.isfinite(value):
                    raise Diverged(_diverged(f"the {name} is {value} at", step, self._epoch, self._config))
            self._tokens += tokens
            self._loss_sum += loss * tokens
            self._norms.append(norm)


def _carried(net: Any, states: Optional[list[NDArray]], batch_size: int, ctx: mx.Context) -> list[NDArray]:
    """What a batch begins with: the states `(L, N, H)` that the one before ended with, cut off its graph; or zeros."""
    if states is None or states[0].shape[1] != batch_size:
        return net.begin_state(batch_size, ctx=ctx)
    return [state.detach() for state in states]


class _CrossEntropy(gluon.HybridBlock):
    """Mean cross-entropy of `(T, N, V)` against `(T, N)`, in nats per token, `(1,)`; and its gradient by the logits.

    The gradient is the probabilities less one at the target, over the number of tokens. It is written out, as MXNet's
    backward pass of log_softmax takes its exponentials one by one, a tenth of a training step at 1,000 symbols; the
    forward pass of softmax is oneDNN's. And it is a graph, which keeps its arrays: to be given megabytes of new memory
    at each step takes as long as to fill them.
    """

    _shape: tuple[int, ...] = ()

    def forward(self, logits: NDArray, target: NDArray) -> tuple[NDArray, NDArray]:
        if self._shape != logits.shape:  # which a symbol does not know
            self._shape = logits.shape
            self._clear_cached_op()
        return super().forward(logits, target)

    def hybrid_forward(self, F: Operators, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        *steps, vocab_size = self._shape
        gradient = (F.softmax(logits) - F.one_hot(target, depth=vocab_size)) / math.prod(steps)
        return token_losses(logits, target).mean(), gradient


def _step_seed(seed: int, step: int) -> int:
    """A seed for `mx.random.seed`, which takes 31 bits: other numbers at every step, the same in every run.

    MXNet's generators can be seeded but not saved, and this is what makes a run that was taken up again draw what it
    would have drawn.
    """
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0] >> 1)


def _diverged(what: str, step: int, epoch: int, config: TrainConfig) -> str:
    clip = f"a smaller --clip than {config.clip:g}" if config.clip > 0 else "--clip 1, which is off now"
    return f"{what} step {step} (epoch {epoch}): try a lower --lr than {config.lr:g}, {clip}, or another --init"
