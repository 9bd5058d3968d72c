"""Bytes of a text to characters: encodings, byte-order marks, line ends, and a guess where the encoding is wrong."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Optional

from .._util.wording import counted
from .unpacking import CHUNK

__all__ = ["decoded", "suggested_encoding"]

MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte-order marks of encodings other than UTF-8, none of which is valid in UTF-8."""

MULTI_BYTE = ("gb18030", "big5", "cp932", "euc_jp", "euc_kr", "utf_16", "utf_16_le", "utf_16_be", "utf_32")
"""Encodings that can be recognized by the bytes. (Those with one byte per character fit almost any bytes.)"""

SAMPLE = 1 << 16
"""Bytes from which the encoding is guessed."""

EVIDENCE = 20
"""Bytes above 0x7F without which no encoding is guessed."""


def decoded(
    chunks: Iterator[bytes], path: Path, encoding: str, max_chars: Optional[int], notes: list[str]
) -> Iterator[str]:
    """Decode the chunks of a text, up to `max_chars` characters, and normalize its newlines.

    What was changed is added to `notes`, which are complete when the iterator is exhausted.

    Raises
    ------
    ValueError
        If it is empty, or not a text in this encoding; the message suggests a likely one.
    """
    first = next(chunks, b"")
    mark = next((name for mark, name in MARKS.items() if first.startswith(mark)), None)
    if mark and codecs.lookup(encoding).name == "utf-8":
        encoding = mark
        notes.append(f"read as {_title(mark)}, by its byte-order mark")
    decoder = codecs.getincrementaldecoder(encoding)()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    length = read = returns = 0
    for chunk in chain([first], chunks, [b""]):
        try:
            part = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            data, at = error.object, read + len(chunk) - len(error.object) + error.start
            where = "at its end" if error.start >= len(data) else f"byte 0x{data[error.start]:02X} at offset {at:,}"
            raise ValueError(
                f"corpus {path}: not {_title(encoding)} ({where}); {_advice(_lines(data, read), encoding)}"
            ) from error
        if "\0" in part:  # English in UTF-16, and tar archives, are valid UTF-8
            where = f"byte 0x00 at offset {read + chunk.find(0):,}"
            advice = _advice(_lines(chunk, read), encoding)
            raise ValueError(f"corpus {path}: not a text in {_title(encoding)} ({where}); {advice}")
        read += len(chunk)
        if not length and part.startswith("\ufeff"):
            part = part[1:]
            notes.append("byte-order mark removed")
        returns += part.count("\r")
        part = newlines.decode(part, final=not chunk)
        if part:
            yield part if max_chars is None else part[: max_chars - length]
        length += len(part)
        if max_chars is not None and length >= max_chars:
            break
    if returns:
        notes.append(f"{counted(returns, 'carriage return')} (CR LF or CR) read as newlines")
    if not length:
        raise ValueError(f"corpus {path}: the file is empty")


def suggested_encoding(data: bytes) -> tuple[Optional[str], bool]:
    """Guess the encoding of a text that is not UTF-8.

    Returns
    -------
    encoding : str or None
        By Python's name; None if no encoding fits or there is too little to judge by.
    certain : bool
        Whether the bytes show it. They do for East Asian encodings and UTF-16, but hardly for 8-bit encodings, most of
        which fit any bytes.
    """
    from charset_normalizer import from_bytes

    sample = data[:SAMPLE]
    if len(data) > SAMPLE:  # at the end of a line, so that no character is cut
        sample = sample[: sample.rfind(b"\n") + 1] or data
    if sum(byte > 0x7F for byte in sample) + sample.count(0) < EVIDENCE:
        return None, False
    for match, certain in (
        (from_bytes(sample, cp_isolation=list(MULTI_BYTE), threshold=0.5).best(), True),
        (from_bytes(sample).best(), False),
    ):
        if match is not None:
            try:
                data.decode(match.encoding)
                return match.encoding, certain
            except UnicodeDecodeError:
                pass
    return None, False


def _lines(data: bytes, before: int) -> bytes:
    """The whole lines of a chunk, so that its first and last characters are not cut; all of it if it is the text."""
    if before:
        data = data[data.find(b"\n") + 1 :]
    return data[: data.rfind(b"\n") + 1] or data if len(data) >= CHUNK else data


def _advice(data: bytes, tried: str) -> str:
    encoding, certain = suggested_encoding(data)
    if encoding is None or encoding == tried:
        return "convert it to UTF-8, or give its encoding=NAME"
    if certain:
        return f"it looks like {_title(encoding)}: give encoding={encoding!r}"
    return f"give its encoding, perhaps encoding={encoding!r} (8-bit encodings are hard to tell apart)"


def _title(encoding: str) -> str:
    return encoding.upper().replace("_", "-")
