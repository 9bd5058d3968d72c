"""Atomic writing of files: a temporary file in the same folder is renamed into place."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Optional, Union

__all__ = [
    "check_folders",
    "remove_temporary",
    "sync_folder",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]

PathLike = Union[str, "os.PathLike[str]"]

_TEMPORARY = re.compile(r".+\.\d+\.tmp")


def check_folders(*paths: Optional[Path]) -> None:
    """Check, before any work, that the folder of each file to be written exists; None is skipped.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    """
    for path in paths:
        if path and not path.parent.is_dir():
            raise FileNotFoundError(f"the folder {path.parent} of {path} does not exist: create it first")


def write_bytes_atomic(path: PathLike, content: Union[bytes, memoryview]) -> None:
    """Write `content` to `path`; a concurrent reader or a crash sees the old file or the new one, never a mixture."""
    path = Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text_atomic(path: PathLike, text: str) -> None:
    """Write `text` in UTF-8, see `write_bytes_atomic`.

    A lone surrogate, as in the name of a file that is not UTF-8, becomes an escape that JSON and YAML read.
    """
    write_bytes_atomic(path, text.encode("utf-8", "backslashreplace"))


def write_json_atomic(path: PathLike, content: Any) -> None:
    """Write `content` as indented JSON, see `write_bytes_atomic`.

    Raises
    ------
    ValueError
        If `content` has NaN or infinity, which JSON cannot represent; use None.
    """
    write_text_atomic(path, json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def remove_temporary(folder: Path) -> None:
    """Remove the temporary files that processes left in `folder` when they were killed; nobody else may write there."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Flush a file, or the entries of a folder, so that a rename survives a power failure too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
