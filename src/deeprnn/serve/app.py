"""The application: the page, and the API in front of the engines."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Optional

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, PlainTextResponse, Response

from .. import __version__
from ..sampling import Sampler, new_seed
from .answers import Json, Stream, collect, wake
from .completions import Choices
from .errors import Refused, content, error, explained
from .fields import Completion, ErrorAnswer, Generate, Score, Scored, Written
from .jobs import Job, Symbol
from .metrics import Metrics
from .served import Served

__all__ = ["create_app"]

PAGE = Path(__file__).parent / "page"
ASSETS = {"/": "index.html", "/style.css": "style.css", "/page.js": "page.js"}
ERRORS: dict[Any, Any] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in (
        (400, "The body is not JSON"),
        (401, "The token is missing or wrong"),
        (403, "The host or the origin is not allowed"),
        (404, "There is no such model"),
        (408, "The body came too slowly"),
        (413, "The body is too large"),
        (415, "The body is not application/json"),
        (422, "A field is wrong; param names it"),
        (429, "Too many requests wait"),
        (500, "The model has failed"),
        (503, "The model is not ready, or the service is stopping"),
    )
}
TURN = 100
"""Symbols of an answer that are written at a time."""

PLACES = 20
"""Most surprising places of a scored text that are listed."""


def create_app(models: Sequence[Served], metrics: Metrics) -> FastAPI:
    """The application that serves these models, the first of which is the default."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def notify(jobs: list[Job]) -> None:
            with suppress(RuntimeError):  # the loop has been closed, and nobody waits any more
                loop.call_soon_threadsafe(wake, jobs)

        for each in models:
            each.begin(notify)
        yield
        for each in models:
            each.engine.stop()

    app = FastAPI(
        title="deeprnn",
        version=__version__,
        description="Texts by recurrent language models.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=ERRORS,
    )
    by_name = {each.name: each for each in models}

    def served(name: Optional[str]) -> Served:
        if name is not None and name not in by_name:
            raise Refused(404, f"model must be one of {', '.join(map(repr, by_name))}, got {name!r}", "model")
        return models[0] if name is None else by_name[name]

    @app.exception_handler(Refused)
    async def refused(_: Request, reason: Refused) -> Response:
        return Json(error(reason.status, reason.message, reason.field), reason.status, reason.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, reason: RequestValidationError) -> Response:
        message, field = explained(reason.errors())
        status = 422 if field or not message.startswith("the body is not JSON") else 400
        return Json(error(status, message, field), status)

    @app.exception_handler(HTTPException)
    async def other(_: Request, reason: HTTPException) -> Response:
        return Json(error(reason.status_code, str(reason.detail)), reason.status_code, reason.headers)

    @app.post("/v1/generate", summary="Write texts", responses=described(Written, "application/jsonl"))
    async def generate(body: Generate, request: Request) -> Response:
        model, seed = served(body.model), chosen_seed(body.seed)
        sampler = sampler_of(body.temperature, body.top_p, top_k=body.top_k, penalty=body.repetition_penalty)
        (job,) = model.write(
            [body.prefix],
            sampler,
            seed,
            length=body.length,
            samples=body.samples,
            stop=body.stop,
            details=body.details,
            states=body.states,
        )
        metrics.follow(job, request, body.prefix)
        about = {"model": model.name, "seed": seed}
        tokens = model.vocab.idx_to_token
        if not body.stream:
            symbols = await collect(request.receive, job)
            reasons = {symbol.index: symbol.reason for symbol in symbols if symbol.reason}
            answer = {
                **about,
                "texts": [text.text for text in job.texts],
                "reasons": [reasons[i] for i in range(len(job.texts))],
            }
            if not (body.details or body.states):
                return Json(answer)
            lines_of: list[list[bytes]] = [[] for _ in job.texts]
            for i, symbol in enumerate(symbols):
                lines_of[symbol.index].append(content(line_of(symbol, tokens)))
                if i % TURN == 0:
                    await asyncio.sleep(0)  # there may be 80,000 of them, and others are waiting
            listed = b",".join(b"[" + b",".join(each) + b"]" for each in lines_of)
            return Response(content(answer)[:-1] + b',"symbols":[' + listed + b"]}", media_type="application/json")

        def lines(symbols: Sequence[Symbol]) -> bytes:
            if body.details or body.states:
                return b"".join(content(line_of(symbol, tokens)) + b"\n" for symbol in symbols)
            return b"".join(content(line) + b"\n" for line in merged(symbols))

        return Stream(
            job,
            lines,
            first=content(about) + b"\n",
            last=lambda: content({"done": True, "symbols": job.written}) + b"\n",
            failed=lambda reason: content(error(reason.status, reason.message)) + b"\n",
            media_type="application/jsonl",
        )

    @app.post("/v1/score", summary="Score a text", responses=described(Scored))
    async def score(body: Score, request: Request) -> Response:
        model = served(body.model)
        job, symbols, unknown = model.score(body.text)
        metrics.follow(job, request, body.text)
        (found,) = await collect(request.receive, job)
        loss, tokens = float(found.losses.mean()), model.vocab.idx_to_token
        worst = np.argsort(-found.losses, kind="stable")[:PLACES].tolist()
        return Json(
            {
                "model": model.name,
                "unit": model.unit,
                "loss": loss,
                "perplexity": math.exp(min(loss, 700)),
                "unknown": unknown,
                "symbols": symbols,
                "losses": [None, *np.round(found.losses, 4).tolist()],
                "places": [
                    {
                        "position": i + 1,
                        "loss": round(float(found.losses[i]), 4),
                        "expected": tokens[int(found.expected[i])],
                        "probability": round(math.exp(found.logprobs[i]), 6),
                    }
                    for i in worst
                ],
            }
        )

    @app.post(
        "/v1/completions",
        summary="Write texts, in the form of other text-generation servers",
        responses=described(dict[str, Any], "text/event-stream"),
    )
    async def completions(body: Completion, request: Request) -> Response:
        model = served(body.model)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if not prompts or (body.stream and len(prompts) > 1):
            raise Refused(422, f"prompt must be one text here, got {len(prompts)}", "prompt")
        temperature, top_p = (1.0 if value is None else value for value in (body.temperature, body.top_p))
        jobs = model.write(
            prompts,
            sampler_of(temperature, top_p),
            chosen_seed(body.seed),
            length=body.max_tokens or 16,
            samples=body.n or 1,
            stop=body.stop,
            names=("prompt", "max_tokens", "n", "stop"),
            details=body.logprobs is not None,
        )
        for job, prompt in zip(jobs, prompts):
            metrics.follow(job, request, prompt)
        choices = Choices(body, model, prompts)
        if body.stream:
            return Stream(
                jobs[0], choices.events, last=choices.end, failed=choices.failed, media_type="text/event-stream"
            )
        try:
            return Json(choices.whole([await collect(request.receive, job) for job in jobs]))
        finally:
            for job in jobs:
                job.cancelled = True

    @app.get("/v1/models", summary="The models that are served")
    async def listed() -> Response:
        return Json({"object": "list", "data": [each.about() for each in models]})

    @app.get("/health", summary="Whether the process answers")
    async def health() -> Response:
        return Json({"status": "ok"})

    app.add_api_route("/health", health, methods=["HEAD"], include_in_schema=False)

    @app.get("/ready", summary="Whether every model serves")
    async def ready(request: Request) -> Response:
        states = {each.name: each.engine.ready for each in models}
        stopping = request.app.state.stopping
        fit = all(states.values()) and not stopping
        found = {"ready": fit, "models": states, "stopping": stopping}
        return Json(found) if fit else Json({**found, **error(503, "not every model serves")}, 503)

    @app.get("/metrics", summary="Figures in Prometheus' text form", response_class=PlainTextResponse)
    async def figures() -> Response:
        return metrics.answer(models)

    async def asset(request: Request) -> Response:
        return FileResponse(PAGE / ASSETS[request.url.path], headers={"Cache-Control": "no-cache"})

    async def icon() -> Response:
        return Response(status_code=204)

    for path in ASSETS:
        app.add_api_route(path, asset, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/favicon.ico", icon, include_in_schema=False)
    app.state.stopping = False
    return app


def described(model: Any, stream: Optional[str] = None) -> dict[Any, Any]:
    """An answer in the API's description: a document, or where it is streamed, lines of some media type."""
    lines: dict[str, Any] = {"content": {stream: {}}} if stream else {}
    return {200: {"model": model, "description": "What was asked for", **lines}}


def chosen_seed(seed: Optional[int]) -> int:
    """The given seed, or a new one."""
    return new_seed() if seed is None else seed


def sampler_of(temperature: float, top_p: float, *, top_k: int = 0, penalty: float = 0.0) -> Sampler:
    """The sampler that a request describes, in which a temperature of 0 takes the likeliest."""
    return Sampler(
        temperature=temperature or 1.0,
        greedy=temperature == 0,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=penalty,
    )


def merged(symbols: Sequence[Symbol]) -> list[dict[str, Any]]:
    """A line for each text: what these symbols add to it, and why it ends if it does."""
    lines: dict[int, dict[str, Any]] = {}
    for symbol in symbols:
        line = lines.setdefault(symbol.index, {"index": symbol.index, "text": ""})
        line["text"] += symbol.text
        if symbol.reason:
            line["reason"] = symbol.reason
    return list(lines.values())


def line_of(symbol: Symbol, tokens: Sequence[str]) -> dict[str, Any]:
    """All that is known of one symbol."""
    line: dict[str, Any] = {"index": symbol.index, "text": symbol.text}
    if symbol.likeliest:
        line["probability"] = round(math.exp(symbol.logprob), 6)
        line["likeliest"] = [[tokens[i], round(math.exp(value), 6)] for i, value in symbol.likeliest]
    if symbol.state is not None:
        line["state"] = np.rint(np.clip(symbol.state, -9.99, 9.99) * 100).astype(int).tolist()
    if symbol.reason:
        line["reason"] = symbol.reason
    return line
