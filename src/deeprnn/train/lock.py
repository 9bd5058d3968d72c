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

    The operating system releases its lock on the file when the process ends, however it ends. The file names the owner.
    If a process of this machine left the file behind, it has died, and the lock is taken over. If the folder is shared
    with other machines, this system may not see their locks, so a file that names another machine is always respected.

    Parameters
    ----------
    folder : Path
        Folder of the run; must exist.

    Attributes
    ----------
    died : int or None
        The process that the lock was taken over from.

    Raises
    ------
    ValueError
        If another process holds the lock, or one of another machine may hold it.
    OSError
        If the file cannot be created.
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
        """Machine and process that the file names; None for both if it names none."""
        try:
            owner = json.loads(os.pread(self._handle, 1000, 0))
            return str(owner["host"]), int(owner["process"])
        except (ValueError, KeyError, TypeError):
            return None, None
