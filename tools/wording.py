"""Numbers and lists as text, in one way for tables, pages and progress messages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Optional, Union

__all__ = ["count_of", "duration", "layer_count", "listed", "perplexity", "scientific", "seconds"]


def perplexity(value: float) -> str:
    """Three decimals below 10, one below 100, none above."""
    if math.isinf(value):
        return "infinity"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def scientific(value: Optional[float]) -> str:
    """``1.2e-03``; None is a value that is not finite."""
    return "not finite" if value is None else f"{value:.1e}"


def seconds(value: float) -> str:
    """With one decimal below 100 s."""
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def duration(value: float) -> str:
    """``4:05`` or ``1:04:05``."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def count_of(count: Optional[int], noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def layer_count(layers: int) -> str:
    """``1 layer``, ``16 layers``."""
    return count_of(layers, "layer")


def listed(items: Iterable[Union[str, int]]) -> str:
    """``1, 2 and 4``."""
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last
