"""Errors as the API answers them, all of one form, which is the one that clients of text-generation servers know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

__all__ = ["RETRY", "Refused", "content", "error", "explained"]

RETRY = {"Retry-After": "1"}

ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Refused(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status
        Of HTTP.
    message
        What was expected, what came, what to do: for whoever sent the request.
    field
        Of the request, that is wrong.
    headers
        Further ones of the answer.
    """

    def __init__(
        self, status: int, message: str, field: Optional[str] = None, headers: Optional[Mapping[str, str]] = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, dict(headers or {})


def error(status: int, message: str, field: Optional[str] = None) -> dict[str, Any]:
    """The body of an answer that is an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": field, "code": status}}


def content(value: Any) -> bytes:
    """JSON, in UTF-8; half a surrogate pair, which UTF-8 cannot have, becomes a question mark."""
    return ENCODER.encode(value).encode("utf-8", "replace")


def explained(errors: Sequence[Mapping[str, Any]]) -> tuple[str, Optional[str]]:
    """The first of pydantic's errors as a sentence, and the field that it is about."""
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "str", "list[str]")]
    field = ".".join(place) or None
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}", None
    if field is None:
        return "the body must be a JSON object", None
    if first["type"] == "extra_forbidden":
        return f"{field} is not a field of this request", field
    what = first["msg"].replace("Input should be", "must be").replace("Value error, ", "")
    came = repr(first.get("input"))
    return f"{field} {what[0].lower() + what[1:]}, got {came if len(came) < 80 else came[:77] + '...'}", field
