"""Checks of arguments, made before MXNet is called.

Each error names the argument, what was expected and what was given. The library names its arguments as Python does
(``hidden_size``, ``split=1,0,0``); the command line turns these names into flags, see `arguments.as_flags`.
"""

from __future__ import annotations

import difflib
import numbers
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Optional

import numpy as np

__all__ = [
    "DTYPES",
    "check_activation",
    "check_bounds",
    "check_choice",
    "check_devices",
    "check_dtype",
    "check_encoding",
    "check_fraction",
    "check_number",
    "check_size",
    "dtype_name",
]

DTYPES = ("float32", "float64", "float16")


def check_size(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` if it is a whole number of at least `minimum`; raise TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if int(value) >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {value}")
    return int(value)


def check_number(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is a real number, of Python or of NumPy."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_fraction(name: str, value: Any) -> float:
    """Return `value` as a float if it is in [0, 1); raise TypeError or ValueError otherwise."""
    check_number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
    return float(value)


def check_bounds(
    low_name: str, low: Optional[float], high_name: str, high: Optional[float]
) -> Optional[tuple[float, float]]:
    """Return two bounds as floats, or None if both are None; raise ValueError for one alone or a low one above."""
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise ValueError(f"{low_name} and {high_name} go together, got {low_name}={low}, {high_name}={high}")
    check_number(low_name, low)
    check_number(high_name, high)
    if not low <= high:
        raise ValueError(f"{low_name} must not exceed {high_name}, got {low} and {high}")
    return float(low), float(high)


@lru_cache(maxsize=64)
def dtype_name(dtype: Any) -> str:
    """As ``float32``, of a type or its name. NumPy's own takes as long as a small array operation."""
    return np.dtype(dtype).name


def check_dtype(dtype: Any) -> str:
    """Return the name of `dtype` if layers support it; raise TypeError or ValueError otherwise."""
    if str(dtype) == "bfloat16":
        raise TypeError("dtype bfloat16 is not supported by MXNet arrays; use float32")
    try:
        name = "None" if dtype is None else dtype_name(dtype)  # numpy reads None as float64
    except TypeError:
        name = str(dtype)
    return check_choice("dtype", name, DTYPES)


def check_activation(cell: str, activation: str) -> None:
    """Raise ValueError if a cell other than ``rnn`` is given an activation other than tanh."""
    if cell != "rnn" and activation != "tanh":
        raise ValueError(f"activation={activation!r} is for cell='rnn'; {cell} has its own non-linearities")


def check_encoding(name: str, value: str) -> str:
    """Return `value` if Python knows a text encoding of that name; raise ValueError otherwise."""
    try:
        "a".encode(value)  # which "hex", a codec but not one of text, refuses
    except (LookupError, UnicodeError):
        raise ValueError(f"{name} must be an encoding such as 'utf-8' or 'gb18030', got {value!r}") from None
    return value


def check_devices(name: str, value: Any) -> list[tuple[str, int]]:
    """Kind and number of each device of a list such as ``gpu(0),gpu(1)``; raise ValueError for anything else."""
    found = [re.fullmatch(r"(cpu|gpu)(?:\((\d{1,3})\))?", part.strip()) for part in str(value).split(",")]
    devices = [(match[1], int(match[2] or 0)) for match in found if match]
    if len(devices) < len(found):
        raise ValueError(f"{name} must be cpu or gpu, or several devices such as 'gpu(0),gpu(1)', got {value!r}")
    if len({kind for kind, _ in devices}) > 1:
        raise ValueError(f"{name} must name devices of one kind, got {value!r}")
    if len(set(devices)) < len(devices):
        raise ValueError(f"{name} must name each device once, got {value!r}")
    return devices


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`; the ValueError otherwise suggests a close match."""
    if value in choices:
        return str(value)
    close = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")
