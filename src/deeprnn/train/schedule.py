"""Schedule of the learning rate."""

from __future__ import annotations

import mxnet as mx

from ..config import TrainConfig

__all__ = ["learning_rate_schedule"]


def learning_rate_schedule(config: TrainConfig, steps: int) -> mx.lr_scheduler.LRScheduler:
    """The learning rate of the updates 1, 2, ..., `steps`.

    It rises linearly from 0 to `config.lr` over the first `config.warmup` updates. After that it stays there
    (constant), falls along half a cosine to almost 0 at the last update (cosine), or is divided by 10 after half of the
    remaining updates and again after three quarters (step). It depends on the number of the update only, so a
    checkpoint need not save it.
    """
    warmup = {"base_lr": config.lr, "warmup_steps": config.warmup}
    if config.schedule == "cosine":
        # The cosine reaches 0 one update after the last, as an update at rate 0 would have no effect.
        return mx.lr_scheduler.CosineScheduler(max_update=max(steps, config.warmup) + 1, **warmup)
    if config.schedule == "step":
        left = max(steps - config.warmup, 0)
        milestones = sorted({max(config.warmup + left * quarters // 4, 1) for quarters in (2, 3)})
        return mx.lr_scheduler.MultiFactorScheduler(step=milestones, factor=0.1, **warmup)
    return mx.lr_scheduler.FactorScheduler(step=steps, factor=1.0, **warmup)
