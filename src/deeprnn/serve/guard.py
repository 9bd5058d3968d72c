"""What every request has to pass before the application sees it, and what every answer carries."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, MutableMapping, Sequence
from typing import Any, Callable, Optional
from urllib.parse import SplitResult, urlsplit

from .errors import Refused, content, error
from .metrics import LOG, Metrics
from .served import Limits

__all__ = ["Guard"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN = {"/", "/style.css", "/page.js", "/favicon.ico", "/health", "/ready"}
"""Paths that need no token: the page, which asks for it, and what tells whether the service lives."""

CHECKS = {"/health", "/ready", "/metrics"}
"""Paths that are answered while the service stops."""

BODY_SECONDS = 10.0
"""Seconds in which the body of a request has to come."""

LINGER = 1.0
"""Seconds in which the rest of a too large body is read and dropped, so that the client can read the answer."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """An ASGI application in front of another.

    Parameters
    ----------
    app
        The other; it has a `state.stopping` and `routes`.
    limits, metrics
    hosts
        Names under which the service may be asked for.
    origins
        Pages elsewhere that may use it from a browser.
    token
        That requests have to carry, if any.
    """

    def __init__(
        self,
        app: Any,
        limits: Limits,
        metrics: Metrics,
        hosts: Sequence[str],
        origins: Sequence[str] = (),
        token: Optional[str] = None,
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._hosts, self._origins, self._token = {host.lower() for host in hosts}, set(origins), token
        self._paths = {getattr(route, "path", "") for route in app.routes}
        self._posted = {route.path for route in app.routes if "POST" in (getattr(route, "methods", None) or ())}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        extra = self._headers(headers.get("origin"))

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            try:
                self._check(scope, headers)
                if scope["method"] == "OPTIONS" and headers.get("origin") in self._origins:
                    await respond(answer, 204, b"")
                    return
                await self._app(scope, await self._body(scope, headers, receive), answer)
            except Refused as refused:
                # What is left of the body is not read, so the connection cannot be used again.
                closing = {"Connection": "close"} if refused.status in (408, 413) else {}
                body = content(error(refused.status, refused.message, refused.field))
                await respond(answer, refused.status, body, {**refused.headers, **closing})
            except Exception as failure:
                LOG.error("%s %s failed: %s", scope["method"], scope["path"], type(failure).__name__, exc_info=failure)
                if status:
                    raise
                await respond(answer, 500, content(error(500, "the service has failed here, and has logged it")))
        finally:
            # 499, as nginx has it: the client has gone before there was an answer.
            self._metrics.answered(scope, status or 499, begun, scope["path"] in self._paths)

    def _check(self, scope: Any, headers: MutableMapping[str, str]) -> None:
        host, origin, path = headers.get("host", ""), headers.get("origin"), scope["path"]
        if parts(f"//{host}").hostname not in self._hosts:
            raise Refused(403, f"Host must be one of {', '.join(sorted(self._hosts))}, got {host!r}", "Host")
        if origin and origin not in self._origins and parts(origin).netloc != host.lower():
            raise Refused(403, f"Origin {origin!r} may not use this service", "Origin")
        if self._token and path not in OPEN and scope["method"] != "OPTIONS":
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
                raise Refused(
                    401,
                    "Authorization must be 'Bearer' and the service's token",
                    "Authorization",
                    {"WWW-Authenticate": "Bearer"},
                )
        if self._app.state.stopping and path not in CHECKS:
            raise Refused(503, "the service is stopping", headers={"Retry-After": "10", "Connection": "close"})

    async def _body(self, scope: Any, headers: MutableMapping[str, str], receive: Receive) -> Receive:
        """Read the body, within its limits; what the application receives then."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and scope["path"] in self._posted and kind != "application/json":
            raise Refused(415, f"Content-Type must be application/json, got {kind!r}", "Content-Type")
        most = self._limits.max_body
        declared = headers.get("content-length", "0")
        body, size, more = b"", 0, True
        too_large = len(declared) > 15 or (declared.isdigit() and int(declared) > most)
        deadline = time.monotonic() + (LINGER if too_large else BODY_SECONDS)
        while more:
            try:
                message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0))
            except asyncio.TimeoutError:
                if too_large:
                    break
                raise Refused(
                    408, f"the body must come within {BODY_SECONDS:g} seconds; {size:,} bytes have come"
                ) from None
            if message["type"] == "http.disconnect":
                raise Refused(499, "the client has gone")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size > most and not too_large:
                too_large, deadline = True, time.monotonic() + LINGER
            body = b"" if too_large else body + chunk
        if too_large:
            raise Refused(413, f"the body must have at most {most:,} bytes")
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        return again

    def _headers(self, origin: Optional[str]) -> list[tuple[bytes, bytes]]:
        headers = dict(HEADERS)
        if origin in self._origins and origin:
            headers.update(
                {
                    "Access-Control-Allow-Origin": origin,
                    "Access-Control-Allow-Headers": "Authorization, Content-Type",
                    "Access-Control-Allow-Methods": "GET, POST",
                    "Cross-Origin-Resource-Policy": "cross-origin",
                    "Vary": "Origin",
                }
            )
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def respond(send: Send, status: int, body: bytes, headers: Optional[MutableMapping[str, str]] = None) -> None:
    """Send a whole answer."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    if body:
        fields["Content-Type"] = "application/json"
    encoded = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def parts(url: str) -> SplitResult:
    """The parts of an address; all are empty if it is none."""
    try:
        return urlsplit(url.lower())
    except ValueError:
        return urlsplit("")
