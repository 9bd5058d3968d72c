"""Options of the commands that use a trained network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from .._util.checks import check_encoding
from .fields import check_fields

__all__ = ["EvaluateConfig", "GenerateConfig"]


@dataclass(frozen=True)
class GenerateConfig:
    """Generated text.

    Parameters
    ----------
    prefix
        Beginning of the text. By default the first symbol is predicted from the most frequent one, which is not shown.
    length
        Number of symbols to generate.
    seed
        Seed of the random numbers. By default every call gives another text.
    """

    prefix: str = ""
    length: int = 500
    seed: Optional[int] = None

    def __post_init__(self) -> None:
        check_fields(self, length=1)


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluated text.

    Parameters
    ----------
    part
        Part of the run's own text to evaluate (default: test).
    corpus
        Evaluate this text instead, from its first to its last symbol, with the run's vocabulary: a name or a path, as
        for training.
    encoding
        Encoding of that text's file.
    """

    part: Optional[Literal["train", "valid", "test"]] = None
    corpus: Optional[str] = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        check_fields(self)
        check_encoding("encoding", self.encoding)
        if self.part and self.corpus:
            raise ValueError(f"part={self.part} is of the run's own text; omit it with corpus={self.corpus}")
