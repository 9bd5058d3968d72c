"""Records that the scripts have written, read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

__all__ = ["read_record"]


def read_record(path: Path, script: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The record in a file that a script's ``--json`` has written.

    Raises
    ------
    ValueError
        If it is not one: `fits` is false for it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text at all
        raise ValueError(f"{path} is not a record of {script}: {error}") from error
    if not isinstance(record, dict) or not fits(record):
        raise ValueError(f"{path} is not a record of {script}: name a file that --json has written")
    return record
