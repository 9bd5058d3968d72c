"""Messages over a socket: a JSON object a line; an empty one is a sign of life."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from typing import Any, Optional

__all__ = ["LAST_WORD", "SIGN_OF_LIFE", "Patience", "Wire"]

Message = dict[str, Any]

SIGN_OF_LIFE: Message = {}

LONGEST = 1 << 20
"""Bytes of a message; the options of a run have a few thousand."""

STUCK = 5.0
"""Seconds that sending may take: longer, nobody reads there."""

LAST_WORD = 1.0
"""Seconds in which a last message is to be read."""


class Patience:
    """How long somebody has been silent, not counting the time in which this process itself did not run.

    A machine that was suspended, or a process that was stopped and continued, has heard of nobody for a long time, and
    nobody is to blame.
    """

    def __init__(self, limit: float, tick: float) -> None:
        self._limit, self._tick = limit, tick
        self._silence = 0.0

    def heard(self) -> None:
        """A sign of life has come."""
        self._silence = 0.0

    def over(self, elapsed: float) -> bool:
        """Whether the silence is too long, now that `elapsed` seconds have passed since the last call."""
        self._silence += min(elapsed, 2 * self._tick)
        return self._silence >= self._limit


class Wire:
    """One end of a connection. Any thread may send, one may receive."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(STUCK)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._sending = threading.Lock()
        self._received = b""

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """Send a message; False if the other end is gone."""
        try:
            with self._sending:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> Optional[list[Message]]:
        """The messages that have come; None if the other end is gone, or does not speak this language."""
        try:
            content = self._socket.recv(1 << 16)
            *lines, self._received = (self._received + content).split(b"\n")
            messages = [json.loads(line) for line in lines]
        except (OSError, ValueError, RecursionError):
            return None
        fine = content and len(self._received) < LONGEST and all(isinstance(each, dict) for each in messages)
        return messages if fine else None

    def first(self, until: float) -> Optional[list[Message]]:
        """The first messages, waited for until a time of `time.monotonic`; None if there are none by then."""
        while select.select([self._socket], [], [], max(until - time.monotonic(), 0))[0]:
            messages = self.receive()
            if messages != []:  # which is part of a message
                return messages
        return None

    def finish(self, until: float) -> None:
        """Send nothing more, and wait until the other end has read what was sent and has closed; close then.

        To close at once could cost the last message. `until` is a time of `time.monotonic`.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while select.select([self._socket], [], [], max(until - time.monotonic(), 0))[0]:
                if not self._socket.recv(1 << 16):
                    break
        self.close()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
