"""Packages that only some formats and commands need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["extra"]


def extra(module: str, name: str) -> Any:
    """A module of an optional package; `name` is the extra of this package that installs it.

    Raises
    ------
    ValueError
        If the package is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise ValueError(f"{package} is not installed: pip install 'deeprnn[{name}]'") from error
