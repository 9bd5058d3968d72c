"""The training loop: truncated back-propagation through time over batches of text, with a `gluon.Trainer`.

It knows no particular model: a network is called with `(data, states)`, returns `(logits, states)`, has a `begin_state`
and an attribute `draws_random`: whether its training graph draws random numbers. Progress is reported through
callbacks.

Several devices share each batch, and so do several processes: every one computes the gradient of its part of the
sequences, and carries their states; the gradients are summed, and what follows is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Callable, Optional, Union

import mxnet as mx
import numpy as np
from gluonnlp.utils import clip_grad_global_norm, grad_global_norm
from mxnet import autograd, gluon
from mxnet.ndarray import NDArray

from .._util.wording import counted
from ..config import TrainConfig
from ..distributed.workers import Alone
from .interfaces import BatchSource, Checked, CheckpointPolicy, Sampled
from .loss import CrossEntropy, perplexity, token_losses
from .parts import carried, parted, split
from .position import Position
from .progress import IN_FLIGHT, Diverged, EpochReport, Progress, StepReport, divergence
from .schedule import learning_rate_schedule
from .signals import Stopped

__all__ = [
    "BatchSource",
    "CheckpointPolicy",
    "Diverged",
    "EpochReport",
    "History",
    "Position",
    "Progress",
    "StepReport",
    "Stopped",
    "evaluate",
    "fit",
    "make_trainer",
    "perplexity",
    "token_losses",
    "train_epoch",
]


@dataclass(frozen=True)
class History:
    """The result of `fit`: a report of each epoch, and whether it stopped early because the loss no longer fell."""

    epochs: tuple[EpochReport, ...]
    stopped_early: bool


def fit(
    net: Any,
    train: BatchSource,
    valid: Optional[BatchSource],
    config: TrainConfig,
    *,
    ctx: Union[mx.Context, Sequence[mx.Context]],
    trainer: Optional[gluon.Trainer] = None,
    sampled: Optional[Sampled] = None,
    start: Optional[Position] = None,
    keeper: Optional[CheckpointPolicy] = None,
    workers: Optional[Alone] = None,
    on_step: Optional[Callable[[StepReport], None]] = None,
    on_epoch: Optional[Callable[[EpochReport], None]] = None,
    report_every: float = 1.0,
) -> History:
    """Train `net` in place.

    Parameters
    ----------
    net
        Initialized on `ctx`; hybridized or not.
    train, valid
        Batches of ids, each `(sequence_length, batch_size)`. Without `valid`, the best epoch is the one with the lowest
        running training loss.
    config
        Epochs, optimizer, learning rate, clipping, patience, seed.
    ctx
        Device of `net`, or its devices in order: each takes a part of every batch, all of them as equal as can be.
    trainer
        From `make_trainer`, if its state is to be saved or was restored; by default a new one.
    sampled
        Trains by a sample of the vocabulary, see `models.sampled`; validation takes the whole vocabulary.
    start
        Continue from this position, at which `net` and `trainer` were saved and to which they have been restored. The
        result is that of a run without the interruption.
    keeper
        Decides between two steps whether to save a checkpoint or to stop, and saves one at the end of each epoch.
    workers
        The processes that train together, where there are several; `trainer` then has their key-value store. They make
        the same steps, and worker 0 validates.
    on_step
        Called between two steps, within the first two seconds and then every `report_every` seconds.
    on_epoch
        Called after each epoch and its validation, when its checkpoint is saved.
    report_every
        Seconds between two calls of `on_step`.

    Raises
    ------
    Diverged
        If a loss or gradient norm is NaN or infinite: detected a few steps later, reported with the step at which it
        occurred. Or if an epoch ends with a loss so large that its perplexity is infinite.
    Stopped
        If `keeper` ends the training, after a checkpoint has been saved.
    ValueError
        If `trainer` has not made as many updates as `start`, no epoch is left after `start`, an epoch of `train` has
        fewer batches than `start` has done, or a batch has fewer sequences than there are devices.

    Examples
    --------
    >>> history = fit(net, train, valid, TrainConfig(epochs=3, lr=5e-3), ctx=mx.cpu())
    >>> [epoch.valid_perplexity for epoch in history.epochs]
    """
    contexts = [ctx] if isinstance(ctx, mx.Context) else list(ctx)
    workers = workers or Alone()
    position = replace(start, states=parted(start, workers, contexts)) if start else Position()
    if position.epoch >= config.epochs:
        raise ValueError(f"nothing is left to train: epoch {position.epoch} is done, of epochs={config.epochs}")
    if position.batch > len(train):
        raise ValueError(f"start is after batch {position.batch} of an epoch, and an epoch of train has {len(train)}")
    steps = position.step - position.batch + (config.epochs - position.epoch) * len(train)
    trainer = trainer or make_trainer(net, config, steps)
    if trainer.optimizer.num_update != position.step:
        raise ValueError(
            f"the trainer has made {counted(trainer.optimizer.num_update, 'update')}, but training continues after "
            f"{position.step}; restore it from the checkpoint that is given as start"
        )
    reports: list[EpochReport] = []
    stopped_early = False
    progress = Progress(position, trainer, config, steps, on_step, report_every)
    try:
        while position.epoch < config.epochs:
            if config.patience and position.epoch - position.best_epoch >= config.patience:
                stopped_early = True
                break
            progress.begin_epoch()
            where: dict[str, Any] = {"position": position, "contexts": contexts, "workers": workers, "sampled": sampled}
            train_epoch(net, train, trainer, config, **where, progress=progress, keeper=keeper)
            progress.settle()
            tokens_per_second = position.tokens / position.seconds
            valid_loss = _validated(net, valid, contexts[0], keeper, workers)
            report = _epoch_report(position, config, valid_loss, trainer.learning_rate)
            report = replace(report, tokens_per_second=tokens_per_second, seconds=progress.epoch_seconds())
            position.best_epoch, position.best_loss = report.best_epoch, report.best_loss
            position.next_epoch()
            reports.append(report)
            if keeper:
                keeper.save(position, report)
            if on_epoch:
                on_epoch(report)
    except Stopped:
        assert keeper
        progress.settle()
        keeper.save(position)
        raise
    finally:
        mx.nd.waitall()  # so that nothing is computed after the return
    return History(tuple(reports), stopped_early)


def train_epoch(
    net: Any,
    batches: BatchSource,
    trainer: gluon.Trainer,
    config: TrainConfig,
    *,
    position: Position,
    contexts: Sequence[mx.Context],
    workers: Alone,
    progress: Progress,
    keeper: Optional[CheckpointPolicy] = None,
    sampled: Optional[Sampled] = None,
) -> None:
    """Make one update for each of the `batches` after `position`; `progress` reads the losses a few steps later."""
    parameters = list(net.collect_params().values())
    forward: Any = sampled.outputs if sampled else net
    losses_of: list[Any] = [sampled or CrossEntropy() for _ in contexts]
    for loss_of in losses_of if not sampled else ():
        loss_of.hybridize(static_alloc=True, static_shape=True)
    for batch in islice(batches.epoch(position.epoch + 1), position.batch, None):
        tokens, whole = len(batch[0]) * batches.batch_size, batches.batch_size
        data, target = (split(array, contexts) for array in batch)  # (T, N) of each part
        begun = carried(net, position.states, data)
        if net.draws_random:
            mx.random.seed(_step_seed(config.seed, position.step, workers.number))
        with autograd.record():
            outputs, states = zip(*map(forward, data, begun))  # (T, N, V); with `sampled`, (T, N, H)
        losses, gradients = zip(*(of(*part, whole) for of, *part in zip(losses_of, outputs, target)))
        autograd.backward(list(outputs), list(gradients))
        trainer.allreduce_grads()
        if config.clip > 0:
            norm = clip_grad_global_norm(parameters, config.clip, check_isfinite=False)
        else:
            norm = grad_global_norm(parameters)
        trainer.update(1)  # the loss is a mean already
        position.states = list(map(list, states)) if batches.carries_state else []
        loss = mx.nd.add_n(*(loss.as_in_context(contexts[0]) for loss in losses))
        progress.add(tokens, workers.summed("loss", loss), norm)
        if keeper:
            keeper.check()
            if keeper.is_due(position.step):
                progress.settle()
                keeper.save(position)


def evaluate(
    net: Any, batches: Optional[BatchSource], ctx: mx.Context, checked: Optional[Checked] = None
) -> Optional[float]:
    """Mean cross-entropy of `net` on `batches`, in nats per token; None if there are no batches.

    Each token has the same weight. States are carried if `batches.carries_state`, and are zeros again where the batch
    size changes. Between two batches, `checked` may raise `Stopped`.
    """
    if batches is None:
        return None
    losses: list[tuple[int, NDArray]] = []
    states: list[NDArray] = []
    for data, target in batches.epoch(0):
        if checked:
            checked.check()
        data, target = data.as_in_context(ctx), target.as_in_context(ctx)
        (begun,) = carried(net, [states] if states and batches.carries_state else [], [data])
        logits, states = net(data, begun)
        losses.append((data.size, token_losses(logits, target).mean()))
        if len(losses) > IN_FLIGHT:
            losses[-1 - IN_FLIGHT][1].wait_to_read()
    tokens = sum(count for count, _ in losses)
    total = sum(count * float(loss.asscalar()) for count, loss in losses)
    return max(total, 0.0) / tokens if tokens else None  # rounding can give -1e-6 where nothing is a surprise


def _validated(
    net: Any, valid: Optional[BatchSource], ctx: mx.Context, keeper: Optional[CheckpointPolicy], workers: Alone
) -> Optional[float]:
    """The loss that worker 0 finds, see `evaluate`, for all workers; a signal that stops it there stops all workers."""
    if valid is None or not len(valid):
        return None

    def on_first() -> tuple[float, float]:
        try:
            loss = evaluate(net, valid, ctx, keeper.signals if keeper else None)
            assert loss is not None
            return 0, loss
        except Stopped as error:
            return error.number, math.nan

    number, loss = workers.of_first(on_first, 2)
    if number:
        raise Stopped(int(number))
    return loss


def make_trainer(net: Any, config: TrainConfig, steps: int, kvstore: Any = None) -> gluon.Trainer:
    """The `gluon.Trainer` of a run of `steps` updates, without weight decay and momentum.

    Several processes have the same `kvstore`, from `Workers`.

    Raises
    ------
    ValueError
        For a network that is not in float32, as gradient clipping and MXNet's RMSProp support no other dtype.
    """
    for name, parameter in net.collect_params().items():
        if np.dtype(parameter.dtype) != np.float32:
            raise ValueError(f"training is in float32, and the network's {name} is in {np.dtype(parameter.dtype)}")
    # MXNet's optimizers overwrite the scheduler's rate with their own default unless they are given the rate too.
    options = {"learning_rate": config.lr, "lr_scheduler": learning_rate_schedule(config, steps), "wd": 0.0}
    optimizer = mx.optimizer.create(config.optimizer, **options)
    if not mx.context.num_gpus():
        # On a CPU SGD's operator for several parameters takes twice as long as one for each.
        optimizer.aggregate_num = 0
    # Gradients are clipped between their reduction and the update, so the key-value store must not do the update.
    store = kvstore or config.kvstore
    trainer = gluon.Trainer(net.collect_params(), optimizer, kvstore=store, update_on_kvstore=False)
    if kvstore:
        # At the first step gluon gives the weights to the servers, gets them back, and sends the gradients after them
        # without waiting: if these arrive first, a weight comes back as a gradient. So the weights go here, alone.
        trainer._init_kvstore()
        trainer._init_params()
        mx.nd.waitall()
    return trainer


def _epoch_report(
    position: Position, config: TrainConfig, valid_loss: Optional[float], learning_rate: float
) -> EpochReport:
    """The results of the epoch that ends at `position`, without its times."""
    epoch, train_loss = position.epoch + 1, position.loss_sum / position.tokens
    part, loss = ("training", train_loss) if valid_loss is None else ("validation", valid_loss)
    if not math.isfinite(perplexity(loss)):
        raise Diverged(divergence(f"the {part} loss is {loss:.4g} after", position.step, epoch, config))
    is_best = loss < position.best_loss
    return EpochReport(
        epoch=epoch,
        train_loss=train_loss,
        train_perplexity=perplexity(train_loss),
        valid_loss=valid_loss,
        valid_perplexity=None if valid_loss is None else perplexity(valid_loss),
        tokens_per_second=math.nan,
        seconds=math.nan,
        learning_rate=learning_rate,
        grad_norm=position.norm_sum / position.batch,
        step=position.step,
        best_epoch=epoch if is_best else position.best_epoch,
        best_loss=loss if is_best else position.best_loss,
    )


def _step_seed(seed: int, step: int, worker: int) -> int:
    """A seed of 31 bits for `mx.random.seed`, different at every step and worker, and the same in every run.

    The state of MXNet's generators cannot be saved. Reseeding at every step makes a resumed run draw the same numbers
    as an uninterrupted one.
    """
    return int(np.random.SeedSequence((seed, step, worker)).generate_state(1)[0] >> 1)
