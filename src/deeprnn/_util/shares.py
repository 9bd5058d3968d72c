"""Parts of a whole, as equal as can be."""

from __future__ import annotations

__all__ = ["shares"]


def shares(count: int, parts: int) -> list[slice]:
    """Divide `count` things among so many: the first ones get one more where it does not come out even.

    >>> shares(7, 3)
    [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
    """
    each, more = divmod(count, parts)
    ends = [number * each + min(number, more) for number in range(parts + 1)]
    return [slice(begin, end) for begin, end in zip(ends, ends[1:])]
