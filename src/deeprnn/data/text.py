"""Text to ids: symbols, vocabulary, and the parts for training, validation and test.

corpus  ->  text  ->  symbols  ->  train, valid, test  ->  int32 ids
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import gluonnlp
import numpy as np

from .._util.checks import check_choice
from .._util.wording import counted
from .reading import BUILT_IN, is_stream, load_text, text_path

__all__ = [
    "Corpus",
    "count_vocabulary",
    "decode",
    "encode",
    "load_corpus",
    "split_sizes",
    "split_symbols",
    "vocabulary",
]

PARTS = ("train", "valid", "test")
UNITS = ("char", "word")
UNKNOWN_TOKEN = "<unk>"
WORDS = r"\n|\S+"
MOSTLY = 0.5
"""Share of unknown symbols above which a warning is given."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as ids, in three parts.

    Attributes
    ----------
    name : str
        Name of the corpus, or of the file.
    sha256 : str
        SHA-256 of the text as used (after decoding, cleaning and cutting), in UTF-8.
    vocab : gluonnlp.Vocab
        Symbols of the training part, the most frequent first.
    train, valid, test : numpy.ndarray
        int32 ids of shape (symbols,), in the order of the text; any may be empty, but `train` only if a vocabulary was
        given.
    unknown : dict of str to int
        Number of symbols of each part that are not in the vocabulary.
    notes : list of str
        What was changed in the text, and which symbols are unknown; for the user.
    path : Path, optional
        Absolute path of the file; None if the text is not from a file.
    text : str, optional
        The text as used if it is from a stream, which cannot be read again; None otherwise.
    """

    name: str
    sha256: str
    vocab: gluonnlp.Vocab
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    unknown: dict[str, int]
    notes: list[str]
    path: Optional[Path] = None
    text: Optional[str] = None


def load_corpus(
    corpus: str = BUILT_IN,
    *,
    encoding: str = "utf-8",
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
    corpus, encoding, max_chars, cache
        As in `load_text`; the text is cut to `max_chars` before it is split.
    split : sequence of 3 floats
        Shares of the symbols for train, valid and test, in the order of the text; at least 0, with sum 1.
    unit : {'char', 'word'}
        What a symbol is: a character, or a word, that is, everything between white space; a newline is a word too.
    unknown : bool
        Whether the vocabulary has a token for unknown symbols besides the symbols of the training part.
    vocab : gluonnlp.Vocab, optional
        Vocabulary of an earlier run, used instead of one made from the training part.

    Raises
    ------
    ValueError
        For an invalid argument; for a text that cannot be used, see `load_text`; and for a symbol that is not in the
        vocabulary, if that has no unknown token.
    OSError
        For a file that cannot be read or downloaded.

    Examples
    --------
    >>> corpus = load_corpus("pydoc", max_chars=10_000)
    >>> len(corpus.train), len(corpus.valid), len(corpus.test)
    (8000, 1000, 1000)
    """
    text, name, notes = load_text(corpus, encoding=encoding, max_chars=max_chars, cache=cache)
    codes, symbols = _coded(text, unit)
    ends = np.cumsum([0, *split_sizes(len(codes), split)])
    parts = {part: codes[begin:end] for part, begin, end in zip(PARTS, ends, ends[1:])}
    counts = {part: _counts(parts[part], symbols) for part in PARTS}
    given = vocab is not None
    if vocab is None:
        if not counts["train"]:
            raise ValueError(f"split: the training part of {name} is empty, so it has no vocabulary, got {split}")
        vocab = count_vocabulary(counts["train"], UNKNOWN_TOKEN if unknown else None)
    missing = {part: {symbol: n for symbol, n in counts[part].items() if symbol not in vocab} for part in PARTS}
    for part in filter(missing.get, PARTS):
        count, size = sum(missing[part].values()), len(parts[part])
        whole = size == len(codes)
        found = f"{count:,} of {counted(size, 'symbol')} not in the vocabulary: {_listed(missing[part])}"
        if not whole:
            found = f"{part}: {found}"
        if vocab.unknown_token is None:
            advice = "give unknown=True or train on the whole text (split=1,0,0)"
            raise ValueError(f"{found}; {'it has no unknown token' if given else advice}")
        notes.append(f"{found}; read as {vocab.unknown_token}")
        if count > MOSTLY * size:
            subject = "the text" if whole else f"the {part} part"
            notes.append(f"warning: most of {subject} ({count / size:.0%}) is unknown: is it in the same language?")
    ids = {symbol: vocab[symbol] for part in PARTS for symbol in counts[part]}
    id_of = np.array([ids.get(symbol, 0) for symbol in symbols], dtype=np.int32)
    for chunk in _chunks(codes):
        chunk[:] = id_of[chunk]
    return Corpus(
        name=name,
        sha256=_sha256(text),
        vocab=vocab,
        unknown={part: sum(missing[part].values()) for part in PARTS},
        notes=notes,
        path=text_path(corpus),
        text=text if is_stream(corpus) else None,
        **parts,
    )


