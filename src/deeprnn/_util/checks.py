"""Arguments, looked at before the engine is: each check names the argument, what was expected and what came."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["DTYPES", "check_activation", "check_choice", "check_dtype", "check_fraction", "check_size"]

DTYPES = ("float32", "float64", "float16")


def check_size(name: str, value: Any, minimum: int = 1) -> int:
    """A whole number, at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def check_fraction(name: str, value: Any) -> float:
    """A share from 0 up to, but not including, 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
    return float(value)


def check_dtype(dtype: Any) -> str:
    """The name of a dtype that layers can have."""
    if str(dtype) == "bfloat16":
        raise TypeError("dtype bfloat16 is not one that MXNet's arrays have; use float32")
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    return check_choice("dtype", name, DTYPES)


def check_activation(cell: str, activation: str) -> None:
    """Only an rnn's non-linearity can be another than tanh."""
    if cell != "rnn" and activation != "tanh":
        raise ValueError(f"--activation {activation} is for --cell rnn; {cell} has its own")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of `choices`; where it is nearly one of them, the error says which."""
    if value in choices:
        return str(value)
    close = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")
