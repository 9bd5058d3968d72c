"""Text to ids: where the text comes from, how it is cut into symbols, which vocabulary it gets.

    'pydoc' | a path | a named download  ->  text  ->  symbols  ->  train, valid, test  ->  int32 ids

Every text is read as UTF-8. A leading byte-order mark is removed and CR LF (or CR) becomes a newline; both are said in
the notes. Nothing else is changed: case, punctuation and spacing stay, also in `timemachine` (which the English book
reduces to a-z) and `tinyshakespeare`. Only `jaychou` follows its book: newlines become spaces.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import io
import os
import platform
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import gluonnlp
import numpy as np

from .._util.checks import check_choice, check_size
from .download import DOWNLOADS, fetch

__all__ = [
    "BUILT_IN",
    "Corpus",
    "decode",
    "encode",
    "load_corpus",
    "load_text",
    "vocabulary",
]

BUILT_IN = "pydoc"
"""The text that every Python brings along."""

PARTS = ("train", "valid", "test")
UNITS = ("char", "word")
UNKNOWN_TOKEN = "<unk>"


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as ids, in three parts.

    Attributes
    ----------
    name : str
        Name of the corpus, or the file's name.
    sha256 : str
        SHA-256 of the text as used (cleaned and cut), in UTF-8.
    vocab : gluonnlp.Vocab
        Symbols of the training part, the most frequent first.
    train, valid, test : numpy.ndarray
        int32 ids, in the order of the text; any but `train` may be empty.
    unknown : dict of str to int
        For each part, how many of its symbols are not in the vocabulary.
    notes : list of str
        What was done to the text, to be shown to the user.
    """

    name: str
    sha256: str
    vocab: gluonnlp.Vocab
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    unknown: dict[str, int]
    notes: list[str]


def load_corpus(
    corpus: str = BUILT_IN,
    *,
    max_chars: Optional[int] = None,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    unit: str = "char",
    unknown: bool = True,
    vocab: Optional[gluonnlp.Vocab] = None,
    cache: Optional[Union[str, Path]] = None,
) -> Corpus:
    """Read a text, split it by position and turn it into ids.

    Parameters
    ----------
    corpus, max_chars, cache
        As in `load_text`; the cut comes before the split.
    split : sequence of 3 floats
        Fractions of the symbols for train, valid and test, in the order of the text; at least 0, and 1 in sum.
    unit : {'char', 'word'}
        What one symbol is: a character, or what stands between white space, where a newline is a word of its own.
    unknown : bool
        Whether the vocabulary has an unknown token besides the symbols of the training part.
    vocab : gluonnlp.Vocab, optional
        Used as it is, instead of one counted here: that of an earlier run.

    Raises
    ------
    ValueError
        For a bad argument, a text that cannot be used, and, where the vocabulary has no unknown token, for a symbol
        that is not in it.
    OSError
        For a file that cannot be read or downloaded.
    """
    text, name, notes = load_text(corpus, max_chars=max_chars, cache=cache)
    parts = dict(zip(PARTS, _split(_tokens(text, unit), split)))
    if vocab is None:
        if not parts["train"]:
            raise ValueError(f"--split: the training part of {name} is empty, so it has no vocabulary, got {split}")
        vocab = _vocab(parts["train"], UNKNOWN_TOKEN if unknown else None)
    missing = {part: _missing(vocab, tokens) for part, tokens in parts.items()}
    for part in filter(missing.get, PARTS):
        count = sum(missing[part].values())
        said = f"{part}: {count:,} of {len(parts[part]):,} symbols not in the vocabulary: {_listed(missing[part])}"
        if vocab.unknown_token is None:
            raise ValueError(
                f"{said}; keep an unknown token (--unknown true) or train on the whole text (--split 1,0,0)"
            )
        notes.append(f"{said}; read as {vocab.unknown_token}")
    return Corpus(
        name=name,
        sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        vocab=vocab,
        unknown={part: sum(missing[part].values()) for part in PARTS},
        notes=notes,
        **{part: np.array(vocab[tokens], dtype=np.int32) for part, tokens in parts.items()},
    )


