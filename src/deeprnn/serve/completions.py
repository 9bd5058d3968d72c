"""`/v1/completions`: the form that existing clients of text-generation servers speak.

A stop text is not part of what is answered there, so the end of a text that may be the beginning of one is held back.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, Optional

from ..data.symbols import split_symbols
from .errors import Refused, content, error
from .fields import Completion, stops_of
from .jobs import Symbol
from .served import Served

__all__ = ["Choices"]

REASONS = {"length": "length", "stop": "stop", "time": "length"}


class Choices:
    """The texts of one answer.

    Parameters
    ----------
    request
    served
        The model.
    prompts
        Each has `request.n` texts.
    """

    def __init__(self, request: Completion, served: Served, prompts: Sequence[str]) -> None:
        self._request, self._served = request, served
        self._stops = stops_of(request.stop)
        self._n = request.n or 1
        self._held = [prompt if request.echo else "" for prompt in prompts for _ in range(self._n)]
        self._echo = [len(held) for held in self._held]
        self._id, self._created = f"cmpl-{uuid.uuid4().hex}", int(time.time())
        prompt_tokens = sum(len(split_symbols(prompt, served.unit)) for prompt in prompts)
        self._usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 0, "total_tokens": prompt_tokens}

    def whole(self, symbols: Sequence[Sequence[Symbol]]) -> dict[str, Any]:
        """The answer, from all symbols of each prompt."""
        made: dict[int, list[dict[str, Any]]] = {i: [] for i in range(len(self._held))}
        for prompt, several in enumerate(symbols):
            for choice in self._choices(several, prompt):
                made[choice["index"]].append(choice)
        choices = []
        for index, parts in made.items():
            logprobs = None
            if self._request.logprobs is not None:
                names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
                logprobs = {name: [each for part in parts for each in part["logprobs"][name]] for name in names}
            choices.append(
                {
                    "index": index,
                    "text": "".join(part["text"] for part in parts),
                    "logprobs": logprobs,
                    "finish_reason": parts[-1]["finish_reason"] if parts else None,
                }
            )
        return {**self._about(), "choices": choices, "usage": self._usage}

    def events(self, symbols: Sequence[Symbol]) -> bytes:
        """Server-sent events, an event for each text that goes on."""
        return b"".join(
            event({**self._about(), "choices": [choice]})
            for choice in self._choices(symbols)
            if choice["text"] or choice["finish_reason"]
        )

    def end(self) -> bytes:
        """The last events."""
        usage = b""
        if (self._request.stream_options or {}).get("include_usage"):
            usage = event({**self._about(), "choices": [], "usage": self._usage})
        return usage + b"data: [DONE]\n\n"

    @staticmethod
    def failed(refused: Refused) -> bytes:
        """The event of an error."""
        return event(error(refused.status, refused.message, refused.field))

    def _about(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._served.name,
        }

    def _choices(self, symbols: Sequence[Symbol], prompt: int = 0) -> list[dict[str, Any]]:
        """What these symbols add to the texts of a prompt, a choice for each text."""
        by_index: dict[int, list[Symbol]] = {}
        for symbol in symbols:
            by_index.setdefault(prompt * self._n + symbol.index, []).append(symbol)
        self._usage["completion_tokens"] += len(symbols)
        self._usage["total_tokens"] += len(symbols)
        return [
            {
                "index": index,
                "text": self._released(index, "".join(symbol.text for symbol in several), several[-1].reason),
                "logprobs": self._logprobs(index, several),
                "finish_reason": REASONS.get(several[-1].reason),
            }
            for index, several in by_index.items()
        ]

    def _released(self, index: int, added: str, reason: str) -> str:
        """Of a text's end, what surely is no stop text and no beginning of one."""
        text = self._held[index] + added
        keep = 0
        if reason == "stop":
            # The shortest that the text ends with: it was the first to be complete.
            keep = min(len(stop) for stop in self._stops if text.endswith(stop))
            self._held[index] = ""
            return text[: len(text) - keep]
        if not reason:
            keep = max((begun(text, stop) for stop in self._stops), default=0)
        self._held[index] = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _logprobs(self, index: int, symbols: Sequence[Symbol]) -> Optional[dict[str, Any]]:
        if self._request.logprobs is None:
            return None
        tokens, offsets = self._served.vocab.idx_to_token, []
        for symbol in symbols:
            offsets.append(self._echo[index])
            self._echo[index] += len(symbol.text)
        return {
            "tokens": [symbol.text for symbol in symbols],
            "token_logprobs": [round(symbol.logprob, 6) for symbol in symbols],
            "top_logprobs": [
                {tokens[i]: round(value, 6) for i, value in symbol.likeliest[: self._request.logprobs]}
                for symbol in symbols
            ],
            "text_offset": offsets,
        }


def begun(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop text."""
    return max((n for n in range(1, min(len(text), len(stop) - 1) + 1) if text.endswith(stop[:n])), default=0)


def event(value: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + content(value) + b"\n\n"
