"""Evaluation: how well a model predicts a text, and which symbols surprise it most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from .runtimes import Model
from .sampling import log_softmax

__all__ = ["Surprise", "evaluate"]


@dataclass(frozen=True, order=True)
class Surprise:
    """A symbol of a text that the model did not expect.

    Attributes
    ----------
    loss : float
        Of the symbol, in nats.
    position : int
        Of the symbol in the text, from 0.
    expected : int
        Id of the most probable symbol.
    probability : float
        Probability of that symbol.
    """

    loss: float
    position: int
    expected: int
    probability: float


def evaluate(
    model: Model,
    batches: Iterable[tuple[Any, Any]],
    positions: Optional[Iterable[np.ndarray]] = None,
    places: int = 0,
) -> tuple[float, list[Surprise]]:
    """The mean loss of a model on a text, in nats per symbol, and the symbols with the largest losses.

    Parameters
    ----------
    model
        In any runtime.
    batches
        At least one pair of ids and targets, ``(T, N)`` arrays of MXNet; each pair continues the one before. Where N
        changes, states start from zeros again.
    positions, places
        Where in the text the targets of each pair are, see `Batches.positions`, and how many of the most surprising
        symbols to return, the worst first. By default none.
    """
    states, size, total, count = None, 0, 0.0, 0
    worst: list[Surprise] = []
    where = iter(positions) if positions is not None else None
    for data, target in batches:
        ids = data.asnumpy()
        if ids.shape[1] != size:
            size = ids.shape[1]
            states = model.begin(size)
        logits, states = model(ids, states)
        shares = log_softmax(logits.reshape(-1, logits.shape[-1]))
        losses = -np.take_along_axis(shares, target.asnumpy().reshape(-1, 1), axis=-1)[:, 0]
        total, count = total + float(losses.sum()), count + losses.size
        if where is not None:
            spots, expected = next(where).ravel(), shares.argmax(axis=-1)
            worst += [
                Surprise(float(losses[i]), int(spots[i]), int(expected[i]), float(np.exp(shares[i, expected[i]])))
                for i in np.argsort(-losses, kind="stable")[:places]
            ]
            worst = sorted(worst, reverse=True)[:places]
    return total / count, worst
