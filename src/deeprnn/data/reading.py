"""Reading a text: the built-in one, a named download, or a file (plain, .gz or .zip), in a given encoding.

A leading byte-order mark is removed and CR LF (or CR) becomes a newline; both are mentioned in the notes. Nothing else
changes: case, punctuation and spacing stay, also in `timemachine` (which the English book reduces to a-z) and
`tinyshakespeare`. Only `jaychou` follows its book: newlines become spaces.
"""

from __future__ import annotations

import difflib
import gzip
import io
import os
import platform
import zipfile
import zlib
from pathlib import Path
from typing import Optional, Union

from .._util.checks import check_encoding, check_size
from .._util.wording import counted
from .download import DOWNLOADS, fetch

__all__ = ["BUILT_IN", "load_text", "suggested_encoding"]

BUILT_IN = "pydoc"
"""The text that is part of every Python installation."""

MULTI_BYTE = ("gb18030", "big5", "cp932", "euc_jp", "euc_kr", "utf_16", "utf_16_le", "utf_16_be", "utf_32")
"""Encodings that can be recognized by the bytes. (Those with one byte per character fit almost any bytes.)"""

SAMPLE = 1 << 16
"""Bytes that the encoding is guessed from."""

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
        releases); a name in `DOWNLOADS`; or a path to a text: plain, .gz, or .zip with one member. Names take
        precedence: write ./name for a file that is called like a corpus. A copy of a named download is recognized by
        its checksum, wherever it is, and read in the same way.
    encoding : str
        Of the file, by Python's name. Named texts are always UTF-8.
    max_chars : int, optional
        Number of characters to keep, from the beginning.
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
        be guessed); for an archive without exactly one readable member.
    OSError
        For a missing file, a folder, or a failed download.
    """
    check_encoding("encoding", encoding)
    if max_chars is not None:
        check_size("max_chars", max_chars)
    notes: list[str] = []
    if corpus == BUILT_IN:
        text, name = _pydoc(), corpus
        notes.append(f"pydoc is the documentation of CPython {platform.python_version()} and differs between releases")
    else:
        if corpus in DOWNLOADS:
            path, notes = fetch(corpus, cache)
        else:
            path = _existing(corpus)
        data = path.read_bytes()
        known = next((known for known, download in DOWNLOADS.items() if download.fits(data)), None)
        text = _decoded(_unpacked(data, path), path, "utf-8" if known else encoding, notes)
        name = known or path.name
        if known and DOWNLOADS[known].newlines_to_spaces:
            text = text.replace("\n", " ")
            notes.append(f"newlines of {known} read as spaces")
    return text[:max_chars], name, notes


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


def _unpacked(data: bytes, path: Path) -> bytes:
    """The content of a .gz or .zip file; any other file as it is."""
    try:
        if path.suffix.lower() == ".gz":
            return gzip.decompress(data)
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                files = [member for member in archive.infolist() if not member.is_dir()]
                members = [file for file in files if not file.filename.startswith("__MACOSX/")]  # added by the Finder
                if len(members) != 1:
                    count = len(members) or "none"
                    raise ValueError(f"corpus {path}: expected one text in the archive, found {count}; unpack it")
                if members[0].flag_bits & 1:
                    raise ValueError(f"corpus {path}: the archive is encrypted; unpack it")
                return archive.read(members[0])
    except (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"corpus {path}: damaged, or no {path.suffix} archive: {error}") from error
    return data


def _decoded(data: bytes, path: Path, encoding: str, notes: list[str]) -> str:
    """Decode a text and normalize its newlines; adds what was changed to `notes`."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        where = (
            "at its end" if error.start >= len(data) else f"byte 0x{data[error.start]:02X} at offset {error.start:,}"
        )
        raise ValueError(f"corpus {path}: not {_title(encoding)} ({where}); {_advice(data, encoding)}") from error
    if "\0" in text:  # UTF-16 of plain English and tar archives are valid UTF-8
        byte = f"byte 0x00 at offset {data.index(0):,}"
        raise ValueError(f"corpus {path}: not a text in {_title(encoding)} ({byte}); {_advice(data, encoding)}")
    if text.startswith("\ufeff"):
        text = text[1:]
        notes.append("byte-order mark removed")
    if "\r" in text:
        notes.append(f"{counted(text.count(chr(13)), 'carriage return')} (CR LF or CR) read as newlines")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise ValueError(f"corpus {path}: the file is empty")
    return text


def _advice(data: bytes, tried: str) -> str:
    encoding, certain = suggested_encoding(data)
    if encoding is None or encoding == tried:
        return "convert it to UTF-8, or give its encoding=NAME"
    if certain:
        return f"it looks like {_title(encoding)}: give encoding={encoding!r}"
    return f"give its encoding, perhaps encoding={encoding!r} (8-bit encodings are hard to tell apart)"


def _title(encoding: str) -> str:
    return encoding.upper().replace("_", "-")