def load_text(
    corpus: str, *, max_chars: Optional[int] = None, cache: Optional[Union[str, Path]] = None
) -> tuple[str, str, list[str]]:
    """Read a text.

    Parameters
    ----------
    corpus : str
        'pydoc' (CPython's own documentation, `pydoc_data.topics` in key order: on every machine, and a little different
        in every release); a name in `DOWNLOADS`; or a path to a text: plain, .gz, or .zip with one member. Names go
        first: write ./name for a file that is called like a corpus. A copy of a named download, wherever it lies, is
        known by its checksum and read like it.
    max_chars : int, optional
        Characters to keep, from the beginning.
    cache : path, optional
        Folder of the downloads, see `fetch`.

    Returns
    -------
    text : str
    name : str
    notes : list of str

    Raises
    ------
    ValueError
        Unknown name; not UTF-8, empty, or damaged; an archive without exactly one readable member.
    OSError
        No such file, a folder, or a failed download.
    """
    if max_chars is not None:
        check_size("--max-chars", max_chars)
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
        text = _text(_unpacked(data, path), path, notes)
        known = next((known for known, download in DOWNLOADS.items() if download.fits(data)), None)
        name = known or path.name
        if known and DOWNLOADS[known].newlines_to_spaces:
            text = text.replace("\n", " ")
            notes.append(f"newlines of {known} read as spaces")
    return text[:max_chars], name, notes


def vocabulary(tokens: Sequence[str], unknown_token: Optional[str] = UNKNOWN_TOKEN) -> gluonnlp.Vocab:
    """Rebuild a vocabulary from its `idx_to_token`, as it is saved with a run.

    Raises
    ------
    ValueError
        A token comes twice, or the unknown token is not among them.
    """
    if len(set(tokens)) != len(tokens):
        raise ValueError(f"vocabulary: {len(tokens):,} tokens, but only {len(set(tokens)):,} distinct ones")
    if unknown_token is not None and unknown_token not in tokens:
        raise ValueError(f"vocabulary: the unknown token {unknown_token!r} is not among its {len(tokens):,} tokens")
    return _vocab(tokens, unknown_token, token_to_idx={token: index for index, token in enumerate(tokens)})


def encode(vocab: gluonnlp.Vocab, text: str, unit: str = "char", *, unknown: str = "error") -> np.ndarray:
    """Turn a text into int32 ids, shape (symbols,).

    Parameters
    ----------
    vocab : gluonnlp.Vocab
        The symbols, each with its id.
    text : str
        Any text; an empty one gives no ids.
    unit : {'char', 'word'}
        What one symbol is, as in `load_corpus`.
    unknown : {'error', 'token'}
        What to do with a symbol that is not in the vocabulary: refuse it, or read it as the unknown token, if there is
        one.

    Raises
    ------
    ValueError
        Names the symbols that are not in the vocabulary.
    """
    check_choice("unknown", unknown, ("error", "token"))
    tokens = _tokens(text, unit)
    missing = _missing(vocab, tokens)
    if missing and (unknown == "error" or vocab.unknown_token is None):
        raise ValueError(f"not in the vocabulary of {len(vocab):,} symbols: {_listed(missing)}")
    return np.array(vocab[tokens], dtype=np.int32)


def decode(vocab: gluonnlp.Vocab, ids: Iterable[int], unit: str = "char") -> str:
    """Turn ids into text; words are joined by single spaces, except at newlines."""
    tokens = vocab.to_tokens([int(index) for index in ids])
    return "".join(tokens) if unit == "char" else re.sub(" ?\n ?", "\n", " ".join(tokens))


def _tokens(text: str, unit: str) -> list[str]:
    check_choice("--unit", unit, UNITS)
    return list(text) if unit == "char" else re.findall(r"\n|\S+", text)


