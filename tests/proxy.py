"""A TCP proxy that delays, stalls and cuts what goes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Passes on, in both directions, what comes over connections to one place to connections to another.

    Parameters
    ----------
    listening : socket.socket
        Where connections come in.
    connect : callable
        Makes the connection that one of them goes on by.

    Attributes
    ----------
    port : int
        Of `listening`.
    delay : float
        Seconds by which each part of the bytes is late; one follows the other, so this makes the link slow as well.
    """

    def __init__(self, listening, connect):
        self.port, self.delay = listening.getsockname()[1], 0.0
        self._listening, self._connect = listening, connect
        self._flowing, self._is_cut = threading.Event(), False
        self._flowing.set()
        self._ends, self._threads = [], []
        self._begin(self._accept)

    def stall(self):
        """Let all connections be open, and pass on nothing."""
        self._flowing.clear()

    def go_on(self):
        """Pass on what has come since `stall`, and all that comes."""
        self._flowing.set()

    def cut(self):
        """Close all connections, also those that come from now on."""
        self._is_cut = True
        self._flowing.set()
        for end in list(self._ends):
            with contextlib.suppress(OSError):  # closed by its peer
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Cut, and listen no more."""
        self.cut()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in (self._listening, *self._ends):
            each.close()

    def _begin(self, work, *arguments):
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self):
        while True:
            try:
                near = self._listening.accept()[0]
            except OSError:
                return
            try:
                self._ends += [near, far := self._connect()]
            except OSError:  # nobody listens there yet
                near.close()
                continue
            self._begin(self._pass_on, near, far)
            self._begin(self._pass_on, far, near)
            if self._is_cut:
                self.cut()

    def _pass_on(self, source, sink):
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                time.sleep(self.delay)
                self._flowing.wait()
                sink.sendall(content)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
