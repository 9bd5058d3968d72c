"""What workers exchange through MXNet's key-value store, besides the gradients that a `gluon.Trainer` gives to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import mxnet as mx
import numpy as np
from mxnet.ndarray import NDArray

from .._util.shares import shares
from .watch import Watch

__all__ = ["Alone", "Workers"]

FIRST_KEY = 1 << 20
"""Of what is exchanged here; below it a trainer counts its parameters."""


class Alone:
    """A process that trains by itself: what it exchanges it keeps.

    Attributes
    ----------
    number, count : int
        Of this worker, from 0, and of all.
    kvstore : mxnet.kvstore.KVStore or None
        What sums the gradients of the workers.
    """

    number, count = 0, 1
    kvstore: Any = None

    @property
    def signal(self) -> Optional[int]:
        """A signal that came to a process that does not train, and is to end all."""
        return None

    def share(self, sequences: int) -> slice:
        """Which of the sequences of a batch are this worker's."""
        return slice(0, sequences)

    def summed(self, name: str, array: NDArray) -> NDArray:
        """The sum of the float32 arrays that the workers have, of one shape for each `name`. Nobody waits here."""
        return array

    def of_first(self, compute: Callable[[], Sequence[float]], count: int) -> Sequence[float]:
        """The `count` numbers that worker 0 computes, in double precision; the others wait for them."""
        return compute()

    def joined(self, states: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The states `(L, N, H)` of a batch, put together from those of the workers."""
        return states

    def wait_for_all(self) -> None:
        """Wait until all workers have come here."""

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Wait until all workers are ready to train; they end if some have other `facts`."""

    def end_together(self) -> None:
        """Let this process wait, at its end, until all the others have ended as well."""


class Workers(Alone):
    """The workers of a run, as one of them sees them. All of them make the same calls in the same order.

    Parameters
    ----------
    kvstore : str
        Kind of the key-value store, such as ``dist_sync``; made here, when all have come.
    watch
        Of this process; started.
    """

    def __init__(self, kvstore: str, watch: Watch) -> None:
        self.number, self.count = watch.number, watch.role.workers
        self.kvstore = mx.kv.create(kvstore)
        watch.joined()
        self._watch = watch
        self._passed: dict[str, tuple[int, NDArray]] = {}

    @property
    def signal(self) -> Optional[int]:
        return self._watch.signal

    def share(self, sequences: int) -> slice:
        return shares(sequences, self.count)[self.number]

    def summed(self, name: str, array: NDArray) -> NDArray:
        # A server takes as many pushes as there are workers for those of all, though one worker may have made two of
        # them. That all go through one array makes each wait for the sum before it, in MXNet's engine.
        if name not in self._passed:
            key = FIRST_KEY + len(self._passed)
            self._passed[name] = key, mx.nd.zeros_like(array)
            self.kvstore.init(key, self._passed[name][1])
        key, passed = self._passed[name]
        array.copyto(passed)
        self.kvstore.pushpull(key, [passed])
        return passed.copy()

    def of_first(self, compute: Callable[[], Sequence[float]], count: int) -> Sequence[float]:
        # As bytes, each in a number of its own: by a flag that is never set (multi_precision_), a server of MXNet 1.9.1
        # rounds float64 to float32, or does not.
        own = np.array(compute() if self.number == 0 else [0.0] * count, dtype="float64").view("uint8")
        of_all = self.summed(f"{count} numbers", mx.nd.array(own)).asnumpy()
        return of_all.astype("uint8").view("float64").tolist()

    def joined(self, states: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        whole = []
        for index, state in enumerate(states):
            layers, sequences, size = state.shape
            count = int(self.summed("sequences", mx.nd.array([sequences])).asscalar())
            padded = np.zeros((layers, count, size), state.dtype)  # the others add theirs
            padded[:, self.share(count)] = state
            whole.append(self.summed(f"states {index}", mx.nd.array(padded, dtype=padded.dtype)).asnumpy())
        return whole

    def wait_for_all(self) -> None:
        self.of_first(lambda: [0.0], 1)

    def compare(self, facts: Mapping[str, Any]) -> None:
        self._watch.ready(facts)

    def end_together(self) -> None:
        self._watch.together = True