def vocabulary(tokens: Sequence[str], unknown_token: Optional[str] = UNKNOWN_TOKEN) -> gluonnlp.Vocab:
    """Rebuild a vocabulary from its tokens in the order of their ids, as they are saved with a run.

    Raises
    ------
    ValueError
        If a token occurs twice, or the unknown token is missing.
    """
    if len(set(tokens)) != len(tokens):
        raise ValueError(f"vocabulary: {counted(len(tokens), 'token')}, but only {len(set(tokens)):,} distinct ones")
    if unknown_token is not None and unknown_token not in tokens:
        raise ValueError(
            f"vocabulary: the unknown token {unknown_token!r} is not among its {counted(len(tokens), 'token')}"
        )
    ids = {token: index for index, token in enumerate(tokens)}
    return count_vocabulary(dict.fromkeys(tokens, 1), unknown_token, token_to_idx=ids)


def encode(vocab: gluonnlp.Vocab, text: str, unit: str = "char", *, unknown: str = "error") -> np.ndarray:
    """Turn a text into int32 ids, shape (symbols,).

    Parameters
    ----------
    vocab : gluonnlp.Vocab
        The symbols, each with its id.
    text : str
        May be empty.
    unit : {'char', 'word'}
        What a symbol is, as in `load_corpus`.
    unknown : {'error', 'token'}
        For a symbol that is not in the vocabulary: raise an error, or read it as the unknown token if there is one.

    Raises
    ------
    ValueError
        For symbols that are not in the vocabulary, which it names.
    """
    check_choice("unknown", unknown, ("error", "token"))
    tokens = split_symbols(text, unit)
    missing = _missing(vocab, tokens)
    if missing and (unknown == "error" or vocab.unknown_token is None):
        raise ValueError(f"not in the vocabulary of {counted(len(vocab), 'symbol')}: {_listed(missing)}")
    return np.array(vocab[tokens], dtype=np.int32)


def decode(vocab: gluonnlp.Vocab, ids: Iterable[int], unit: str = "char") -> str:
    """Turn ids into text; words are joined by single spaces, except around newlines."""
    tokens = vocab.to_tokens([int(index) for index in ids])
    return "".join(tokens) if unit == "char" else re.sub(" ?\n ?", "\n", " ".join(tokens))


def split_symbols(text: str, unit: str) -> list[str]:
    """The symbols of a text: its characters, or its words and newlines."""
    check_choice("unit", unit, UNITS)
    return list(text) if unit == "char" else re.findall(WORDS, text)


def split_sizes(symbols: int, shares: Sequence[float]) -> tuple[int, int, int]:
    """The sizes of three parts of so many symbols, in proportion to the three `shares`."""
    valid = len(shares) == 3 and all(share >= 0 for share in shares) and abs(sum(shares) - 1) < 1e-6
    if not valid:
        raise ValueError(f"split must be three fractions of at least 0 that sum to 1, got {shares}")
    first = round(symbols * shares[0])
    second = round(symbols * (shares[0] + shares[1]))
    return first, second - first, symbols - second


def count_vocabulary(
    counts: Mapping[str, int], unknown_token: Optional[str], **options: Mapping[str, int]
) -> gluonnlp.Vocab:
    """The vocabulary of counted symbols, by descending count and then by code point, so that a text has the same ids
    everywhere.

    `options` are further ones of `gluonnlp.Vocab`.
    """
    return gluonnlp.Vocab(
        gluonnlp.data.Counter(counts),
        unknown_token=unknown_token,
        padding_token=None,
        bos_token=None,
        eos_token=None,
        **options,
    )


CHUNK = 1 << 20
"""Symbols that are processed at a time: as a list, symbols take many times the memory of the text."""


def _coded(text: str, unit: str) -> tuple[np.ndarray, Sequence[str]]:
    """A text as int32 codes, shape (symbols,), and the symbol of each code. A character's code is its code point."""
    check_choice("unit", unit, UNITS)
    if unit == "word":
        code_of: dict[str, int] = {}
        words = array("i", (code_of.setdefault(word[0], len(code_of)) for word in re.finditer(WORDS, text)))
        return np.frombuffer(words, dtype=np.int32), list(code_of)
    codes = np.empty(len(text), dtype=np.int32)
    for begin in range(0, len(text), CHUNK):
        part = text[begin : begin + CHUNK]
        codes[begin : begin + CHUNK] = np.frombuffer(part.encode("utf-32-le", "surrogatepass"), dtype="<i4")
    return codes, list(map(chr, range(int(codes.max(initial=0)) + 1)))


def _chunks(codes: np.ndarray) -> Iterator[np.ndarray]:
    for begin in range(0, len(codes), CHUNK):
        yield codes[begin : begin + CHUNK]


def _counts(codes: np.ndarray, symbols: Sequence[str]) -> dict[str, int]:
    """How often each symbol occurs, without those that do not."""
    counts = np.zeros(len(symbols), dtype=np.int64)
    for chunk in _chunks(codes):
        counts += np.bincount(chunk, minlength=len(symbols))
    return {symbol: count for symbol, count in zip(symbols, counts.tolist()) if count}


def _sha256(text: str) -> str:
    digest = hashlib.sha256()
    for begin in range(0, len(text), CHUNK):
        digest.update(text[begin : begin + CHUNK].encode("utf-8"))
    return digest.hexdigest()


def _missing(vocab: gluonnlp.Vocab, tokens: Iterable[str]) -> dict[str, int]:
    """Tokens that are not in the vocabulary, with their counts."""
    return {token: count for token, count in gluonnlp.data.count_tokens(tokens).items() if token not in vocab}


def _listed(tokens: Iterable[str], limit: int = 10) -> str:
    names = [f"{token!r} (U+{ord(token):04X})" if len(token) == 1 else repr(token) for token in tokens]
    rest = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
