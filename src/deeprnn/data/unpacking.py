"""Unpacking of .gz and .zip files in chunks: in memory, and never more than a chunk at a time.

A .zip archive must have one member, which is not itself an archive by its name. No archive may have a compression ratio
that texts do not have; the sizes that it states are not trusted, but the bytes that come out are counted.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from .._util.wording import counted

__all__ = ["CHUNK", "LARGEST", "chunks_of", "unpacked"]

CHUNK = 1 << 20
"""Bytes that are read or unpacked at a time."""

LARGEST = 1 << 30
"""Bytes of text that are read at most."""

RATIO, MODEST = 200, 16 << 20
"""The largest compression ratio of a text, and the size in bytes up to which any ratio is harmless."""

ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst")


def unpacked(file: BinaryIO, path: Path, notes: list[str]) -> Iterator[bytes]:
    """The content of a .gz or .zip file in chunks; that of any other file as it is.

    Raises
    ------
    ValueError
        For an archive that is damaged, does not hold exactly one text, or is a decompression bomb.
    """
    kinds = {".gz": _gunzipped, ".zip": _unzipped}
    kind = kinds.get(path.suffix.lower())
    if not kind:
        yield from chunks_of(file)
        return
    try:
        yield from kind(file, path, notes)
    except BadArchive as error:
        raise ValueError(f"corpus {path}: {error}") from error.__cause__
    except MemoryError:
        raise ValueError(f"corpus {path}: not enough memory to unpack it") from None
    except Exception as error:  # whatever the libraries raise for damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"corpus {path}: damaged, or not a {path.suffix} archive: {reason}") from error


class BadArchive(Exception):
    """An archive that is not unpacked; the message says why."""


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file in chunks."""
    while chunk := file.read(CHUNK):
        yield chunk


def _gunzipped(file: BinaryIO, path: Path, notes: list[str]) -> Iterator[bytes]:
    """The members of a .gz file, one after the other; the gzip module would refuse a text with other bytes after it."""
    taken = given = 0
    member, rest = zlib.decompressobj(wbits=31), file.read(CHUNK)
    while True:
        while not member.eof:
            if not rest:
                raise EOFError("it ends too early")
            part = member.decompress(rest, CHUNK)
            taken += len(rest) - len(member.unconsumed_tail) - len(member.unused_data)
            given += len(part)
            _check_ratio(given, taken)
            if part:  # bytes between two members may give none, and an empty one would be the end of the text
                yield part
            rest = member.unconsumed_tail or (b"" if member.eof else file.read(CHUNK))
        rest = member.unused_data
        if len(rest) < 2:
            rest += file.read(CHUNK)
        if not rest.startswith(b"\x1f\x8b"):
            break
        member = zlib.decompressobj(wbits=31)
    behind = len(rest) + sum(map(len, chunks_of(file)))
    if behind:
        notes.append(f"{path.name}: {counted(behind, 'byte')} after the end of the text ignored")


def _unzipped(file: BinaryIO, path: Path, notes: list[str]) -> Iterator[bytes]:
    """The one text in a .zip file."""
    with zipfile.ZipFile(file) as archive:
        # macOS adds files of its own.
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir()
            and not member.filename.startswith("__MACOSX/")
            and PurePosixPath(member.filename).name != ".DS_Store"
        ]
        if len(members) != 1:
            raise BadArchive(f"expected one text in the archive, found {len(members) or 'none'}; unpack it")
        member = members[0]
        if member.flag_bits & 1:
            raise BadArchive("the archive is encrypted; unpack it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BadArchive(f"{member.filename!r} in the archive is a symbolic link")
        if PurePosixPath(member.filename).suffix.lower() in ARCHIVES:
            raise BadArchive(f"{member.filename!r} in the archive is an archive; unpack it")
        _check_ratio(member.file_size, member.compress_size)
        given = 0
        with archive.open(member) as content:
            for part in chunks_of(content):
                given += len(part)
                _check_ratio(given, member.compress_size)
                yield part


def _check_ratio(given: int, taken: int) -> None:
    if given > MODEST and given > RATIO * taken:
        raise BadArchive(f"it unpacks to more than {RATIO} times its size, which no text does")
