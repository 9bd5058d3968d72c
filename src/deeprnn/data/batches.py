"""Batches of ids: T time steps of N sequences, and for each symbol the following one as its target.

The examples show the ten symbols ``a b c d e f g h i j`` with batch_size 2 and seq_len 3, as data -> target, one
sequence per row (the arrays have one sequence per column).

consecutive, as in the book: N streams of ``len // N`` symbols; a batch continues the one before, so the state is
carried over. Symbols that do not fill a batch are dropped; here ``d`` and ``i`` are never data::

    abcde, fghij            batch 0   abc -> bcd
                                      fgh -> ghi

consecutive with keep_last, for evaluation: a stream begins with the last symbol of the one before, and the last batch
may be shorter. Only the last ``(len - 1) % N`` symbols are not scored; here ``j``::

    abcde, efghi            batch 0   abc -> bcd      batch 1   d -> e
                                      efg -> fgh                h -> i

random: adjacent windows from a random offset (here 1), in random order; no state is carried over::

    bcd -> cde, efg -> fgh  batch 0   efg -> fgh
                                      bcd -> cde
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, Optional, Union

import mxnet as mx
import numpy as np

from .._util.checks import check_choice, check_size
from .encoded import Ids

__all__ = ["Batches"]


class Batches:
    """The batches of a text; the module's docstring shows how each kind of sampling cuts it.

    Parameters
    ----------
    ids : numpy.ndarray or Ids
        The text: integers of shape (symbols,).
    batch_size : int
        Sequences N in a batch. With `keep_last`, a short text has fewer, such that each is at least one window long.
    seq_len : int
        Time steps T in a batch.
    sampling : {'consecutive', 'random'}
    seed : int
        Random sampling is a function of this seed and the number of the epoch.
    keep_last : bool
        For evaluation: let the last batch be shorter, (T', N), so that at most N - 1 symbols are not scored. A text of
        fewer than two symbols then has no batches. For consecutive sampling only.
    share : callable, optional
        Which of N sequences to give out, where several processes share each batch; by default all. Of a text that is
        mapped into memory, consecutive sampling then reads these alone.

    Attributes
    ----------
    batch_size : int
        The actual N, before it is shared.
    carries_state : bool
        Whether a batch continues the one before.
    scored, unscored : int
        Of all symbols but the first, how many are targets in an epoch, and how many are not.

    Raises
    ------
    ValueError, TypeError
        For an invalid argument, and for a text that is shorter than one batch.

    Examples
    --------
    >>> for data, target in Batches(corpus.train, batch_size=32, seq_len=35):    # (35, 32) each
    ...     ...
    """

    def __init__(
        self,
        ids: Union[np.ndarray, Ids],
        batch_size: int,
        seq_len: int,
        sampling: str = "consecutive",
        seed: int = 0,
        *,
        keep_last: bool = False,
        share: Optional[Callable[[int], slice]] = None,
    ) -> None:
        # The ids of codes are looked up batch by batch.
        self._id_of: Optional[np.ndarray] = ids.id_of if isinstance(ids, Ids) else None
        ids = ids.codes if isinstance(ids, Ids) else np.asarray(ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(f"ids must be integers of shape (symbols,), got {ids.dtype} of shape {ids.shape}")
        check_size("batch_size", batch_size)
        check_size("seq_len", seq_len)
        check_choice("sampling", sampling, ("consecutive", "random"))
        if keep_last and sampling == "random":
            raise ValueError("keep_last needs consecutive sampling, got random")
        self.carries_state = sampling == "consecutive"
        self.seq_len = seq_len
        self._seed = seed
        pairs = max(len(ids) - 1, 0)  # (symbol, next symbol)
        if keep_last:
            batch_size = max(1, min(batch_size, pairs // seq_len))
            steps = pairs // batch_size
            self._batches = -(-steps // seq_len)
            self.scored = steps * batch_size
            # The last symbol of a stream is the first of the next one: a view, as the text may be larger than memory.
            shape, step = (min(steps + 1, len(ids)), batch_size), ids.strides[0]
            self._sequence = np.lib.stride_tricks.as_strided(ids, shape, (step, steps * step), writeable=False)
        else:
            needed = batch_size * (seq_len + 1) if self.carries_state else batch_size * seq_len + 1
            if len(ids) < needed:
                raise ValueError(
                    f"the text is shorter than one batch: batch_size={batch_size} and seq_len={seq_len} need "
                    f"{needed:,} symbols ({sampling} sampling), got {len(ids):,}; lower one of them, or give more text"
                )
            if self.carries_state:
                steps = len(ids) // batch_size
                self._sequence = ids[: steps * batch_size].reshape(batch_size, steps).T  # (steps, N)
                self._batches = (steps - 1) // seq_len
            else:
                self._sequence = ids
                self._batches = pairs // (seq_len * batch_size)
            self.scored = self._batches * seq_len * batch_size
        self.batch_size = batch_size
        self._share = share(batch_size) if share else slice(None)
        self.unscored = pairs - self.scored

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._batches

    def __iter__(self) -> Iterator[tuple[mx.nd.NDArray, mx.nd.NDArray]]:
        return self.epoch(0)

    def epoch(self, number: int) -> Iterator[tuple[mx.nd.NDArray, mx.nd.NDArray]]:
        """The batches ``(data, target)`` of epoch `number`, int32 of shape (T, N) each."""
        for window in self._consecutive() if self.carries_state else self._random(number):
            if self._id_of is not None:
                window = self._id_of[window]
            yield mx.nd.array(window[:-1], dtype="int32"), mx.nd.array(window[1:], dtype="int32")

    def positions(self) -> Iterator[np.ndarray]:
        """Where in the text the targets of each batch are, with `keep_last`."""
        steps = self.scored // self.batch_size
        for start in range(0, steps, self.seq_len):
            along = np.arange(start, min(start + self.seq_len, steps)) + 1
            yield along[:, np.newaxis] + steps * np.arange(self.batch_size)

    # gluonnlp's CorpusBPTTBatchify makes the same training batches (a test compares them), but from tokens and in
    # float32, and it pads the last batch with symbols that would be scored.
    def _consecutive(self) -> Iterator[np.ndarray]:
        for start in range(0, self._batches * self.seq_len, self.seq_len):
            yield self._sequence[start : start + self.seq_len + 1, self._share]  # (T + 1, N), the last may be shorter

    def _random(self, number: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng((self._seed, number))
        # Some symbols are left over in every epoch; a random offset changes which ones, and with them the windows.
        offset = rng.integers(min(self.seq_len, self.unscored + 1))
        windows = (len(self._sequence) - 1 - offset) // self.seq_len
        order = np.arange(windows, dtype=np.min_scalar_type(windows))  # in few bytes: a large text has many
        rng.shuffle(order)
        for batch in range(self._batches):
            own = order[batch * self.batch_size : (batch + 1) * self.batch_size][self._share]
            starts = offset + own.astype(np.int64) * self.seq_len
            yield self._sequence[starts + np.arange(self.seq_len + 1)[:, np.newaxis]]  # (T + 1, N)
