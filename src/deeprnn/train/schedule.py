"""The learning rate over the updates of a run."""

from __future__ import annotations

import mxnet as mx

from ..config import TrainConfig

__all__ = ["learning_rate_schedule"]


def learning_rate_schedule(config: TrainConfig, steps: int) -> mx.lr_scheduler.LRScheduler:
    """The learning rate of update 1, 2, ..., `steps`.

    It rises linearly from 0 over the first `config.warmup` updates, to `config.lr`. From there it stays (constant),
    falls along half a cosine to nearly 0 at the last update (cosine), or falls to a tenth at half of the way that is
    left, and to a hundredth at three quarters (step). A function of the update's number alone, so that nothing of it
    has to be saved.
    """
    warmup = {"base_lr": config.lr, "warmup_steps": config.warmup}
    if config.schedule == "cosine":
        # One more than there are: the cosine is 0 there, and an update at rate 0 would be none.
        return mx.lr_scheduler.CosineScheduler(max_update=max(steps, config.warmup) + 1, **warmup)
    if config.schedule == "step":
        left = max(steps - config.warmup, 0)
        milestones = sorted({max(config.warmup + left * quarters // 4, 1) for quarters in (2, 3)})
        return mx.lr_scheduler.MultiFactorScheduler(step=milestones, factor=0.1, **warmup)
    return mx.lr_scheduler.FactorScheduler(step=steps, factor=1.0, **warmup)
