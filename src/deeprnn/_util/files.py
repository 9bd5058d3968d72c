"""Files: written beside and renamed into place, and read without trust in what is there."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Optional, Union

__all__ = [
    "check_folders",
    "locked",
    "open_regular",
    "read_json",
    "read_regular",
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


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock of the file or folder `path`; while another process has it, wait for it.

    The lock of a process ends with it. `doing` is what it is for, as in "downloads a text", for the user.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process, which {doing}", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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


def open_regular(path: Path, size: Optional[int] = None, largest: float = math.inf, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading.

    Parameters
    ----------
    path
    size : int, optional
        Bytes that it must have.
    largest
        Bytes that it may have.
    follow : bool
        Whether it may be a symbolic link.

    Raises
    ------
    ValueError
        Otherwise, and if it is missing or cannot be read.
    """
    if not path.is_symlink() and not path.exists():
        raise ValueError(f"{path} is missing")
    # O_NONBLOCK: a pipe would wait for a writer. O_NOFOLLOW: a link may lead out of the folder.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if path.is_symlink() and not follow:
            raise ValueError(f"{path} is a symbolic link, which is not followed") from error
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    status = os.fstat(handle)
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "is not a file"
    elif size is not None and status.st_size != size:
        problem = f"is damaged: it should have {size:,} bytes and has {status.st_size:,}"
    elif status.st_size > largest:
        problem = f"has {status.st_size:,} bytes, and at most {largest:,} are read"
    if problem:
        os.close(handle)
        raise ValueError(f"{path} {problem}")
    return open(handle, "rb")


def read_regular(path: Path, size: Optional[int] = None, largest: float = math.inf, follow: bool = False) -> bytes:
    """The content of a regular file; see `open_regular`. ValueError, too, if it does not fit in memory."""
    with open_regular(path, size, largest, follow) as file:
        try:
            return file.read()
        except MemoryError:
            raise ValueError(f"{path} does not fit in memory") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def read_json(content: bytes) -> dict[str, Any]:
    """An object of JSON, in UTF-8, that somebody else wrote.

    Raises
    ------
    ValueError
        For anything else: NaN and infinity, an integer of thousands of digits, brackets nested beyond the stack.
    """

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{text} is not a JSON number")
        return value

    try:
        value = json.loads(content, parse_float=finite, parse_constant=finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    return value


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
