"""Reading a text: the built-in one, a named download, files (plain, .gz or .zip), or standard input, in an encoding.

A leading byte-order mark is removed and CR LF (or CR) becomes a newline; both are mentioned in the notes. Nothing else
changes: case, punctuation and spacing stay, also in `timemachine` (which the English book reduces to a-z) and
`tinyshakespeare`. Only `jaychou` follows its book: newlines become spaces.

A text may be large, endless or malicious, so it is read in chunks and no further than needed; `unpacking` handles the
archives.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import platform
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Optional, Union

from .._util.checks import check_encoding, check_size
from .decoding import decoded
from .download import DOWNLOADS, fetch
from .unpacking import LARGEST, chunks_of, unpacked

__all__ = ["BUILT_IN", "Reading", "is_stream", "is_there", "load_text", "text_path"]

BUILT_IN = "pydoc"
"""The text that is part of every Python installation."""

STANDARD_INPUT = "-"

LARGEST_DOWNLOAD = 2 << 20
"""No download has more bytes, so a larger file is not compared with them."""


class Reading:
    """A text that is read in parts, as often as it is iterated over, and no further than needed.

    Parameters
    ----------
    corpus : str
        'pydoc', CPython's own documentation (`pydoc_data.topics` in key order, which differs a little between
        releases); a name in `DOWNLOADS`; a path to a text: plain, .gz, or .zip with one member; or '-', standard input.
        Names take precedence: write ./name for a file with the name of a corpus. A copy of a named download is
        recognized by its checksum, wherever it is, and read in the same way.
        Several texts are read as one: a pattern, such as 'books/*.txt', means the files that match it, in the order of
        their names, and commas separate texts and patterns. A newline is added between two texts if the first
        does not end in one.
    encoding : str
        Of the files, by Python's name. Named texts are always UTF-8; a file with the byte-order mark of UTF-16 or
        UTF-32 is read as that instead of UTF-8.
    max_chars : int, optional
        Number of characters to keep, from the beginning; no more of the text is read than the chunk that has the last.
    cache : path, optional
        Folder of the downloads, see `fetch`.
    largest : int, optional
        Bytes that each text may have; by default as many as there are, and `LARGEST` for a stream.

    Attributes
    ----------
    name : str
        The corpus, or the name of the file; of several, that of the first and the number of the others.
    files : list of Path
        The files; empty if there is a stream or the built-in text among the texts.
    notes : list of str
        What was changed, for the user; complete after an iteration.
    size, done : int
        Bytes of the files, as they are on disk, and how many of them have been read.

    Raises
    ------
    ValueError
        For an unknown name. In an iteration, for a file that is empty, damaged or in another encoding (which the error
        names if it can be guessed); for an archive without exactly one readable member; for more than `largest` bytes.
    OSError
        For a missing file, a folder, a device or a pipe, or a failed download.
    """

    def __init__(
        self,
        corpus: str,
        *,
        encoding: str = "utf-8",
        max_chars: Optional[int] = None,
        cache: Optional[Union[str, Path]] = None,
        largest: Optional[int] = None,
    ) -> None:
        self.encoding = check_encoding("encoding", encoding)
        self.max_chars = None if max_chars is None else check_size("max_chars", max_chars)
        self._largest = largest
        self._origin: list[str] = []
        self._texts: list[tuple[str, Path]] = []
        for each in expanded(corpus):
            if _is_named(each) and Path(each).exists():
                self._origin.append(f"the text {each} is read, not the file of that name, which would be ./{each}")
            if each in DOWNLOADS:
                path, notes = fetch(each, cache)
                self._origin += notes
            elif each == BUILT_IN:
                path = Path(each)
                self._origin.append(
                    f"pydoc is the documentation of CPython {platform.python_version()} and differs between releases"
                )
            else:
                path = Path("standard input") if is_stream(each) else _existing(each)
            self._texts.append((each, path))
        each, path = self._texts[0]
        # A file with the name of a known text is another text, unless it has that text's checksum.
        named = each == BUILT_IN or not _is_named(path.name)
        others = f" and {len(self._texts) - 1:,} more" if len(self._texts) > 1 else ""
        self.name = f"{'' if named else './'}{path.name}{others}"
        on_disk = all(each != BUILT_IN and not is_stream(each) for each, _ in self._texts)
        self.files = [path for _, path in self._texts] if on_disk else []
        self.size = sum(path.stat().st_size for path in self.files)
        self.done = 0
        self.notes = list(self._origin)

    def __iter__(self) -> Iterator[str]:
        self.done, self.notes = 0, list(self._origin)
        left, last = self.max_chars, "\n"
        for corpus, path in self._texts:
            if last != "\n" and left != 0:
                yield "\n"
                left = None if left is None else left - 1
            if left == 0:
                break
            before = self.done
            for part in self._one(corpus, path, left):
                yield part
                last = part[-1]
                left = None if left is None else left - len(part)
            self.done = before + (path.stat().st_size if self.files else 0)

    def _one(self, corpus: str, path: Path, max_chars: Optional[int]) -> Iterator[str]:
        """The parts of one text."""
        if corpus == BUILT_IN:
            yield _pydoc()[:max_chars]
            return
        notes: list[str] = []
        with _opened(corpus, path) as file:
            known = _known(file) if file.seekable() else None
            if known and len(self._texts) == 1:
                self.name = known
            spaces = known and DOWNLOADS[known].newlines_to_spaces
            largest = self._largest or (LARGEST if is_stream(corpus) else None)
            content = _bounded(unpacked(file, path, notes), path, largest, max_chars)
            before = self.done
            for part in decoded(content, path, "utf-8" if known else self.encoding, max_chars, notes):
                self.done = before + (file.tell() if self.files else 0)
                yield part.replace("\n", " ") if spaces else part
        if spaces:
            notes.append(f"newlines of {known} read as spaces")
        several = len(self._texts) > 1
        self.notes += [f"{path.name}: {note}" if several and path.name not in note else note for note in notes]


def load_text(
    corpus: str,
    *,
    encoding: str = "utf-8",
    max_chars: Optional[int] = None,
    cache: Optional[Union[str, Path]] = None,
) -> tuple[str, str, list[str]]:
    """Read a text into memory, at most `LARGEST` bytes: the text, its name, and what was changed; see `Reading`."""
    reading = Reading(corpus, encoding=encoding, max_chars=max_chars, cache=cache, largest=LARGEST)
    return "".join(reading), reading.name, reading.notes


def expanded(corpus: str) -> list[str]:
    """The texts of a corpus: the files of each pattern, and what commas separate, unless a file has that name.

    Raises
    ------
    FileNotFoundError
        For a pattern that no file matches.
    ValueError
        For a stream among several texts.
    """
    if _is_one(corpus):
        return [corpus]
    if "," in corpus:
        parts = [part.strip() for part in corpus.split(",")]
        if not all(parts):
            raise ValueError(f"corpus {corpus!r} has nothing between two commas, or at an end")
        texts = [text for part in parts for text in expanded(part)]
        stream = next(filter(is_stream, texts), None)
        if stream:
            raise ValueError(f"corpus {corpus}: {stream} is a stream, which cannot be one of several texts")
        return texts
    pattern = os.path.expanduser(corpus)
    if not glob.has_magic(pattern):
        return [corpus]
    found = sorted(path for path in glob.glob(pattern, recursive=True) if not Path(path).is_dir())
    if not found:
        raise FileNotFoundError(f"corpus {corpus}: no file matches this pattern")
    return found


def _path(corpus: str) -> Path:
    """The path of a file, with the home folder for ``~``; a name such as ``~x`` stays if there is no such user."""
    return Path(os.path.expanduser(corpus))


def _is_named(corpus: str) -> bool:
    return corpus == BUILT_IN or corpus in DOWNLOADS


def _is_one(corpus: str) -> bool:
    return _is_named(corpus) or is_stream(corpus) or _path(corpus).exists()


def is_stream(corpus: str) -> bool:
    """Whether a corpus is standard input, or what a shell puts in place of ``<(...)``: it can be read only once."""
    return corpus in (STANDARD_INPUT, "/dev/stdin") or corpus.startswith(("/dev/fd/", "/proc/self/fd/"))


def is_there(corpus: str) -> bool:
    """Whether each text of a corpus is a name, or a file that exists."""
    try:
        return all(_is_named(text) or _path(text).exists() for text in expanded(corpus))
    except FileNotFoundError:
        return False


def text_path(corpus: str) -> Optional[Path]:
    """The absolute path of a corpus that is a file or a pattern, several separated by commas; None for others."""
    parts = [corpus] if _is_one(corpus) else [part.strip() for part in corpus.split(",")]
    if any(map(is_stream, parts)) or all(map(_is_named, parts)):
        return None
    return Path(",".join(part if _is_named(part) else str(_path(part).absolute()) for part in parts))


def _pydoc() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError("corpus pydoc: this Python has no pydoc_data; give the path of a text") from error
    return "".join(topics[key] for key in sorted(topics))


def _existing(corpus: str) -> Path:
    path = _path(corpus)
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
            raise OSError(f"corpus {corpus} is a device or a pipe; give a file, or - and the text on standard input")
        yield file


def _known(file: BinaryIO) -> Optional[str]:
    """The named download that a file is a copy of."""
    hashes = {"sha256": hashlib.sha256(), "sha1": hashlib.sha1(usedforsecurity=False)}
    read = 0
    for chunk in chunks_of(file):
        read += len(chunk)
        if read > LARGEST_DOWNLOAD:
            file.seek(0)
            return None
        for each in hashes.values():
            each.update(chunk)
    file.seek(0)
    sums = {name: each.hexdigest() for name, each in hashes.items()}
    return next((name for name, download in DOWNLOADS.items() if download.has(sums)), None)


def _bounded(chunks: Iterable[bytes], path: Path, largest: Optional[int], max_chars: Optional[int]) -> Iterator[bytes]:
    """The chunks of a text; raises ValueError if they are more than `largest` bytes."""
    read = 0
    for chunk in chunks:
        read += len(chunk)
        if largest is not None and read > largest:
            more = "" if max_chars else "; give max_chars to use its beginning"
            raise ValueError(f"corpus {path}: more than {largest >> 20:,} MiB of text{more}")
        yield chunk
