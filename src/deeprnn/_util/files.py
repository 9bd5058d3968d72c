"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Optional, Union

__all__ = ["check_folders", "write_bytes_atomic", "write_json_atomic", "write_text_atomic"]

PathLike = Union[str, "os.PathLike[str]"]


def check_folders(*paths: Optional[Path]) -> None:
    """Before any work: where a file is to be written, its folder is there.

    Raises
    ------
    FileNotFoundError
        If it is not.
    """
    for path in paths:
        if path and not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent} for {path}: make it first")


def write_bytes_atomic(path: PathLike, content: bytes) -> None:
    """Put `content` at `path` such that a reader, or a crash, meets the old file or the new one and no third thing."""
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
    _sync_folder(path.parent)


def write_text_atomic(path: PathLike, text: str) -> None:
    """`write_bytes_atomic` of `text` in UTF-8."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: PathLike, content: Any) -> None:
    """`write_bytes_atomic` of `content` as indented JSON.

    Raises
    ------
    ValueError
        For NaN and infinity, which JSON cannot hold: write None.
    """
    write_text_atomic(path, json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _sync_folder(folder: Path) -> None:
    """Have the rename itself reach the disk, not the file's content alone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
