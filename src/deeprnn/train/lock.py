"""The lock of a run: one process at a time may write to its folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Optional

__all__ = ["RunLock"]


class RunLock:
    """Held while a process writes to the folder of a run. A context manager.

    The system's lock on the file goes when its process does, however that ends. The file says who has it: where it was
    left by a process of this machine, that one died, and the lock is taken over. A folder may be shared with other
    machines, whose locks this system does not always see, so a file of another machine is obeyed.

    Parameters
    ----------
    folder : Path
        Of the run; it exists.

    Attributes
    ----------
    died : int or None
        The process that the lock was taken over from.

    Raises
    ------
    ValueError
        If another process has it, or may have it on another machine.
    OSError
        If there can be no such file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self.died: Optional[int] = None
        while True:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                self._take(folder)
                # Its last owner may have removed the file between our opening it and locking it.
                if os.path.exists(self.path) and os.path.samestat(os.fstat(self._handle), os.stat(self.path)):
                    break
            except BaseException:
                os.close(self._handle)
                raise
            os.close(self._handle)
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode(), 0)

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self._handle)

    def _take(self, folder: Path) -> None:
        host, process = self._owner()
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = f"process {process} on {host}" if process else "another process"  # which has just begun
            raise ValueError(f"the run in {folder} is being written by {owner}") from None
        host, process = self._owner()  # it may have ended meanwhile
        if host not in (None, socket.gethostname()):
            raise ValueError(
                f"the run in {folder} is being written by process {process} on the machine {host}; if that has ended, "
                f"delete {self.path}"
            )
        self.died = process

    def _owner(self) -> tuple[Optional[str], Optional[int]]:
        """Machine and process that the file names; None if it is empty, or no such file."""
        try:
            owner = json.loads(os.pread(self._handle, 1000, 0))
            return str(owner["host"]), int(owner["process"])
        except (ValueError, KeyError, TypeError):
            return None, None
