"""How much a text repeats itself, and copies another text.

A window is `window` symbols in a row. Windows are compared by their names, numbers that are equal if and only if the
windows are. Names of long windows are made from names of shorter ones, of twice the length each time (Karp, Miller and
Rosenberg 1972), so nothing is hashed or compared symbol by symbol: O(n log n) for each doubling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

import numpy as np

__all__ = ["WINDOW", "Copied", "copied", "repeated"]

WINDOW = 20

Text = Union[str, Sequence[int], np.ndarray]


class Copied(NamedTuple):
    """How much of a text occurs in its source word for word.

    Attributes
    ----------
    share : float
        Share of its windows that occur in the source.
    longest : int
        Symbols in its longest run that occurs in the source.
    """

    share: float
    longest: int


def repeated(text: Text, window: int = WINDOW) -> float:
    """The share of the windows of `text` that occur earlier in it; 0 for a text without windows.

    Parameters
    ----------
    text : str or sequence of int
    window : int
        Symbols in a window.
    """
    _check(window)
    names = _names(_symbols(text), window)
    return 1 - len(np.unique(names)) / len(names) if len(names) else 0.0


def copied(text: Text, source: Text, window: int = WINDOW) -> Copied:
    """How much of `text` occurs in `source`, word for word.

    Parameters
    ----------
    text, source : str or sequence of int
    window : int
        Symbols in a window.
    """
    _check(window)
    both = np.concatenate([_symbols(source), _symbols(text)])
    border = len(both) - len(text)

    def found(names: np.ndarray, length: int) -> np.ndarray:
        """For each window of `text`, whether it is one of the source; those across the border are of neither."""
        known = np.zeros(len(both) + 1, dtype=bool)
        known[names[: max(border - length + 1, 0)]] = True
        return known[names[border:]]

    windows = found(_names(both, window), window)
    length, names = 0, _names(both, 1)
    longer = names
    while found(longer, max(2 * length, 1)).any():  # the longest run is `length` to twice that
        length, names = max(2 * length, 1), longer
        longer = _joined(names, names, length)
    longest, too_long = length, 2 * length
    while too_long - longest > 1:
        middle = (longest + too_long) // 2
        if found(_joined(names, names, middle - length), middle).any():
            longest = middle
        else:
            too_long = middle
    return Copied(float(windows.mean()) if len(windows) else 0.0, longest)


def _symbols(text: Text) -> np.ndarray:
    if isinstance(text, str):
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    return np.asarray(text, dtype=np.int64)


def _names(symbols: np.ndarray, length: int) -> np.ndarray:
    """The names of all windows of `length` symbols, in order."""
    names = np.unique(symbols, return_inverse=True)[1]
    done = 1
    while done < length:
        step = min(done, length - done)  # two windows may overlap: together they name what is in both
        names = _joined(names, names, step)
        done += step
    return names


def _joined(left: np.ndarray, right: np.ndarray, step: int) -> np.ndarray:
    """The names of windows made of two: one of `left` and, `step` symbols on, one of `right`."""
    count = max(len(left) - step, 0)
    left, right = left[:count], right[step : step + count]
    return np.unique(left * (count + step + 1) + right, return_inverse=True)[1]


def _check(window: int) -> None:
    if window < 1:
        raise ValueError(f"window must be at least 1 symbol, got {window}")
