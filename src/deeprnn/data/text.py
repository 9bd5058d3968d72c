"""Text to ids: symbols, vocabulary, and the parts for training, validation and test.

corpus  ->  text  ->  symbols  ->  train, valid, test  ->  int32 ids
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Union

import gluonnlp
import numpy as np

from .._util.checks import check_choice
from .._util.wording import counted
from .cache import LARGE, Cache, Kept, Numbering
from .download import cache_folder
from .encoded import Encoded, Ids, counts_of
from .reading import BUILT_IN, Reading, is_stream, text_path
from .symbols import split_symbols

__all__ = [
    "Corpus",
    "count_vocabulary",
    "decode",
    "encode",
    "load_corpus",
    "split_sizes",
    "vocabulary",
]

PARTS = ("train", "valid", "test")
UNKNOWN_TOKEN = "<unk>"
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
    train, valid, test : numpy.ndarray or Ids
        Ids of shape (symbols,), in the order of the text: int32, but those of a large text are mapped into memory, in
        the smallest dtype. Any may be empty, but `train` only if a vocabulary was given.
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
    train: Union[np.ndarray, Ids]
    valid: Union[np.ndarray, Ids]
    test: Union[np.ndarray, Ids]
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
    check_cache: bool = False,
) -> Corpus:
    """Read a text, split it by position and turn it into ids.

    The ids of a text of more than `LARGE` characters that is read from files are kept in the cache, and mapped into
    memory: it is encoded once, and may be larger than memory.

    Parameters
    ----------
    corpus, encoding, max_chars
        As in `Reading`; the text is cut to `max_chars` before it is split.
    split : sequence of 3 floats
        Shares of the symbols for train, valid and test, in the order of the text; at least 0, with sum 1.
    unit : {'char', 'word'}
        What a symbol is: a character, or a word, that is, everything between white space; a newline is a word too.
    unknown : bool
        Whether the vocabulary has a token for unknown symbols besides the symbols of the training part.
    vocab : gluonnlp.Vocab, optional
        Vocabulary of an earlier run, used instead of one made from the training part.
    cache : path, optional
        Folder of downloads and kept ids; by default `cache_folder`.
    check_cache : bool
        Whether to compare the SHA-256 of the text and of kept ids, instead of the size, time and inode of their files.

    Raises
    ------
    ValueError
        For an invalid argument; for a text that cannot be used, see `Reading`; and for a symbol that is not in the
        vocabulary, if that has no unknown token.
    OSError
        For a file that cannot be read or downloaded, and for a disk without space for the ids.

    Examples
    --------
    >>> corpus = load_corpus("pydoc", max_chars=10_000)
    >>> len(corpus.train), len(corpus.valid), len(corpus.test)
    (8000, 1000, 1000)
    """
    split_sizes(0, split)
    reading = Reading(corpus, encoding=encoding, max_chars=max_chars, cache=cache)

    def number(codes: np.ndarray, symbols: Sequence[str]) -> Numbering:
        return _numbering(codes, symbols, reading.name, split, unit, unknown, vocab)

    store = kept = numbering = None
    if reading.files:
        store = Cache((Path(cache) if cache else cache_folder()) / "corpora", reading, unit, check_cache)
        kept = store.find()
        if kept is None and reading.max_chars is None and reading.size > 4 * LARGE:  # a character has 4 bytes at most
            kept, numbering = store.make(number)
    if kept is None:
        encoded, parts = Encoded(unit), []
        for part in reading:
            encoded.add(part)
            if store and encoded.characters > LARGE:
                kept, numbering = store.make(number)
                break
            if is_stream(corpus):
                parts.append(part)
        else:
            encoded.add("")
    if kept:
        numbering = _remembered(kept, numbering, number, split, unknown, vocab)
        codes, symbols, sha256, notes = kept.codes, kept.symbols, kept.sha256, kept.notes
    else:
        codes, symbols = encoded.codes.in_memory(), encoded.symbols
        numbering = number(codes, symbols)
        sha256, notes = encoded.sha256, reading.notes
    vocab = numbering.vocab
    default = 0 if vocab.unknown_token is None else vocab[vocab.unknown_token]
    id_of = np.array([vocab.token_to_idx.get(symbol, default) for symbol in symbols], dtype=np.int32)
    are_ids = symbols[: len(vocab)] == vocab.idx_to_token
    ends = np.cumsum([0, *numbering.sizes]).tolist()
    ids: dict[str, Union[np.ndarray, Ids]] = {}
    for part, begin, end in zip(PARTS, ends, ends[1:]):
        ids[part] = Ids(codes[begin:end], id_of)
        if not kept:
            ids[part] = np.asarray(ids[part])
        elif are_ids and not numbering.unknown[part]:
            ids[part] = codes[begin:end]
    return Corpus(
        name=reading.name,
        sha256=sha256,
        vocab=vocab,
        unknown=numbering.unknown,
        notes=[*notes, *numbering.notes],
        path=text_path(corpus),
        text="".join(parts) if is_stream(corpus) else None,
        **ids,
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


def split_sizes(symbols: int, shares: Sequence[float]) -> tuple[int, int, int]:
    """The sizes of three parts of so many symbols, in proportion to the three `shares`."""
    valid = len(shares) == 3 and all(share >= 0 for share in shares) and abs(sum(shares) - 1) < 1e-6
    if not valid:
        raise ValueError(f"split must be three fractions of at least 0 that sum to 1, got {shares}")
    first, second = (min(round(symbols * share), symbols) for share in (shares[0], shares[0] + shares[1]))
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


def _remembered(
    kept: Kept,
    made: Optional[Numbering],
    number: Callable[[np.ndarray, Sequence[str]], Numbering],
    split: Sequence[float],
    unknown: bool,
    vocab: Optional[gluonnlp.Vocab],
) -> Numbering:
    """The numbering of a text in the cache; it is made once."""
    shares = list(map(float, split))

    def given(vocab: gluonnlp.Vocab) -> tuple[Any, ...]:
        return shares, vocab.idx_to_token, vocab.unknown_token

    options = given(vocab) if vocab else (shares, unknown)
    facts = kept.recall(*options)
    if facts is None:
        made = made or number(kept.codes, kept.symbols)
        token = made.vocab.unknown_token
        facts = {**vars(made), "vocab": made.vocab.idx_to_token, "unknown_token": token}
        kept.remember(facts, *options)
        kept.remember(facts, *given(made.vocab))  # a run that is resumed gives its vocabulary
    vocab = vocab or vocabulary(facts["vocab"], facts["unknown_token"])
    return Numbering(vocab, facts["sizes"], facts["unknown"], facts["notes"])


def _numbering(
    codes: np.ndarray,
    symbols: Sequence[str],
    name: str,
    split: Sequence[float],
    unit: str,
    unknown: bool,
    vocab: Optional[gluonnlp.Vocab],
) -> Numbering:
    """Count the symbols of a text for the vocabulary of its training part, or for a given one; see `load_corpus`."""
    sizes = split_sizes(len(codes), split)
    ends = np.cumsum([0, *sizes]).tolist()
    counts = {
        part: _counted(codes[begin:end], symbols, in_order=unit == "char")
        for part, begin, end in zip(PARTS, ends, ends[1:])
    }
    given = vocab is not None
    if vocab is None:
        if not counts["train"]:
            raise ValueError(f"split: the training part of {name} is empty, so it has no vocabulary, got {split}")
        vocab = count_vocabulary(counts["train"], UNKNOWN_TOKEN if unknown else None)
    missing = {part: {symbol: n for symbol, n in counts[part].items() if symbol not in vocab} for part in PARTS}
    notes = []
    for part, size in zip(PARTS, sizes):
        if not missing[part]:
            continue
        count, whole = sum(missing[part].values()), size == len(codes)
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
    return Numbering(vocab, sizes, {part: sum(missing[part].values()) for part in PARTS}, notes)


def _counted(codes: np.ndarray, symbols: Sequence[str], in_order: bool) -> dict[str, int]:
    """How often each symbol occurs, without those that do not; in the order of the code points, or that of the text."""
    counts = counts_of(codes, len(symbols))
    found = np.flatnonzero(counts).tolist()
    if in_order:
        found.sort(key=symbols.__getitem__)
    return {symbols[code]: int(counts[code]) for code in found}


def _missing(vocab: gluonnlp.Vocab, tokens: Iterable[str]) -> dict[str, int]:
    """Tokens that are not in the vocabulary, with their counts."""
    return {token: count for token, count in gluonnlp.data.count_tokens(tokens).items() if token not in vocab}


def _listed(tokens: Iterable[str], limit: int = 10) -> str:
    names = [f"{token!r} (U+{ord(token):04X})" if len(token) == 1 else repr(token) for token in tokens]
    rest = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
