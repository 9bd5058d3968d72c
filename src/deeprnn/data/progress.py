"""Progress of work on a large text: a bar on a terminal, and elsewhere a line every ten seconds."""

from __future__ import annotations

import contextlib
import sys
import time

from tqdm import tqdm

__all__ = ["ByteProgress"]

EVERY = 10.0
"""Seconds between two lines."""


class ByteProgress:
    """Show on standard error how much of `total` bytes is done; a context."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._bar = tqdm(desc=what, total=total, unit="B", unit_scale=True, disable=None, leave=False)
        self._due = time.monotonic() + EVERY

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def __call__(self, done: int) -> None:
        """Show that so many bytes are done."""
        if not self._bar.disable:
            self._bar.update(done - self._bar.n)
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY
            with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may be closed
                print(f"{self._what}: {done / max(self._total, 1):.0%}", file=sys.stderr, flush=True)
