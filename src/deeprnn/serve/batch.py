"""The texts that a model is writing, a row each, one step at a time for all of them.

What a row computes must not depend on who else is there. Which other rows there are changes no bit of it. But in most
runtimes the size of the batch does, and for some sizes the place of the row, as matrix products are cut into tiles of
several rows, and the tiles at the edge may add in another order. So a batch has only sizes in which all rows of all of
them agree to the last bit, see `agreeing_sizes`. Unused rows fill the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from ..generation import rounded
from ..runtimes import Model
from ..sampling import Samplers, drawn
from .jobs import Row

__all__ = ["Batch", "agreeing_sizes"]

SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 36, 48, 64, 96, 128, 192, 256)
"""Sizes of a batch that are tried."""

SEARCHED = 16
"""How far above the number of slots a size is searched in which all rows agree."""

PATIENCE = 32
"""Steps for which fewer rows would do before they are fewer: a new size moves all states."""


def agreeing_sizes(model: Model, slots: int, vocab_size: int, steps: int = 6) -> list[int]:
    """Sizes of a batch, rising, in all of whose rows a text gets the same logits, to the last bit.

    It is tried: every row of every size is given the same symbols. The last size has at least `slots` rows. If there is
    no such size, as may be in a runtime that is not known here, it is `slots` alone.
    """
    ids = np.random.default_rng(0).integers(vocab_size, size=(steps, 1, 1))

    def logits(size: int) -> Optional[bytes]:
        """Those of all rows, if they agree."""
        states, found = model.begin(size), []
        for symbol in ids:
            values, states = model(np.repeat(symbol, size, axis=1), states)
            found.append(values[0])
        first = np.array(found)[:, :1]
        return first.tobytes() if np.array_equal(np.array(found), np.repeat(first, size, axis=1)) else None

    for largest in range(slots, slots + SEARCHED):
        expected = logits(largest)
        if expected is not None:
            return [*(size for size in SIZES if size < largest and logits(size) == expected), largest]
    return [slots]


class Batch:
    """The rows, their states and their samplers.

    Parameters
    ----------
    model
        In any runtime.
    sizes
        Of `agreeing_sizes`.
    banned
        Ids that are never written.

    Attributes
    ----------
    rows
        Those that have a text, in the order of their places.
    """

    def __init__(self, model: Model, sizes: Sequence[int], banned: Sequence[int]) -> None:
        self._model, self._sizes, self._banned = model, sizes, banned
        self._places: list[Optional[Row]] = []
        self._states: Any = None
        self._ids = np.zeros((1, 0), dtype=np.int64)
        self._fewer = 0
        self._changed()

    def join(self, newcomers: Sequence[tuple[Row, Sequence[np.ndarray]]]) -> None:
        """Add rows, each with its states as arrays ``(layers, 1, units)``."""
        if newcomers:
            self._move(self._fitting(len(self.rows) + len(newcomers)), newcomers)

    def leave(self, rows: Sequence[Row]) -> None:
        """Take rows out; their places are free."""
        if not rows:
            return
        for row in rows:
            self._places[self._places.index(row)] = None
        if not any(self._places):
            self._places, self._states = [], None
        self._changed()

    def step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Write a symbol in each of `rows`: the symbols ``(rows,)``, the logits ``(rows, V)``, and which are finite."""
        fitting = self._fitting(len(self.rows))
        self._fewer = self._fewer + 1 if fitting < len(self._places) else 0
        if self._fewer > PATIENCE:
            self._move(fitting, ())
        logits, self._states = self._model(self._ids, self._states)
        logits = logits[0, self._active]
        values = rounded(logits)
        finite = np.isfinite(values).all(axis=-1)
        if not finite.all():  # these rows must not end the others' texts; their own are ended by the engine
            values[~finite] = 0
        weights = self._samplers.weights(values, self._banned, [row.ids for row in self.rows])
        symbols = drawn(weights, np.array([next(row.numbers) for row in self.rows]))
        self._ids[0, self._active] = symbols
        for row, symbol in zip(self.rows, symbols.tolist()):
            row.ids.append(symbol)
        return symbols, logits, finite

    def states(self, row: Row) -> list[np.ndarray]:
        """The states of a row, as arrays ``(layers, units)``."""
        place = self._places.index(row)
        return [array[:, place] for array in self._model.arrays(self._states)]

    def _fitting(self, rows: int) -> int:
        return next(size for size in self._sizes if size >= rows)

    def _move(self, size: int, newcomers: Sequence[tuple[Row, Sequence[np.ndarray]]]) -> None:
        """The rows, and newcomers, to the first places of a batch of another size."""
        before = self._model.arrays(self._states) if self.rows else []
        states = [np.array(state) for state in self._model.arrays(self._model.begin(size))]
        for i, state in enumerate(states):
            if self.rows:
                state[:, : len(self.rows)] = before[i][:, self._active]
            for place, (_, own) in enumerate(newcomers, len(self.rows)):
                state[:, place : place + 1] = own[i]
        rows = [*self.rows, *(row for row, _ in newcomers)]
        self._places = [*rows, *[None] * (size - len(rows))]
        self._states = self._model.states(states)
        self._ids = np.zeros((1, size), dtype=np.int64)
        self._ids[0, : len(rows)] = [row.ids[-1] for row in rows]
        self._changed()

    def _changed(self) -> None:
        """What follows from the places."""
        self._active = [place for place, row in enumerate(self._places) if row is not None]
        self.rows: list[Row] = [row for row in self._places if row is not None]
        self._samplers = Samplers([row.job.sampler for row in self.rows])
        self._fewer = 0
