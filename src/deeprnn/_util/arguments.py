"""Command lines: help texts in one style, and names of arguments as flags."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable

__all__ = ["as_flags", "flag", "help_text"]


def help_text(action: argparse.Action) -> str:
    """The help of an argument as all scripts show it: a sentence, without mark-up, with the default if there is one."""
    text = re.sub(r"\s*\(default:? %\(default\)s\)", "", action.help or "")
    text = re.sub(r"\s+", " ", text.replace("%(default)s", str(action.default)).replace("%%", "%").replace("`", ""))
    if not text:
        return ""
    text = text[0].upper() + text[1:] + ("" if re.search(r"\.( \(default[^)]*\))?$", text) else ".")
    shown = action.option_strings and action.nargs != 0 and action.default not in (None, argparse.SUPPRESS, "", [])
    if shown and "default" not in text:
        switches = {True: "true", False: "false"}
        default = switches[action.default] if isinstance(action.default, bool) else action.default
        listed = isinstance(default, list) or type(default) is tuple
        text += f" (default: {' '.join(map(str, default)) if listed else default})"
    return text.replace("%", "%%")


def flag(name: str) -> str:
    """The flag that sets an option: ``hidden_size`` -> ``--hidden-size``."""
    return "--" + name.replace("_", "-")


def as_flags(message: str, names: Iterable[str]) -> str:
    """A message of the library with the arguments `names` spelled as flags.

    The library names its arguments at the beginning of a message, as ``name=value``, or, if the name has an underscore,
    anywhere. Other words are left alone.

    >>> as_flags("seq_len must be at least 1, got 0", ["seq_len"])
    '--seq-len must be at least 1, got 0'
    >>> as_flags("backend='gluon' has no residual=True", ["backend", "residual"])
    '--backend gluon has no --residual true'
    """
    found = sorted(names, key=len, reverse=True)
    if not found:
        return message
    name = rf"(?<![\w./'-])({'|'.join(map(re.escape, found))})"
    message = re.sub(rf"{name}=('[^']*'|[\w.+-]*\w(?:,[\d.]+)*)", _option, message)
    message = re.sub(rf"^({'|'.join(map(re.escape, found))})(?=[ :])", lambda match: flag(match[1]), message)
    return re.sub(rf"{name}(?![\w/'=-]|\.\w)", lambda match: flag(match[1]) if "_" in match[1] else match[1], message)


def _option(match: re.Match[str]) -> str:
    value = {"True": "true", "False": "false", "None": "null"}.get(match[2], match[2].strip("'"))
    return f"{flag(match[1])} {value}"
