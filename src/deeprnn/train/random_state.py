"""The state of the random numbers of Python and NumPy as plain arrays.

That of MXNet cannot be read: the loop reseeds MXNet at each step if the network draws random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np

__all__ = ["random_arrays", "restore_random"]


def random_arrays() -> dict[str, np.ndarray]:
    """The states of `random` and of `numpy.random`."""
    _, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    assert name == "MT19937"
    return {
        "python": np.array(words, dtype=np.uint32),
        "python_gauss": np.array([] if gauss is None else [gauss], dtype=np.float64),
        "numpy": np.append(keys, [position, has_gauss]).astype(np.uint32),
        "numpy_gauss": np.array([cached], dtype=np.float64),
    }


def restore_random(arrays: Mapping[str, np.ndarray]) -> None:
    """Restore what `random_arrays` gave; raises ValueError if `arrays` do not hold such states."""
    try:
        gauss = arrays["python_gauss"].tolist()
        *keys, position, has_gauss = arrays["numpy"].tolist()
        random.setstate((3, tuple(arrays["python"].tolist()), gauss[0] if gauss else None))
        cached = float(arrays["numpy_gauss"][0])
        np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the state of the random numbers cannot be restored: {error}") from error
