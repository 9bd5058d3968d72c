"""Large texts as numbers, in files that are mapped into memory: a text is encoded once, and need not fit there.

In ``corpora``, below the folder of the downloads::

    sources/KEY.json       of files: sizes, times and inodes, and the SHA-256 of their text
    pending/KEY/           codes of a text whose encoding is not finished, and its progress
    KEY/codes, codes.json  the codes of a text's symbols, by its SHA-256 and the unit, and the symbols
    KEY/*.json             by split and vocabulary, or how that is made: vocabulary, sizes of the parts, unknown symbols

What is read is checked. Each JSON file has the SHA-256 of its content; the files of the text and of its codes have
the size, time and inode that were recorded with their SHA-256, or else their SHA-256 is computed again. Files are
written under a temporary name, and then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Optional

import numpy as np

from .._util.files import locked, read_json, read_regular, sync_folder, write_json_atomic
from .encoded import Encoded, Stale
from .progress import ByteProgress
from .reading import Reading
from .unpacking import chunks_of

if TYPE_CHECKING:
    import gluonnlp

__all__ = ["LARGE", "Cache", "Kept", "Numbering"]

LARGE = 1 << 26
"""Characters above which the ids of a text are kept in files."""

STEP = 1 << 28
"""Characters after which the state of an encoding is saved."""

VERSION = 1
"""Of the files; those of another version are not used."""


@dataclass(frozen=True, eq=False)
class Numbering:
    """A vocabulary, the sizes of a text's parts, how many of their symbols it lacks, and notes for the user."""

    vocab: gluonnlp.Vocab
    sizes: Sequence[int]
    unknown: dict[str, int]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Kept:
    """A text from the cache.

    Attributes
    ----------
    folder : Path
    sha256 : str
        Of the text, in UTF-8.
    symbols : list of str
        The symbol of each code.
    codes : numpy.ndarray
        The text, mapped into memory.
    notes : list of str
        For the user.
    """

    folder: Path
    sha256: str
    symbols: list[str]
    codes: np.ndarray
    notes: list[str]

    def recall(self, *options: Any) -> Optional[dict[str, Any]]:
        """What `remember` was given for these options."""
        return _read(self.folder / f"{_key(*options)}.json")

    def remember(self, content: dict[str, Any], *options: Any) -> None:
        """Keep what was found out about the text for these options."""
        _write(self.folder / f"{_key(*options)}.json", content)


