"""A text as numbers: the codes of its symbols, in memory or in a file, its SHA-256, and ids that are made of codes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Optional, Union

import numpy as np

from .._util.checks import check_choice
from .symbols import CODES, UNITS
from .unpacking import chunks_of

__all__ = ["Codes", "Encoded", "Ids", "Stale", "counts_of"]

CHUNK = 1 << 16
"""Symbols that are processed at a time: as indices, int64, they take many times the memory of the text."""


class Codes:
    """The codes of a text, added part by part, in the smallest dtype for their number.

    Parameters
    ----------
    file
        Where they go, open for reading and writing; by default they stay in memory.
    dtype, count
        Of what it holds already; the rest is truncated.
    """

    def __init__(self, file: Optional[BinaryIO] = None, dtype: str = "|u1", count: int = 0) -> None:
        self.file: BinaryIO = file or io.BytesIO()
        self.dtype, self.count = np.dtype(dtype), count
        self.file.truncate(self.nbytes)
        self._digest = self._of_the_file()

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.count * self.dtype.itemsize

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return self._digest.hexdigest()

    def append(self, codes: np.ndarray, among: int) -> None:
        """Add codes below `among`."""
        dtype = np.dtype("u1" if among <= 1 << 8 else "<u2" if among <= 1 << 16 else "<i4")
        if dtype.itemsize > self.dtype.itemsize:
            self._widen(dtype)
        content = codes.astype(self.dtype, copy=False).data
        self.file.write(content)
        self._digest.update(content)
        self.count += len(codes)

    def renumber(self, code_of: np.ndarray) -> None:
        """Replace each code c by ``code_of[c]``, which must fit in the dtype."""
        code_of, size = code_of.astype(self.dtype), self.dtype.itemsize
        table = code_of.tobytes().ljust(256, b"\0")
        digest = hashlib.sha256()
        for begin in range(0, self.nbytes, CHUNK * size):
            self.file.seek(begin)
            chunk = self.file.read(CHUNK * size)
            # For bytes, Python's own table is four times as fast.
            chunk = chunk.translate(table) if size == 1 else code_of[np.frombuffer(chunk, self.dtype)].tobytes()
            self.file.seek(begin)
            self.file.write(chunk)
            digest.update(chunk)
        self._digest = digest

    def in_memory(self) -> np.ndarray:
        """The codes, of a file that is in memory."""
        assert isinstance(self.file, io.BytesIO)
        return np.frombuffer(self.file.getbuffer(), dtype=self.dtype)

    def _widen(self, dtype: np.dtype) -> None:
        """Take a wider dtype: in place, from the end on, so that no code is overwritten before it is read."""
        for begin in range((self.count - 1) // CHUNK * CHUNK, -1, -CHUNK):
            self.file.seek(begin * self.dtype.itemsize)
            chunk = self.file.read(min(CHUNK, self.count - begin) * self.dtype.itemsize)
            self.file.seek(begin * dtype.itemsize)
            self.file.write(np.frombuffer(chunk, self.dtype).astype(dtype).data)
        self.dtype = dtype
        self._digest = self._of_the_file()

    def _of_the_file(self) -> Any:
        digest = hashlib.sha256()
        self.file.seek(0)
        for chunk in chunks_of(self.file):
            digest.update(chunk)
        return digest


def counts_of(codes: np.ndarray, among: int) -> np.ndarray:
    """How often each code below `among` occurs, int64 of shape (among,)."""
    counts = np.zeros(among, dtype=np.int64)
    for begin in range(0, len(codes), CHUNK):
        counts += np.bincount(codes[begin : begin + CHUNK], minlength=among)
    return counts


class Ids:
    """Ids of a text that is mapped into memory: an array, as far as it is measured and sliced.

    Parameters
    ----------
    codes : numpy.ndarray
        The symbols of the text, shape (symbols,).
    id_of : numpy.ndarray
        The id of each code, int32.
    """

    ndim = 1

    def __init__(self, codes: np.ndarray, id_of: np.ndarray) -> None:
        self.codes, self.id_of = codes, id_of
        self.dtype, self.shape = id_of.dtype, codes.shape

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Union[int, slice, np.ndarray]) -> Any:
        return self.id_of[self.codes[index]]

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        ids = np.empty(self.shape, dtype or self.dtype)
        for begin in range(0, len(ids), CHUNK):
            ids[begin : begin + CHUNK] = self[begin : begin + CHUNK]
        return ids

    def __iter__(self) -> Iterator[int]:
        for begin in range(0, len(self), CHUNK):
            yield from self[begin : begin + CHUNK].tolist()


class Stale(Exception):
    """Codes of another text, or damaged ones."""


class Encoded:
    """The symbols of a text as codes, added part by part.

    Parameters
    ----------
    unit : {'char', 'word'}
    file
        Where the codes go, open for reading and writing; by default they stay in memory.
    state
        What `state` gave when the file was written. The text must still be added from its beginning, so that it can be
        verified; only what follows is encoded.

    Attributes
    ----------
    unit : str
    characters : int
        How much has been added.
    codes : Codes

    Raises
    ------
    Stale
        If the file, or the text that is added, is not that of the state.
    """

    def __init__(self, unit: str, file: Optional[BinaryIO] = None, state: Optional[dict[str, Any]] = None) -> None:
        state = state or {"characters": 0, "symbols": [], "rest": "", "dtype": "|u1", "count": 0}
        self.unit = check_choice("unit", unit, UNITS)
        self._symbols = CODES[unit](state["symbols"], state["rest"])
        self._digest = hashlib.sha256()
        self._known = state
        self.characters = 0
        self.codes = Codes(file, state["dtype"], state["count"])
        if self.codes.sha256 != state.get("codes_sha256", self.codes.sha256):
            raise Stale

    @property
    def symbols(self) -> list[str]:
        """The symbol of each code; some may not occur."""
        return self._symbols.names

    @property
    def behind(self) -> bool:
        """Whether the codes go further than what has been added."""
        return self.characters < self._known["characters"]

    @property
    def sha256(self) -> str:
        """SHA-256 of the text in UTF-8."""
        return self._digest.hexdigest()

    def add(self, part: str) -> None:
        """Add the next part of the text; at its end, an empty one."""
        old = self.behind
        try:
            self._digest.update(part.encode("utf-8"))
        except UnicodeEncodeError as error:  # which some encodings give, such as utf-7
            code = ord(part[error.start])
            raise ValueError(f"encoding gives half a character, U+{code:04X}: give the right one") from error
        self.characters += len(part)
        if not old:
            codes = self._symbols(part)
            self.codes.append(codes, len(self._symbols))
        elif not part or (not self.behind and self.sha256 != self._known["sha256"]):
            raise Stale

    def numbered_by(self, tokens: Sequence[str]) -> list[str]:
        """Make the codes of these symbols their indices, where the dtype allows; returns the symbol of each code."""
        code_of = {token: index for index, token in enumerate(tokens)}
        before = self.symbols
        for symbol in before:
            code_of.setdefault(symbol, len(code_of))
        if len(code_of) > 1 << 8 * self.codes.dtype.itemsize:
            return before
        self.codes.renumber(np.array([code_of[symbol] for symbol in before]))
        return list(code_of)

    def state(self) -> dict[str, Any]:
        """All but the codes, as JSON can hold it; the codes are on the disk when it returns."""
        self.codes.file.flush()
        os.fsync(self.codes.file.fileno())
        return {
            "characters": self.characters,
            "sha256": self.sha256,
            "symbols": self._symbols.symbols,
            "rest": self._symbols.rest,
            "dtype": self.codes.dtype.str,
            "count": self.codes.count,
            "codes_sha256": self.codes.sha256,
        }
