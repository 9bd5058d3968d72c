"""Records that the scripts have written, read again."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from deeprnn._util.files import write_json_atomic

__all__ = ["measured_or_shown", "read_record"]


def measured_or_shown(
    arguments: Sequence[str],
    usage: str,
    record: Path,
    measure: Callable[[], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> int:
    """The command line of a benchmark: ``measure`` writes its record; the table is printed. Returns the exit code."""
    if list(arguments) == ["measure"]:
        write_json_atomic(record, measure())
    elif arguments:
        print(usage, file=sys.stderr)
        return 2
    print(table(json.loads(record.read_text(encoding="utf-8"))))
    return 0


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
