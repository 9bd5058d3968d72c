"""Reading a text: the built-in one, a named download, a file (plain, .gz or .zip), or standard input, in an encoding.

A leading byte-order mark is removed and CR LF (or CR) becomes a newline; both are mentioned in the notes. Nothing else
changes: case, punctuation and spacing stay, also in `timemachine` (which the English book reduces to a-z) and
`tinyshakespeare`. Only `jaychou` follows its book: newlines become spaces.

A text may be large, endless or malicious, so it is read in chunks and no further than needed; `unpacking` handles the
archives.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import io
import os
import platform
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Optional, Union

from .._util.checks import check_encoding, check_size
from .._util.wording import counted
from .download import DOWNLOADS, fetch
from .unpacking import CHUNK, LARGEST, chunks_of, unpacked

__all__ = ["BUILT_IN", "is_stream", "is_there", "load_text", "suggested_encoding", "text_path"]

BUILT_IN = "pydoc"
"""The text that is part of every Python installation."""

STANDARD_INPUT = "-"

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


def load_text(
    corpus: str,
    *,
    encoding: str = "utf-8",
    max_chars: Optional[int] = None,
    cache: Optional[Union[str, Path]] = None,
) -> tuple[str, str, list[str]]:
    """Read a text.

    Parameters
    ----------
    corpus : str
        'pydoc', CPython's own documentation (`pydoc_data.topics` in key order, which differs a little between
        releases); a name in `DOWNLOADS`; a path to a text: plain, .gz, or .zip with one member; or '-', standard input.
        Names take precedence: write ./name for a file with the name of a corpus. A copy of a named download is
        recognized by its checksum, wherever it is, and read in the same way.
    encoding : str
        Of the file, by Python's name. Named texts are always UTF-8; a file with the byte-order mark of UTF-16 or UTF-32
        is read as that instead of UTF-8.
    max_chars : int, optional
        Number of characters to keep, from the beginning; no more of the text is decoded.
    cache : path, optional
        Folder of the downloads, see `fetch`.

    Returns
    -------
    text : str
    name : str
        The corpus, or the name of the file.
    notes : list of str
        What was changed, for the user.

    Raises
    ------
    ValueError
        For an unknown name; for a file that is empty, damaged or in another encoding (which the error names if it can
        be guessed); for an archive without exactly one readable member; for more than `LARGEST` bytes of text.
    OSError
        For a missing file, a folder, a device or a pipe, or a failed download.
    """
    check_encoding("encoding", encoding)
    if max_chars is not None:
        check_size("max_chars", max_chars)
    notes: list[str] = []
    if corpus in (BUILT_IN, *DOWNLOADS) and Path(corpus).exists():
        notes.append(f"the text {corpus} is read, not the file of that name, which would be ./{corpus}")
    if corpus == BUILT_IN:
        notes.append(f"pydoc is the documentation of CPython {platform.python_version()} and differs between releases")
        return _pydoc()[:max_chars], corpus, notes
    if corpus in DOWNLOADS:
        path, more = fetch(corpus, cache)
        notes += more
    else:
        path = Path("standard input") if is_stream(corpus) else _existing(corpus)
    with _opened(corpus, path) as file:
        known = _known(file) if file.seekable() else None
        content = _bounded(unpacked(file, path, notes), path, max_chars)
        text = _decoded(content, path, "utf-8" if known else encoding, max_chars, notes)
    if known and DOWNLOADS[known].newlines_to_spaces:
        text = text.replace("\n", " ")
        notes.append(f"newlines of {known} read as spaces")
    # A file with the name of a known text is another text, unless it has that text's checksum.
    name = f"./{path.name}" if path.name in (BUILT_IN, *DOWNLOADS) else path.name
    return text, known or name, notes


def is_stream(corpus: str) -> bool:
    """Whether a corpus is standard input, or what a shell puts in place of ``<(...)``: it can be read only once."""
    return corpus in (STANDARD_INPUT, "/dev/stdin") or corpus.startswith(("/dev/fd/", "/proc/self/fd/"))


def is_there(corpus: str) -> bool:
    """Whether a corpus is a name, or a file that exists."""
    return corpus in (BUILT_IN, *DOWNLOADS) or Path(corpus).expanduser().exists()


def text_path(corpus: str) -> Optional[Path]:
    """The absolute path of a corpus that is a file; None for others."""
    if corpus in (BUILT_IN, *DOWNLOADS) or is_stream(corpus):
        return None
    return Path(corpus).expanduser().absolute()


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


def _pydoc() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError("corpus pydoc: this Python has no pydoc_data; give the path of a text") from error
    return "".join(topics[key] for key in sorted(topics))


def _existing(corpus: str) -> Path:
    path = Path(corpus).expanduser()
    if "\0" in corpus:
        raise ValueError("corpus must be a name or a path, got one with a zero byte")
    if path.is_dir():
        raise IsADirectoryError(f"corpus {corpus} is a folder; give a text file (plain, .gz or .zip)")
    if path.exists():
        return path
    names = [BUILT_IN, *DOWNLOADS]
    known = f"give the path of a text (plain, .gz or .zip) or one of {', '.join(names)}"
    if path.suffix or os.sep in corpus:
        raise FileNotFoundError(f"corpus {corpus}: no such file; {known}")
    close = difflib.get_close_matches(corpus, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else known
    raise ValueError(f"corpus {corpus!r} is neither a known text nor a file; {hint}")


@contextmanager
def _opened(corpus: str, path: Path) -> Iterator[BinaryIO]:
    """A text, opened for reading."""
    if corpus == STANDARD_INPUT:
        if sys.stdin is None:
            raise OSError("corpus -: standard input is closed")
        yield sys.stdin.buffer
        return
    # O_NONBLOCK: opening a pipe would wait for a writer.
    handle = os.open(corpus if is_stream(corpus) else path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if is_stream(corpus):
            os.set_blocking(handle, True)
        elif not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(
                f"corpus {corpus} is a device or a pipe; give a file, or the text on standard input: corpus=-"
            )
        yield file


def _known(file: BinaryIO) -> Optional[str]:
    """The named download that a file is a copy of."""
    hashes = {"sha256": hashlib.sha256(), "sha1": hashlib.sha1(usedforsecurity=False)}
    for chunk in chunks_of(file):
        for each in hashes.values():
            each.update(chunk)
    file.seek(0)
    sums = {name: each.hexdigest() for name, each in hashes.items()}
    return next((name for name, download in DOWNLOADS.items() if download.has(sums)), None)


def _bounded(chunks: Iterable[bytes], path: Path, max_chars: Optional[int]) -> Iterator[bytes]:
    """The chunks of a text, up to `LARGEST` bytes; raises ValueError if there are more."""
    read = 0
    for chunk in chunks:
        read += len(chunk)
        if read > LARGEST:
            more = "" if max_chars else "; give max_chars to use its beginning"
            raise ValueError(f"corpus {path}: more than {LARGEST >> 20:,} MiB of text{more}")
        yield chunk


def _decoded(chunks: Iterator[bytes], path: Path, encoding: str, max_chars: Optional[int], notes: list[str]) -> str:
    """Decode a text, up to `max_chars`, and normalize its newlines; adds what was changed to `notes`."""
    first = next(chunks, b"")
    mark = next((name for mark, name in MARKS.items() if first.startswith(mark)), None)
    if mark and codecs.lookup(encoding).name == "utf-8":
        encoding = mark
        notes.append(f"read as {_title(mark)}, by its byte-order mark")
    decoder = codecs.getincrementaldecoder(encoding)()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    parts: list[str] = []
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
        parts.append(part)
        length += len(part)
        if max_chars is not None and length >= max_chars:
            break
    if returns:
        notes.append(f"{counted(returns, 'carriage return')} (CR LF or CR) read as newlines")
    if not length:
        raise ValueError(f"corpus {path}: the file is empty")
    return "".join(parts)[:max_chars]


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
