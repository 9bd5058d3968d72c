"""The fields of requests: what the API accepts, checked strictly, and described in its OpenAPI document."""

from __future__ import annotations

from typing import Any, Optional, Union

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Completion", "ErrorAnswer", "Generate", "Score", "Scored", "Stop", "Written", "stops_of"]

LARGEST_SEED = 2**63 - 1

Stop = Union[str, list[str], None]


def stops_of(stop: Stop) -> list[str]:
    """The stop texts of a request as a list."""
    return [stop] if isinstance(stop, str) else list(stop or ())


class Fields(BaseModel):
    """No others than those that are named, and of the types that are named."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: Optional[str] = Field(None, description="Name of a model, from /v1/models; by default the first.")


class Generate(Fields):
    """Texts to be written."""

    prefix: str = Field("", description="Beginning of the text; empty: the model begins by itself.")
    length: int = Field(500, ge=1, description="Symbols to write: characters, or words.")
    temperature: float = Field(
        1.0, ge=0, le=100, description="Below 1 probable symbols become more probable; 0: always the likeliest."
    )
    top_k: int = Field(0, ge=0, le=2**31, description="Choose among so many of the likeliest; 0: all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Choose among the fewest that together are at least so probable.")
    repetition_penalty: float = Field(
        0.0, ge=0, le=100, description="Nats for each symbol by which a repetition exceeds ten symbols."
    )
    seed: Optional[int] = Field(
        None, ge=0, le=LARGEST_SEED, description="The same seed gives the same text; by default every text is another."
    )
    samples: int = Field(1, ge=1, description="Number of texts.")
    stop: Stop = Field(None, description="A text ends after one of these, which it keeps.")
    stream: bool = Field(False, description="Send JSON lines as the text is made.")
    details: bool = Field(False, description="With each symbol its probability and the five likeliest.")
    states: bool = Field(False, description="With each symbol of the first text the hidden state, in hundredths.")


class Score(Fields):
    """A text to be scored."""

    text: str = Field(description="At least two symbols.")


class Completion(Fields):
    """A completion in the form that clients of text-generation servers send."""

    prompt: Union[str, list[str]] = Field("", description="Beginning of the text, or several.")
    max_tokens: Optional[int] = Field(16, ge=1, description="Symbols to write.")
    temperature: Optional[float] = Field(1.0, ge=0, le=100)
    top_p: Optional[float] = Field(1.0, gt=0, le=1)
    n: Optional[int] = Field(1, ge=1, description="Texts for each prompt.")
    stop: Stop = Field(None, description="A text ends before one of these.")
    seed: Optional[int] = Field(None, ge=0, le=LARGEST_SEED)
    stream: Optional[bool] = False
    stream_options: Optional[dict[str, Any]] = Field(None, description="include_usage: counts, at the end.")
    echo: Optional[bool] = Field(False, description="Begin the answer with the prompt.")
    logprobs: Optional[int] = Field(None, ge=0, le=5, description="Logarithms of so many of the likeliest.")
    user: Optional[str] = Field(None, description="Not read.")
    suffix: None = Field(None, description="Not supported.")
    best_of: Optional[int] = Field(1, ge=1, le=1, description="Only 1 is supported.")
    presence_penalty: Optional[float] = Field(0.0, ge=0, le=0, description="Only 0 is supported.")
    frequency_penalty: Optional[float] = Field(0.0, ge=0, le=0, description="Only 0 is supported.")


class Written(BaseModel):
    """Texts that have been written."""

    model: str
    seed: int = Field(description="Gives the same texts again.")
    texts: list[str]
    reasons: list[str] = Field(description="Why each ended: length, stop or time.")
    symbols: Optional[list[list[dict[str, Any]]]] = Field(None, description="With details or states, of each text.")


class Place(BaseModel):
    """A symbol that the model did not expect."""

    position: int
    loss: float
    expected: str
    probability: float = Field(description="Of what was expected.")


class Scored(BaseModel):
    """What a model thinks of a text."""

    model: str
    unit: str = Field(description="What a symbol is: char or word.")
    loss: float = Field(description="Mean, in nats per symbol.")
    perplexity: float
    unknown: int = Field(description="Symbols that are not in the vocabulary.")
    symbols: list[str]
    losses: list[Optional[float]] = Field(description="Of each symbol; the first has none.")
    places: list[Place] = Field(description="The most surprising ones.")


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str = Field(description="What was expected, and what came.")
    type: str = Field(description="invalid_request_error or server_error.")
    param: Optional[str] = Field(description="The field that is wrong.")
    code: int = Field(description="The status.")


class ErrorAnswer(BaseModel):
    """Every error has this form."""

    error: ErrorDetail
