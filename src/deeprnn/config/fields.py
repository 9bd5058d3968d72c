"""Fields of a configuration: checked by their annotations, selected from flat options, spelled as flags."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Optional, TypeVar, get_args, get_origin, get_type_hints

from .._util.arguments import flag
from .._util.checks import check_choice, check_size

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["check_fields", "select", "spelled"]

Part = TypeVar("Part", bound="DataclassInstance")


def check_fields(config: Any, **minimum: int) -> None:
    """Check every field of a dataclass against its annotation.

    Parameters
    ----------
    config
        An instance of a dataclass.
    **minimum
        Smallest value of an integer field, by name; 0 for the others.

    Raises
    ------
    TypeError, ValueError
        For the first field whose value does not fit, by its name.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if value is None and type(None) in get_args(hint):
            continue
        choices = [get_args(each) for each in (hint, *get_args(hint)) if get_origin(each) is Literal]
        if choices:
            check_choice(name, value, choices[0])
        elif hint == Optional[int] and not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number or null, got {value!r}")
        elif hint in (int, Optional[int]):
            check_size(name, value, minimum.get(name, 0))
        elif hint is float and (type(value) not in (int, float) or not math.isfinite(value)):
            raise TypeError(f"{name} must be a finite number, got {value!r}")
        elif hint in (str, Optional[str]) and not isinstance(value, str):
            raise TypeError(f"{name} must be a text, got {value!r}")
        elif hint is bool and not isinstance(value, bool):
            raise TypeError(f"{name} must be true or false, got {value!r}")


def select(part: type[Part], options: Mapping[str, Any]) -> Part:
    """Make the dataclass `part` from those `options` that are its fields; the others are ignored."""
    return part(**{f.name: options[f.name] for f in dataclasses.fields(part) if f.name in options})


def spelled(options: Mapping[str, Any]) -> list[str]:
    """Options as arguments of the command line.

    >>> spelled({"hidden_size": 8, "max_chars": None})
    ['--hidden-size=8', '--max-chars=null']
    """
    values = {
        name: ",".join(map(str, value)) if isinstance(value, (list, tuple)) else "null" if value is None else value
        for name, value in options.items()
    }
    return [f"{flag(name)}={value}" for name, value in values.items()]
