"""Answers: what a job's news become, as a whole or as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, MutableMapping
from typing import Any, Callable

from starlette.responses import Response

from .errors import RETRY, Refused, content
from .jobs import Job

__all__ = ["Json", "Stream", "collect", "news", "wake"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Json(Response):
    """A JSON document."""

    media_type = "application/json"

    def render(self, content_: Any) -> bytes:
        return content(content_)


def wake(jobs: list[Job]) -> None:
    """Wake those who wait for the news of these jobs; in the loop's thread."""
    for job in jobs:
        job.listener.set()


async def news(job: Job) -> AsyncIterator[list[Any]]:
    """The news of a job, as many at a time as there are.

    Raises
    ------
    Refused
        At the end, if the job has failed, or nobody waits for it any more.
    """
    over = False
    while not over:
        await job.listener.wait()
        job.listener.clear()
        job.noticed = False  # before anything is read: what comes after that is noticed anew
        over = job.over
        if job.cancelled and not over:
            raise Refused(499, "the client has gone")
        fetched = [job.news.popleft() for _ in range(len(job.news))]
        if fetched:
            yield fetched
    if job.error:
        raise Refused(503, job.error, headers=RETRY)


async def gone(receive: Receive, job: Job) -> None:
    """Cancel a job as soon as its client has gone, and wake who waits for its news: there may be no more of them."""
    while (await receive())["type"] != "http.disconnect":
        pass
    job.cancelled = True
    job.listener.set()


async def collect(receive: Receive, job: Job) -> list[Any]:
    """All news of a job."""
    watch = asyncio.ensure_future(gone(receive, job))
    try:
        return [each async for fetched in news(job) for each in fetched]
    finally:
        job.cancelled = True
        watch.cancel()


class Stream(Response):
    """An answer that is sent as it is made.

    Parameters
    ----------
    job
    lines
        Of news, the lines to send.
    first, last
        Lines before the news, and after all of them.
    failed
        The line that tells of an error, once the answer has begun.
    media_type
        What the lines are.
    """

    def __init__(
        self,
        job: Job,
        lines: Callable[[list[Any]], bytes],
        *,
        first: bytes = b"",
        last: Callable[[], bytes],
        failed: Callable[[Refused], bytes],
        media_type: str,
    ) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.job, self._lines, self._first, self._last, self._failed = job, lines, first, last, failed

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        watch = asyncio.ensure_future(gone(receive, self.job))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            body = self._first
            try:
                async for fetched in news(self.job):
                    body += self._lines(fetched)
                    if body:
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                    body = b""
                body += self._last()
            except Refused as refused:
                body += self._failed(refused)
            await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            self.job.cancelled = True
            watch.cancel()