def _split(tokens: list[str], fractions: Sequence[float]) -> tuple[list[str], list[str], list[str]]:
    valid = len(fractions) == 3 and all(fraction >= 0 for fraction in fractions) and abs(sum(fractions) - 1) < 1e-6
    if not valid:
        raise ValueError(f"--split must be three fractions of at least 0 that sum to 1, got {fractions}")
    first = round(len(tokens) * fractions[0])
    second = round(len(tokens) * (fractions[0] + fractions[1]))
    return tokens[:first], tokens[first:second], tokens[second:]


def _vocab(tokens: Sequence[str], unknown_token: Optional[str], **options: Mapping[str, int]) -> gluonnlp.Vocab:
    """Symbols alone, by count and then by code point: the same text has the same ids everywhere."""
    return gluonnlp.Vocab(
        gluonnlp.data.count_tokens(tokens),
        unknown_token=unknown_token,
        padding_token=None,
        bos_token=None,
        eos_token=None,
        **options,
    )


def _missing(vocab: gluonnlp.Vocab, tokens: Iterable[str]) -> dict[str, int]:
    """Tokens that the vocabulary does not have -> how often they come."""
    return {token: count for token, count in gluonnlp.data.count_tokens(tokens).items() if token not in vocab}


def _listed(tokens: Iterable[str], limit: int = 10) -> str:
    names = [f"{token!r} (U+{ord(token):04X})" if len(token) == 1 else repr(token) for token in tokens]
    rest = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _pydoc() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError("--corpus pydoc: this Python has no pydoc_data; give a path to a text") from error
    return "".join(topics[key] for key in sorted(topics))


def _existing(corpus: str) -> Path:
    path = Path(corpus).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"--corpus {corpus} is a folder; give a text file (plain, .gz or .zip)")
    if path.exists():
        return path
    names = [BUILT_IN, *DOWNLOADS]
    known = f"give a path to a text (plain, .gz or .zip) or one of {', '.join(names)}"
    if path.suffix or os.sep in corpus:
        raise FileNotFoundError(f"--corpus {corpus}: no such file; {known}")
    close = difflib.get_close_matches(corpus, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else known
    raise ValueError(f"--corpus {corpus!r} is no corpus and no file; {hint}")


def _unpacked(data: bytes, path: Path) -> bytes:
    """What a .gz or .zip holds; any other file as it is."""
    try:
        if path.suffix.lower() == ".gz":
            return gzip.decompress(data)
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                files = [member for member in archive.infolist() if not member.is_dir()]
                members = [file for file in files if not file.filename.startswith("__MACOSX/")]  # the Finder's own
                if len(members) != 1:
                    count = len(members) or "none"
                    raise ValueError(f"--corpus {path}: expected one text in the archive, found {count}; unpack it")
                if members[0].flag_bits & 1:
                    raise ValueError(f"--corpus {path}: the archive is encrypted; unpack it")
                return archive.read(members[0])
    except (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"--corpus {path}: damaged, or no {path.suffix} archive: {error}") from error
    return data


def _text(data: bytes, path: Path, notes: list[str]) -> str:
    """Bytes to text with plain newlines; adds to `notes` what it changed."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{data[error.start]:02X} at offset {error.start:,}"
        raise ValueError(f"--corpus {path}: not UTF-8 ({byte}); convert it to UTF-8") from error
    if "\0" in text:  # UTF-16 and tar archives of plain English pass for UTF-8
        raise ValueError(f"--corpus {path}: no text (byte 0x00 at offset {data.index(0):,}); give UTF-8 text")
    if text.startswith("\ufeff"):
        text = text[1:]
        notes.append("byte-order mark removed")
    if "\r" in text:
        notes.append(f"{text.count(chr(13)):,} carriage returns (CR LF or CR) read as newlines")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise ValueError(f"--corpus {path}: the file is empty")
    return text
