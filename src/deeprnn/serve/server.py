"""The server: connections with limits, signals, an end in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .._util.signals import restore, take
from .app import create_app
from .errors import content, error
from .guard import Guard
from .metrics import LOG, Metrics
from .served import Limits, Served

__all__ = ["serve"]

STALLED = 0.75
"""Seconds for which a client may take nothing, with everything full that is between it and the service."""

SLOW = 10.0
"""Seconds in which the head of a request has to come."""

HEAD = 32_768
"""Bytes that it may have."""

AHEAD = 16_384
"""Bytes of an answer that are kept for a client that takes them slowly, here and once more in the system's buffer."""


def connections(most: int) -> type[H11Protocol]:
    """A kind of connection of which there are at most so many, and which waits for nobody."""

    class Connection(H11Protocol):
        _timer: Optional[asyncio.TimerHandle] = None
        _stall: Optional[asyncio.TimerHandle] = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=AHEAD)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, AHEAD)
            if len(self.connections) > most:
                self._refuse(503, f"there are {most:,} connections already", "Retry-After: 1\r\n")
            else:
                self._timer = self.loop.call_later(SLOW, transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
            elif self._timer is None and not self.transport.is_closing():
                self._timer = self.loop.call_later(SLOW, self.transport.abort)

        def connection_lost(self, exc: Optional[Exception]) -> None:
            self._stop_timer()
            self._stop_stall()
            super().connection_lost(exc)

        def shutdown(self) -> None:
            if self._timer is not None:  # no request, or half of one
                self.transport.abort()
            else:
                super().shutdown()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch(self.transport.get_write_buffer_size())

        def resume_writing(self) -> None:
            self._stop_stall()
            super().resume_writing()

        def _watch(self, waiting: int) -> None:
            """Look again later, and cut the connection if as many bytes wait then: nothing is added meanwhile."""

            def look() -> None:
                left = self.transport.get_write_buffer_size()
                if left < waiting:
                    self._watch(left)
                else:
                    self.transport.abort()

            self._stall = self.loop.call_later(STALLED, look)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "the request is not HTTP/1.1")

        def _refuse(self, status: int, message: str, headers: str = "") -> None:
            body = content(error(status, message))
            self.transport.write(
                f"HTTP/1.1 {status} {'Bad Request' if status == 400 else 'Service Unavailable'}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
                "".encode()
                + body
            )
            self.transport.close()

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _stop_stall(self) -> None:
            if self._stall is not None:
                self._stall.cancel()
                self._stall = None

    return Connection


class Server(uvicorn.Server):
    """Ends in order at the first signal, at once at the second."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals while serving, and do not send them to the process again afterwards."""
        before = take(self._stop)
        try:
            yield
        finally:
            restore(before)

    def _stop(self, *_: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(
    models: Sequence[Served],
    sock: socket.socket,
    *,
    limits: Limits,
    hosts: Sequence[str],
    origins: Sequence[str] = (),
    token: Optional[str] = None,
    grace: float = 10.0,
    log_text: bool = False,
    begun: Callable[[], None] = lambda: None,
) -> int:
    """Serve models on a socket until a signal comes; returns the exit code.

    Parameters
    ----------
    models
    sock
        Bound and listening.
    limits, hosts, origins, token
        As for `Guard`.
    grace
        Seconds for what is running, after a signal.
    log_text
        As for `Metrics`.
    begun
        Called when requests are taken.
    """
    if not LOG.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        LOG.propagate = False
    metrics = Metrics(log_text)
    app = create_app(models, metrics)
    config = uvicorn.Config(
        Guard(app, limits, metrics, hosts, origins, token),
        http=connections(limits.connections),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=1024,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=math.ceil(grace) + 2,  # by then, engines that are stopped have ended all answers
        h11_max_incomplete_event_size=HEAD,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server = Server(config)

    async def run() -> None:
        serving, end = asyncio.ensure_future(server.serve(sockets=[sock])), math.inf
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        if server.started:
            begun()
        while not serving.done():
            await asyncio.wait([serving], timeout=0.1)
            if server.should_exit and not app.state.stopping:
                app.state.stopping, end = True, time.monotonic() + grace
            if time.monotonic() > end:
                for each in models:
                    each.engine.stop(0)
        serving.result()

    asyncio.run(run())
    return 0
