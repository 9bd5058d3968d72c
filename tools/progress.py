"""Progress of a few long steps: a live bar on a terminal, elsewhere a line for each step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Optional

from tqdm import tqdm

__all__ = ["Steps"]


class Steps:
    """Reports on standard error which of the `names` is going on; use it in a with statement."""

    def __init__(self, names: Sequence[str]) -> None:
        self._count, self._begun = len(names), 0
        self._bar = tqdm(total=len(names), disable=not sys.stderr.isatty(), leave=False, bar_format="{desc} |{bar}|")

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._bar.close()

    def begin(self, name: str) -> None:
        """Report that the step of this name begins, and so that the one before is done."""
        if self._bar.disable:
            print(f"{self._begun + 1} of {self._count}: {name}", file=sys.stderr, flush=True)
        else:
            self._bar.n = self._begun
            self._bar.set_description_str(name)
        self._begun += 1
