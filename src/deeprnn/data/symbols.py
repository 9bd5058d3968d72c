"""Symbols of a text as numbers: each symbol has a code, in the order in which a text has them, part by part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Union

import numpy as np

from .._util.checks import check_choice

__all__ = ["CODES", "UNITS", "CharacterCodes", "WordCodes", "split_symbols"]

UNITS = ("char", "word")
WORDS = r"\n|\S+"


def split_symbols(text: str, unit: str) -> list[str]:
    """The symbols of a text: its characters, or its words and newlines."""
    check_choice("unit", unit, UNITS)
    return list(text) if unit == "char" else re.findall(WORDS, text)


class CharacterCodes:
    """Codes of characters, integers of shape (characters,): those below 128 are ASCII's, `symbols` has the others."""

    rest = ""

    def __init__(self, symbols: Sequence[str] = (), rest: str = "") -> None:
        self._code = np.full(0x110000, -1, dtype=np.int32)  # of each code point
        self._code[:128] = np.arange(128)
        self.symbols: list[str] = []
        self._add(symbols)

    def __len__(self) -> int:
        return 128 + len(self.symbols)

    @property
    def names(self) -> list[str]:
        """The symbol of each code."""
        return [*map(chr, range(128)), *self.symbols]

    def _add(self, symbols: Sequence[str]) -> None:
        self._code[list(map(ord, symbols))] = np.arange(len(self), len(self) + len(symbols))
        self.symbols += symbols

    def __call__(self, part: str) -> np.ndarray:
        if part.isascii():
            return np.frombuffer(part.encode("ascii"), dtype=np.uint8)
        points = np.frombuffer(part.encode("utf-32-le", "surrogatepass"), dtype="<i4")
        codes = self._code[points]
        new = points[codes < 0]
        if len(new):
            self._add([chr(point) for point in np.unique(new)])
            codes = self._code[points]
        return codes


class WordCodes:
    """Codes of words, int32 of shape (words,). `rest` is the beginning of a word, which the next part may continue; an
    empty part ends the text."""

    def __init__(self, symbols: Sequence[str] = (), rest: str = "") -> None:
        self._code = _Numbered()
        # Splitting at white space is faster than a regular expression. So newlines become words of their own, in the
        # guise of a character that no text has, see `decoding`.
        self._code[_NEWLINE] = 0
        self._code.update(zip(symbols, range(1, len(symbols) + 1)))
        self.rest = rest

    @property
    def symbols(self) -> list[str]:
        """The symbol of each code, without the newline, which has the code 0."""
        return list(self._code)[1:]

    @property
    def names(self) -> list[str]:
        """The symbol of each code."""
        return ["\n", *self.symbols]

    def __len__(self) -> int:
        return len(self._code)

    def __call__(self, part: str) -> np.ndarray:
        words = (self.rest + part).replace("\n", f" {_NEWLINE} ").split()
        self.rest = words.pop() if part and not part[-1].isspace() else ""
        return np.fromiter(map(self._code.__getitem__, words), dtype=np.int32, count=len(words))


_NEWLINE = "\0"


class _Numbered(dict[str, int]):
    """Words in the order in which they were first asked for."""

    def __missing__(self, word: str) -> int:
        code = self[word] = len(self)
        return code


CODES: dict[str, Union[type[CharacterCodes], type[WordCodes]]] = {"char": CharacterCodes, "word": WordCodes}
"""By unit."""