class Cache:
    """Where one text is kept.

    Parameters
    ----------
    folder
        Of the cache.
    reading
        The text; it is read from files alone.
    unit : {'char', 'word'}
    check
        Compare the SHA-256 of text and codes instead of sizes, times and inodes.
    """

    def __init__(self, folder: Path, reading: Reading, unit: str, check: bool = False) -> None:
        self.folder, self.reading, self.unit, self.check = folder, reading, unit, check
        key = _key([str(path.resolve()) for path in reading.files], reading.encoding, reading.max_chars)
        self._source = folder / "sources" / f"{key}.json"
        self._pending = folder / "pending" / _key(key, unit)
        self._note: list[str] = []
        self._hashed: dict[str, str] = {}

    def find(self) -> Optional[Kept]:
        """The text, if it is there, undamaged, and as its files are now."""
        source, reading = _read(self._source), self.reading
        if not source:
            return None
        folder = self._of(source["sha256"])
        if not folder.exists():
            return None
        stamps = list(map(_stamp, reading.files))
        trusted = stamps == source["files"] and not self.check
        if not trusted:
            if self._text_sha256(stamps) != source["sha256"]:
                self._note = ["the text has changed since it was encoded; encoded again"]
                return None
            source.update(files=stamps, notes=reading.notes)
            _write(self._source, source)
        why = "size, time and inode of the text are the same" if trusted else "the SHA-256 of the text is the same"
        kept = self._open(source["sha256"], [*source["notes"], f"encoded earlier, and {why}"])
        if not kept:
            self._note = ["the codes in the cache were damaged; encoded again"]
        return kept

    def make(self, number: Callable[[np.ndarray, list[str]], Numbering]) -> tuple[Kept, Optional[Numbering]]:
        """Encode the text, or continue an interrupted encoding.

        From its codes and their symbols, `number` makes a vocabulary. Symbols that are in it get their ids as codes, so
        that these need not be looked up. Where another process was first, there is no numbering.

        Raises
        ------
        OSError
            If the folder cannot be written, or its disk has too little space.
        ValueError
            If the text cannot be used, or is changed meanwhile.
        """
        name = self.reading.name
        try:
            for folder in (self._pending, self._source.parent):
                folder.mkdir(parents=True, exist_ok=True)
            lock = self._pending.with_suffix(".lock")
            lock.touch()
        except OSError as error:
            raise OSError(
                f"corpus {name}: its codes cannot be written to {self.folder} ({error.strerror}); "
                "set the environment variable DEEPRNN_CACHE to another folder"
            ) from error
        with locked(lock, f"encodes {name}"):
            kept = self.find()  # another process may have made them meanwhile
            if kept:
                return kept, None
            source = _read(self._source)
            if source:  # the text has changed, or its codes are damaged
                shutil.rmtree(self._of(source["sha256"]), ignore_errors=True)
            self._pending.mkdir(exist_ok=True)
            stamps = list(map(_stamp, self.reading.files))
            path = self._pending / "codes"
            path.touch()
            with path.open("r+b") as file:
                encoded = self._encoded(file)
                file.flush()
                numbering = number(_mapped(path, encoded.codes.dtype, encoded.codes.count), encoded.symbols)
                symbols = encoded.numbered_by(numbering.vocab.idx_to_token)
                state = encoded.state()
            if stamps != list(map(_stamp, self.reading.files)):
                raise ValueError(f"corpus {name} has changed while it was read: run the command again")
            (self._pending / "state.json").unlink()
            _write(self._pending / "codes.json", {**state, "symbols": symbols, "stamp": _stamp(path)})
            sha256, notes = state["sha256"], self.reading.notes
            folder = self._of(sha256)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(self._pending, folder)
            sync_folder(self.folder)
            _write(self._source, {"sha256": sha256, "files": stamps, "notes": notes})
            kept = self._open(sha256, [*notes, *self._note])
        assert kept
        return kept, numbering

    def _of(self, sha256: str) -> Path:
        """The folder of a text."""
        return self.folder / _key(sha256, self.unit)

    def _encoded(self, file: BinaryIO) -> Encoded:
        """The codes of the text, of which `file` may have the first."""
        path, reading = self._pending / "state.json", self.reading
        state = _read(path)
        try:
            encoded = Encoded(self.unit, file, state)
            with ByteProgress(f"encoding {reading.name}", reading.size) as progress:
                due = 0
                for part in reading:
                    encoded.add(part)
                    progress(reading.done)
                    if encoded.characters >= due and not encoded.behind:
                        share = max(reading.done / reading.size, encoded.characters / (reading.max_chars or math.inf))
                        self._check_space((1 / share - 1) * encoded.codes.nbytes)
                        _write(path, encoded.state())
                        due = encoded.characters + STEP
                encoded.add("")
        except Stale:
            path.unlink()
            return self._encoded(file)
        return encoded

    def _check_space(self, needed: float) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"corpus {self.reading.name}: its codes need {needed / 1e9:,.1f} GB more in {self.folder}, and "
                f"{free / 1e9:,.1f} GB are free; set the environment variable DEEPRNN_CACHE to another folder, or use "
                "the beginning of the text by max_chars"
            )

    def _text_sha256(self, stamps: list[list[int]]) -> str:
        """That of the text whose files have these stamps; it is computed once."""
        key = _key(stamps)
        if key not in self._hashed:
            digest = hashlib.sha256()
            with ByteProgress(f"checking {self.reading.name}", self.reading.size) as progress:
                for part in self.reading:
                    digest.update(part.encode("utf-8"))
                    progress(self.reading.done)
            self._hashed[key] = digest.hexdigest()
        return self._hashed[key]

    def _open(self, sha256: str, notes: list[str]) -> Optional[Kept]:
        """A text of the cache, unless it is damaged."""
        folder = self._of(sha256)
        path, record = folder / "codes", _read(folder / "codes.json")
        if record and path.is_file():
            stamp = _stamp(path)
            fine = stamp == record["stamp"] and not self.check
            if not fine and _file_sha256(path) == record["codes_sha256"]:
                fine = True
                _write(folder / "codes.json", {**record, "stamp": stamp})
            if fine:
                codes = _mapped(path, np.dtype(record["dtype"]), record["count"])
                return Kept(folder, sha256, record["symbols"], codes, notes)
        return None


def _key(*values: Any) -> str:
    """A name for these values."""
    return hashlib.sha256(json.dumps([VERSION, *values]).encode()).hexdigest()[:32]


def _stamp(path: Path) -> list[int]:
    """What changes with a file: size, time, inode."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _mapped(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, "r", shape=(count,))) if count else np.empty(0, dtype)


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file, ByteProgress(f"checking {path}", path.stat().st_size) as progress:
        for chunk in chunks_of(file):
            digest.update(chunk)
            progress(file.tell())
    return digest.hexdigest()


def _write(path: Path, content: dict[str, Any]) -> None:
    write_json_atomic(path, {"sha256": _key(content), "content": content})


def _read(path: Path) -> Optional[dict[str, Any]]:
    """What `_write` wrote; None if that is missing, damaged, or of another version."""
    with contextlib.suppress(ValueError, KeyError):
        sealed = read_json(read_regular(path))
        content: dict[str, Any] = sealed["content"]
        if sealed["sha256"] == _key(content):
            return content
    return None
