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
import requests
from tqdm import tqdm

from .checks import check_choice, check_size

__all__ = [
    "BUILT_IN",
    "DOWNLOADS",
    "Corpus",
    "Download",
    "decode",
    "encode",
    "fetch",
    "load_corpus",
    "load_text",
    "vocabulary",
]

BUILT_IN = "pydoc"
"""The text that every Python brings along."""

PARTS = ("train", "valid", "test")
UNITS = ("char", "word")
UNKNOWN_TOKEN = "<unk>"


@dataclass(frozen=True)
class Download:
    """A public text that is fetched once and kept.

    Attributes
    ----------
    file : str
        Its name in the cache.
    addresses : tuple of str
        Where to get it, tried in this order.
    sums : mapping of str to str
        Checksums of the file, hashlib's name of the function -> hexadecimal digest; all must fit. 'sha256' is required.
    newlines_to_spaces : bool
        Whether the text is one line, as its book reads it.
    """

    file: str
    addresses: tuple[str, ...]
    sums: Mapping[str, str]
    newlines_to_spaces: bool = False

    def fits(self, data: bytes) -> bool:
        """Whether `data` is the file that was meant."""
        return all(hashlib.new(name, data).hexdigest() == digest for name, digest in self.sums.items())


DOWNLOADS = {
    # The Time Machine, H. G. Wells; the SHA-1 is the one that the English book publishes.
    "timemachine": Download(
        "timemachine.txt",
        ("https://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt",),
        {
            "sha256": "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516",
            "sha1": "090b5e7e70c295757f55df93cb0a180b9691891a",
        },
    ),
    # char-rnn's corpus.
    "tinyshakespeare": Download(
        "tinyshakespeare.txt",
        ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        {"sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
    ),
    # The Chinese book's corpus. The second address is a fixed commit, should the branch drop its data folder.
    "jaychou": Download(
        "jaychou_lyrics.txt.zip",
        (
            "https://raw.githubusercontent.com/d2l-ai/d2l-zh/master/data/jaychou_lyrics.txt.zip",
            "https://raw.githubusercontent.com/d2l-ai/d2l-zh/89403b9792861d86a0f1735cdd4a3d60c423f5a2"
            "/data/jaychou_lyrics.txt.zip",
        ),
        {"sha256": "3cfedd7d174111cdad5a27eaffaa6a2432a2842cf2590a03dd8a97610ea07043"},
        newlines_to_spaces=True,
    ),
}


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


def fetch(name: str, cache: Optional[Union[str, Path]] = None) -> tuple[Path, list[str]]:
    """Get a named corpus: from the cache if it is there, else by download.

    A download goes to a `.part` file beside its place, is taken up again where it was cut (if the server can), checked,
    and renamed. A file that was put into the cache by hand is as good, if its checksums fit.

    Parameters
    ----------
    name : str
        A key of `DOWNLOADS`.
    cache : path, optional
        Folder of the downloads; by default $DEEPRNN_CACHE, else $XDG_CACHE_HOME/deeprnn, else ~/.cache/deeprnn.

    Returns
    -------
    path : Path
    notes : list of str
        What went wrong on the way.

    Raises
    ------
    OSError
        No address gave the file: says why, and which file to put where.
    """
    download = DOWNLOADS[name]
    path = (Path(cache) if cache else _cache()) / download.file
    notes: list[str] = []
    if path.is_file():
        if download.fits(path.read_bytes()):
            return path, notes
        notes.append(f"{path}: wrong checksum, not used")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for address in download.addresses:
        while True:
            before = _size(part)
            try:
                resumed = _download(address, part)
            except requests.RequestException as error:
                if _size(part) > before:  # cut, but further than last time
                    continue
                kept = f", {_size(part):,} bytes kept for the next try" if _size(part) else ""
                notes.append(f"{address}: {_reason(error)}{kept}")
                break
            if download.fits(part.read_bytes()):
                os.replace(part, path)
                return path, notes
            part.unlink()
            notes.append(f"{address}: wrong checksum, deleted")
            if not resumed:  # otherwise the fault may lie in the older bytes: once more, from the beginning
                break
    raise OSError(
        f"--corpus {name}: not downloaded ({'; '.join(notes)}); "
        f"put the file at {path} (SHA-256 {download.sums['sha256']}) or give a path to a text of yours"
    )


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


def _cache() -> Path:
    if os.environ.get("DEEPRNN_CACHE"):
        return Path(os.environ["DEEPRNN_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deeprnn"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download(address: str, part: Path) -> bool:
    """Bring `part` to its full length; returns whether its first bytes are those of an earlier call.

    Raises requests.RequestException, with what had come left in `part`.
    """
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of its compressed form
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(address, headers=headers, stream=True, timeout=30) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return True  # nothing comes after what is here: it is whole, or wrong
        answer.raise_for_status()
        resumed = have > 0 and answer.status_code == requests.codes.partial_content
        have = have if resumed else 0
        total = have + int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=None)
        with bar, part.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_content(1 << 13):  # what a cut can lose: an unfinished chunk
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:  # urllib3 before 2 ends a cut body without a word
        raise requests.ConnectionError("cut")
    return resumed


def _reason(error: requests.RequestException) -> str:
    return f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
